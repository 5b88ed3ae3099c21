"""Bad requests: configurations, output directories, full disks; every problem at once, no half file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from desk import QUICK, Luthier, tree, write
from luthier.runs import Run
from luthier.runs.seal import verify

TRAIN = ["train", "model_name_or_path=base", "dataset=rows.json", *QUICK]

# --- configurations


def test_every_problem_of_a_configuration_at_once(luthier: Luthier, desk: Path) -> None:
    lines = [
        "model_name_or_path: base",
        "lora_rankk: 8",
        "output_dir: saves",
        "dataset: nope.json",
        "bf16: true",
        "fp16: true",
        "template: qwenn",
        "learning_rate: fast",
        "stage: sftt",
        "val_size: 0.1",
        "eval_dataset: rows.json",
        "seed: 1",
        "seed: 2",
        "deepspeed: ds_z3.json",
    ]
    (desk / "bad.yaml").write_text("\n".join(lines))
    both = "both say what to evaluate on"
    expected = {
        ("bad.yaml:2", "unknown key `lora_rankk`", "did you mean `lora_rank`?"),
        ("bad.yaml:8", '`learning_rate` must be a number, not "fast"', "see `luthier keys learning_rate`"),
        ("bad.yaml:13", "`seed` is given twice", "one of the two"),
        ("bad.yaml:5 (bf16)", "bf16 and fp16 are two answers to one question", "one of the two"),
        ("bad.yaml:7 (template)", "the template qwenn is unknown", "did you mean qwen?"),
        (
            "bad.yaml:10 (val_size)",
            f"val_size and eval_dataset {both}",
            "one of the two",
        ),
    }
    code, out, err = luthier("train", "bad.yaml")
    assert (code, out) == (2, "")
    assert all(f"  {where}: {what} -> {instead}\n" in err for where, what, instead in expected)
    code, out, _ = luthier("check", "bad.yaml", "--format", "json")
    told = json.loads(out)
    assert (code, told["ok"]) == (2, False)
    assert expected < {(p["where"], p["what"], p["instead"]) for p in told["problems"]}
    assert {p["where"] for p in told["problems"]} - {where for where, *_ in expected} == {
        "bad.yaml:4 (dataset)",
        "bad.yaml:9",
        "bad.yaml:14",
    }
    assert [path.name for path in desk.iterdir() if not path.is_symlink()] == ["bad.yaml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a: 1\n b: [2\n",
            "bad.yaml:2: is not valid YAML: mapping values are not allowed here -> key: value",
        ),
        ("- 1\n", "bad.yaml:1: is not made of `key: value` lines -> key: value"),
        (None, "bad.yaml: cannot be read: No such file or directory -> the path of a config file"),
    ],
)
def test_files_that_are_no_configuration(luthier: Luthier, desk: Path, text: str | None, said: str) -> None:
    if text is not None:
        (desk / "bad.yaml").write_text(text)
    assert luthier("train", "bad.yaml") == (2, "", f"luthier train: {said}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], ["model_name_or_path: is missing", "output_dir: is missing", "dataset: is missing"]),
        (["chat"], ["model_name_or_path: is missing -> a run directory, a model directory"]),
        (["predict", "base"], ["dataset: is missing -> --dataset NAME or a file"]),
        (["export", "base"], ["export_dir: is missing -> export_dir=DIR"]),
        (["data", "show", "rows.json"], ["model_name_or_path: is missing -> --model DIR"]),
        (["data", "shw", "rows.json"], ["there is no `data shw` -> luthier data show FILE"]),
        (["data", "show"], ["which data? -> luthier data show FILE|DATASET --model DIR"]),
        (["chat", "nowhere"], ["nowhere: no such file or directory -> a config file, a run directory"]),
        (["runs", "show"], ["the following arguments are required: run"]),
        (["train", "base", "packing=true", "neat_packing=true", "--packing", "no"], ["neat_packing"]),
    ],
)
def test_incomplete_requests(luthier: Luthier, words: list[str], said: list[str]) -> None:
    code, out, err = luthier(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"luthier {words[0]}:")
    assert all(part in err for part in said)


# --- output directories


@pytest.fixture
def busy(desk: Path) -> Iterator[Path]:
    """A run directory into which another process is writing."""
    folder = desk / "saves"
    folder.mkdir()
    code = "import sys; from luthier.runs.lock import Lock; Lock.acquire('saves'); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        yield folder
        assert other.stdin is not None
        other.stdin.close()


def test_a_directory_in_use(luthier: Luthier, busy: Path) -> None:
    before = tree(busy)
    for words in (
        [*TRAIN, "output_dir=saves"],
        [*TRAIN, "output_dir=saves", "overwrite_output_dir=true"],
        ["predict", "base", "dataset=rows.json", "output_dir=saves", "max_new_tokens=1"],
    ):
        code, out, err = luthier(*words)
        assert (code, out) == (1, "")
        assert "saves: in use by process " in err
        assert "; wait for it, stop it, or give another output_dir" in err
        assert tree(busy) == before


def test_directories_that_hold_something_else(luthier: Luthier, desk: Path, shop: Path) -> None:
    (desk / "thesis").mkdir()
    (desk / "thesis" / "chapter.md").write_text("years")
    said = "output_dir: thesis is not empty: it holds files that are not a run (chapter.md); give an empty"
    code, _, err = luthier(*TRAIN, "output_dir=thesis")
    assert (code, said in err, tree(desk / "thesis")) == (1, True, {"chapter.md": b"years"})
    model = tree(shop / "base")
    code, _, err = luthier(*TRAIN, "output_dir=base")
    assert (code, tree(shop / "base")) == (1, model)
    assert "base is not empty: it holds a model that is not a run of luthier's; give another" in err
    code, _, err = luthier(*TRAIN, "output_dir=base", "overwrite_output_dir=true")
    assert (code, tree(shop / "base")) == (1, model)
    assert "would delete base, which this run reads" in err
    code, _, err = luthier(*TRAIN, "output_dir=rows.json")
    assert (code, "rows.json is a file; give a directory" in err) == (1, True)
    for place, said in (
        ("base", "base holds base, which is read"),
        ("thesis", "is not empty (chapter.md)"),
    ):
        code, _, err = luthier("export", "base", f"export_dir={place}")
        assert (code, f"export_dir: {place}" in err, said in err) == (1, True, True)
    assert tree(desk / "thesis") == {"chapter.md": b"years"}


def test_another_request_for_a_run_is_named_key_by_key(luthier: Luthier, desk: Path, shop: Path) -> None:
    before = tree(shop / "run")
    words = ["train", str(shop / "run"), "learning_rate=1e-3", "lora_rank=4", "save_steps=7"]
    code, out, err = luthier(*words)
    assert (code, out, tree(shop / "run")) == (1, "", before)
    assert "the run cannot be continued with these changes:\n  lora_rank: 8 -> 4 (impossible)\n" in err
    assert "learning_rate: 0.01 -> 0.001 (changes the mathematics)" in err
    assert err.endswith("undo these, or give another output_dir\n")
    code, _, err = luthier("train", shop / "run", "learning_rate=1e-3", "save_steps=7")
    assert (code, tree(shop / "run")) == (1, before)
    assert err.endswith("undo these, or set confirm_changes: true to go on with them\n")


# --- full disks


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_known_before_the_first_step(luthier: Luthier, small: Path) -> None:
    words = [*TRAIN, "max_steps=9", "save_steps=1", f"output_dir={small}/run"]
    code, out, err = luthier(*words)
    assert (code, out) == (1, "")
    assert re.search(r"output_dir: this run does not fit: need \d\.\d+ MB, have 0\.\d+ MB on \S+", err), err
    assert re.search(r"9 x \S+ MB for checkpoints \(no save_total_limit\), \S+ MB for the final weights", err)
    assert not [name for name in os.listdir(small) if name != "run"]
    assert not list(small.glob("run/checkpoint*"))
    subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True)
    code, _, err = luthier(*words)
    assert code == 0, err
    run = Run.open(small / "run")
    assert [folder.name for folder in run.checkpoints()] == [f"checkpoint-{step}" for step in range(1, 10)]
    assert not any(verify(folder) for folder in run.checkpoints())
    assert [r["current_steps"] for r in run.read_log()] == list(range(1, 10))


def test_a_full_disk_leaves_no_half_model_nor_half_answers(luthier: Luthier, small: Path, shop: Path) -> None:
    (small / "ballast").write_bytes(bytes(200_000))
    code, out, err = luthier("export", shop / "run", f"export_dir={small}/model")
    assert (code, out) == (1, "")
    assert "luthier export: export_dir: need " in err and ", have " in err
    assert os.listdir(small) == ["ballast"]
    write(small / "ballast", "x" * 299_000)
    words = ["predict", shop / "run", "--dataset", "rows.json", "max_new_tokens=1", f"output_dir={small}/out"]
    code, out, err = luthier(*words)
    assert (code, out) == (1, "")
    assert "cannot be written: the disk is full" in err
    assert not [name for name in os.listdir(small / "out") if name.endswith((".json", "predictions.jsonl"))]
