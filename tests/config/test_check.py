"""All problems of a request at once, each with its place and what to write instead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from luthier.config import Config, load
from luthier.errors import ConfigError

MODEL = "Qwen/Qwen3-0.6B"
TRAIN = [f"model_name_or_path={MODEL}", "dataset=owner/data", "output_dir=saves/test"]


def problems(words: list[str], verb: str = "train", env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(words, verb, env or {})
    return [str(p) for p in caught.value.problems]


def train(*words: str) -> Config:
    return load([*TRAIN, *words], "train", {})


def test_text_keys_keep_the_word_as_typed() -> None:
    config = train("--run_name", "007", "--project", "1e-4", "dataset=001/2", "--system", "a: b: {c")
    assert (config.run_name, config.project, config.dataset) == ("007", "1e-4", ("001/2",))
    assert config.system == "a: b: {c"
    assert config.written["run_name"] == "007"


def test_what_an_unreadable_file_would_have_said_is_not_called_missing(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("model_name_or_path: base\n  stage: [sft\n")
    assert problems([str(file), "lora_rnk=8"]) == [
        f"{file}:2: is not valid YAML: mapping values are not allowed here -> key: value",
        "lora_rnk: unknown key `lora_rnk` -> did you mean `lora_rank`?",
    ]


# --- keys -----------------------------------------------------------------------------------------------


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("lora_rnk: 8\nlora_alpha: x\nmystery_of_life: 1\nfp8: true\n")
    assert problems([str(file), "--bf16", "--fp16", "stage=ddpo", "dataset=a/b"]) == [
        f"{file}:1: unknown key `lora_rnk` -> did you mean `lora_rank`?",
        f"{file}:3: unknown key `mystery_of_life` -> `luthier keys` lists all keys",
        f"{file}:4: `fp8` is refused, because bfloat16 is the smallest format that training computes in -> "
        "bf16: true; quantization_bit: 4 for less memory",
        f'{file}:2: `lora_alpha` must be a number, not "x" -> see `luthier keys lora_alpha`',
        'stage: `stage` must be one of pt, sft, rm, dpo, kto, ppo, grpo, not "ddpo" (nearest: dpo) '
        "-> see `luthier keys stage`",
        "model_name_or_path: is missing -> a directory or a name such as Qwen/Qwen3-0.6B",
        "output_dir: is missing -> a directory for the run, saves/my-run",
        "--bf16: bf16 and fp16 are two answers to one question -> one of the two",
    ]


def test_where_everything_was_written_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("# a comment\nlora_rank: 8\n")
    config = train(str(file), "--seed", "1")
    assert config.where["lora_rank"] == f"{file}:2"
    assert config.where["seed"] == "--seed"
    assert (config.is_set("seed"), config.is_set("lora_alpha")) == (True, False)
    assert config.written == {
        "lora_rank": 8,
        "model_name_or_path": MODEL,
        "dataset": "owner/data",
        "output_dir": "saves/test",
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("evaluation_strategy=no", "eval_strategy", "no"),
        ("no_cuda=true", "use_cpu", True),
        ("per_gpu_train_batch_size=2", "per_device_train_batch_size", 2),
        ("adafactor=True", "optim", "adafactor"),
        ("use_swanlab=true", "report_to", ("swanlab",)),
        ("preserve_thinking=false", "history", "as_template"),
        ("resume_lora_training=true", "create_new_adapter", False),
        ("prompt_template=qwen", "template", "qwen"),
        ("train_sampling_strategy=sequential", "disable_shuffling", True),
        ("system_prompt=Hi", "default_system", "Hi"),
        ("activation_checkpointing=true", "gradient_checkpointing", True),
        ("eval_num_beams=3", "num_beams", 3),
    ],
)
def test_other_names_are_translated(word: str, key: str, value: object) -> None:
    assert getattr(train(word), key) == value


def test_a_translation_is_said() -> None:
    assert train("evaluation_strategy=no").notes == (
        "evaluation_strategy: `evaluation_strategy` is called `eval_strategy` here",
    )
    assert train("report_to=none", "use_swanlab=true").report_to == ("swanlab",)
    assert train("preserve_thinking=true", "history=as_trained").history == "as_trained"


def test_two_names_of_a_key_with_two_values_are_a_contradiction() -> None:
    assert problems([*TRAIN, "evaluation_strategy=epoch", "eval_strategy=steps", "val_size=1"]) == [
        "evaluation_strategy: `evaluation_strategy` and `eval_strategy` are the same key with two values -> "
        "`eval_strategy` alone"
    ]


def test_ignored_keys_are_said_unless_they_ask_for_nothing() -> None:
    quiet = [
        "use_unsloth=false",
        "ddp_timeout=180000000",
        "use_fast_tokenizer=true",
        "video_fps=2.0",
        "deepspeed=null",
    ]
    assert train(*quiet, "use_dft_loss=False", "infer_backend=huggingface", "rope_scaling=none").notes == ()
    (note,) = train("--use_unsloth").notes
    assert note == (
        "--use_unsloth: `use_unsloth` is ignored, because it changes speed and not the result; "
        "Luthier shares prefixes and computes only the logits that are needed"
    )


@pytest.mark.parametrize(
    "word",
    [
        "use_galore=true",
        "deepspeed=ds_z3.json",
        "infer_backend=vllm",
        "export_legacy_format=true",
        "use_dft_loss=true",
        "hf_hub_token=hf_x",
        "label_smoothing_factor=0.1",
        "rope_scaling=linear",
        "use_llama_pro=true",
        "push_to_hub=true",
    ],
)
def test_refused_keys_stop_with_a_reason(word: str) -> None:
    (problem,) = problems([*TRAIN, word])
    assert problem.startswith(f"{word.split('=')[0]}: `{word.split('=')[0]}` is refused, because ")
    assert " -> " in problem
    assert word.split("=")[1] not in problem.split("because")[0].split(": `")[0]


# --- contradictions and needs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "where", "what"),
    [
        ("val_size=0.1 eval_dataset=a/b", "val_size", "both say what to evaluate on"),
        ("mask_history=true train_on_prompt=true", "mask_history", "learns less"),
        ("streaming=true stage=pt max_samples=5 max_steps=5", "max_samples", "does not count"),
        ("streaming=true stage=pt val_size=0.1 max_steps=5", "val_size", "a fraction"),
        ("streaming=true stage=pt", "max_steps", "needs an end"),
        ("load_best_model_at_end=true", "load_best_model_at_end", "there is no best"),
        (
            "load_best_model_at_end=true eval_strategy=epoch val_size=9",
            "load_best_model_at_end",
            "have been saved",
        ),
        (
            "load_best_model_at_end=true eval_strategy=steps val_size=9 eval_steps=200 save_steps=500",
            "load_best_model_at_end",
            "have no score",
        ),
        ("bf16=true fp16=true", "bf16", "one question"),
        ("pure_bf16=true fp16=true", "bf16", "one question"),
        ("quantization_bit=4 finetuning_type=full", "quantization_bit", "cannot change"),
        ("quantization_bit=4 pissa_init=true", "pissa_init", "unquantized"),
        ("quantization_bit=8 resize_vocab=true", "resize_vocab", "cannot grow"),
        ("quantization_bit=4 adapter_name_or_path=a/b,c/d", "adapter_name_or_path", "one adapter"),
        (
            "quantization_bit=4 adapter_name_or_path=a/b create_new_adapter=true",
            "create_new_adapter",
            "merged",
        ),
        ("adapter_name_or_path=a/b finetuning_type=full", "adapter_name_or_path", "lora only"),
        ("interleave_probs=0.5", "interleave_probs", "draws none"),
        ("interleave_probs=0.5,0.5 mix_strategy=interleave_under", "interleave_probs", "for each data set"),
        ("interleave_probs=-1 mix_strategy=interleave_over", "interleave_probs", "negative"),
        ("stage=dpo", "stage", "trained by a later version"),
        ("stage=pt mask_history=true", "mask_history", "belong to stage sft"),
        ("neat_packing=true packing=false", "neat_packing", "contradicts"),
        ("do_eval=true do_train=true", "eval_strategy", "nothing to evaluate"),
        ("eval_strategy=steps", "eval_strategy", "nothing to evaluate"),
        ("do_predict=true val_size=9", "do_predict", "by generating"),
        ("early_stopping_steps=3", "early_stopping_steps", "nothing can stop"),
        ("finetuning_type=full use_dora=true", "use_rslora", "belong to finetuning_type lora"),
        ("finetuning_type=freeze freeze_trainable_layers=0", "freeze_trainable_layers", "learn nothing"),
        (
            "gradient_checkpointing=true disable_gradient_checkpointing=true",
            "gradient_checkpointing",
            "contradicts",
        ),
        ("save_steps=0", "save_steps", "never come"),
        ("logging_steps=0", "logging_steps", "never come"),
        ("num_train_epochs=0", "num_train_epochs", "nothing would be trained"),
        ("report_to=none,wandb", "report_to", "excludes"),
        ("streaming=true max_steps=5", "streaming", "only stage pt"),
    ],
)
def test_contradictions(words: str, where: str, what: str) -> None:
    (problem,) = problems([*TRAIN, *words.split()])
    assert problem.startswith(f"{where}: ")
    assert what in problem


def test_a_contradiction_in_a_file_names_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("bf16: true\nfp16: true\n")
    (problem,) = problems([*TRAIN, str(file)])
    assert problem.startswith(f"{file}:1 (bf16): bf16 and fp16")


@pytest.mark.parametrize(
    ("verb", "words", "missing"),
    [
        ("train", "", ["model_name_or_path", "output_dir", "dataset"]),
        ("train", "do_eval=true eval_dataset=a/b output_dir=x model_name_or_path=a/b", []),
        ("chat", "", ["model_name_or_path"]),
        ("predict", "model_name_or_path=a/b", ["dataset"]),
        ("predict", "model_name_or_path=a/b eval_dataset=c/d", []),
        ("export", "", ["model_name_or_path", "export_dir"]),
    ],
)
def test_what_each_verb_needs(verb: str, words: str, missing: list[str]) -> None:
    if not missing:
        assert load(words.split(), verb, {}).verb == verb
        return
    assert [p.split(":")[0] for p in problems(words.split(), verb)] == missing
    assert all("is missing -> " in p for p in problems(words.split(), verb))


def test_rules_of_training_do_not_bind_other_verbs() -> None:
    words = [f"model_name_or_path={MODEL}", "stage=dpo", "bf16=true", "fp16=true", "eval_strategy=steps"]
    assert load(words, "chat", {}).stage == "dpo"


def test_missing_packages_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)  # another test may have imported it
    assert train("quantization_bit=4", "hub=modelscope").notes == (
        'quantization_bit: 4 needs bitsandbytes: pip install "luthier[quant]"',
        'hub: modelscope needs modelscope: pip install "luthier[modelscope]"',
    )


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from luthier.config import load; "
        f"load({TRAIN!r}, 'train', {{}}); "
        "print([m for m in ('torch', 'transformers', 'peft', 'accelerate', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
