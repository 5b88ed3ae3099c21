"""One forward pass at a time: what a step, an evaluation and the search for a fault are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from luthier.data.batch import Batch, Flat, build
from luthier.data.plan import Plan
from luthier.data.prepare import Examples
from luthier.train import memory
from luthier.train.engine import Engine
from luthier.train.stages import Loss


@dataclass
class Job:
    """All that a step needs. `budget` (tokens per forward pass) is the only thing a step may change.

    notes: what the next observer should tell.
    """

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

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def forget(self) -> None:
        """Drop the gradients: what follows starts from none."""
        self.optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Task:
    """What is done with some examples. where: how messages call it ("step 3") · factor: of the summed loss,
    whose gradients are added; None for forward only · seed: of dropout and other noise.
    """

    where: str
    factor: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Sums:
    """What a pass measured, or several did: summed loss, trained tokens, tokens computed, further sums."""

    loss: float = 0.0
    count: float = 0.0
    seen: int = 0
    passes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def total(parts: Iterable[Sums]) -> Sums:
    """The sum of sums, in their order."""
    loss, count, seen, passes = 0.0, 0.0, 0, 0
    metrics: dict[str, float] = {}
    for part in parts:
        loss, count = loss + part.loss, count + part.count
        seen, passes = seen + part.seen, passes + part.passes
        for name, value in part.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return Sums(loss, count, seen, passes, metrics)


def one(job: Job, flats: list[Flat], factor: float | None) -> Sums:
    """One pass: forward, then add the gradients of `factor` x the summed loss if that is finite.

    factor None: forward only, as in an evaluation. Raises memory.Shortage when the pass does not fit.
    """

    def work() -> Sums:
        batch = build(flats, job.share).to(job.engine.device)
        if job.before_forward is not None and job.model.training:
            job.before_forward(batch)
        with torch.set_grad_enabled(factor is not None):
            loss, metrics = job.loss(job.model, batch, job.layout)
        value = float(loss.detach())
        if factor is not None and math.isfinite(value):
            job.engine.backward(loss * factor)
        measured = {name: float(part.detach()) for name, part in metrics.items()}
        return Sums(value, batch.count, len(batch.ids), 1, measured)

    return memory.watched(work, flats)


def step_seed(seed: int, index: int, rank: int) -> int:
    """Seed of one step on one rank: dropout depends on nothing else, so that a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, index, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def count_of(groups: Iterable[list[Flat]]) -> float:
    """Trained tokens of examples, weighted: what their batches will count, however they are cut."""
    return sum(float(f.mask[1:].sum(dtype=np.float64)) for group in groups for f in group)


def names(flats: Iterable[Flat], most: int = 16) -> str:
    """The rows of these sequences, "file:row", each once."""
    return listed([f.source for f in flats], most)


def listed(words: Iterable[str], most: int = 16) -> str:
    """Words, each once, with commas; how many more there are beyond `most`."""
    each = list(dict.fromkeys(words))
    return ", ".join(each[:most]) + (f" and {len(each) - most} more" if len(each) > most else "")
