"""The nouns of evaluation: what a system answered (`Answered`) and a metric over its rows (`Measured`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric over n rows as sums, so that any subset or resample of the rows costs one product.

    rows: float64 [n, k], statistics of each row · of: [..., k] summed statistics -> [...] the metric
    (vectorised) · higher: larger is better · per_row: [n] value of each row where the metric has one
    (accuracy 0/1, token F1), else None.
    """

    rows: npt.NDArray[np.float64]
    of: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    higher: bool = True
    per_row: npt.NDArray[np.float64] | None = None

    @property
    def value(self) -> float:
        """The metric over all rows."""
        return float(self.of(self.rows.sum(0)))

    @property
    def each(self) -> npt.NDArray[np.float64]:
        """The metric of each row by itself, [n]: also of metrics that are no means, such as micro-F1."""
        return self.of(self.rows) if self.per_row is None else self.per_row

    def subset(self, places: Sequence[int]) -> Measured:
        """The metric over the rows at these places."""
        at = np.asarray(places, dtype=np.intp)
        return replace(self, rows=self.rows[at], per_row=None if self.per_row is None else self.per_row[at])


@dataclass(frozen=True, eq=False)
class Answered:
    """What one system said to the rows of a task, side by side with the references.

    sources: "eval.json:17" · inputs: what was asked, as text · references: right answers (text) ·
    answers: what was said (text) · cut: it ran into max_new_tokens · scores: log probability of each label
    [n, labels] or None, columns in the order of `labels`.
    """

    sources: tuple[str, ...]
    inputs: tuple[str, ...]
    references: tuple[str, ...]
    answers: tuple[str, ...]
    cut: tuple[bool, ...] = ()
    scores: npt.NDArray[np.float64] | None = None
    labels: tuple[str, ...] = ()


Metric = Callable[[Answered], dict[str, Measured]]
"""The metrics of a task: name -> Measured over all its rows."""
