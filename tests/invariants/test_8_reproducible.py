"""Promise 8: a run's directory holds what it takes to make it again, and says when that has changed."""

import json
from pathlib import Path

import pytest

from luthier.runs import Run, cli, manifest

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # sha256 of "hello"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, with its data and its base model beside it."""
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (base / name).write_text("hello")
    (tmp_path / "data.json").write_text("hello")
    config = {"seed": 7, "stage": "sft", "model_name_or_path": str(base)}
    with Run.create(tmp_path / "run") as run:
        run.write_config("seed: 7\nstage: sft\n", config)
        run.write_text("template.jinja", "hello")
        built = manifest.build(
            config, data_files=["data.json"], template_text="hello", tokenizer_dir=base, base_dir=base
        )
        run.write_json("manifest.json", built)
    return tmp_path


def test_the_manifest_says_what_the_run_was_made_of(made: Path) -> None:
    kept = Run.open(made / "run").read_json("manifest.json")
    assert kept["seed"] == 7
    assert kept["data"] == [{"path": str(made / "data.json"), "bytes": 5, "sha256": HELLO}]
    assert kept["template"] == HELLO
    assert kept["tokenizer"] == {"path": str(made / "base"), "files": {"tokenizer.json": HELLO}}
    assert kept["base"]["files"] == {"config.json": HELLO, "model.safetensors": HELLO}
    assert {"python", "luthier", "torch", "transformers", "numpy"} <= set(kept["versions"])
    assert kept["machine"]["cores"] >= 1
    assert kept["cwd"] == str(made)


def test_the_configuration_is_kept_as_written_and_as_used(made: Path) -> None:
    run = Run.open(made / "run")
    assert (run.path / "config.yaml").read_text() == "seed: 7\nstage: sft\n"
    assert run.read_json("config.resolved.json")["model_name_or_path"] == str(made / "base")


def test_reproduce_gives_the_command(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "run", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["command"] == f"luthier train {made}/run/config.yaml output_dir={made}/run-again"
    assert told["config"] == "seed: 7\nstage: sft\n"


def test_reproduce_names_everything_that_changed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "data.json").write_text("other")
    (made / "base" / "tokenizer.json").unlink()
    (made / "base" / "model.safetensors").write_text("hellO")
    (made / "run" / "template.jinja").write_text("bye")
    assert cli.main(["reproduce", "run", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"] == [
        f"{made}/data.json has changed",
        f"{made}/base/tokenizer.json is missing",
        f"{made}/base/model.safetensors has changed",
        "template.jinja is not the template that the run was made with",
    ]
