"""Texts as sets of character 5-grams, their MinHash signatures, and pairs that probably resemble each other.

Characters rather than words, so that Chinese needs no segmentation. A text shorter than one shingle is its
own shingle ("cat" is not "dog"). Signatures come from rensa (the only place that imports it); pairs from
locality-sensitive hashing: rows that agree in all 3 values of one of 64 bands are candidates, which a pair of
Jaccard similarity s becomes with probability 1 - (1 - s^3)^64: 0.98 at 0.4, 0.9998 at 0.5, 5e-4 at 0.02.
(Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4.)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import MissingPackage

SIZE = 5
_BANDS, _WIDTH, _SEED = 64, 3, 20_240_229
_PAD = "\U0010ffff"  # no character, and none in any text
_MULTIPLIERS = np.random.default_rng(_SEED).integers(0, 2**63, SIZE, dtype=np.uint64) * 2 + 1
_BATCH_CHARACTERS, _BATCH_ROWS = 2_000_000, 8_000
# What more rows than this share is the form of the question (an instruction, a template), not its content.
COMMON_ROWS, COMMON_SHARE = 25, 0.01
_SAMPLE, _SAMPLE_CHARACTERS, _SAMPLE_TOTAL = 10_000, 4_000, 4_000_000
_SLOTS = 1 << 20
# In a bucket of more rows than this only neighbours and the first row are compared.
_WINDOW = 8
_PAIRS = 200_000

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Text = Callable[[int], str]
"""Row -> its text, made when it is asked for: copies of a million texts would double their memory."""


def shingles(text: str) -> frozenset[str]:
    """The set of a text's character 5-grams; the text itself when it is shorter; {""} for no text."""
    if len(text) <= SIZE:
        return frozenset((text,))
    return frozenset(text[i : i + SIZE] for i in range(len(text) - SIZE + 1))


def common(count: int, text: Text) -> frozenset[str]:
    """Shingles that more than 1 % of the rows (and more than 25) have, counted on up to 10,000 rows."""
    sample = [text(i)[:_SAMPLE_CHARACTERS] for i in range(0, count, max(1, count // _SAMPLE))]
    sample = sample[:: sum(map(len, sample)) // _SAMPLE_TOTAL + 1]
    hashes, offsets = _hashes(sample)
    rows = np.repeat(np.arange(len(sample)), np.diff(offsets))
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    once = np.ones(len(order), bool)  # a shingle counts once in a row
    once[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    _, first, counts = np.unique(hashes[once], return_index=True, return_counts=True)
    chosen = order[once][first[counts > max(COMMON_ROWS, COMMON_SHARE * len(sample))]]
    places = zip((np.searchsorted(offsets, chosen, "right") - 1).tolist(), chosen.tolist(), strict=True)
    return frozenset(sample[row][at - int(offsets[row]) :][:SIZE] for row, at in places)


def candidates(
    count: int,
    text: Text,
    frequent: frozenset[str],
    word: Callable[[int, str], str],
    asked: Callable[[Places], npt.NDArray[np.float64]],
    sides: npt.NDArray[np.bool_] | None = None,
) -> Places:
    """Pairs of rows [n, 2], first < second, that probably share enough shingles besides the `frequent` ones.

    text: row -> its text, compared as it stands (normalised before) · word: (row, text) -> only rows with the
    same word can be a pair · asked: the similarity that a pair needs, from its smaller number of shingles;
    pairs that by their signatures have less (by three standard deviations of the estimate) are left out ·
    sides: only pairs of a row where it is False with one where it is True. In a bucket of many rows the
    first is compared with all others, so put the rows that matter most first.
    Memory: 460 bytes a row; no text is kept. Raises MissingPackage without rensa.
    """
    keys, signatures, counts = _index(count, text, frequent, word)
    found = np.empty(0, np.int64)
    fresh: list[Places] = []
    for band in range(_BANDS):
        lists = _same_key(keys[band]) if sides is None else _across(keys[band], sides)
        for codes in lists:
            parts = np.array_split(codes, len(codes) // _PAIRS + 1)
            fresh += [_probable(part, signatures, counts, asked) for part in parts]
        if sum(map(len, fresh)) > len(found) or band == _BANDS - 1:  # merged when it pays, as it is a sort
            found, fresh = np.unique(np.concatenate([found, *fresh])), []
    return np.stack(np.divmod(found, max(1, count)), axis=1)


def _index(
    count: int, text: Text, frequent: frozenset[str], word: Callable[[int, str], str]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Of each text: a number per band [bands, n], its signature as bytes [n, values], its shingles [n]."""
    digest = _rensa().digest_matrix_from_flat_token_hashes
    known = np.unique(_hashes(list(frequent))[0]) if frequent else np.empty(0, np.uint64)
    keys = np.empty((_BANDS, count), np.uint32)
    signatures = np.empty((count, _BANDS * _WIDTH), np.uint8)
    counts = np.empty(count, np.int32)
    mix = _MULTIPLIERS[:_WIDTH]
    for start, batch in _batches(count, text):
        here = slice(start, start + len(batch))
        flat, offsets = _informative(*_hashes(batch), known)
        values = np.array(
            digest(flat, offsets.astype(np.uint64), _BANDS * _WIDTH, _SEED).to_rows(), np.uint64
        )
        words = (
            zlib.crc32(word(start + i, one).encode("utf-8", "surrogatepass")) for i, one in enumerate(batch)
        )
        bands = (values.reshape(len(batch), _BANDS, _WIDTH) * mix).sum(axis=2, dtype=np.uint64)
        bands += (np.fromiter(words, np.uint64, len(batch)) * mix[0])[:, None]
        keys[:, here] = (_scramble(bands) >> np.uint64(32)).T
        signatures[here] = values & np.uint64(255)
        counts[here] = np.diff(offsets)
    return keys, signatures, counts


def _probable(
    codes: Places,
    signatures: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int32],
    asked: Callable[[Places], npt.NDArray[np.float64]],
) -> Places:
    """The pairs first * n + second whose signatures agree enough (b-bit MinHash, Li and König, 2010)."""
    first, second = np.divmod(codes, max(1, len(counts)))
    agree = (signatures[first] == signatures[second]).mean(axis=1)
    need = asked(np.minimum(counts[first], counts[second]).astype(np.int64))
    enough: npt.NDArray[np.bool_] = agree >= need - 3 * np.sqrt(need * (1 - need) / signatures.shape[1])
    return codes[enough]


def _batches(count: int, text: Text) -> Iterator[tuple[int, list[str]]]:
    batch: list[str] = []
    start = size = 0
    for i in range(count):
        batch.append(text(i))
        size += len(batch[-1])
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_ROWS:
            yield start, batch
            batch, start, size = [], i + 1, 0
    if batch:
        yield start, batch


def _hashes(texts: Sequence[str]) -> tuple[Hashes, Places]:
    """64-bit hashes of all shingles of all texts, one after the other, and where each text begins [n + 1]."""
    padded = [text if len(text) >= SIZE else text.ljust(SIZE, _PAD) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    counts = lengths - SIZE + 1
    offsets = np.concatenate(([0], np.cumsum(counts)))
    flat = np.zeros(max(0, len(points) - SIZE + 1), np.uint64)
    for k in range(SIZE):
        flat += points[k : k + len(flat)] * _MULTIPLIERS[k]
    inside = np.arange(int(offsets[-1])) + np.repeat(np.arange(len(texts)) * (SIZE - 1), counts)
    return _scramble(flat[inside]), offsets  # without those that reach into the next text


def _informative(flat: Hashes, offsets: Places, known: Hashes) -> tuple[Hashes, Places]:
    """Without the `known` hashes, except in rows that have no others."""
    if not len(known):
        return flat, offsets
    low = np.uint64(_SLOTS - 1)
    slots = np.zeros(_SLOTS, np.uint64)  # a table by the last bits is much faster than a binary search
    slots[known & low] = known
    keep = slots[flat & low] != flat
    others = known[slots[known & low] != known]
    if len(others):  # two in one slot
        crowded = np.zeros(_SLOTS, bool)
        crowded[others & low] = True
        rest = np.flatnonzero(keep & crowded[flat & low])
        keep[rest] = ~np.isin(flat[rest], others)
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    left = np.bincount(rows[keep], minlength=len(offsets) - 1)
    keep |= (left == 0)[rows]
    counts = np.bincount(rows[keep], minlength=len(offsets) - 1)
    return flat[keep], np.concatenate(([0], np.cumsum(counts)))


def _scramble(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every input bit changes every output bit (Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _same_key(keys: npt.NDArray[np.uint32]) -> Iterator[Places]:
    """Pairs of rows with an equal key, each as first * n + second, in several lists."""
    count = len(keys)
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    heads = np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))
    head = np.repeat(heads, np.diff(np.concatenate((heads, [count]))))
    later = np.flatnonzero(head != np.arange(count))
    yield order[head[later]] * count + order[later]
    for distance in range(1, _WINDOW):
        later = later[later - distance > head[later]]
        yield order[later - distance] * count + order[later]


def _across(keys: npt.NDArray[np.uint32], sides: npt.NDArray[np.bool_]) -> Iterator[Places]:
    """Pairs of rows on different sides with an equal key, each as first * n + second, in several lists.

    A row is paired with the first and the last few of the other side's rows of its bucket.
    """
    count = len(keys)
    ours, theirs = np.flatnonzero(~sides), np.flatnonzero(sides)
    order = ours[np.argsort(keys[ours], kind="stable")]
    low, high = (np.searchsorted(keys[order], keys[theirs], side) for side in ("left", "right"))
    for distance in range(_WINDOW):
        some = high - low > distance
        matches = order[low[some] if not distance else high[some] - distance]
        pair = np.sort(np.stack((matches, theirs[some])), axis=0)
        yield pair[0] * count + pair[1]


def _rensa() -> Any:
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise MissingPackage("rensa", "finding near-duplicates", "data") from error
    return RMinHash
