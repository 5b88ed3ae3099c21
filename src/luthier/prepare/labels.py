"""Labels: how often each occurs, and answers that are almost a label.

Pure counting; which answers are labels says `measure.closed`, whether one is right for its row `noise`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.measure import closed
from luthier.prepare import exact
from luthier.prepare.exact import Ref

RARE = 10
_STRAY = re.compile(r"[^\w+#%&*@=<>/$€£¥-]|_|-(?![0-9])")
_HAN = re.compile("[\u3400-\u9fff]")

Why = Literal["form", "spelling", "wrapped", "script"]


@dataclass(frozen=True, slots=True)
class Class:
    """One label: its rows, their share of all rows, and whether they are too few (fewer than 10)."""

    label: str
    count: int
    share: float
    rare: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """The classes of a closed answer set, most frequent first.

    ratio: largest over smallest class · evenness: entropy over its maximum (Pielou, 1966), 1.0 when all
    classes are equally frequent.
    """

    classes: tuple[Class, ...]
    ratio: float
    evenness: float


@dataclass(frozen=True, slots=True)
class AlmostLabel:
    """An answer that is probably meant to be a label.

    why: "form" (blanks, case, width or punctuation) · "spelling" (one letter) · "wrapped" (the label among
    other words) · "script" (a label of another language; `label` is then "" because nothing tells which).
    """

    answer: str
    label: str
    why: Why
    rows: tuple[Ref, ...]


def balance(answers: Sequence[str]) -> Balance:
    """How often each answer occurs. Fewer than 10 rows are too few to learn from, to split and to score."""
    counts = Counter(answers)
    total = max(1, len(answers))
    classes = tuple(
        Class(label, count, count / total, count < RARE)
        for label, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    if len(classes) < 2:
        return Balance(classes, 1.0, 1.0)
    entropy = -sum(c.share * math.log(c.share) for c in classes)
    return Balance(classes, classes[0].count / classes[-1].count, entropy / math.log(len(classes)))


def almost(answers: Sequence[str], sources: Sequence[str] | None = None) -> list[AlmostLabel]:
    """Answers that look like another, more frequent one; [] where the answers are no closed set."""
    meant = variants(answers)
    names = exact.refs(len(answers), sources) if meant else []
    rows: dict[str, list[Ref]] = {}
    for name, answer in zip(names, answers, strict=False):
        if answer in meant:
            rows.setdefault(answer, []).append(name)
    found = [AlmostLabel(answer, label, why, tuple(rows[answer])) for answer, (label, why) in meant.items()]
    return sorted(found, key=lambda one: one.rows[0])


def variants(answers: Sequence[str]) -> dict[str, tuple[str, Why]]:
    """Answer that looks like another, more frequent one -> (that label or "", why), as in AlmostLabel."""
    if closed.labels(answers) is None:
        return {}
    counts = Counter(answers)
    forms: dict[str, str] = {}
    found: dict[str, tuple[str, Why]] = {}
    for answer in sorted(counts, key=lambda a: (-counts[a], a)):
        form = _form(answer)
        if form in forms and form:
            found[answer] = forms[form], "form"
        else:
            forms[form] = answer
    typical = {form: counts[answer] for form, answer in forms.items()}
    usual = {form: count for form, count in typical.items() if count >= 3 and form}
    for form, answer in forms.items():
        meant = _meant(form, typical[form], usual) if form else None
        if meant is not None:
            label, why = meant
            found[answer] = forms.get(label, ""), why
    return {answer: (_end(label, found), why) for answer, (label, why) in found.items()}


def _end(label: str, found: Mapping[str, tuple[str, Why]]) -> str:
    """What a label that is itself almost another one is meant to be."""
    while label in found:
        label = found[label][0]
    return label


def _form(answer: str) -> str:
    """Without what a reader would not notice: width, case, blanks and punctuation (but "C#" is not "C")."""
    text = unicodedata.normalize("NFKC", answer).casefold()
    return _STRAY.sub("", text)


def _meant(form: str, count: int, usual: Mapping[str, int]) -> tuple[str, Why] | None:
    """The usual label, at least five times as frequent, that an answer is meant to be, and why."""
    frequent = [label for label, n in usual.items() if n >= 5 * count]
    if not frequent:
        return None
    alike = [label for label in frequent if len(label) >= 5 and -1 <= len(label) - len(form) <= 1]
    near = [label for label in alike if len(form) >= 5 and _one_letter_off(form, label)]
    if len(near) == 1:
        return near[0], "spelling"
    inside = [label for label in frequent if len(label) >= 2 and label in form]
    longest = [label for label in inside if not any(label != other and label in other for other in inside)]
    if len(longest) == 1:
        return longest[0], "wrapped"
    others = [label for label in frequent if bool(_HAN.search(label)) != bool(_HAN.search(form))]
    mixed = any(bool(_HAN.search(label)) == bool(_HAN.search(form)) for label in frequent)
    if others and not mixed and not form.isdigit():
        return "", "script"
    return None


def _one_letter_off(a: str, b: str) -> bool:
    """One letter changed, added, left out, or two neighbours swapped (Damerau-Levenshtein distance 1).

    The lengths may differ by one.
    """
    if a == b or a.isdigit() or b.isdigit():
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    swapped = rest_a[:2] == rest_b[1::-1] and rest_a[2:] == rest_b[2:]
    return swapped or rest_a[1:] == rest_b[1:] or rest_a[1:] == rest_b or rest_a == rest_b[1:]
