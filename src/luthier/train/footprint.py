"""How much a run writes: the size of a save, known before the first one, and whether the disk has it.

Estimates are upper bounds of what `save_weights` and `save_moments` write; the first save's real size takes
their place. A run that would stop in the night for want of space stops before its first step instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from luthier.config import Config
from luthier.runs import Run, space
from luthier.runs.run import CONFIG, RESOLVED
from luthier.runs.seal import MANIFEST

if TYPE_CHECKING:
    from luthier.train.observe import Session

ENTRY = 320
"""Bytes of one entry of the history, indented, or of one line of the log."""
_HEADER = 160
"""Bytes that safetensors' header says of one tensor beside its name."""


def weights(model: nn.Module, config: Config) -> int:
    """Bytes of the weights as the method writes them: the whole model, or what was trained of it.

    A PiSSA adapter is written with twice the rank, its initial matrices inside (`methods.peft.save`).
    """
    if config.finetuning_type in ("full", "freeze"):
        once = {tensor.data_ptr(): (name, tensor) for name, tensor in model.state_dict().items()}
        return sum(_bytes(name, tensor) for name, tensor in once.values())
    twice = (".lora_A.", ".lora_B.") if config.pissa_init else ()
    return sum(
        _bytes(name, parameter) * (2 if any(part in name for part in twice) else 1)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )


def moments(model: nn.Module, optimizer: torch.optim.Optimizer, config: Config) -> int:
    """Bytes of the optimizer's state: as it is, or before the first step as it will be."""
    if config.save_only_model:
        return 0
    total = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        state = optimizer.state.get(parameter)
        if state:
            total += sum(_bytes(f"{name}::{key}", value) for key, value in state.items())
        else:
            total += STATES.get(config.optim, _two)(parameter) + 5 * (len(name) + _HEADER)
    return total


def _bytes(name: str, value: Any) -> int:
    header = len(name) + _HEADER
    return header + (value.numel() * value.element_size() if torch.is_tensor(value) else 32)


def _two(parameter: nn.Parameter) -> int:
    """Two moments in the parameter's own precision, and a counter."""
    return 2 * parameter.numel() * parameter.element_size() + 8


def _one(parameter: nn.Parameter) -> int:
    return parameter.numel() * parameter.element_size() + 8


def _factored(parameter: nn.Parameter) -> int:
    """Adafactor: sums over rows and over columns in place of a matrix (Shazeer & Stern, 2018)."""
    shape = parameter.shape
    if len(shape) < 2:
        return 4 * parameter.numel()
    return 4 * (math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1])


def _eight_bits(moments: int) -> Callable[[nn.Parameter], int]:
    """bitsandbytes: a byte a moment, a float32 for each block of 256, a table of 256 float32 for each moment.
    Parameters of fewer than 4,096 numbers keep moments in float32."""

    def size(parameter: nn.Parameter) -> int:
        n = parameter.numel()
        one = 4 * n if n < 4096 else n + 4 * math.ceil(n / 256) + 1024
        return moments * one

    return size


STATES: dict[str, Callable[[nn.Parameter], int]] = {
    "adamw_torch": _two,
    "adamw_torch_fused": _two,
    "adafactor": _factored,
    "sgd": lambda parameter: 0,
    "adagrad": _one,
    "rmsprop": _one,
    "adamw_bnb_8bit": _eight_bits(2),
    "paged_adamw_8bit": _eight_bits(2),
    "paged_adamw_32bit": lambda parameter: 8 * parameter.numel(),
    "lion_8bit": _eight_bits(1),
    "paged_lion_8bit": _eight_bits(1),
}
"""optim -> bytes of state that it will keep for a parameter. A name without a row counts as Adam's."""


def of(model: nn.Module, optimizer: torch.optim.Optimizer, config: Config, beside: int) -> space.Save:
    """The size of a save. beside: bytes of the files that are neither weights nor moments."""
    return space.Save(weights(model, config), moments(model, optimizer, config), beside)


def beside(tokenizer: Any, template: str, run: Run) -> int:
    """Bytes of tokenizer, template, and the configuration and manifest that every checkpoint repeats."""
    known = (run.path / name for name in (CONFIG, RESOLVED, MANIFEST))
    described = sum(file.stat().st_size for file in known if file.is_file())
    return _tokenizer(tokenizer) + len(template.encode()) + described * 5 // 4


def _tokenizer(tokenizer: Any) -> int:
    """Bytes of the tokenizer's files. The one of the tokenizers library is written as it prints itself."""
    added = 512 * len(getattr(tokenizer, "added_tokens_decoder", {}))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return added + len(backend.to_str(pretty=True).encode())
    folder = Path(str(tokenizer.name_or_path))
    names = getattr(tokenizer, "vocab_files_names", {})
    files = [Path(str(getattr(tokenizer, key, "") or folder / name)) for key, name in names.items()]
    return added + sum(file.stat().st_size for file in files if file.is_file())


def saves(session: Session) -> int:
    """Checkpoints still to come. save_strategy: best writes one at each gain, of which two are certain."""
    config, total, done = session.config, session.total, session.progress.global_step
    if done >= total or config.save_strategy == "no":
        return 0
    if config.save_strategy == "best":
        return min(2, total - done)
    every = float(config.save_steps or total)
    size = max(1, math.ceil(total * every)) if every < 1 else int(every)
    if config.save_strategy == "epoch":
        size = session.job.plan.steps_per_epoch
    return total // size - done // size + (total % size > 0)


def entries(session: Session) -> int:
    """Entries that the history will have; one of several evaluation sets is as long as several, one with the
    metrics of answers as three, and a sample reply as its texts."""
    config, total = session.config, session.total
    sets = session.quality.sets.values() if session.quality else ()
    size = len(session.evals) + sum(2 + math.ceil(rows.bytes / ENTRY) for rows in sets)
    kinds = [(config.logging_steps, 1), (config.eval_steps or config.logging_steps, size)]
    return 2 + sum(
        size * math.ceil(total / max(rate if rate >= 1 else rate * total, 1)) for rate, size in kinds if rate
    )


def course(session: Session) -> space.Course:
    """What the run is still to write."""
    estimate, limit = session.estimate(), session.config.save_total_limit or 0
    save = space.Save(estimate.weights, estimate.moments, estimate.beside + ENTRY * entries(session))
    return space.Course(save, saves(session), len(session.run.checkpoints()), limit, bool(session.evals))


def require_run(session: Session) -> None:
    """Before the first step. Raises RunError when what the run will hold at one time does not fit."""
    expected = course(session)
    instead = f"{expected}. Free some space, or set save_total_limit, save_only_model or another output_dir"
    space.require(expected.bytes, session.run.path, "output_dir: this run does not fit", instead)


def require_save(session: Session, history: int) -> None:
    """Before a checkpoint with so many bytes of history. Raises RunError when it does not fit."""
    need = session.size or session.estimate().bytes
    _require(session, need + history, f"checkpoint-{session.progress.global_step}")


def require_result(session: Session) -> None:
    """Before the final weights. Raises RunError when they do not fit."""
    _require(session, session.estimate().result, "the final weights")


def _require(session: Session, need: int, what: str) -> None:
    again = f"goes on from checkpoint-{session.saved}" if session.saved > 0 else "begins again"
    instead = f"nothing of it was written. Free some space; then the same command {again}"
    space.require(need, session.run.path, f"{session.run.path}: {what}", instead)


def of_checkpoint(folder: Path, history: str) -> int:
    """Bytes that the next checkpoint takes, to judge by this one, without the file `history`, which grows.

    0 when the disk does not let itself be asked, so that the estimate counts.
    """
    try:
        return space.tree_bytes(folder) - (folder / history).stat().st_size + 16 * space.BLOCK
    except OSError:
        return 0
