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
    (after Sechidis et al., 2011, doi:10.1007/978-3-642-23808-6_10). Of rows by themselves, each part first
    gets the whole rows that it lacks of a class; one more goes to the part that is behind its share of all
    rows, so that many small classes do not all round the same way. The first row of a class goes to the
    largest part: what is evaluated should have been trained. A function of its arguments only.

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
    order = {c: (n, k) for k, (c, n) in enumerate(totals.items())}
    # Small classes first among equals: they have the fewest chances to come out right.
    blocks.sort(key=lambda block: (-len(block), min(order[classes[i]] for i in block)))
    wanted = {(part, c): share * n for part, share in shares.items() for c, n in totals.items()}
    parts: dict[str, list[int]] = {part: [] for part in shares}
    placed: Counter[Hashable] = Counter()
    for block in blocks:
        counts = Counter(classes[i] for i in block)
        first = not any(placed[c] for c in counts)
        due = placed.total() + sum(totals[c] - placed[c] for c in counts)  # rows once these classes are done
        behind = {p: share if first else share * due - len(parts[p]) for p, share in shares.items()}
        part = max(shares, key=lambda p: (_need(p, counts, wanted), behind[p]))
        parts[part] += block
        placed += counts
        for c, n in counts.items():
            wanted[part, c] -= n
    deviation = max((abs(left) / totals[c] for (_, c), left in wanted.items()), default=0.0)
    return Split({part: tuple(sorted(rows)) for part, rows in parts.items()}, deviation)


def _need(part: str, counts: Counter[Hashable], wanted: Mapping[tuple[str, Hashable], float]) -> float:
    """How many rows of a block's classes the part still lacks, weighted by the block's own mix; for a row by
    itself, all that is less than one counts the same."""
    total = counts.total()
    need = round(sum(n * wanted[part, c] for c, n in counts.items()) / total, 9)
    return 0.5 if total == 1 and 0 < need < 1 else need
