"""Numbers: the number that an answer ends with, and whether it is near enough to the reference's."""

from __future__ import annotations

import math
import re
import unicodedata

from luthier.measure.metrics import mean, wanted
from luthier.measure.types import Answered, Measured

_DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<minus>(?<![\w)）])[-−]\s?)?[$¥€£]?(?P<digits>{_DIGITS})(?P<power>[eE][-+]?\d+(?![\w]))?"
    rf"(?:\s?/\s?(?P<under>{_DIGITS}))?\s?(?P<unit>[%‰万亿])?"
)
# What follows the last of these is the result of what stands before it.
_RESULT = re.compile(r"####|\\boxed\{|答案(?:应该)?(?:是|为)?[:：]?|(?i:\banswer\b(?:\s+is)?:?)")
_UNITS = {"%": 0.01, "‰": 0.001, "万": 1e4, "亿": 1e8}


def metrics(answered: Answered, relative: float = 1e-6, absolute: float = 1e-9) -> dict[str, Measured]:
    """Share of answers within `relative` or `absolute` of the reference, and share that name no number.

    Raises DataError for a reference without a number.
    """
    right = wanted(answered, number, "names no number -> mend the row, or name the task")
    got = [number(answer) for answer in answered.answers]
    near = [
        g is not None and abs(g - w) <= max(relative * abs(w), absolute)
        for g, w in zip(got, right, strict=True)
    ]
    return {
        "number_match": mean([float(row) for row in near]),
        "no_number": mean([float(g is None) for g in got], higher=False),
    }


def number(text: str) -> float | None:
    """The number that a text comes to, or None: the first after "####", \\boxed{ or "答案是", else its last.

    "1,234.5", "3/4", "1e-3", "50%" (0.5), "3.5万" (35,000) and wide digits are read, numbers in words not.
    """
    text = unicodedata.normalize("NFKC", text)
    marks = list(_RESULT.finditer(text))
    after = _NUMBER.search(text, marks[-1].end()) if marks else None
    found = after or next(reversed(list(_NUMBER.finditer(text))), None)
    if found is None:
        return None
    value = _value(found["digits"] + (found["power"] or ""))
    if found["under"]:
        under = _value(found["under"])
        if under == 0:
            return None
        value /= under
    value *= _UNITS.get(found["unit"] or "", 1.0)
    value = -value if found["minus"] else value
    return value if math.isfinite(value) else None


def _value(digits: str) -> float:
    return float(digits.replace(",", ""))
