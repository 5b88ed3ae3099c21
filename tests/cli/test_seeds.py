"""Four public tutorials for LLaMA-Factory, typed with `luthier` for `llamafactory-cli`, on a tiny model."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from desk import Luthier, write
from tutorials import YAML

IDENTITY = [
    {"instruction": "请告诉我你的名字", "input": "", "output": "我的名字是小助手。"},
    {"instruction": "你好，你可以做什么", "input": "", "output": "我可以帮您回答问题。"},
] * 5
INTENT = [
    {"instruction": "导出本月的数据", "input": "", "output": "下载场景"},
    {"instruction": "会员消费情况", "input": "", "output": "用户会员相关分析"},
] * 5
LOG_KEYS = {
    "crc32",
    "current_steps",
    "total_steps",
    "epoch",
    "percentage",
    "elapsed_time",
    "remaining_time",
    "throughput",
    "total_tokens",
}


def type_in(luthier: Luthier, command: str) -> tuple[str, str]:
    """Type a command as a shell reads it; it succeeds. Returns stdout and stderr."""
    code, out, err = luthier(*shlex.split(command))
    assert code == 0, err
    return out, err


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def talk(luthier: Luthier, monkeypatch: pytest.MonkeyPatch, command: str, said: str) -> tuple[str, str]:
    """A conversation through a pipe."""
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    return type_in(luthier, command)


def test_customer_service(luthier: Luthier, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A YAML with two alpaca data sets of data/, a chat, an export."""
    write(desk / "data" / "identity.json", IDENTITY)
    write(desk / "data" / "intent.json", INTENT)
    entries = {"identity": {"file_name": "identity.json"}, "intent": {"file_name": "intent.json"}}
    write(desk / "data" / "dataset_info.json", entries)
    (desk / "qwen3_lora_sft.yaml").write_text(YAML, encoding="utf-8")
    out, err = type_in(luthier, "train qwen3_lora_sft.yaml")
    assert out == "saves/qwen3-4b/lora/sft\n"
    assert "identity: 10 rows = 10 kept + 0 dropped" in err
    assert "training from step 0 to 6, 18 examples" in err  # 20 less 2 held out, in steps of 1 x 8, twice
    run = desk / "saves" / "qwen3-4b" / "lora" / "sft"
    _files_as_they_are_known(run)
    assert {path.name for path in (run / "checkpoint-6").iterdir()} > {
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer_state.json",
    }
    model = "--model_name_or_path base --adapter_name_or_path saves/qwen3-4b/lora/sft --template qwen3"
    replies, err = talk(luthier, monkeypatch, f"chat {model} --max_new_tokens 4", "你好\n你是谁\nexit\n")
    assert "adapter saves/qwen3-4b/lora/sft" in err
    assert "was trained with the template qwen, so that one is used, not qwen3" in err
    assert replies
    flags = "--finetuning_type lora --export_dir megred-model-path --export_size 2 --export_device cpu"
    out, _ = type_in(luthier, f"export {model} {flags} --export_legacy_format False")
    assert out.startswith("megred-model-path: ")
    merged = {path.name for path in (desk / "megred-model-path").iterdir()}
    assert merged > {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "Modelfile",
    }


def _files_as_they_are_known(run: Path) -> None:
    """LLaMA-Factory's files, with its names and keys."""
    adapter = read(run / "adapter_config.json")
    assert (adapter["peft_type"], adapter["r"], adapter["lora_alpha"]) == ("LORA", 8, 16)
    assert adapter["base_model_name_or_path"] == "base"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), str(run))
    assert any("lora_B" in name and weight.any() for name, weight in model.named_parameters())
    log = read(run / "trainer_log.jsonl")
    assert [set(line) - LOG_KEYS for line in log] == [{"loss", "lr"}, {"eval_loss"}]
    assert set(log[0]) > LOG_KEYS
    assert (log[0]["current_steps"], log[0]["total_steps"], log[0]["percentage"]) == (6, 6, 100.0)
    assert (log[0]["epoch"], log[0]["remaining_time"]) == (2.0, "0:00:00")
    train = {"epoch", "total_flos", "train_loss", "train_runtime", "train_samples_per_second"}
    train |= {"train_steps_per_second", "num_input_tokens_seen"}
    evaluation = {"epoch", "eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    assert set(read(run / "train_results.json")) > train
    assert set(read(run / "eval_results.json")) > evaluation
    assert set(read(run / "all_results.json")) > train | evaluation
    assert {"log_history", "global_step", "max_steps", "best_metric"} < set(read(run / "trainer_state.json"))
    assert (run / "training_loss.png").read_bytes().startswith(b"\x89PNG")


def test_news(luthier: Luthier, desk: Path) -> None:
    """sharegpt files in a folder of their own, LoRA+, then prediction on the evaluation set."""
    folder = desk / "data" / "example_newsdata"
    labels = {"许昕发文感谢队友": "体育", "外媒：想在伊朗更迭政权": "国际", "国乒": "体育", "外媒": "国际"}
    rows = [
        {"conversations": [{"from": "human", "value": f"新闻分类：{title}"}, {"from": "gpt", "value": label}]}
        for title, label in labels.items()
    ]
    write(folder / "train.json", rows * 4)
    write(folder / "eval.json", rows)
    entry = {"formatting": "sharegpt"}
    entries = {name: {"file_name": f"{name}.json", **entry} for name in ("train", "eval")}
    write(folder / "dataset_info.json", entries)
    out, err = type_in(
        luthier,
        "train --stage sft --do_train True --model_name_or_path base --finetuning_type lora --template qwen "
        "--dataset_dir data/example_newsdata --dataset train --cutoff_len 2048 --learning_rate 5e-4 "
        "--num_train_epochs 10 --per_device_train_batch_size 2 --gradient_accumulation_steps 4 "
        "--loraplus_lr_ratio 16 --lora_target all --output_dir saves/train_2025-11-14 --plot_loss True",
    )
    assert "training from step 0 to 20, 16 examples" in err
    assert read(desk / "saves" / "train_2025-11-14" / "train_results.json")["train_loss"] < 6.0
    out, _ = type_in(
        luthier, "predict saves/train_2025-11-14 --dataset eval --format json --max_new_tokens 5"
    )
    run = desk / "saves" / "train_2025-11-14"
    scores = json.loads(out)
    assert {"predict_rouge-1", "predict_rouge-2", "predict_rouge-l", "predict_bleu-4"} < set(scores)
    assert {"predict_accuracy", "predict_macro_f1", "predict_exact_match", "predict_runtime"} < set(scores)
    assert read(run / "predict_results.json") == scores
    assert scores.items() <= read(run / "all_results.json").items()
    predicted = read(run / "generated_predictions.jsonl")
    assert [row["label"] for row in predicted] == ["体育", "国际", "体育", "国际"]
    assert all({"prompt", "predict", "label"} <= set(row) for row in predicted)
    assert predicted[0]["prompt"].endswith("新闻分类：许昕发文感谢队友<|im_end|>\n<|im_start|>assistant\n")
    # the same from the page "Evaluate & Predict", which calls the verb train
    type_in(
        luthier,
        "train --stage sft --model_name_or_path base --adapter_name_or_path saves/train_2025-11-14 "
        "--finetuning_type lora --quantization_method bnb --template qwen --flash_attn auto "
        "--dataset_dir data/example_newsdata --eval_dataset eval --cutoff_len 1024 --max_samples 100000 "
        "--per_device_eval_batch_size 2 --predict_with_generate True --report_to none --max_new_tokens 5 "
        "--top_p 0.7 --temperature 0.95 --output_dir saves/eval_2025-11-14 --do_predict True "
        "--trust_remote_code True --ddp_timeout 180000000 --preprocessing_num_workers 16",
    )
    assert read(desk / "saves" / "eval_2025-11-14" / "generated_predictions.jsonl") == predicted


def test_extraction(luthier: Luthier, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that a web page shows, a merge, and a chat with the merged model."""
    row = {
        "instruction": "你现在是一个很厉害的阅读理解器，严格按照人类指令进行回答。",
        "input": "句子中包含了哪些信息，输出json：\n\n白胸三刺角蝉是属于同翅目的一种动物。",
        "output": '[{"predicate": "目", "object": "同翅目", "subject": "白胸三刺角蝉"}]',
    }
    history = [["第一轮指令", "第一轮回答"]]
    write(desk / "data" / "ner_dataset.json", [row, {**row, "history": history, "system": "系统提示词"}] * 4)
    write(desk / "data" / "dataset_info.json", {"ner_dataset": {"file_name": "ner_dataset.json"}})
    out, err = type_in(
        luthier,
        r"""train \
    --stage sft \
    --do_train True \
    --model_name_or_path base \
    --preprocessing_num_workers 16 \
    --finetuning_type lora \
    --template qwen \
    --flash_attn auto \
    --dataset_dir data \
    --dataset ner_dataset \
    --cutoff_len 2048 \
    --learning_rate 5e-05 \
    --num_train_epochs 3.0 \
    --max_samples 100000 \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 2 \
    --lr_scheduler_type cosine \
    --max_grad_norm 1.0 \
    --logging_steps 5 \
    --save_steps 100 \
    --warmup_steps 0 \
    --packing False \
    --report_to none \
    --output_dir saves/Qwen2.5-0.5B-Instruct/lora/train_2025-05-03-08-10-32 \
    --bf16 True \
    --plot_loss True \
    --trust_remote_code True \
    --ddp_timeout 180000000 \
    --include_num_input_tokens_seen True \
    --optim adamw_torch \
    --lora_rank 8 \
    --lora_alpha 16 \
    --lora_dropout 0 \
    --lora_target all""".replace("\\\n", " "),
    )
    run = out.strip()
    assert run == "saves/Qwen2.5-0.5B-Instruct/lora/train_2025-05-03-08-10-32"
    assert "training from step 0 to 3, 8 examples" in err
    # As in LLaMA-Factory, without "columns" these two are not read; that is said.
    assert 'the column "history" of the rows is not read' in err
    assert 'the column "system" of the rows is not read' in err
    assert read(desk / run / "trainer_log.jsonl")[-1]["current_steps"] == 3
    type_in(luthier, f"export --model_name_or_path base --adapter_name_or_path {run} --export_dir merged")
    replies, err = talk(
        luthier, monkeypatch, "chat --model_name_or_path merged --template qwen --max_new_tokens 4", "你好\n"
    )
    assert "base merged · adapter none · template qwen" in err
    assert replies


def test_openai_and_function_calls(luthier: Luthier, desk: Path) -> None:
    """The formats of the fourth tutorial, as files without any dataset_info.json."""
    marv = {"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."}
    chats = [
        ("What's the capital of France?", "Paris, as if everyone doesn't know that already."),
        ("How far is the Moon from Earth?", "Around 384,400 kilometers. Give or take a few."),
    ]
    lines = [
        {"messages": [marv, {"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in chats
    ]
    (desk / "marv.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    tools = json.dumps([{"name": "weather", "description": "of a city", "parameters": {"type": "object"}}])
    turns = [
        {"from": "human", "value": "How is the weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    write(desk / "tools.json", [{"conversations": turns, "system": "Be brief.", "tools": tools}])
    out, err = type_in(
        luthier,
        "train --model_name_or_path base --template qwen --dataset marv.jsonl,tools.json --max_steps 1 "
        "--output_dir saves/marv",
    )
    assert out == "saves/marv\n"
    assert 'marv.jsonl: read as openai: "messages" holds messages with "role" and "content"' in err
    assert 'tools.json: read as sharegpt: "conversations" holds messages with "from" and "value"' in err
    ledgers = read(desk / "saves" / "marv" / "ledger.json")
    assert [(ledger["rows_in"], ledger["kept"]) for ledger in ledgers] == [(2, 2), (1, 1)]
    out, _ = type_in(luthier, "data show tools.json --model saves/marv --format json")
    shown = json.loads(out)
    assert [shown["text"][a:b] for a, b in shown["trained"]] == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
        "It rains.<|im_end|>",
    ]
    assert "<tool_response>\nrain\n</tool_response>" in shown["text"]
