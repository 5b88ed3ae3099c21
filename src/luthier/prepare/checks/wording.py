"""How varied texts are: distinct n-grams, growth of the vocabulary, and how texts begin."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.prepare import measure, pii

DISTINCT_UNITS, LEAST_UNITS = 20_000, 2_000
GROWTH_UNITS, LONGEST = 200_000, 1_000_000
POOR = 0.2
STEPS = 8
_OPENING = re.compile(rf"\s*([{measure.SINGLE}].{{3}}|\S+\s+\S+\s+\S+)", re.DOTALL)


@dataclass(frozen=True)
class Wording:
    """Figures of a sample of texts. A unit is a word, or one Han, kana or Hangul character.

    distinct: n -> distinct over all n-grams (Li et al. 2016, arXiv:1510.03055), of the first 20,000 units: it
    falls as texts get more, so only figures of equal size may be compared · growth: (units read, distinct
    units among them), at eighths · heaps: exponent of Heaps' law from its second half; 0 when nothing new
    comes · entropy: of units, in bits · units: how many the figures are of.
    """

    units: int
    distinct: dict[int, float]
    growth: tuple[tuple[int, int], ...]
    heaps: float
    entropy: float

    @property
    def vocabulary(self) -> int:
        return self.growth[-1][1] if self.growth else 0

    @property
    def enough(self) -> bool:
        """Whether there is enough text to judge by."""
        return self.units >= LEAST_UNITS

    @property
    def poor(self) -> bool:
        """Far fewer distinct pairs than in free text, which has 0.5 to 0.8 of 20,000 units.

        Questions that are all about one thing have 0.36 and fall with the fourth root of the size; so does
        the limit.
        """
        size = min(self.units, DISTINCT_UNITS)
        return self.enough and self.distinct[2] < POOR * (DISTINCT_UNITS / size) ** 0.25


def wording(texts: Sequence[str]) -> Wording:
    """Figures of `texts`, which should be in random order; at most the first 200,000 units are read."""
    all_units: list[str] = []
    grams: dict[int, list[int]] = {n: [0, 0] for n in (1, 2, 3)}
    seen: dict[int, set[tuple[str, ...]]] = {n: set() for n in grams}
    for text in texts:
        if len(all_units) >= GROWTH_UNITS:
            break
        here = measure.units(text[:LONGEST].lower())[: GROWTH_UNITS - len(all_units)]
        if room := max(0, DISTINCT_UNITS - len(all_units)):
            for n, count in grams.items():
                found = list(zip(*(here[at:room] for at in range(n)), strict=False))
                seen[n].update(found)
                count[0] += len(found)
        all_units += here
    distinct = {n: len(seen[n]) / max(1, count[0]) for n, count in grams.items()}
    growth = _growth(all_units)
    return Wording(len(all_units), distinct, growth, _heaps(growth), _entropy(Counter(all_units)))


def _growth(units: Sequence[str]) -> tuple[tuple[int, int], ...]:
    seen: set[str] = set()
    points, last = [], 0
    for step in range(1, STEPS + 1):
        until = len(units) * step // STEPS
        seen.update(units[last:until])
        points.append((until, len(seen)))
        last = until
    return tuple(points) if units else ()


def _heaps(growth: Sequence[tuple[int, int]]) -> float:
    """V(n) = K n^h, so h is the logarithm of V(n) / V(n / 2) to the base of 2."""
    if not growth or not growth[STEPS // 2 - 1][1]:
        return 0.0
    half, whole = growth[STEPS // 2 - 1], growth[-1]
    return math.log(whole[1] / half[1]) / math.log(whole[0] / half[0])


def _entropy(counts: Counter[str]) -> float:
    total = counts.total()
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def openings(texts: Sequence[str]) -> list[tuple[str, float]]:
    """(how a text begins, share of the texts), the ten most frequent of those that begin two texts or more.

    A beginning is three words, or four characters of a text that begins with Han, kana or Hangul. Texts that
    are shorter have none. What is private in it is masked.
    """
    found = (_OPENING.match(text) for text in texts)
    counts = Counter(" ".join(begin[1].lower().split()) for begin in found if begin)
    return [(pii.mask(begin)[0], n / len(texts)) for begin, n in counts.most_common(10) if n > 1]
