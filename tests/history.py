"""Three tiny runs, evaluated on the same rows: what comparing runs is tested with. Made once a session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tasks
from luthier import cli

EVALUATED = tasks.rows(36)[12:]


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """low/ (learnt nothing), high/ (learnt), again/ (as high, another seed); low and high also predicted.

    data/eval.json: 24 rows · low and high were evaluated on it, again on other rows of the same name.
    """
    folder = tmp_path_factory.mktemp("history")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        for name, changes in _RUNS.items():
            tasks.train(tasks.make(folder, count=24, output_dir=str(folder / name), **{**_COMMON, **changes}))
        write(folder / "data" / "eval.json", EVALUATED)
        for name in ("low", "high"):
            _ask("eval", folder, name, "--suite", "false")
            _ask("predict", folder, name, f"output_dir={folder / name}")
        write(folder / "data" / "eval.json", EVALUATED[:20])
        _ask("eval", folder, "again", "--suite", "false")
        write(folder / "data" / "eval.json", EVALUATED)
    return folder


_COMMON: dict[str, Any] = {"max_steps": 12, "save_steps": 12, "val_size": 4, "eval_strategy": "steps", "eval_steps": 4}
_RUNS: dict[str, dict[str, Any]] = {
    "low": {"learning_rate": 1e-12},
    "high": {"learning_rate": 3e-2, "lora_rank": 16},
    "again": {"learning_rate": 3e-2, "lora_rank": 16, "seed": 7},
}


def _ask(verb: str, folder: Path, name: str, *words: str) -> None:
    dataset = ["--dataset", str(folder / "data" / "eval.json"), "max_new_tokens=16"]
    assert cli.main([verb, str(folder / name), *dataset, *words]) == 0


def write(path: Path, rows: Any) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def copy(history: Path, name: str, to: Path) -> Path:
    """A run that a test may damage."""
    shutil.copytree(history / name, to / name)
    return to / name
