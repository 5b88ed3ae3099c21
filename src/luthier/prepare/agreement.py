"""How far annotators agree beyond chance: Cohen's and Fleiss' kappa, and the rows where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.errors import DataError
from luthier.prepare import exact
from luthier.prepare.exact import Ref


@dataclass(frozen=True, slots=True)
class Agreement:
    """kappa: (observed - expected) / (1 - expected), 1.0 full agreement, 0.0 chance, below 0 worse; None
    where it is not defined (a single label throughout, so that chance alone gives full agreement).

    observed, expected: share of agreeing pairs of annotations, found and by chance · rows: rows counted ·
    skipped: rows with fewer than two annotations · disputed: rows with more than one label.
    """

    kappa: float | None
    observed: float
    expected: float
    rows: int
    skipped: int
    disputed: tuple[Ref, ...]


def cohen(
    first: Sequence[str | None], second: Sequence[str | None], sources: Sequence[str] | None = None
) -> Agreement:
    """Two annotators, each with a distribution of their own (Cohen, 1960, doi:10.1177/001316446002000104).

    None or "" means not annotated; such rows are skipped. Raises DataError for lists of different lengths or
    without a row that both annotated.
    """
    if len(first) != len(second):
        raise DataError(f"annotations of {len(first)} and {len(second)} rows -> give both for the same rows")
    names = exact.refs(len(first), sources)
    both = [(a, b, name) for a, b, name in zip(first, second, names, strict=True) if a and b]
    if not both:
        raise DataError("no row has both annotations -> kappa needs rows that both have labelled")
    count = len(both)
    disputed = tuple(name for a, b, name in both if a != b)
    mine, theirs = Counter(a for a, _, _ in both), Counter(b for _, b, _ in both)
    expected = sum(mine[label] * theirs[label] for label in mine) / count**2
    observed = 1 - len(disputed) / count
    return Agreement(_kappa(observed, expected), observed, expected, count, len(names) - count, disputed)


def fleiss(rows: Sequence[Sequence[str | None]], sources: Sequence[str] | None = None) -> Agreement:
    """Any number of interchangeable annotators (Fleiss, 1971, doi:10.1037/h0031619); a row is its labels.

    None or "" means not annotated. Rows may have different numbers of annotations: agreement is the mean over
    rows of the share of agreeing pairs, chance comes from all annotations together. Rows with fewer than two
    are skipped. Raises DataError when none is left.
    """
    names = exact.refs(len(rows), sources)
    counted = [
        (Counter(label for label in row if label), name) for row, name in zip(rows, names, strict=True)
    ]
    counted = [(labels, name) for labels, name in counted if labels.total() > 1]
    if not counted:
        raise DataError("no row has two annotations -> kappa needs rows that several people have labelled")
    shares = [
        sum(n * (n - 1) for n in labels.values()) / (labels.total() * (labels.total() - 1))
        for labels, _ in counted
    ]
    everything: Counter[str] = Counter()
    for labels, _ in counted:
        everything.update(labels)
    observed = sum(shares) / len(shares)
    expected = sum((n / everything.total()) ** 2 for n in everything.values())
    disputed = tuple(name for labels, name in counted if len(labels) > 1)
    return Agreement(
        _kappa(observed, expected), observed, expected, len(counted), len(names) - len(counted), disputed
    )


def _kappa(observed: float, expected: float) -> float | None:
    return None if expected >= 1 else (observed - expected) / (1 - expected)
