"""The spine agrees with a flat file of plain torch, to the last bit, on one CPU thread."""

import json

import pytest
import sft_one_file
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks
from luthier.config import load
from luthier.data.render import Renderer
from luthier.types import Example, Message

ORACLE = {
    "learning_rate": 2e-3, "epochs": 2.0, "per_step": 4, "seed": 42,
    "warmup_ratio": 0.1, "max_grad_norm": 1.0, "weight_decay": 0.01,
}  # fmt: skip
SPINE = {"num_train_epochs": 2.0, "weight_decay": 0.01, "micro_batch_tokens": 1, "save_strategy": "no"}


def examples():
    return [
        Example(
            (Message("user", f"{row['instruction']}\n{row['input']}"),),
            ((Message("assistant", row["output"], train=1.0),),),
            source=f"intent.json:{k + 1}",
        )
        for k, row in enumerate(tasks.rows())
    ]


def renderer(settings):
    tokenizer = AutoTokenizer.from_pretrained(settings["model_name_or_path"])
    return Renderer.of(load(settings, "train", {}), tokenizer)


def spine(settings):
    run = tasks.train(settings)
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return run, [entry["loss"] for entry in history if "loss" in entry]


def base_of(settings):
    return AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"], dtype=torch.float32)


def test_full_fine_tuning(tmp_path):
    settings = tasks.make(tmp_path, finetuning_type="full", **SPINE)
    run, losses = spine(settings)
    model = base_of(settings)
    assert sft_one_file.train(model, renderer(settings), examples(), ORACLE) == losses
    written = load_file(run / "model.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.equal(written[name], parameter), name
    assert len(losses) == 16


def test_lora(tmp_path):
    """The oracle starts from an adapter of zero steps, because how an adapter begins is PEFT's business."""
    start = tasks.make(
        tmp_path, **{**SPINE, "learning_rate": 0.0, "max_steps": 1, "output_dir": str(tmp_path / "start")}
    )
    tasks.train(start)
    settings = tasks.make(tmp_path, adapter_name_or_path=str(tmp_path / "start"), **SPINE)
    run, losses = spine(settings)
    model = PeftModel.from_pretrained(base_of(settings), str(tmp_path / "start"), is_trainable=True)
    assert sft_one_file.train(model, renderer(settings), examples(), ORACLE) == losses
    written = load_file(run / "adapter_model.safetensors")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(written[name.replace(".default", "")], parameter), name


def test_the_oracle_notices_a_difference(tmp_path):
    settings = tasks.make(tmp_path, finetuning_type="full", **SPINE)
    losses = spine(settings)[1]
    other = sft_one_file.train(base_of(settings), renderer(settings), examples(), {**ORACLE, "seed": 43})
    assert other != losses
    assert other == pytest.approx(losses, rel=0.05)
