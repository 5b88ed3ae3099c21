"""A base, a data set and a run with an adapter: made once, by the real thing, in a second or two."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny

QUESTIONS = [
    ("Where is my order?", "shipping"),
    ("Can I return it?", "returns"),
    ("When will it arrive?", "shipping"),
    ("I want my money back.", "returns"),
    ("Is my parcel on its way?", "shipping"),
    ("How do I send it back?", "returns"),
]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with base/, train.json and run/ (a LoRA adapter after two steps)."""
    folder = tmp_path_factory.mktemp("infer")
    tiny.make_model(folder / "base", "qwen3")
    rows = [{"instruction": question, "output": answer} for question, answer in QUESTIONS]
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    from luthier.config import load
    from luthier.train.run import train

    request = {
        "model_name_or_path": str(folder / "base"),
        "dataset": str(folder / "train.json"),
        "output_dir": str(folder / "run"),
        "finetuning_type": "lora",
        "template": "qwen",
        "default_system": "Answer with one word.",
        "max_steps": 2,
        "learning_rate": 1e-2,
        "val_size": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "report_to": "none",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        train(load(request, "train"))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Token stores of a test stay with the test."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    yield
