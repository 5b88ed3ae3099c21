"""What the tutorials type for LLaMA-Factory is accepted as it stands, but for the model's path."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from luthier.config import Machine, load, resolve
from tutorials import YAML

# The command that the web page of the third tutorial shows.
FLAGS = """
--stage sft --do_train True --model_name_or_path base --preprocessing_num_workers 16
--finetuning_type lora --template qwen --flash_attn auto --dataset_dir data --dataset ner_dataset
--cutoff_len 2048 --learning_rate 5e-05 --num_train_epochs 3.0 --max_samples 100000
--per_device_train_batch_size 4 --gradient_accumulation_steps 2 --lr_scheduler_type cosine
--max_grad_norm 1.0 --logging_steps 5 --save_steps 100 --warmup_steps 0 --packing False --report_to
none --output_dir saves/Qwen2.5-0.5B-Instruct/lora/train_2025-05-03-08-10-32 --bf16 True --plot_loss
True --trust_remote_code True --ddp_timeout 180000000 --include_num_input_tokens_seen True --optim
adamw_torch --lora_rank 8 --lora_alpha 16 --lora_dropout 0 --lora_target all
"""
ADAPTER = "--model_name_or_path base --adapter_name_or_path saves/qwen3-4b/lora/sft"
CHAT = f"{ADAPTER} --template qwen3"
EXPORT = f"""{ADAPTER} --template qwen3 --finetuning_type lora --export_dir megred-model-path --export_size 2
--export_device cpu --export_legacy_format False"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LLaMA-Factory's folders: a base model, data/dataset_info.json, a tuned adapter."""
    monkeypatch.chdir(tmp_path)
    info = {name: {"file_name": f"{name}.json"} for name in ("identity", "intent", "ner_dataset")}
    files = {
        "base/config.json": "{}",
        "data/dataset_info.json": json.dumps(info),
        **{f"data/{entry['file_name']}": "[]" for entry in info.values()},
        "saves/qwen3-4b/lora/sft/adapter_config.json": '{"base_model_name_or_path": "base"}',
        "train.yaml": YAML,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_yaml_of_the_first_tutorial() -> None:
    config = load(["train.yaml"], "train", {})
    assert config.notes == ()
    assert config.dataset == ("identity", "intent")
    assert (config.learning_rate, config.warmup_ratio, config.val_size) == (1e-4, 0.1, 0.1)
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (1, 8)
    assert (config.cutoff_len, config.max_samples, config.num_train_epochs) == (1024, 1000, 2.0)
    assert (config.eval_strategy, config.eval_steps, config.logging_steps) == ("steps", 500, 10)
    assert config.where["bf16"] == "train.yaml:37"


def test_it_runs_on_a_laptop_and_says_what_is_different() -> None:
    config = resolve(load(["train.yaml"], "train", {}), Machine(name="Laptop CPU", cores=2))
    assert (config.bf16, config.fp16, config.do_eval, config.lora_alpha) == (False, False, True, 16)
    assert (
        "bf16: false instead of true, because Laptop CPU is slow in bfloat16; float32 is used" in config.notes
    )


def test_the_flags_of_the_third_tutorial() -> None:
    config = load(shlex.split(FLAGS), "train", {})
    assert config.notes == ()
    assert (config.lora_rank, config.lora_alpha, config.lora_dropout) == (8, 16.0, 0.0)
    assert (config.learning_rate, config.max_samples, config.packing) == (5e-5, 100000, False)
    assert (config.report_to, config.lora_target, config.flash_attn) == ((), ("all",), "auto")
    assert config.include_num_input_tokens_seen == "all"


def test_the_chat_and_export_of_the_first_tutorial() -> None:
    chat = load(shlex.split(CHAT), "chat", {})
    assert chat.adapter_name_or_path == ("saves/qwen3-4b/lora/sft",)
    assert (chat.template, chat.notes) == ("qwen3", ())
    export = load(shlex.split(EXPORT), "export", {})
    assert (export.export_dir, export.export_size, export.export_device) == ("megred-model-path", 2, "cpu")
    assert export.notes == ()


@pytest.mark.parametrize("verb", ["chat", "predict"])
def test_one_yaml_serves_other_verbs(verb: str) -> None:
    config = load(["train.yaml", "adapter_name_or_path=saves/qwen3-4b/lora/sft"], verb, {})
    assert (config.model_name_or_path, config.template, config.cutoff_len) == ("base", "qwen", 1024)


def test_one_yaml_serves_export() -> None:
    assert load(["train.yaml", "export_dir=merged"], "export", {}).export_dir == "merged"
