"""Which known texts are nearest to a text: TF-IDF over character n-grams, in any language, with numpy only.

Characters rather than words, so that Chinese needs no segmentation and "refunded" is near "refund". A text is
the set of its 2- and 3-grams (white space, case and width folded, a blank at both ends), each weighted with
(1 + ln tf) · ln(1 + N / df) (Salton and Buckley, 1988, Information Processing and Management 24:513), hashed
into 2^20 dimensions (Weinberger et al., 2009, ICML); the similarity is the cosine. On 3,080 questions of 77
intents the nearest of 10,003 has the right intent in 82.7 % (with 4-grams in 81.3 %).

Memory: at most `_GRAMS` n-grams of a text are kept, those with most weight, of at most `_LONGEST` characters,
so 100,000 texts of any length need about 1 GB while they are read. Time: the most frequent n-grams are a
matrix, whose product is quick; of the others a question looks only at the texts that share them. 3,000
questions to 100,000 short texts take 10 s of one core.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_SIZES = (2, 3)
_BITS = 20
_GRAMS = 256
_LONGEST = 1000
_SAMPLE = 10_000  # texts in which n-grams are counted for their weights
_DENSE, _OFTEN = 256, 16  # at most so many n-grams that are in one of so many texts
_BATCH = 2000  # texts hashed at a time: 60 MB where all are of the greatest length
_ASKED = 64  # questions compared at a time: a row of similarities each
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, TAOCP 6.4)

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Index:
    """The texts [N] that are searched: a matrix of frequent n-grams, lists of (text, weight) of others."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        # Weights are needed before all is counted: n-grams of long texts would not all fit into memory.
        sample = texts[:: max(1, self._count // _SAMPLE)]
        df = sum(
            (np.bincount(grams, minlength=1 << _BITS) for _, grams, _ in _counted(sample)),
            np.zeros(1 << _BITS, np.int64),
        )
        self._idf = np.log1p(len(sample) / np.maximum(df, 1)).astype(np.float32)
        weighted = [_weighted(*batch, self._idf) for batch in _counted(texts)]
        rows, grams, weights = (np.concatenate(part) for part in zip(*weighted, strict=True))
        del weighted
        often = np.argsort(-df, kind="stable")[:_DENSE]
        often = often[df[often] > len(sample) / _OFTEN]
        self._column = np.full(1 << _BITS, -1, np.int64)
        self._column[often] = np.arange(len(often))
        columns = self._column[grams]
        dense, rare = columns >= 0, columns < 0
        self._dense = np.zeros((len(often), self._count), np.float32)
        self._dense[columns[dense], rows[dense]] = weights[dense]
        order = np.flatnonzero(rare)[np.argsort(grams[rare], kind="stable")]
        self._rows, self._weights = rows[order], weights[order]
        self._begin = np.concatenate([[0], np.cumsum(np.bincount(grams[rare], minlength=1 << _BITS))])

    def nearest(self, texts: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """For each text the min(k, N) nearest: (place among the index's texts, similarity in 0..1).

        Nearest first; of equally near ones the earlier first.
        """
        k, found = min(k, self._count), list[list[tuple[int, float]]]()
        if k < 1:
            return [[] for _ in texts]
        for start in range(0, len(texts), _ASKED):
            similar = self._similar(texts[start : start + _ASKED])
            found += [_best(one, k) for one in similar]
        return found

    def _similar(self, texts: Sequence[str]) -> Floats:
        """Cosines [texts, N]."""
        ((rows, grams, weights),) = (_weighted(*batch, self._idf) for batch in _counted(texts))
        columns = self._column[grams]
        dense, rare = columns >= 0, columns < 0
        asked = np.zeros((len(texts), len(self._dense)), np.float32)
        asked[rows[dense], columns[dense]] = weights[dense]
        similar: Floats = asked @ self._dense
        begin, count = self._begin[grams], self._begin[grams + 1] - self._begin[grams]
        for place, one in enumerate(similar):
            mine = np.flatnonzero(rare & (rows == place))
            spans = [slice(begin[i], begin[i] + count[i]) for i in mine]
            if not spans:
                continue
            theirs = np.concatenate([self._weights[span] for span in spans])
            products = theirs * np.repeat(weights[mine], count[mine])
            one += np.bincount(
                np.concatenate([self._rows[span] for span in spans]), products, minlength=self._count
            )
        return similar


def _best(similar: Floats, k: int) -> list[tuple[int, float]]:
    least = np.partition(similar, len(similar) - k)[len(similar) - k]
    places = np.flatnonzero(similar >= least)
    order = places[np.argsort(-similar[places], kind="stable")][:k]
    return [(int(place), float(np.clip(similar[place], 0, 1))) for place in order]


Counted = tuple[Ints, Ints, Floats]
"""Side by side, sorted by text: the text's place, one of its n-grams (0 .. 2^20 - 1), and a number for it."""


def _counted(texts: Sequence[str]) -> Iterator[Counted]:
    """The n-grams of each text with their counts, a batch of texts at a time (one batch at least)."""
    for start in range(0, max(len(texts), 1), _BATCH):
        batch = [folded(text) for text in texts[start : start + _BATCH]]
        codes = np.frombuffer("".join(batch).encode("utf-32-le"), np.uint32).astype(np.uint64)
        ends = np.cumsum([len(text) for text in batch], dtype=np.int64)
        owner = np.repeat(np.arange(len(batch), dtype=np.int64), [len(text) for text in batch])
        keys = [np.empty(0, np.int64)]
        for size in _SIZES:
            inside = np.arange(max(len(codes) - size + 1, 0), dtype=np.int64)
            inside = inside[inside + size <= ends[owner[inside]]]
            mixed = np.full(len(inside), size, np.uint64)
            for step in range(size):
                mixed = (mixed ^ codes[inside + step]) * _MULTIPLIER
                mixed ^= mixed >> np.uint64(29)
            grams = (mixed * _MULTIPLIER >> np.uint64(64 - _BITS)).astype(np.int64)
            keys.append(owner[inside] << _BITS | grams)
        unique, counts = np.unique(np.concatenate(keys), return_counts=True)
        rows, grams = (unique >> _BITS) + start, unique & ((1 << _BITS) - 1)
        yield rows.astype(np.int32), grams.astype(np.int32), counts.astype(np.float32)


def _weighted(rows: Ints, grams: Ints, counts: Floats, idf: Floats) -> Counted:
    """The n-grams of most weight of each text, with weights of length 1 in the Euclidean norm."""
    weights = (1 + np.log(counts)) * idf[grams]
    order = np.lexsort((-weights, rows))
    rows, grams, weights = rows[order], grams[order], weights[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < _GRAMS
    rows, grams, weights = rows[kept], grams[kept], weights[kept]
    if len(rows):
        norms = np.sqrt(np.bincount(rows - rows[0], weights=weights.astype(np.float64) ** 2))
        weights = (weights / norms[rows - rows[0]]).astype(np.float32)
    return rows, grams, weights


def folded(text: str) -> str:
    """Case, width and white space folded, with a blank at both ends, so that beginnings of words count."""
    words = unicodedata.normalize("NFKC", text[:_LONGEST]).casefold().split()
    return f" {' '.join(words)} "[: _LONGEST + 2]
