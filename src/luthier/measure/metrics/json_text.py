"""JSON as models write it: alone, in a code fence, or with words around it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

Form = Literal["whole", "fence", "embedded", "none"]
_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[\[{]")
_ATTEMPTS = 200  # brackets that are looked at in one text
_DEEPEST = 100  # objects and lists within each other; deeper ones are runaway text, not an answer


@dataclass(frozen=True)
class Found:
    """value: an object or a list, None where form is "none"."""

    value: Any
    form: Form


def parse(text: str) -> Found:
    """The JSON object or list of a text, and in which form it stands there.

    "whole": the text is nothing else · "fence": the first code fence that holds one · "embedded": the longest
    one among other words. NaN and Infinity are no JSON.
    """
    whole = _load(text.strip())
    if whole is not None:
        return Found(whole, "whole")
    for inside in _FENCE.findall(text):
        value = _load(inside.strip())
        if value is not None:
            return Found(value, "fence")
    found = every(text)
    if found:
        return Found(max(found, key=lambda piece: piece[2] - piece[1])[0], "embedded")
    return Found(None, "none")


def every(text: str) -> list[tuple[Any, int, int]]:
    """All objects and lists in a text that are not inside another, with where they begin and end."""
    found: list[tuple[Any, int, int]] = []
    at = _OPENING.search(text)
    for _ in range(_ATTEMPTS):
        if at is None:
            break
        start = end = at.start()
        try:
            value, end = _DECODER.raw_decode(text, start)
            if not _deep(value, _DEEPEST):
                found.append((value, start, end))
        except (ValueError, RecursionError):
            end = start + 1
        at = _OPENING.search(text, end)
    return found


def same(value: Any) -> str:
    """A text that is equal for equal JSON values: 1 and 1.0 are equal, 1 and true and "1" are not."""
    return json.dumps(_plain(value), ensure_ascii=False, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


def _load(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return None
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return None if _deep(value, _DEEPEST) else value


def _deep(value: Any, left: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left == 0 or any(_deep(v, left - 1) for v in inside)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
