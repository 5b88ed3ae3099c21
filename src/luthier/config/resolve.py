"""A checked Config -> the one that this machine runs: what was left open is filled in, what it cannot do is
replaced by the nearest safe thing, and each change says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from luthier.config import packages
from luthier.config.machine import Machine
from luthier.config.schema import Config

Change = tuple[str, Any, str]
_ATTENTION = {"fa2": "flash_attn", "fa3": "flash_attn_interface"}


def resolve(config: Config, machine: Machine) -> Config:
    """A new Config; `derived` says of each changed key why. Resolving twice changes nothing more.

    Where the request cannot be met as written (bf16 on a processor that only emulates it, a package that is
    not installed), the change is also a note.
    """
    derived, notes = dict(config.derived), list(config.notes)
    for step in _STEPS:
        for name, value, why in list(step(config, machine)):
            if getattr(config, name) == value:
                continue
            if config.is_set(name) and name not in config.derived:
                notes.append(
                    f"{name}: {_show(value)} instead of {_show(getattr(config, name))}, because {why}"
                )
            config = config.replace(**{name: value})
            derived[name] = why
    return config.replace(derived=derived, notes=tuple(notes))


def _work(c: Config, m: Machine) -> Iterator[Change]:
    if c.verb == "train" and not (c.do_train or c.do_eval or c.do_predict):
        yield "do_train", True, "nothing else was asked for"
    if c.eval_strategy != "no" and not c.do_eval:
        yield "do_eval", True, "eval_strategy asks for evaluations"


def _method(c: Config, m: Machine) -> Iterator[Change]:
    if c.lora_alpha is None:
        yield "lora_alpha", 2 * c.lora_rank, "2 x lora_rank"
    if c.data_seed is None:
        yield "data_seed", c.seed, "the same as seed"


def _data(c: Config, m: Machine) -> Iterator[Change]:
    if c.neat_packing and not c.packing:
        yield "packing", True, "neat_packing asks for it"
    elif c.packing is None:
        yield "packing", c.stage == "pt", "pre-training text is packed, replies are not"
    workers = c.preprocessing_num_workers
    if workers is None:
        yield "preprocessing_num_workers", m.cores, "one per core"
    elif workers > m.cores:
        yield "preprocessing_num_workers", m.cores, f"this process may use {m.cores} cores"


def _schedule(c: Config, m: Machine) -> Iterator[Change]:
    if c.warmup_steps > 0 and c.warmup_ratio > 0:
        yield "warmup_ratio", 0.0, "warmup_steps wins over it"
    if c.eval_strategy == "steps" and not c.eval_steps:
        yield "eval_steps", c.logging_steps, "the same as logging_steps"
    if c.load_best_model_at_end or c.early_stopping_steps or c.save_strategy == "best":
        metric = c.metric_for_best_model or "eval_loss"
        if c.metric_for_best_model is None:
            yield "metric_for_best_model", metric, "the usual measure"
        if c.greater_is_better is None and metric.endswith(("loss", "perplexity")):
            yield "greater_is_better", False, "a loss is better when it is smaller"


def _precision(c: Config, m: Machine) -> Iterator[Change]:
    """Emulated number formats are slower than float32 and, in float16, overflow: they are never used."""
    device, fp16 = ("cpu", False) if c.use_cpu and m.device != "cpu" else (m.device, m.fp16)
    bf16 = m.bf16 and device == m.device
    why = f"{m.name if device == m.device else 'the CPU'} is slow in"
    if (c.bf16 or c.pure_bf16) and not bf16:
        instead = "float16" if fp16 and not c.pure_bf16 else "float32"
        for name in ("bf16", "pure_bf16"):
            yield name, False, f"{why} bfloat16; {instead} is used"
        yield "fp16", instead == "float16", f"{why} bfloat16; {instead} is used"
    if c.fp16 and not fp16:
        yield "fp16", False, f"{why} float16; float32 is used"
    if c.gradient_checkpointing is None:
        off = c.disable_gradient_checkpointing
        why = "disable_gradient_checkpointing" if off else "memory is scarce on accelerators, time on CPUs"
        yield "gradient_checkpointing", not off and device != "cpu", why


def _kernels(c: Config, m: Machine) -> Iterator[Change]:
    package = _ATTENTION.get(c.flash_attn)
    if package and m.device != "cuda":
        yield "flash_attn", "sdpa", "FlashAttention needs an NVIDIA GPU"
    elif package and not packages.installed(package):
        yield "flash_attn", "sdpa", f"the package {package} is not installed: pip install {package}"


def _reports(c: Config, m: Machine) -> Iterator[Change]:
    there = tuple(t for t in packages.TRACKERS if packages.installed(t))
    if "all" in c.report_to:
        yield "report_to", there, "these are installed" if there else "no tracker is installed"
    elif lacking := [t for t in c.report_to if t not in there]:
        hint = ", ".join(f'pip install "luthier[{t}]"' for t in lacking)
        kept = tuple(t for t in c.report_to if t in there)
        yield "report_to", kept, f"{', '.join(lacking)} is not installed: {hint}"
    if c.plot_loss and not packages.installed("matplotlib"):
        yield "plot_loss", False, 'matplotlib is not installed: pip install "luthier[plot]"'
    if c.output_dir and c.run_name is None:
        yield "run_name", Path(c.output_dir).name, "the name of output_dir"
    if c.output_dir and c.logging_dir is None:
        yield "logging_dir", str(Path(c.output_dir) / "runs"), "inside output_dir"
    if c.project is None:
        yield "project", "luthier", "the program's name"


def _answers(c: Config, m: Machine) -> Iterator[Change]:
    if (c.verb == "predict" or c.do_predict) and not c.is_set("do_sample"):
        yield "do_sample", False, "predictions are the most likely answers unless sampling is asked for"


_STEPS: tuple[Callable[[Config, Machine], Iterator[Change]], ...] = (
    _work, _method, _data, _schedule, _precision, _kernels, _reports, _answers,
)  # fmt: skip


def _show(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return (",".join(value) or "none") if isinstance(value, tuple) else str(value)
