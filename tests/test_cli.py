"""The command line: instant answers, nearest verbs, exit codes, and errors without a traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from luthier import __version__, cli
from luthier.config.schema import VERB_SECTIONS

HEAVY = ("torch", "transformers", "omegaconf", "yaml", "numpy", "rich", "peft")


def luthier(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "luthier", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(("word", "status"), [("version", 0), ("--help", 0), ("trian", 2), ("api", 2)])
def test_instant_answers(word: str, status: int) -> None:
    """Less than 0.3 s of CPU time, and nothing heavy imported."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert luthier(word).returncode == status
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    code = (
        f"import sys; from luthier.cli import main; main([{word!r}]); print({{*sys.modules}} & {{*{HEAVY}}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"luthier {__version__}\n" * 2


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb}" in out for verb in [*cli.VERBS, "version", "help"])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trian", "there is no verb trian; did you mean `luthier train`?"),
        ("exprot", "there is no verb exprot; did you mean `luthier export`?"),
        (
            "xyz",
            "there is no verb xyz; one of train, chat, predict, eval, export, check, keys, data, runs, demo, "
            "version, help",
        ),
        (
            "webui",
            "there is no verb webui; use `luthier demo` for a first look, "
            "`luthier train CONFIG` for your own data",
        ),
        ("webchat", "there is no verb webchat; use `luthier chat RUN`"),
    ],
)
def test_a_wrong_verb_is_answered_with_the_nearest(
    word: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"luthier: {expected}\n")


@pytest.mark.parametrize("verb", sorted(VERB_SECTIONS))
def test_help_of_a_verb_lists_its_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: luthier {verb} ")
    assert "--model_name_or_path" in out
    assert ("--learning_rate" in out) == (verb == "train")
    assert ("--export_dir" in out) == (verb == "export")


@pytest.mark.parametrize("verb", ["check", "keys"])
def test_help_of_the_other_verbs(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert f"`luthier {verb} " in capsys.readouterr().out


def test_errors_for_the_user_have_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "lora_rnk"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "luthier keys: no key is called lora_rnk; did you mean lora_rank?\n")


def test_several_problems_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "lora_rnk=1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "luthier export:",
        "  lora_rnk: unknown key `lora_rnk` -> did you mean `lora_rank`?",
        "  model_name_or_path: is missing -> a run directory, or model_name_or_path and adapter_name_or_path",
        "  export_dir: is missing -> export_dir=DIR",
    ]


def test_an_interrupt_ends_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted_verb.py").write_text("def main(words):\n    raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.VERBS, "wait", cli.Verb("interrupted_verb:main", "", "wait for Ctrl-C"))
    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().err == "luthier wait: interrupted\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "luthier", "keys"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_names_of_the_package_are_imported_when_used() -> None:
    import luthier as package

    assert package.load(["model_name_or_path=a/b"], "chat").model_name_or_path == "a/b"
    assert package.Config(lora_rank=3).lora_rank == 3
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


# --- luthier check --------------------------------------------------------------------------------------


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    status = cli.main(["check", *words, "--format", "json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "train.yaml").write_text(
        "model_name_or_path: owner/model\ndataset: own.jsonl\noutput_dir: out\n"
        "lora_rank: 4\nuse_unsloth: true\n"
    )
    return "train.yaml"


def test_check_of_a_good_configuration(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = checked(capsys, config, "--use_cpu", "--bf16", "--learning_rate", "1e-4")
    assert (status, found["ok"], found["problems"]) == (0, True, [])
    resolved = found["resolved"]
    assert isinstance(resolved, dict)
    assert (resolved["lora_rank"], resolved["lora_alpha"], resolved["learning_rate"]) == (4, 8, 1e-4)
    assert resolved["dataset"] == ["own.jsonl"]
    assert any("`use_unsloth` is ignored" in note for note in found["notes"])  # type: ignore[attr-defined]
    assert not Path("out").exists()


def test_check_of_a_bad_configuration(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = checked(capsys, config, "lora_rnk=8", "val_size=0.1", "eval_dataset=own.jsonl")
    assert (status, found["ok"], found["resolved"]) == (2, False, {})
    assert found["problems"] == [
        {"where": "lora_rnk", "what": "unknown key `lora_rnk`", "instead": "did you mean `lora_rank`?"},
        {
            "where": "val_size",
            "what": "val_size and eval_dataset both say what to evaluate on",
            "instead": "one of the two",
        },
    ]


def test_check_in_words(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", config, "--use_cpu"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "ok: `luthier train` would run"
    assert "given    lora_rank: 4" in out
    assert "derived  lora_alpha: 8 (2 x lora_rank)" in out
    assert cli.main(["check", config, "lora_rnk=8"]) == 2
    assert (
        capsys.readouterr().out.splitlines()[0]
        == "problem  lora_rnk: unknown key `lora_rnk` -> did you mean `lora_rank`?"
    )


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ("export_dir=out", ["model_name_or_path"]),
        ("lora_rank=3 dataset=own.jsonl", ["model_name_or_path", "output_dir"]),
        ("train.yaml --verb export", ["export_dir"]),
        ("--verb=predict model_name_or_path=a/b", ["dataset"]),
    ],
)
def test_check_knows_what_the_configuration_is_for(
    words: str, missing: list[str], config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = checked(capsys, *words.split())
    assert status == 2
    assert [p["where"] for p in found["problems"]] == missing  # type: ignore[attr-defined]


def test_check_of_a_verb_without_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--verb", "demo"]) == 2
    assert "demo takes no configuration; one of train, chat, predict, export" in capsys.readouterr().err
