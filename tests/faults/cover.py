"""Covering designs: few configurations in which every possible pair of levels of any two factors occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product

Row = dict[str, str]
Level = tuple[str, str]
"""A factor and one of its levels."""
Pair = frozenset[Level]


def pairs(row: Mapping[str, str]) -> set[Pair]:
    """The pairs of levels that occur in a configuration, which may be an unfinished one."""
    return {frozenset(two) for two in combinations(row.items(), 2)}


def possible(factors: Mapping[str, Sequence[str]], impossible: Iterable[Pair]) -> set[Pair]:
    """Every pair of levels of two factors, without those that exclude each other."""
    levels = [[(factor, level) for level in factors[factor]] for factor in factors]
    found = {frozenset(two) for a, b in combinations(levels, 2) for two in product(a, b)}
    return found - set(impossible)


def cover(factors: Mapping[str, Sequence[str]], impossible: Iterable[Pair]) -> list[Row]:
    """Greedy: begin with a pair that is still to come, then add to it the levels that bring the most others.

    The same table gives the same design. Every factor needs a level that excludes nothing.
    """
    barred = set(impossible)
    left = possible(factors, barred)
    used: Counter[Level] = Counter()
    rows: list[Row] = []
    while left:
        row = dict(min(left, key=lambda pair: sorted(pair)))
        for factor in sorted(factors, key=lambda name: -len(factors[name])):
            if factor in row:
                continue
            fitting = [level for level in factors[factor] if not barred & pairs({**row, factor: level})]
            row[factor] = max(
                fitting, key=lambda level: (len(left & pairs({**row, factor: level})), -used[factor, level])
            )
        rows.append({factor: row[factor] for factor in factors})
        left -= pairs(row)
        used.update(row.items())
    return rows


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` of the configurations, each as unlike those before it as can be."""
    chosen = list(rows[:1])
    while len(chosen) < min(count, len(rows)):
        rest = [row for row in rows if row not in chosen]
        chosen.append(max(rest, key=lambda row: min(len(row.items() - other.items()) for other in chosen)))
    return chosen
