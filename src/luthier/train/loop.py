"""The loop. Everything that trains goes through it; everything else watches its Steps.

A step's mathematics is fixed by the plan: which examples, and one global count of trained tokens that
divides one global sum of losses. How the step is cut into forward passes is memory's business and
changes nothing but rounding.

No rank waits inside a pass: each does its passes by itself, cuts them smaller and repeats them if it must,
and only then are reports and gradients exchanged. So a fault of one rank is known to all before the update,
and all stop together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import torch

from luthier.data.batch import Flat, cut, sequences
from luthier.data.prepare import Examples
from luthier.errors import TrainError
from luthier.train import diagnose, memory
from luthier.train.passes import Job, Sums, Task, count_of, listed, one, step_seed, total
from luthier.types import Step

__all__ = ["Job", "evaluate", "steps"]


def steps(job: Job, start: int = 0) -> Iterator[Step]:
    """Yield one Step for each optimizer step, from `start` (steps already done) to the plan's end.

    Raises TrainError, on every rank, when a loss, a gradient or a trained weight is not finite, or when one
    example alone does not fit into memory. A Step that was yielded left only finite weights behind.
    """
    _agree(job, diagnose.weights(job, f"before step {start + 1}"))
    for index in range(start, job.plan.total_steps):
        began, where = time.perf_counter(), f"step {index + 1}"
        groups = [sequences(job.corpus[i], i) for i in job.plan.examples(index, job.engine.rank)]
        count = job.engine.sum(count_of(groups))
        if count <= 0:
            raise TrainError(f"{where}: no trained token in {_all_rows(job, groups)}")
        task = Task(where, 1.0 / count, step_seed(job.seed, index, job.engine.rank))
        done = _gradients(job, groups, task)
        rate = _set_rates(job.optimizer, job.schedule(index))
        norm = job.engine.clip(job.trained(), job.clip)
        if not math.isfinite(norm):
            _overflowed(job, norm, groups, task)
        _agree(job, _update(job, where) or diagnose.weights(job, f"{where}, after the update"))
        yield Step(
            index=index + 1,
            epoch=job.plan.epoch_at(index + 1),
            loss=done.loss / count,
            grad_norm=norm,
            learning_rate=rate,
            trained=count,
            seen=done.seen,
            seconds=time.perf_counter() - began,
            micro_batches=done.passes,
            metrics={name: value / count for name, value in done.metrics.items()},
        )


@dataclass(frozen=True)
class _Report:
    """What a rank tells the others about its part of a step. problem: why it cannot go on, "" if it can."""

    sums: Sums = field(default_factory=Sums)
    problem: str = ""


def _gradients(job: Job, groups: list[list[Flat]], task: Task) -> Sums:
    """Leave the gradients of the whole step, of all ranks, in the parameters."""
    reports = job.engine.gather(_own(job, groups, task))
    _raise_any([report.problem for report in reports])
    job.engine.sum_gradients(job.trained())
    return total(report.sums for report in reports)


def _own(job: Job, groups: list[list[Flat]], task: Task) -> _Report:
    """This rank's passes; cut smaller and repeated, with the same mathematics, when memory runs out."""
    before, repeats = job.budget, 0
    while True:
        torch.manual_seed(task.seed)
        passes = cut(groups, job.budget, job.share)
        done: list[Sums] = []
        try:
            for flats in passes:
                done.append(one(job, flats, task.factor))
                if not math.isfinite(done[-1].loss):
                    return _Report(problem=diagnose.loss(job, done[-1].loss, flats, task))
        except memory.Shortage as error:
            shortage = error
        else:
            if repeats:
                job.notes.append(_repeated(job, task.where, before, repeats))
            return _Report(total(done))
        job.forget()
        if len(passes) >= len(groups):
            return _Report(problem=diagnose.does_not_fit(job, shortage, task))
        repeats, job.budget = repeats + 1, memory.smaller(job.budget, passes)


def _repeated(job: Job, where: str, before: int, repeats: int) -> str:
    rank = f" on rank {job.engine.rank}" if job.engine.world > 1 else ""
    return (
        f"{where}: out of memory{rank}; forward passes cut to {job.budget} tokens (before: {before}), here "
        f"and from now on, and repeated ({repeats} x) with the same mathematics"
    )


def _overflowed(job: Job, norm: float, groups: list[list[Flat]], task: Task) -> None:
    """A gradient that is not finite: fp16's scaler may skip the update; otherwise raises TrainError."""
    if job.engine.rescales():
        job.notes.append(f"{task.where}: gradients beyond fp16's range; update skipped, scale lowered")
        return
    guilty = list(chain(*job.engine.gather(diagnose.guilty(job, groups, task))))
    raise TrainError(diagnose.gradient(job, norm, task, guilty, _all_rows(job, groups)))


def _update(job: Job, where: str) -> str:
    """Step the optimizer; returns why that was impossible, "" when it was done."""
    try:
        memory.watched(job.optimizer.step)
    except memory.Shortage as shortage:
        return diagnose.no_room_for_update(job, where, shortage.said)
    job.forget()
    return ""


def _agree(job: Job, problem: str) -> None:
    """Raises TrainError on every rank when any of them has a problem."""
    _raise_any(job.engine.gather(problem))


def _raise_any(problems: list[str]) -> None:
    """Raises TrainError with the problems of all ranks; what several of them say is said once."""
    ranks: dict[str, list[str]] = {}
    for rank, problem in enumerate(problems):
        if problem:
            ranks.setdefault(problem, []).append(f"rank {rank}")
    if ranks:
        alone = len(problems) == 1
        raise TrainError("\n".join(p if alone else f"{', '.join(who)}: {p}" for p, who in ranks.items()))


def _all_rows(job: Job, groups: list[list[Flat]]) -> str:
    """The rows of a step, of all ranks."""
    return listed(chain(*job.engine.gather([f.source for group in groups for f in group])))


def _set_rates(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set each group's rate to its own base times `factor`; returns the first group's."""
    for group in optimizer.param_groups:
        base = group.setdefault("initial_lr", group["lr"])
        group["lr"] = base * factor
    return float(optimizer.param_groups[0]["lr"])


def evaluate(job: Job, corpus: Examples) -> dict[str, float]:
    """Mean loss of a trained token, and what the stage measures beside it as a mean over examples; gradients
    and dropout off.

    Raises TrainError, on every rank, when a loss is not finite or an example does not fit into memory.
    """
    training = job.model.training
    job.model.eval()
    try:
        reports = job.engine.gather(_own_losses(job, corpus))
    finally:
        job.model.train(training)
    _raise_any([report.problem for report in reports])
    sums = total(report.sums for report in reports)
    means = {name: value / max(len(corpus), 1) for name, value in sums.metrics.items()}
    return {"loss": sums.loss / max(sums.count, 1.0), **means}


def _own_losses(job: Job, corpus: Examples) -> _Report:
    """This rank's share of an evaluation, some hundred examples at a time."""
    mine = range(job.engine.rank, len(corpus), job.engine.world)
    done = Sums()
    for first in range(0, len(mine), 256):
        groups = [sequences(corpus[i], i) for i in mine[first : first + 256]]
        report = _own(job, groups, Task("evaluation"))
        if report.problem:
            return report
        done = total([done, report.sums])
    return _Report(done)
