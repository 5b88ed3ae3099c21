"""A small task for tests that go through the whole of `train`: a tiny base, a data set, a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny

LABELS = ("下载场景", "用户会员相关分析", "物流查询")


def rows(count: int = 30) -> list[dict[str, str]]:
    """Alpaca rows with a common instruction, prompts of different lengths and three labels."""
    words = ("订单", "会员", "导出", "order", "refund", "please", "where", "is")
    return [
        {
            "instruction": "You are a helpful assistant. Which intent is this?",
            "input": " ".join(words[(k * j) % len(words)] for j in range(1, 2 + k % 5)) + f" {k}",
            "output": LABELS[k % 3],
        }
        for k in range(count)
    ]


def make(folder: Path, count: int = 30, **changes: Any) -> dict[str, Any]:
    """Write base and data into `folder`; returns a configuration (LLaMA-Factory's keys) to train there."""
    base = folder / "base"
    if not base.exists():
        tiny.make_model(base, "qwen3")
        (folder / "data").mkdir()
        (folder / "data" / "intent.json").write_text(json.dumps(rows(count), ensure_ascii=False))
        info = {"intent": {"file_name": "intent.json"}}
        (folder / "data" / "dataset_info.json").write_text(json.dumps(info))
    settings = {
        "model_name_or_path": str(base),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "dataset": "intent",
        "dataset_dir": str(folder / "data"),
        "template": "chatml",
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 2e-3,
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "logging_steps": 1,
        "save_steps": 2,
        "tokenized_path": str(folder / "tokens"),
    }
    return {**settings, **changes}


def train(settings: dict[str, Any]) -> Path:
    """Train in this process; returns the run directory."""
    from luthier.config import load
    from luthier.train.run import train as start

    return start(load(settings, "train", {})).path


def words(settings: dict[str, Any]) -> list[str]:
    """The configuration as the words of a command line."""
    return [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]
