"""What is wrong when a step cannot go on: found by computing, after the fault, and said in words.

Nothing here is needed for a step that goes well, but `weights`. The gradients are dropped: whoever asks
here stops afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import nn

from luthier.data.batch import Flat
from luthier.train import memory
from luthier.train.passes import Job, Task, listed, names, one

SHORTEST = 8
"""Tokens below which no length is tried: shorter rows teach nothing."""

UNCHANGED = "before the update: no weight was changed, nothing saved"


def finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every value is a number: one fused pass, and a look at each tensor only if squares overflow."""
    held = [t.detach() for t in tensors if t.is_floating_point()]
    if not held or bool(torch.nn.utils.get_total_norm(held).isfinite()):
        return True
    return all(bool(t.isfinite().all()) for t in held)


def weights(job: Job, where: str) -> str:
    """Trained weights that are not finite, as a message; "" when there are none."""
    if finite(job.trained()):
        return ""
    bad = _not_finite(job.model, trained=True)
    return (
        f"{where}: weights that are not finite: {listed(bad, 6)}; stopped, nothing was saved. If they came "
        "so from the base or the adapter, load an undamaged copy; if training made them, lower learning_rate"
    )


def _not_finite(model: nn.Module, trained: bool = False) -> list[str]:
    """Names of the model's weights that hold a value that is no number (or only of the trained ones)."""
    return [
        name
        for name, p in model.named_parameters()
        if (p.requires_grad or not trained) and p.is_floating_point() and not bool(p.isfinite().all())
    ]


def loss(job: Job, value: float, flats: list[Flat], task: Task) -> str:
    """Why the loss of a pass is not finite."""
    groups = [list(group) for _, group in groupby(flats, key=lambda f: f.example)]
    unchanged = "" if task.factor is None else f" {UNCHANGED}"
    head = f"{task.where}: the loss is {value}; stopped{unchanged}. "
    return head + _cause(job, guilty(job, groups, task), f"rows of the pass: {names(flats)}")


def gradient(job: Job, norm: float, task: Task, found: list[str], rows: str) -> str:
    """Why the gradient of a step is not finite. found: the rows that make it so alone, on any rank."""
    head = f"{task.where}: the gradient norm is {norm}; stopped {UNCHANGED}. "
    return head + _cause(job, found, f"rows of the step: {rows}")


def _cause(job: Job, found: list[str], rows: str) -> str:
    bad = _not_finite(job.model)
    if bad:
        return (
            f"The weights {listed(bad, 6)} are not finite ({rows}). If they came so from the base or the "
            "adapter, load an undamaged copy; if training made them, lower learning_rate"
        )
    who = f"It comes from {listed(found)} alone" if found else f"No row gives it alone; {rows}"
    return f"{who}. Look at the text there, or lower learning_rate, or use bf16, not fp16"


def guilty(job: Job, groups: list[list[Flat]], task: Task) -> list[str]:
    """Rows whose loss or gradient is not finite when each is computed alone, as the step would do it."""
    if _not_finite(job.model):
        return []  # then every row is
    found = []
    for group in groups:
        job.forget()
        torch.manual_seed(task.seed)
        try:
            value = one(job, group, task.factor).loss
        except memory.Shortage:
            continue  # nothing is known of it
        norm = torch.nn.utils.get_total_norm([p.grad for p in job.trained() if p.grad is not None])
        if not math.isfinite(value) or not bool(norm.isfinite()):
            found.append(group[0].source)
    job.forget()
    return found


def does_not_fit(job: Job, shortage: memory.Shortage, task: Task) -> str:
    """An example that does not fit even alone, and what was found, by trying, to make it fit."""
    flats = shortage.flats
    longest = max(len(f.ids) for f in flats)
    head = (
        f"{task.where}: out of memory with one example a pass: {flats[0].source}, "
        f"{longest} tokens ({shortage.said}). "
    )
    found = []
    with _checkpointing(job) as possible:
        if possible and _fits(job, flats, longest, task):
            found.append("gradient_checkpointing: true")
    length = longest // 2
    while length >= SHORTEST and not _fits(job, flats, length, task):
        length //= 2
    if length >= SHORTEST:
        found.append(f"cutoff_len: {length}")
    if found:
        return f"{head}Tried, and it fits with {', and with '.join(found)}"
    tried = "gradient_checkpointing: true and " if possible else ""
    return (
        f"{head}Tried, and it does not fit with {tried}cutoff_len: {SHORTEST} either. Not "
        "tried: quantization_bit: 4, finetuning_type: lora, a smaller model"
    )


@contextmanager
def _checkpointing(job: Job) -> Iterator[bool]:
    """Gradient checkpointing for the block; yields whether it was off and can be turned on."""
    model = job.engine.unwrap(job.model)
    possible = bool(getattr(model, "supports_gradient_checkpointing", False))
    if not possible or not model.training or memory.is_checkpointing(model):
        yield False
        return
    memory.checkpoint_activations(model)
    try:
        yield True
    finally:
        memory.keep_activations(model)


def _fits(job: Job, flats: list[Flat], length: int, task: Task) -> bool:
    """Whether the first `length` tokens go through, twice: the second time beside the gradients of the first.

    As many tokens are trained as the whole example has, at the most: no way of cutting it trains more.
    """
    try:
        for _ in range(2):
            one(job, [_first(f, length) for f in flats], task.factor)
    except memory.Shortage:
        return False
    finally:
        job.forget()
    return True


def _first(flat: Flat, length: int) -> Flat:
    mask = flat.mask[:length].copy()
    mask[-min(length - 1, int((flat.mask > 0).sum())) :] = 1.0
    return Flat(flat.ids[:length], mask, flat.example, flat.branch, flat.source)


def no_room_for_update(job: Job, where: str, said: str) -> str:
    size = sum(p.numel() * p.element_size() for p in job.trained()) / 2**20
    return (
        f"{where}: out of memory in the optimizer's update ({said}); stopped, nothing was saved. The trained "
        f"weights are {size:,.0f} MiB, and AdamW holds twice that beside them: train fewer (finetuning_type: "
        "lora, a lower lora_rank) or let the optimizer hold less (optim: adamw_bnb_8bit, adafactor, sgd)"
    )
