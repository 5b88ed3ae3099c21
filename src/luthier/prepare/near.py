"""Near-duplicates: rows whose texts are nearly the same, as clusters of copies around a row worth keeping.

Exact duplicates are found first (`exact`). Of the distinct texts, MinHash proposes pairs (`shingles`), and
each pair is then verified: Jaccard similarity of the two sets of character 5-grams, computed exactly, and no
differing number, name or negation (`veto`). What very many rows share (an instruction before each question)
says nothing about likeness, so a pair must also be alike in what is left.

One slip of the keyboard changes up to 6 shingles, which is little in a long text and most of a short one. So
the similarity asked for falls with length, as far as one slip needs: (m - 6) / (m + 6) for m shingles, but
from 0.4 to `threshold`; below `threshold` a changed word must be a mistyped one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from luthier.prepare import exact, shingles, veto
from luthier.prepare.exact import Ref

THRESHOLD = 0.8
# Two characters swapped in the middle of a text change 6 shingles.
_CHANGE = shingles.SIZE + 1
# The change may fall on the few shingles that are not common, so less is asked of them.
_LEAST, _LEAST_RARE = 0.4, 0.2
_CACHED = 20_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows by position, first < second, and the Jaccard similarity of their shingles."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Copy:
    """A row that repeats the keeper of its cluster. exact: the normalised texts are equal."""

    row: Ref
    similarity: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Cluster:
    """A row to keep and its copies, each of them like the keeper itself: a star, not a chain."""

    keeper: Ref
    copies: tuple[Copy, ...]


def pairs(
    texts: Sequence[str], threshold: float = THRESHOLD, sides: Sequence[int] | None = None
) -> list[Pair]:
    """All verified pairs of near-duplicates among texts that are distinct after `exact.normalise`.

    sides: with it, only pairs of rows on different sides (train and eval). Where hundreds of texts resemble
    each other, not all pairs are listed, but each text's with the first of them.
    """
    normal = [exact.normalise(text) for text in texts]
    frequent = shingles.common(normal)
    numbers = [veto.numbers(text) for text in normal]

    def asked(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.clip((counts - _CHANGE) / (counts + _CHANGE), _LEAST_RARE, threshold)

    proposed = shingles.candidates(normal, frequent, numbers, asked)
    cache: dict[int, frozenset[str]] = {}
    found = []
    for first, second in proposed.tolist():
        if sides is not None and sides[first] == sides[second]:
            continue
        if len(cache) > _CACHED:
            cache.clear()
        a, b = (cache.get(i) or cache.setdefault(i, shingles.shingles(normal[i])) for i in (first, second))
        similarity, short = _similarity(a, b, frequent, threshold)
        if similarity and veto.differs(texts[first], texts[second], short) is None:
            found.append(Pair(first, second, similarity))
    return found


def needed(count: int, threshold: float = THRESHOLD, least: float = _LEAST) -> float:
    """The similarity that two texts need to be near-duplicates when the smaller has `count` shingles."""
    return min(threshold, max(least, (count - _CHANGE) / (count + _CHANGE)))


def clusters(
    texts: Sequence[str],
    sources: Sequence[str] | None = None,
    reviewed: Sequence[bool] | None = None,
    threshold: float = THRESHOLD,
) -> list[Cluster]:
    """Exact and near duplicates as stars, in the order of their keepers.

    The keeper is a reviewed row if there is one, then the longest, then the first. Copies are like their
    keeper; a row that is only like a copy is not in the cluster.
    """
    names = exact.refs(len(texts), sources)

    def rank(i: int) -> tuple[bool, int, int]:
        return not (reviewed and reviewed[i]), -len(texts[i]), i

    same = sorted(
        (sorted(group, key=rank) for group in exact.groups(texts)), key=lambda group: rank(group[0])
    )
    found = []
    for keeper, members in _stars(len(same), pairs([texts[group[0]] for group in same], threshold)):
        copies = [Copy(names[i], 1.0, True) for i in same[keeper][1:]]
        copies += [Copy(names[i], value, False) for member, value in members for i in same[member]]
        if copies:
            found.append(Cluster(names[same[keeper][0]], tuple(sorted(copies, key=lambda copy: copy.row))))
    return sorted(found, key=lambda cluster: cluster.keeper)


def components(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each row the number of its group; rows linked by a chain of duplicates are in one group.

    Chains, not stars, because a split must not cut through any pair.
    """
    same = exact.groups(texts)
    parent = list(range(len(same)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for pair in pairs([texts[group[0]] for group in same], threshold):
        low, high = sorted((root(pair.first), root(pair.second)))
        parent[high] = low
    group_of = [0] * len(texts)
    for number, group in enumerate(same):
        for i in group:
            group_of[i] = root(number)
    return group_of


def _stars(count: int, found: Sequence[Pair]) -> list[tuple[int, list[tuple[int, float]]]]:
    """Each of `count` texts, best first, as the centre of those like it that no better centre has taken."""
    like: dict[int, list[tuple[int, float]]] = {}
    for pair in found:
        like.setdefault(pair.first, []).append((pair.second, pair.similarity))
    taken: set[int] = set()
    stars = []
    for centre in range(count):
        if centre in taken:
            continue
        members = [(i, value) for i, value in like.get(centre, ()) if i not in taken]
        taken.update(i for i, _ in members)
        stars.append((centre, members))
    return stars


def _similarity(
    a: frozenset[str], b: frozenset[str], frequent: frozenset[str], threshold: float
) -> tuple[float, bool]:
    """Jaccard similarity of two sets, or 0.0 where it is less than needed, with or without `frequent`.

    The second value tells whether it, or that without `frequent`, is below the threshold.
    """
    value = _jaccard(a, b, threshold, _LEAST)
    if not value or not frequent:
        return value, value < threshold
    a, b = a - frequent, b - frequent
    rest = _jaccard(a, b, threshold, _LEAST_RARE) if a or b else 1.0
    return (value, min(value, rest) < threshold) if rest else (0.0, True)


def _jaccard(a: frozenset[str], b: frozenset[str], threshold: float, least: float) -> float:
    smaller, larger = sorted((len(a), len(b)))
    asked = needed(smaller, threshold, least)
    if smaller < asked * larger:
        return 0.0
    shared = len(a & b)
    value = shared / (smaller + larger - shared)
    return value if value >= asked else 0.0
