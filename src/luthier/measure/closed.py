"""Closed answer sets: when the answers of a data set are labels, and which. The one definition of it.

The doctor, the splitter, prediction and evaluation ask the same question and must get the same answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

LONGEST, MOST, COVER = 60, 1000, 0.8


def labels(answers: Sequence[str]) -> tuple[str, ...] | None:
    """The labels, most frequent first, when answers are few short words that recur; None for free text.

    Labels are the answers that occur at least twice, at most 60 characters on one line; with their variants
    they must cover 80 % of the rows and be at most 1,000, and at most half as many as the rows.
    """
    counts = Counter(answers)
    short = {a: n for a, n in counts.items() if n > 1 and a.strip() and len(a) <= LONGEST and "\n" not in a}
    if not 2 <= len(short) <= min(MOST, len(answers) // 2) or sum(short.values()) < COVER * len(answers):
        return None
    return tuple(sorted(short, key=lambda a: (-short[a], a)))
