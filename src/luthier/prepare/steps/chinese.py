"""Traditional and simplified Chinese, by OpenCC (its only door)."""

from __future__ import annotations

import functools
from collections.abc import Callable

from luthier.errors import MissingPackage, UsageError
from luthier.prepare.span import Change, whole
from luthier.prepare.steps import Outcome, outcome

DIRECTIONS = ("t2s", "s2t", "tw2s", "tw2sp", "s2tw", "s2twp", "hk2s", "s2hk")


def chinese_conversion(text: str, direction: str = "t2s") -> Outcome:
    """Converts `text` by phrases, not character by character (OpenCC, Apache-2.0, dictionaries included).

    Pitfall: simplified to traditional is one to many (发: 發 or 髮), so the result is a guess; from
    traditional to simplified almost nothing is lost. "tw2sp" and "s2twp" also change words (軟體, 软件).
    Names, quotations and Japanese (学 and 學 are both right there) suffer, so the step is off unless asked
    for, and a text with kana is left alone. Raises UsageError for an unknown direction.
    """
    if direction not in DIRECTIONS:
        raise UsageError(f"chinese_conversion: no direction {direction!r} -> one of {', '.join(DIRECTIONS)}")
    if text.isascii() or any("\u3041" <= sign <= "\u30ff" and sign not in "・ー" for sign in text):
        return Outcome(text)
    new = _converter(direction)(text)
    if len(new) != len(text):
        return outcome(text, (new, whole("chinese", text, new)))
    changes, start = [], 0
    for at in range(len(text) + 1):
        if at < len(text) and text[at] != new[at]:
            continue
        if start < at:
            changes.append(Change("chinese", start, at, text[start:at], new[start:at]))
        start = at + 1
    return outcome(text, (new, changes))


@functools.cache
def _converter(direction: str) -> Callable[[str], str]:
    try:
        import opencc
    except ImportError as missing:
        raise MissingPackage("opencc", "converting traditional and simplified Chinese", "data") from missing
    convert: Callable[[str], str] = opencc.OpenCC(direction).convert
    return convert
