"""A written value -> the type of its key, with LLaMA-Factory's ways of writing it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from luthier.config.compat import nearest
from luthier.config.schema import Key

_TRUE, _FALSE, _NULL = (
    ("true", "yes", "on", "1", "y"),
    ("false", "no", "off", "0", "n"),
    ("none", "null", "~"),
)
_LARGEST = 2**63  # what generators, tokenizers and tensors can count to


def coerce(key: Key, value: Any, raw: str | list[str] | None = None) -> Any:
    """`value` in the type of `key`; `raw` is what was written, which text keys prefer ("007" is no number).

    "True", "none", "1e-4" and comma lists in strings mean what they say. Raises ValueError with words that
    complete the sentence "KEY ...".
    """
    if raw is not None:
        value = _as_written(key, value, raw)
    if _is_null(key, value):
        return () if key.kind in ("strs", "floats") else None if key.optional else key.default
    alias = key.aliases.get(str(value).lower()) if not isinstance(value, list | dict) else None
    if alias is not None:
        value = alias
    found = _READERS[key.kind](value, key)
    for one in found if isinstance(found, tuple) else (found,):
        _check(key, one)
    return found if found != ("none",) else ()


def _as_written(key: Key, value: Any, raw: str | list[str]) -> Any:
    """What a key that holds text makes of its value: `#1`, `[a]`, `1e5` and `yes` can be names."""
    if key.kind not in ("str", "strs", "floats") or (isinstance(value, bool) and key.aliases):
        return value
    if isinstance(raw, list):
        return raw if key.kind == "strs" else value
    if isinstance(value, list) and key.kind != "str":
        return value
    return raw if raw.strip() else None


def _is_null(key: Key, value: Any) -> bool:
    if value is None:
        return True
    words = str(value).strip().lower()
    return isinstance(value, str) and words in _NULL and words not in key.choices and words not in key.aliases


def _bool(value: Any, key: Key) -> bool:
    words = str(value).strip().lower()
    if words in _TRUE or words in _FALSE:
        return words in _TRUE
    raise ValueError(f"must be true or false, not {_show(value)}")


def _int(value: Any, key: Key) -> int:
    number = _number(value, "a whole number")
    if number != int(number):
        raise ValueError(f"must be a whole number, not {_show(value)}")
    if abs(number) >= _LARGEST:
        raise ValueError(f"must be smaller, not {_show(value)}")
    return value if isinstance(value, int) else int(number)  # a float has 53 bits, a seed may have 63


def _float(value: Any, key: Key) -> float:
    number = _number(value, "a number")
    # Counts that may also be fractions (save_steps) have an int as default and stay whole.
    return int(number) if isinstance(key.default, int) and number == int(number) else number


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {what}, not {_show(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"must be {what}, not {_show(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"must be finite, not {_show(value)}")
    return number


def _str(value: Any, key: Key) -> str:
    if isinstance(value, list | dict):
        raise ValueError(f"must be text, not {_show(value)}")
    return value if isinstance(value, str) else json.dumps(value)


def _strs(value: Any, key: Key) -> tuple[str, ...]:
    listed = isinstance(value, list | tuple)  # names in a list may hold commas, and blanks at their ends
    items = value if listed else [item.strip() for item in str(value).split(",")]
    if isinstance(value, dict) or any(isinstance(i, list | dict) for i in items):
        raise ValueError(f"must be names with commas between them, not {_show(value)}")
    return tuple(text for item in items if (text := str(item)).strip())


def _floats(value: Any, key: Key) -> tuple[float, ...]:
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(float(_number(item, "numbers with commas between them")) for item in items)


def _map(value: Any, key: Key) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"must be a mapping or a JSON object, not {_show(value)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping, not {_show(value)}")
    return {str(k): v for k, v in value.items()}


_READERS = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "strs": _strs,
    "floats": _floats,
    "map": _map,
}


def _check(key: Key, value: Any) -> None:
    if key.choices and value not in key.choices:
        near = nearest(str(value), [str(c) for c in key.choices])
        hint = f" (nearest: {near})" if near else ""
        raise ValueError(f"must be one of {', '.join(str(c) for c in key.choices)}, not {_show(value)}{hint}")
    low, high = key.limits
    if low is not None and value < low:
        raise ValueError(f"must be at least {low:g}, not {_show(value)}")
    if high is not None and value > high:
        raise ValueError(f"must be at most {high:g}, not {_show(value)}")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
