"""The loop. Everything that trains goes through it; everything else watches its Steps.

A step's mathematics is fixed by the plan: which examples, and one global count of trained tokens that
divides one global sum of losses. How the step is cut into forward passes is memory's business and
changes nothing but rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from luthier.data.batch import Batch, Flat, build, cut, sequences
from luthier.data.plan import Plan
from luthier.data.prepare import Examples
from luthier.errors import TrainError
from luthier.train.engine import Engine
from luthier.train.stages import Loss
from luthier.types import Step


@dataclass
class Job:
    """All that a step needs. `budget` (tokens per forward pass) is the only thing a step may change."""

    engine: Engine
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    loss: Loss
    plan: Plan
    corpus: Examples
    budget: int
    share: bool = True
    layout: str = "tree"
    clip: float = 1.0
    seed: int = 42
    before_forward: Callable[[Batch], None] | None = None
    notes: list[str] = field(default_factory=list)


def steps(job: Job, start: int = 0) -> Iterator[Step]:
    """Yield one Step for each optimizer step, from `start` (steps already done) to the plan's end."""
    for index in range(start, job.plan.total_steps):
        began = time.perf_counter()
        flats = [sequences(job.corpus[i], i) for i in job.plan.examples(index, job.engine.rank)]
        done = _forward_backward(job, flats, index)
        rate = _set_rates(job.optimizer, job.schedule(index))
        norm = job.engine.clip((p for p in job.model.parameters() if p.requires_grad), job.clip)
        if not math.isfinite(norm) and not job.engine.rescales():
            raise TrainError(_not_finite("gradient norm", norm, index, [f for group in flats for f in group]))
        job.optimizer.step()
        job.optimizer.zero_grad(set_to_none=True)
        yield Step(
            index=index + 1,
            epoch=job.plan.epoch_at(index + 1),
            loss=done.loss,
            grad_norm=norm,
            learning_rate=rate,
            trained=done.count,
            seen=done.seen,
            seconds=time.perf_counter() - began,
            micro_batches=done.passes,
            metrics=done.metrics,
        )


@dataclass(frozen=True)
class _Done:
    """Forward and backward of one step, over all ranks: mean loss, trained tokens, tokens, passes."""

    loss: float
    count: float
    seen: int
    passes: int
    metrics: Mapping[str, float]


def _forward_backward(job: Job, flats: list[list[Flat]], index: int) -> _Done:
    """Gradients of one step; split smaller and repeated, with the same mathematics, when memory runs out."""
    while True:
        passes = cut(flats, job.budget, job.share)
        try:
            return _accumulate(job, passes, index)
        except torch.OutOfMemoryError as error:
            failed = str(error)
        # Outside the handler: the exception's frames would keep the failed pass's tensors alive.
        job.optimizer.zero_grad(set_to_none=True)
        _split_smaller(job, passes, flats, index, failed)


def _split_smaller(
    job: Job, passes: list[list[Flat]], flats: list[list[Flat]], index: int, failed: str
) -> None:
    """Halve the budget. Raises TrainError when every pass held a single example already."""
    if len(passes) >= len(flats):
        largest = max(flats, key=lambda group: sum(len(f.ids) for f in group))
        size = sum(len(f.ids) for f in largest)
        raise TrainError(
            f"step {index + 1}: out of memory with one example a pass; the largest is {largest[0].source} "
            f"with {size} tokens. Lower cutoff_len, train in 4 bits (quantization_bit: 4), or use gradient "
            f"checkpointing ({failed.splitlines()[0][:200]})"
        )
    job.budget = max(1, min(job.budget, max(sum(len(f.ids) for f in p) for p in passes)) // 2)
    job.notes.append(
        f"step {index + 1}: out of memory; forward passes cut to {job.budget} tokens, step repeated"
    )


def _accumulate(job: Job, passes: list[list[Flat]], index: int) -> _Done:
    # Reseeding makes dropout a function of (seed, step, rank), so that a resumed run repeats it.
    torch.manual_seed(step_seed(job.seed, index, job.engine.rank))
    engine = job.engine
    mine = float(bool(passes))
    if not passes:
        # The last step of an epoch can have fewer units than ranks; an idle rank still takes part in the
        # exchange of gradients, with a borrowed example whose loss counts nothing.
        borrowed = job.plan.examples(index, 0)[0]
        passes = [sequences(job.corpus[borrowed], borrowed)]
    batches = [build(flats, job.share) for flats in passes]
    count = engine.sum(mine * sum(batch.count for batch in batches))
    seen = engine.sum(mine * sum(len(batch.ids) for batch in batches))
    if count <= 0:
        raise TrainError(f"step {index + 1}: no trained token in {_rows([f for p in passes for f in p])}")
    total: float = 0.0
    sums: dict[str, float] = {}
    for k, batch in enumerate(batches):
        last = k == len(batches) - 1
        batch = batch.to(engine.device)
        if job.before_forward is not None:
            job.before_forward(batch)
        with engine.forward_context(last):
            loss, metrics = job.loss(job.model, batch, job.layout)
            loss = loss * mine
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainError(_not_finite("loss", value, index, passes[k]))
        # Data-parallel wrappers average over ranks; the sum over ranks is wanted.
        engine.backward(loss * (engine.world / count), last)
        total += value
        for name, part in metrics.items():
            sums[name] = sums.get(name, 0.0) + mine * float(part.detach())
    means = {name: engine.sum(value) / count for name, value in sums.items()}
    return _Done(engine.sum(total) / count, count, int(seen), len(batches), means)


def step_seed(seed: int, index: int, rank: int) -> int:
    """Seed of the random numbers of one step on one rank."""
    return int(np.random.SeedSequence([seed, index, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set each group's rate to its own base times `factor`; returns the first group's."""
    for group in optimizer.param_groups:
        base = group.setdefault("initial_lr", group["lr"])
        group["lr"] = base * factor
    return float(optimizer.param_groups[0]["lr"])


def _rows(flats: list[Flat], most: int = 16) -> str:
    names = list(dict.fromkeys(f.source for f in flats))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _not_finite(what: str, value: float, index: int, flats: list[Flat]) -> str:
    return (
        f"step {index + 1}: the {what} is {value}; stopped before the update, nothing was changed. "
        f"Rows of this pass: {_rows(flats)}. Look at them, or lower learning_rate, or use bf16, not fp16."
    )


@torch.no_grad()
def evaluate(job: Job, corpus: Examples) -> dict[str, float]:
    """Mean loss (and what the stage measures beside it) over a corpus; gradients and dropout off."""
    training = job.model.training
    job.model.eval()
    sums: dict[str, float] = {"loss": 0.0}
    count = 0.0
    try:
        mine = range(job.engine.rank, len(corpus), job.engine.world)
        for chunk in range(0, len(mine), 256):
            flats = [sequences(corpus[i], i) for i in mine[chunk : chunk + 256]]
            for flat in cut(flats, job.budget, job.share):
                batch = build(flat, job.share).to(job.engine.device)
                loss, metrics = job.loss(job.model, batch, job.layout)
                for name, value in {"loss": loss, **metrics}.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                count += batch.count
    finally:
        job.model.train(training)
    count = max(job.engine.sum(count), 1.0)
    return {name: job.engine.sum(value) / count for name, value in sums.items()}
