"""Which prompts share a beginning: planned on token lists alone, before any tensor exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORTHWHILE = 1024
"""Tokens that a group of its own must save, beyond the prefix common to all, to pay for its extra passes."""


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts (by index, shortest first) whose first `shared` tokens are equal; each has more."""

    shared: int
    rows: tuple[int, ...]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of equal leading tokens."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def groups(prompts: Sequence[Sequence[int]], worthwhile: int = WORTHWHILE) -> list[Group]:
    """Cut the prompts into groups by what they share beyond the prefix common to all of them.

    Many questions about each of a few documents become one group per document. Prompts that share no more
    than the others do come first, as one group.
    """
    if not prompts:
        return []
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    common = _shared(prompts, order)
    rest: list[int] = []
    found: list[Group] = []
    for block in _blocks(prompts, order, common + 16):
        shared = _shared(prompts, block)
        if (shared - common) * (len(block) - 1) >= worthwhile:
            found.append(Group(shared, _by_length(prompts, block)))
        else:
            rest += block
    if rest:
        found.insert(0, Group(common, _by_length(prompts, rest)))
    return found


def alone(prompts: Sequence[Sequence[int]]) -> Group:
    """All prompts as one group that shares nothing."""
    return Group(0, _by_length(prompts, list(range(len(prompts)))))


def _blocks(prompts: Sequence[Sequence[int]], order: list[int], at_least: int) -> list[list[int]]:
    """Runs of lexicographic neighbours that share `at_least` tokens; then any two of a run share as many."""
    blocks = [[order[0]]]
    for i in order[1:]:
        if common_prefix(prompts[blocks[-1][-1]], prompts[i]) >= at_least:
            blocks[-1].append(i)
        else:
            blocks.append([i])
    return blocks


def _shared(prompts: Sequence[Sequence[int]], rows: list[int]) -> int:
    """Tokens common to lexicographically ordered rows; one less where that is all of a prompt."""
    shared = common_prefix(prompts[rows[0]], prompts[rows[-1]])
    return min(shared, *(len(prompts[i]) - 1 for i in rows)) if len(rows) > 1 else 0


def _by_length(prompts: Sequence[Sequence[int]], rows: list[int]) -> tuple[int, ...]:
    return tuple(sorted(rows, key=lambda i: (len(prompts[i]), i)))
