"""METRICS: the measures of a task. A row is a function from `Answered` to named `Measured`.

Every row of the task counts in every metric: an answer that cannot be read is wrong, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError, MissingPackage, UsageError
from luthier.measure.types import Answered, Measured, Metric

_T = TypeVar("_T")
METRICS: dict[str, str] = {
    "labels": "luthier.measure.metrics.labels:metrics",
    "extraction": "luthier.measure.metrics.extraction:metrics",
    "text": "luthier.measure.metrics.text:metrics",
    "numbers": "luthier.measure.metrics.numbers:metrics",
    "tools": "luthier.measure.metrics.tools:metrics",
    "choice": "luthier.measure.metrics.choice:metrics",
}
# What scoring and comparing a task imports beyond the base installation: known before an hour of answering.
PACKAGES: dict[str, tuple[str, ...]] = {
    "extraction": ("scipy",),
    "text": ("scipy", "sacrebleu"),
    "tools": ("scipy",),
}


def load(task: str) -> Metric:
    """The metrics of a task. Raises UsageError for an unknown one, MissingPackage if it could not be scored.

    Another package adds a task through the entry-point group `luthier.metrics`.
    """
    paths = METRICS | {point.name: point.value for point in entry_points(group="luthier.metrics")}
    if task not in paths:
        raise UsageError(f'"{task}" is no task -> one of {", ".join(sorted(paths))}')
    for package in PACKAGES.get(task, ()):
        if find_spec(package) is None:
            raise MissingPackage(package, f'scoring the task "{task}"', "metrics")
    module, _, name = paths[task].partition(":")
    metric: Metric = getattr(import_module(module), name)
    return metric


def mean(values: Sequence[float] | npt.NDArray[np.float64], higher: bool = True) -> Measured:
    """A metric that is the mean of its row values [n], which tests may then use."""
    per_row = np.asarray(values, dtype=np.float64)
    rows = np.stack([per_row, np.ones_like(per_row)], axis=1)
    return Measured(rows, lambda sums: over(sums[..., 0], sums[..., 1]), higher, per_row)


def micro_f1(counts: Sequence[tuple[float, float, float]]) -> Measured:
    """F1 of all rows together, from (matched, answered, wanted) of each; 1 where nothing is to be found."""
    rows = np.asarray(counts, dtype=np.float64).reshape(-1, 3)

    def f1(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        both = sums[..., 1] + sums[..., 2]
        return np.where(both > 0, over(2 * sums[..., 0], both), 1.0)

    return Measured(rows, f1)


def over(top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """top / bottom, and 0 where bottom is 0."""
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom != 0)


def checked(answered: Answered) -> Answered:
    """The same, having looked that there is a row and that every row has an answer and a reference."""
    n = len(answered.references)
    if not n:
        raise DataError("there is no row to evaluate -> give an evaluation set with at least one row")
    for name, values in (("answers", answered.answers), ("sources", answered.sources)):
        if len(values) != n:
            raise DataError(f"{n} references but {len(values)} {name} -> every row needs both")
    return answered


def wanted(answered: Answered, read: Callable[[str], _T | None], lacks: str) -> list[_T]:
    """What `read` finds in every reference; a DataError ends in `lacks` where it finds nothing."""
    found = []
    for source, reference in zip(answered.sources, checked(answered).references, strict=True):
        value = read(reference)
        if value is None:
            raise DataError(f'{source}: the reference "{reference[:40]}" {lacks}')
        found.append(value)
    return found


def each(answered: Answered, score: Callable[[str, str], float]) -> list[float]:
    """score(answer, reference) of every row."""
    return [score(a, r) for a, r in zip(answered.answers, answered.references, strict=True)]
