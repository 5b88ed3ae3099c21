"""Splits that keep the share of each class, and groups of rows (near-duplicates, documents) on one side."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from luthier.errors import DataError


@dataclass(frozen=True, slots=True)
class Split:
    """parts: name -> positions of its rows, ascending, in the order of the names given; every row is in one.

    deviation: the largest difference, over parts and classes, between the share of a class's rows that the
    part has and the share asked for. Large where classes or whole groups are few.
    """

    parts: Mapping[str, tuple[int, ...]]
    deviation: float


def split(
    shares: Mapping[str, float],
    classes: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
    seed: int = 42,
) -> Split:
    """Rows to the parts of `shares` ({"train": 0.9, "eval": 0.1}), each class in proportion.

    classes: the class of each row, or the same value for all · groups: rows with equal values stay together
    (`near.components`). The largest groups are placed first, each where its classes are missing most
    (after Sechidis et al., 2011, doi:10.1007/978-3-642-23808-6_10); so a class with a single group goes to
    the largest part. A function of its arguments only.

    Raises DataError for shares that are not positive or do not add up to 1, and for lists of unequal length.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DataError(
            f"shares {dict(shares)} -> positive numbers that add up to 1, such as train=0.9 eval=0.1"
        )
    if groups is not None and len(groups) != len(classes):
        raise DataError(f"{len(classes)} rows but {len(groups)} groups -> give one group for each row")
    members: dict[Hashable, list[int]] = {}
    for i in range(len(classes)):
        members.setdefault(i if groups is None else groups[i], []).append(i)
    blocks = list(members.values())
    random.Random(seed).shuffle(blocks)
    totals = Counter(classes)
    # Small classes first among equals: they have the fewest chances to come out right.
    blocks.sort(key=lambda block: (-len(block), min(totals[classes[i]] for i in block)))
    wanted = {(part, c): share * n for part, share in shares.items() for c, n in totals.items()}
    room = {part: share * len(classes) for part, share in shares.items()}
    parts: dict[str, list[int]] = {part: [] for part in shares}
    for block in blocks:
        counts = Counter(classes[i] for i in block)
        part = max(shares, key=lambda p: (_need(p, counts, wanted), room[p]))
        parts[part] += block
        room[part] -= len(block)
        for c, n in counts.items():
            wanted[part, c] -= n
    deviation = max((abs(left) / totals[c] for (_, c), left in wanted.items()), default=0.0)
    return Split({part: tuple(sorted(rows)) for part, rows in parts.items()}, deviation)


def _need(part: str, counts: Counter[Hashable], wanted: Mapping[tuple[str, Hashable], float]) -> float:
    """How many rows of a block's classes the part still lacks, weighted by the block's own mix."""
    return sum(n * wanted[part, c] for c, n in counts.items()) / counts.total()
