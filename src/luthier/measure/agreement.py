"""Do two judgements of the same things agree, and more than by chance?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def share(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Share of things that both put into the same category; None without any."""
    if not first:
        return None
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's kappa (1960): (observed - expected) / (1 - expected) agreement, expected from both marginals.

    1 is full agreement, 0 what chance would give. None where it is not defined: nothing was judged, or both
    put everything into one category.
    """
    observed, n = share(first, second), len(first)
    if observed is None:
        return None
    mine, theirs = Counter(first), Counter(second)
    expected = sum(mine[name] * theirs[name] for name in mine) / n**2
    return (observed - expected) / (1 - expected) if expected < 1 else None
