"""Closed labels: accuracy, precision, recall and F1, the confusion matrix, and how honest probabilities are.

Answer and label are compared as in `measure.strings` (width, case, final full stop aside). Averages run
over the labels that occur as references. An answer outside the label set is a miss of the true label and a
hit of none, so that precision, recall and F1 equal scikit-learn's with `labels=` those and zero_division=0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.measure.metrics import checked, mean, over
from luthier.measure.strings import normalise
from luthier.measure.types import Answered, Measured

Floats = npt.NDArray[np.float64]
_OfSums = Callable[[Floats], Floats]
BINS = 15  # as in Guo et al. (2017)


def metrics(answered: Answered) -> dict[str, Measured]:
    """Accuracy, averaged precision, recall and F1, the share outside the label set, and ece with `scores`."""
    told = _Told.of(answered)
    outside = told.answer < 0
    found = {
        "accuracy": mean((told.answer == told.wanted).astype(np.float64)),
        "macro_f1": Measured(told.rows, _macro(_f1)),
        "weighted_f1": Measured(told.rows, _weighted_f1),
        "macro_precision": Measured(told.rows, _macro(_precision)),
        "macro_recall": Measured(told.rows, _macro(_recall)),
        "outside_labels": mean(outside.astype(np.float64), higher=False),
    }
    if answered.scores is not None:
        found["ece"] = calibration(answered)
    return found


def per_class(answered: Answered) -> dict[str, dict[str, Measured]]:
    """label -> precision, recall, f1; the labels that occur as references, in the order of the label set.

    The number of rows with the label is `rows.sum(0)[2]` of each.
    """
    told = _Told.of(answered)
    width, found = len(told.labels), {}
    for i, label in enumerate(told.labels):
        rows = np.ascontiguousarray(told.rows[:, [i, width + i, 2 * width + i]])
        if rows[:, 2].any():
            found[label] = {
                "precision": Measured(rows, lambda sums: _precision(sums)[..., 0]),
                "recall": Measured(rows, lambda sums: _recall(sums)[..., 0]),
                "f1": Measured(rows, lambda sums: _f1(sums)[..., 0]),
            }
    return found


@dataclass(frozen=True, eq=False)
class Confusion:
    """counts[i, j]: rows with label i that were answered j; the last column is answers outside the set."""

    labels: tuple[str, ...]
    counts: npt.NDArray[np.int64]


def confusion(answered: Answered) -> Confusion:
    """What was answered instead of what, [labels, labels + 1]."""
    told = _Told.of(answered)
    width = len(told.labels)
    column = np.where(told.answer < 0, width, told.answer)
    flat = np.bincount(told.wanted * (width + 1) + column, minlength=width * (width + 1))
    return Confusion(told.labels, flat.reshape(width, width + 1))


def calibration(answered: Answered) -> Measured:
    """Expected calibration error, the mean distance of confidence and accuracy over 15 equal bins of
    confidence (Guo et al., 2017, On Calibration of Modern Neural Networks). Confidence is the likeliest
    label's probability among the labels; raises DataError without usable `scores`.
    """
    confidence, right = _confidence(answered)
    inside = _bin(confidence)[:, None] == np.arange(BINS)
    rows = np.concatenate(
        [inside * confidence[:, None], inside * right[:, None], np.ones((len(right), 1))], 1
    )

    def ece(sums: Floats) -> Floats:
        gap: Floats = np.abs(sums[..., :BINS] - sums[..., BINS:-1]).sum(-1)
        return over(gap, sums[..., -1])

    return Measured(rows, ece, higher=False)


def reliability(answered: Answered) -> list[dict[str, float]]:
    """The bins of the reliability plot that hold rows: low, high, count, mean confidence, accuracy."""
    confidence, right = _confidence(answered)
    at = _bin(confidence)
    return [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": int(np.sum(at == b)),
            "confidence": float(confidence[at == b].mean()),
            "accuracy": float(right[at == b].mean()),
        }
        for b in np.unique(at).tolist()
    ]


@dataclass(frozen=True, eq=False)
class _Told:
    """labels: as written · wanted, answer: index of the label of each row, -1 outside the set."""

    labels: tuple[str, ...]
    wanted: npt.NDArray[np.int64]
    answer: npt.NDArray[np.int64]

    @classmethod
    def of(cls, answered: Answered) -> _Told:
        """Raises DataError where a reference is not in the given label set."""
        checked(answered)
        written: dict[str, str] = {}
        for label in answered.labels or sorted(answered.references):
            written.setdefault(normalise(label), label.strip())
        places = {label: i for i, label in enumerate(written)}
        for source, reference in zip(answered.sources, answered.references, strict=True):
            if normalise(reference) not in places:
                raise DataError(
                    f'{source}: the reference "{reference}" is none of the {len(places)} labels'
                    " -> add it to the labels or mend the row"
                )
        wanted = [places[normalise(r)] for r in answered.references]
        answer = [places.get(normalise(a), -1) for a in answered.answers]
        return cls(tuple(written.values()), np.array(wanted), np.array(answer))

    @cached_property
    def rows(self) -> Floats:
        """[n, 3 labels]: one-hot of a right answer, of the answer, of the reference."""
        label = np.arange(len(self.labels))
        wanted, answer = self.wanted[:, None] == label, self.answer[:, None] == label
        return np.concatenate([wanted & answer, answer, wanted], axis=1).astype(np.float64)


def _parts(sums: Floats) -> tuple[Floats, Floats, Floats]:
    width = sums.shape[-1] // 3
    return sums[..., :width], sums[..., width : 2 * width], sums[..., 2 * width :]


def _precision(sums: Floats) -> Floats:
    hits, answered, _ = _parts(sums)
    return over(hits, answered)


def _recall(sums: Floats) -> Floats:
    hits, _, support = _parts(sums)
    return over(hits, support)


def _f1(sums: Floats) -> Floats:
    hits, answered, support = _parts(sums)
    return over(2 * hits, answered + support)


def _macro(of: _OfSums) -> _OfSums:
    """Mean over the labels that occur as references among the summed rows."""

    def macro(sums: Floats) -> Floats:
        present = _parts(sums)[2] > 0
        return over((of(sums) * present).sum(-1), present.sum(-1))

    return macro


def _weighted_f1(sums: Floats) -> Floats:
    support = _parts(sums)[2]
    return over((_f1(sums) * support).sum(-1), support.sum(-1))


def _confidence(answered: Answered) -> tuple[Floats, Floats]:
    """Probability of the likeliest label of each row, and 1 where it is the right one; both [n]."""
    told, scores = _Told.of(answered), answered.scores
    shape = (len(told.wanted), len(told.labels))
    if scores is None or scores.shape != shape or not answered.labels:
        raise DataError(
            f"calibration needs a log probability of each of {shape[1]} labels in each of {shape[0]} rows"
            " -> score by label likelihood"
        )
    if np.isnan(scores).any() or not np.isfinite(scores.max(1)).all():
        row = int(np.argmin(np.isfinite(scores.max(1)) & ~np.isnan(scores).any(1)))
        raise DataError(f"{answered.sources[row]}: no label has a usable probability -> score the row again")
    likely = np.exp(scores - scores.max(1, keepdims=True))
    return 1 / likely.sum(1), (scores.argmax(1) == told.wanted).astype(np.float64)


def _bin(confidence: Floats) -> npt.NDArray[np.int64]:
    """Bin of each confidence; bin b holds ](b / 15), ((b + 1) / 15)]."""
    edges = np.linspace(0, 1, BINS + 1)
    return np.clip(np.searchsorted(edges[1:], confidence, side="left"), 0, BINS - 1)
