"""Near-duplicates: rows whose texts are nearly the same, as clusters of copies around a row worth keeping.

Exact duplicates are found first (`exact`). Of the distinct texts, MinHash proposes pairs (`shingles`), and
each pair is then verified: Jaccard similarity of the two sets of character 5-grams, computed exactly, and no
differing number, name or negation (`veto`). What very many rows share (an instruction before each question)
says nothing about likeness, so a pair must also be alike in what is left. Rows of several columns (question,
answer) must be alike in each column, too: ten questions about one long document are ten rows.

One slip of the keyboard changes up to 6 shingles, which is little in a long text and most of a short one. So
the similarity asked for falls with length, as far as one slip needs: (m - 6) / (m + 6) for m shingles, but
from 0.4 to `threshold`; below `threshold` a changed word must be a mistyped one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
# Sets that are kept between pairs hold at most so many shingles, about 100 bytes each.
_CACHED = 1_000_000


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


@dataclass(frozen=True, slots=True)
class Alike:
    """Which rows are equal and which distinct ones are near, found once for several questions.

    order: positions of all rows, those worth keeping first · best: for each row, the first in that order of
    the rows equal to it · pairs: of such best rows, the one that comes first in that order first.
    """

    order: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    pairs: list[Pair]


def pairs(
    texts: Sequence[str], threshold: float = THRESHOLD, sides: Sequence[int] | None = None
) -> list[Pair]:
    """All verified pairs of near-duplicates among texts that are distinct after `exact.normalise`.

    sides: 0 or 1 for each text; with it, only pairs across (train and eval). Where hundreds of texts resemble
    each other, not all pairs are listed, but each text's with the first of them.
    """
    across = None if sides is None else np.array(sides, bool)
    return list(_verified([texts], range(len(texts)), None, threshold, across))


def alike(
    columns: Sequence[Sequence[str]],
    kinds: Sequence[str] | None = None,
    threshold: float | None = THRESHOLD,
    reviewed: Sequence[bool] | None = None,
) -> Alike:
    """Equal and near rows among rows of `columns`, each of which must be equal or near.

    kinds: only rows of the same kind can be alike · threshold: None looks for equal rows only · reviewed:
    rows that are worth more than others; then the longest row is, then the first.
    """
    count = len(columns[0])
    lengths = np.zeros(count, np.int64)
    for column in columns:
        lengths += np.fromiter(map(len, column), np.int64, count)
    unseen = np.zeros(count, bool) if reviewed is None else ~np.array(reviewed, bool)
    places: npt.NDArray[np.int64] = np.arange(count, dtype=np.int64)
    order = np.lexsort((places, np.negative(lengths), unseen))
    best = np.empty(count, np.int64)
    first: dict[bytes, int] = {}
    for i in order.tolist():
        parts = [column[i] for column in columns]
        key = exact.key("\0".join(parts if kinds is None else [kinds[i], *parts]))
        best[i] = first.setdefault(key, i)
    rows = list(first.values())
    del first
    found = [] if threshold is None else list(_verified(columns, rows, kinds, threshold, None))
    return Alike(order, best, found)


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
    return stars(alike([texts], None, threshold, reviewed), sources)


def stars(
    found: Alike, sources: Sequence[str] | None = None, kinds: Sequence[str] | None = None
) -> list[Cluster]:
    """`found` as stars, in the order of their keepers: each row, best first, with what resembles it and has
    not been taken by a better one. kinds: only rows of the same kind are copies of one another."""
    exact.check_names(len(found.best), sources)
    like: dict[int, list[tuple[int, float]]] = {}
    for pair in found.pairs:
        like.setdefault(pair.first, []).append((pair.second, pair.similarity))
        like.setdefault(pair.second, []).append((pair.first, pair.similarity))
    members = _members(found, kinds)
    made = []
    for row, kind in list(members):
        rows = members.pop((row, kind), None)
        if rows is None:
            continue
        copies = [(i, 1.0, True) for i in rows[1:]]
        for other, value in like.get(row, ()):
            copies += [(i, value, False) for i in members.pop((other, kind), ())]
        if copies:
            named = tuple(Copy(exact.ref(i, sources), value, same) for i, value, same in sorted(copies))
            made.append(Cluster(exact.ref(rows[0], sources), named))
    return sorted(made, key=lambda cluster: cluster.keeper)


def _members(found: Alike, kinds: Sequence[str] | None) -> dict[tuple[int, str], list[int]]:
    """(best of equal rows, kind) -> these rows, best first, where there is more than one or a pair."""
    several = np.bincount(found.best, minlength=len(found.best)) > 1
    for pair in found.pairs:
        several[pair.first] = several[pair.second] = True
    members: dict[tuple[int, str], list[int]] = {}
    for i in found.order[several[found.best[found.order]]].tolist():
        members.setdefault((int(found.best[i]), "" if kinds is None else kinds[i]), []).append(i)
    return members


def components(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each row the number of its group; rows linked by a chain of duplicates are in one group.

    Chains, not stars, because a split must not cut through any pair.
    """
    found = alike([texts], None, threshold)
    parent: list[int] = found.best.tolist()

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for pair in found.pairs:
        low, high = sorted((root(pair.first), root(pair.second)))
        parent[high] = low
    number: dict[int, int] = {}
    return [number.setdefault(root(i), i) for i in range(len(parent))]


def _verified(
    columns: Sequence[Sequence[str]],
    rows: Sequence[int],
    kinds: Sequence[str] | None,
    threshold: float,
    sides: npt.NDArray[np.bool_] | None,
) -> Iterator[Pair]:
    """The near-duplicates among `rows`, which are distinct, in the order that they are given in."""

    def text(k: int) -> str:
        return exact.normalise("\n\n".join(filter(None, (column[rows[k]] for column in columns))))

    def word(k: int, normal: str) -> str:
        numbers = veto.numbers(normal)
        return numbers if kinds is None else f"{kinds[rows[k]]}\0{numbers}"

    def asked(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.clip((counts - _CHANGE) / (counts + _CHANGE), _LEAST_RARE, threshold)

    frequent = shingles.common(len(rows), text)
    proposed = shingles.candidates(len(rows), text, frequent, word, asked, sides)
    sets = _cached(lambda k: shingles.shingles(text(k)))
    for part in np.array_split(proposed, len(proposed) // _CACHED + 1):
        for a, b in part.tolist():
            value, short = _similarity(sets(a), sets(b), frequent, threshold)
            first, second = rows[a], rows[b]
            if not value or (kinds is not None and kinds[first] != kinds[second]):
                continue
            if len(columns) == 1:
                same = veto.differs(columns[0][first], columns[0][second], short) is None
            else:
                same = all(_like(column[first], column[second], frequent, threshold) for column in columns)
            if same:
                yield Pair(first, second, value)


def _cached(make: Callable[[int], frozenset[str]]) -> Callable[[int], frozenset[str]]:
    """`make`, remembering what was made last, in bounded memory whatever the texts' lengths."""
    made: dict[int, frozenset[str]] = {}
    size = 0

    def get(k: int) -> frozenset[str]:
        nonlocal size
        found = made.get(k)
        if found is None:
            if size > _CACHED:
                made.clear()
                size = 0
            found = made[k] = make(k)
            size += len(found)
        return found

    return get


def _like(a: str, b: str, frequent: frozenset[str], threshold: float) -> bool:
    """Whether two texts are equal or near."""
    ours, theirs = exact.normalise(a), exact.normalise(b)
    if ours == theirs:
        return True
    value, short = _similarity(shingles.shingles(ours), shingles.shingles(theirs), frequent, threshold)
    return bool(value) and veto.differs(a, b, short) is None


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
