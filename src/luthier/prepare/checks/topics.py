"""What texts are about: clusters of texts that share words, each named by what sets it apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from luthier.errors import MissingPackage
from luthier.prepare import measure

LEAST_ROWS, MOST_ROWS, MOST_TOPICS = 100, 20_000, 20
_BITS, _DIMENSIONS, _CHARACTERS, _NAMED_BY = 15, 24, 400, 300
_PLAIN_WORDS = measure.ENGLISH | frozenset(
    "what how why who when where which will would can could should does did has had have been being there"
    " their they them then than some any all each its his her she him our your out about into from but were"
    " more most one two get got just like use used using make made given give want need know tell please such"
    " other these those also only over very much many come".split()
)
_PLAIN_SIGNS = frozenset(
    "的了是在我你您他她它们有和与或不个这那一二三为以对于中上下到也就都而及其之很要会可能请用使给将把被让从如何什么吗呢"
)


@dataclass(frozen=True, slots=True)
class Topic:
    """name: its most characteristic words, at most three · count: texts of the sample in it."""

    name: str
    count: int


def topics(texts: Sequence[str], seed: int = 42) -> list[Topic]:
    """Clusters of `texts` (at most 20,000), the largest first; [] for fewer than 100 texts.

    Hashed units and pairs of units of the first 400 characters, weighted by TF-IDF (so what every text begins
    with weighs nothing), in 24 dimensions (truncated SVD) by spherical k-means. How many clusters there are
    is set beforehand, by the number of texts, so their number says nothing; their sizes do. Raises
    MissingPackage without scikit-learn.
    """
    if len(texts) < LEAST_ROWS:
        return []
    text, decomposition, cluster, preprocessing = _sklearn()
    count = max(4, min(MOST_TOPICS, round(math.sqrt(len(texts) / 8))))
    hashing = text.HashingVectorizer(
        analyzer=_terms, n_features=2**_BITS, alternate_sign=False, norm=None, lowercase=False
    )
    weighted = text.TfidfTransformer(sublinear_tf=True).fit_transform(hashing.transform(texts))
    svd = decomposition.TruncatedSVD(_DIMENSIONS, n_iter=2, random_state=seed)
    points = preprocessing.normalize(svd.fit_transform(weighted))
    means = cluster.MiniBatchKMeans(count, n_init=3, max_iter=30, random_state=seed)
    members: dict[int, list[str]] = {}
    for one, group in zip(texts, means.fit_predict(points).tolist(), strict=True):
        members.setdefault(group, []).append(one)
    groups = sorted(members.values(), key=len, reverse=True)
    names = _names(groups)
    return [Topic(name, len(group)) for name, group in zip(names, groups, strict=True)]


def _terms(text: str) -> list[str]:
    units = measure.units(text[:_CHARACTERS].lower())
    return units + [f"{a} {b}" for a, b in pairwise(units)]


def _words(text: str) -> set[str]:
    """What may name a topic: words of three letters or more, and pairs of Han characters."""
    units = measure.units(text[:_CHARACTERS].lower())
    words = {unit for unit in units if len(unit) > 2 and unit.isalpha() and unit not in _PLAIN_WORDS}
    han = [unit if "\u3400" <= unit <= "\u9fff" and unit not in _PLAIN_SIGNS else "" for unit in units]
    return words | {a + b for a, b in pairwise(han) if a and b}


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """Three words for each group: frequent in it, rare in the others (share x logarithm of the lift)."""
    counts = [Counter(word for text in group[:_NAMED_BY] for word in _words(text)) for group in groups]
    sizes = [min(len(group), _NAMED_BY) for group in groups]
    overall: dict[str, float] = {}
    for count, size, group in zip(counts, sizes, groups, strict=True):
        for word, n in count.items():
            overall[word] = overall.get(word, 0.0) + n * len(group) / size
    total = sum(map(len, groups))
    names = []
    for count, size in zip(counts, sizes, strict=True):
        score = {w: n / size * math.log(n / size * total / overall[w]) for w, n in count.items() if n > 1}
        names.append(_three(sorted(score, key=lambda w: (-score[w], w))))
    return names


def _three(words: Sequence[str]) -> str:
    """The first three that do not overlap: 奥运 and 运会 are pieces of one word, shown as 奥运会."""
    kept: list[str] = []
    for word in words[:12]:
        joined = next((i for i, other in enumerate(kept) if _overlap(other, word)), None)
        if joined is not None:
            kept[joined] = _overlap(kept[joined], word)
        elif len(kept) < 3:
            kept.append(word)
    return " · ".join(kept) or "…"


def _overlap(one: str, other: str) -> str:
    """Two pieces of Chinese text, of which one goes on where the other ends, as one; "" otherwise."""
    if one.isascii() or other.isascii() or len(one) > 3:
        return ""
    if one[-1] == other[0]:
        return one + other[1:]
    return other + one[1:] if other[-1] == one[0] else ""


def _sklearn() -> tuple[Any, Any, Any, Any]:
    """The one door to scikit-learn of this module."""
    try:
        from sklearn import cluster, decomposition, preprocessing
        from sklearn.feature_extraction import text
    except ImportError as missing:
        raise MissingPackage("scikit-learn", "finding topics", "data") from missing
    return text, decomposition, cluster, preprocessing
