"""What is left open is filled in, what the machine cannot do is replaced, and both say why."""

from __future__ import annotations

import dataclasses

import pytest

from luthier.config import Config, Machine, load, packages, resolve

CPU = Machine(device="cpu", name="Laptop CPU", bf16=False, fp16=False, memory_bytes=8 << 30, cores=2)
FAST_CPU = dataclasses.replace(CPU, bf16=True)
T4 = Machine(device="cuda", name="Tesla T4", bf16=False, fp16=True, memory_bytes=15 << 30, cores=8)
H200 = Machine(device="cuda", name="H200", bf16=True, fp16=True, memory_bytes=139 << 30, cores=16)


def resolved(words: str, machine: Machine = CPU, verb: str = "train") -> Config:
    base = ["model_name_or_path=owner/model", "dataset=owner/data", "output_dir=saves/shop/first"]
    return resolve(load([*base, *words.split()], verb, {}), machine)


def test_what_is_left_open_is_filled_in_with_a_reason() -> None:
    config = resolved("lora_rank=16 seed=7")
    expected = {
        "do_train": (True, "nothing else was asked for"),
        "lora_alpha": (32, "2 x lora_rank"),
        "data_seed": (7, "the same as seed"),
        "packing": (False, "pre-training text is packed, replies are not"),
        "preprocessing_num_workers": (2, "one per core"),
        "gradient_checkpointing": (False, "memory is scarce on accelerators, time on CPUs"),
        "run_name": ("first", "the name of output_dir"),
        "logging_dir": ("saves/shop/first/runs", "inside output_dir"),
        "project": ("luthier", "the program's name"),
    }
    assert {k: (getattr(config, k), why) for k, why in config.derived.items()} == expected
    assert config.notes == ()


def test_the_request_itself_is_unchanged_and_resolving_twice_is_once() -> None:
    asked = load(["model_name_or_path=a/b", "dataset=a/b", "output_dir=x", "bf16=true"], "train", {})
    once = resolve(asked, CPU)
    assert (asked.bf16, asked.derived) == (True, {})
    assert resolve(once, CPU) == once


def test_given_values_stay() -> None:
    config = resolved(
        "lora_alpha=5 data_seed=1 packing=true project=p run_name=r gradient_checkpointing=true"
    )
    assert (config.lora_alpha, config.data_seed, config.packing) == (5, 1, True)
    assert (config.project, config.run_name, config.gradient_checkpointing) == ("p", "r", True)


@pytest.mark.parametrize(
    ("words", "machine", "bf16", "fp16", "note"),
    [
        (
            "bf16=true",
            CPU,
            False,
            False,
            "bf16: false instead of true, because Laptop CPU is slow in bfloat16; float32 is used",
        ),
        (
            "fp16=true",
            CPU,
            False,
            False,
            "fp16: false instead of true, because Laptop CPU is slow in float16; float32 is used",
        ),
        ("bf16=true", FAST_CPU, True, False, ""),
        (
            "bf16=true",
            T4,
            False,
            True,
            "bf16: false instead of true, because Tesla T4 is slow in bfloat16; float16 is used",
        ),
        ("fp16=true", T4, False, True, ""),
        ("bf16=true", H200, True, False, ""),
        (
            "bf16=true use_cpu=true",
            H200,
            False,
            False,
            "bf16: false instead of true, because the CPU is slow in bfloat16; float32 is used",
        ),
        ("", H200, False, False, ""),
    ],
)
def test_number_formats_that_the_machine_only_emulates(
    words: str, machine: Machine, bf16: bool, fp16: bool, note: str
) -> None:
    config = resolved(words, machine)
    assert (config.bf16, config.fp16) == (bf16, fp16)
    assert config.notes == ((note,) if note else ())


def test_pure_bf16_becomes_float32_where_it_is_emulated() -> None:
    config = resolved("pure_bf16=true", T4)
    assert (config.pure_bf16, config.bf16, config.fp16) == (False, False, False)
    assert resolved("pure_bf16=true", H200).pure_bf16 is True


def test_recomputation_saves_memory_on_accelerators_only() -> None:
    assert resolved("", H200).gradient_checkpointing is True
    assert resolved("use_cpu=true", H200).gradient_checkpointing is False
    off = resolved("disable_gradient_checkpointing=true", H200)
    assert (off.gradient_checkpointing, off.derived["gradient_checkpointing"]) == (
        False,
        "disable_gradient_checkpointing",
    )


def test_more_workers_than_cores_are_too_many() -> None:
    config = resolved("preprocessing_num_workers=16")
    assert config.preprocessing_num_workers == 2
    assert config.notes == (
        "preprocessing_num_workers: 2 instead of 16, because this process may use 2 cores",
    )


def test_packing_follows_the_stage() -> None:
    assert resolved("stage=pt").packing is True
    assert resolved("stage=pt packing=false").packing is False
    assert resolved("neat_packing=true").packing is True


def test_evaluation_is_derived() -> None:
    config = resolved(
        "eval_strategy=steps val_size=0.1 logging_steps=20 load_best_model_at_end=true save_steps=40"
    )
    assert (config.do_eval, config.eval_steps) == (True, 20)
    assert (config.metric_for_best_model, config.greater_is_better) == ("eval_loss", False)
    known_by_the_metric = resolved(
        "early_stopping_steps=1 eval_strategy=epoch val_size=9 metric_for_best_model=outside_labels"
    )
    assert known_by_the_metric.greater_is_better is None


def test_only_what_was_asked_for_is_done() -> None:
    config = resolved("do_predict=true predict_with_generate=true eval_dataset=a/b")
    assert (config.do_train, config.do_predict, config.do_sample) == (False, True, False)


def test_warmup_steps_win_over_the_ratio() -> None:
    config = resolved("warmup_steps=10 warmup_ratio=0.1")
    assert (config.warmup_steps, config.warmup_ratio) == (10, 0.0)
    assert config.notes == ("warmup_ratio: 0.0 instead of 0.1, because warmup_steps wins over it",)


def test_predictions_are_greedy_unless_sampling_is_asked_for() -> None:
    assert resolved("", verb="predict").do_sample is False
    assert resolved("do_sample=true", verb="predict").do_sample is True
    assert resolved("", verb="chat").do_sample is True


def test_flash_attention_needs_a_gpu_and_its_package() -> None:
    assert resolved("flash_attn=fa2").flash_attn == "sdpa"
    assert (
        "flash_attn: sdpa instead of fa2, because FlashAttention needs an NVIDIA GPU"
        in resolved("flash_attn=fa2").notes
    )
    assert resolved("flash_attn=sdpa").flash_attn == "sdpa"
    if not packages.installed("flash_attn"):
        (note,) = resolved("flash_attn=fa2", H200).notes
        assert note.endswith("because the package flash_attn is not installed: pip install flash_attn")


def test_trackers_that_are_not_installed_are_left_out_aloud() -> None:
    absent = [t for t in packages.TRACKERS if not packages.installed(t)]
    there = tuple(t for t in packages.TRACKERS if t not in absent)
    assert resolved("report_to=all").report_to == there
    for tracker in absent:
        config = resolved(f"report_to={tracker}")
        assert config.report_to == ()
        hint = f'{tracker} is not installed: pip install "luthier[{tracker}]"'
        assert config.notes == (f"report_to: none instead of {tracker}, because {hint}",)
