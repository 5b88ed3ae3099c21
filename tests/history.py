"""Tiny runs to compare: three that were trained, and any number whose answers a test writes down itself."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tasks
from luthier import cli
from luthier.runs import Run

EVALUATED = tasks.rows(36)[12:]
_COMMON: dict[str, Any] = {"max_steps": 12, "save_steps": 4, "val_size": 4}
_COMMON |= {"eval_strategy": "steps", "eval_steps": 4, "lora_dropout": 0.1}
_RUNS: dict[str, dict[str, Any]] = {
    "low": {"learning_rate": 1e-12},
    "high": {"learning_rate": 3e-2, "lora_rank": 16},
    "other": {"learning_rate": 3e-2, "lora_rank": 16, "seed": 7},
}


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """low/ (learnt nothing), high/ (learnt a little), other/ (as high, another seed), data/eval.json.

    All were evaluated on a data set "eval", though other/ on fewer rows; low/ and high/ predicted it, too.
    """
    return _made(tmp_path_factory.getbasetemp() / "history")


@functools.cache
def _made(folder: Path) -> Path:
    """Once a session, however many folders of tests have the fixture."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        for name, changes in _RUNS.items():
            tasks.train(tasks.make(folder, count=24, output_dir=str(folder / name), **{**_COMMON, **changes}))
        write(folder / "data" / "eval.json", EVALUATED)
        for name in ("low", "high"):
            _ask("eval", folder, name, "--suite", "false")
            _ask("predict", folder, name, f"output_dir={folder / name}")
        write(folder / "data" / "eval.json", EVALUATED[:20])
        _ask("eval", folder, "other", "--suite", "false")
        write(folder / "data" / "eval.json", EVALUATED)
    return folder


def _ask(verb: str, folder: Path, name: str, *words: str) -> None:
    dataset = ["--dataset", str(folder / "data" / "eval.json"), "max_new_tokens=16"]
    assert cli.main([verb, str(folder / name), *dataset, *words]) == 0


def bare(path: Path, **marker: Any) -> Path:
    """A run that has a marker and a configuration, and nothing else."""
    with Run.create(path) as run:
        run.write_marker(stage="sft", finetuning_type="lora", base="base", **marker)
        run.describe("seed: 1\n", {"seed": 1, "dataset": ["train"]}, {})
    return path


def evaluated(
    run: Path, answers: Sequence[str], references: Sequence[str], name: str = "news", **detail: Any
) -> Path:
    """Write down an evaluation of `run`, as `luthier eval` leaves it; the row i asks "question i"."""
    rows = [[f"question {i}", right] for i, right in enumerate(references)]
    told = {
        "kind": "labels", "rows": len(rows), "notes": [], "labels": sorted(set(references)),
        "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    } | detail  # fmt: skip
    right = sum(a == b for a, b in zip(answers, references, strict=True)) / len(rows)
    figure = {"before": 0.0, "after": right, "delta": right, "low": 0.0, "high": 1.0, "n": len(rows)}
    records = [
        {"task": name, "fingerprint": "f", "row": i, "source": f"{name}.json:{i + 1}", "input": asked,
         "reference": reference, "answer": answer, "tokens": 1, "cut": False}
        for i, ((asked, reference), answer) in enumerate(zip(rows, answers, strict=True))
    ]  # fmt: skip
    report = {
        "tasks": {name: {"accuracy": {**figure, "verdict": "improved", "higher": True}}},
        "details": {name: told},
        "systems": {"before": {"weights": {}}, "after": {"weights": {}}},
        "decoding": {"max_new_tokens": {name: 8}},
    }
    return kept(run / "eval" / name, report, records)


def kept(folder: Path, report: dict[str, Any], records: Sequence[dict[str, Any]]) -> Path:
    """report.json and answers.after.jsonl; the folder."""
    folder.mkdir(parents=True)
    write(folder / "report.json", report)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / "answers.after.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def copy(history: Path, name: str, to: Path) -> Path:
    """A trained run that a test may damage. Its hours are those of the original, as are its paths."""
    shutil.copytree(history / name, to / name)
    return to / name


def older(path: Path, seconds: int) -> None:
    """Make a file older than the others."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
