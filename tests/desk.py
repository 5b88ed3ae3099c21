"""The command line as a user has it: a folder with a base model, data, a finished run, and words to type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tasks
import tiny
from luthier.cli import main

QUICK = ["template=chatml", "max_steps=1", "per_device_train_batch_size=4", "logging_steps=1"]


class Said(NamedTuple):
    """What a command answered: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Luthier = Callable[..., Said]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/, other/ (the same shape, other weights), rows.json and run/ (LoRA on base, trained with qwen)."""
    folder = tmp_path_factory.mktemp("shop")
    tiny.make_model(folder / "base", "qwen3")
    tiny.make_model(folder / "other", "qwen3", seed=1)
    write(folder / "rows.json", tasks.rows(12))
    words = [f"model_name_or_path={folder}/base", f"dataset={folder}/rows.json", f"output_dir={folder}/run"]
    options = ["template=qwen", "default_system=Be brief.", "num_train_epochs=1", "learning_rate=1e-2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        assert main(["train", *words, *options, "val_size=4", "plot_loss=true"]) == 0
    return folder


@pytest.fixture
def desk(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with links to what the shop has; token stores stay outside it."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "desk"
    folder.mkdir()
    for name in ("base", "other", "rows.json"):
        (folder / name).symlink_to(shop / name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def luthier(desk: Path, capfd: pytest.CaptureFixture[str]) -> Luthier:
    """luthier("train", "lora_rank=4") -> Said, in this process."""

    def run(*words: object) -> Said:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capfd.readouterr())

    return run


def write(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, links not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
