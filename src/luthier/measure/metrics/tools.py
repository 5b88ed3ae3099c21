"""Tool calls: is the right function called, with the right arguments?

Calls are read from JSON (`{"name": …, "arguments": {…}}`, a list of them, OpenAI's `function` and
`tool_calls`, between `<tool_call>` tags or among words), from "Action: … Action Input: …" and from a name on
a line above its arguments. Rows whose reference calls nothing count too: they are right without a call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from luthier.measure.metrics import checked, mean, micro_f1
from luthier.measure.metrics.json_text import every, same
from luthier.measure.types import Answered, Measured
from luthier.types import ToolCall

_ACTION = re.compile(r"Action:[ \t]*(?P<name>[^\n]+?)[ \t]*\n+[ \t]*Action Input:[ \t]*", re.IGNORECASE)
_LINE = re.compile(r"(?:\A|\n)(?P<name>[A-Za-z_][\w.\-]*)[ \t]*\n[ \t]*\Z")
_ARGUMENTS = ("arguments", "parameters", "args")


def metrics(answered: Answered) -> dict[str, Measured]:
    """call_match: same functions with the same arguments, in any order · name_match: same functions ·
    argument_match: same arguments, whatever the functions · argument_f1: F1 of single arguments of right
    functions over all rows · needless_call: a call where none was wanted.
    """
    checked(answered)
    pairs = [(calls(a), calls(r)) for a, r in zip(answered.answers, answered.references, strict=True)]
    return {
        "call_match": mean([float(_whole(got) == _whole(want)) for got, want in pairs]),
        "name_match": mean([float(_names(got) == _names(want)) for got, want in pairs]),
        "argument_match": mean([float(_bare(got) == _bare(want)) for got, want in pairs]),
        "argument_f1": micro_f1([_counts(_single(got), _single(want)) for got, want in pairs]),
        "needless_call": mean([float(bool(got) and not want) for got, want in pairs], higher=False),
    }


def calls(text: str) -> list[ToolCall]:
    """The calls in a text, in their order; arguments are the parsed object, or {} where there are none."""
    found: list[ToolCall] = []
    for value, start, _ in every(text):
        named = list(_in_json(value))
        before = text[:start]
        above = None if named else _action(before) or _LINE.search(before)
        found += named or ([ToolCall(above["name"], value)] if above and isinstance(value, dict) else [])
    return found


def _action(before: str) -> re.Match[str] | None:
    """The action whose input begins where `before` ends."""
    return next((m for m in _ACTION.finditer(before) if m.end() == len(before)), None)


def _in_json(value: Any) -> Iterator[ToolCall]:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("tool_calls"), list):
            yield from _in_json(item["tool_calls"])
        elif isinstance(item.get("function"), dict):
            yield from _in_json(item["function"])
        elif isinstance(item.get("name"), str):
            for key in _ARGUMENTS:
                if key in item:
                    yield ToolCall(item["name"].strip(), _arguments(item[key]))
                    break


def _arguments(value: Any) -> Any:
    """Arguments written as a text of JSON, as OpenAI does, are the object in it."""
    if isinstance(value, str):
        found = every(value)
        return found[0][0] if len(found) == 1 else value
    return {} if value is None else value


def _names(found: list[ToolCall]) -> Counter[str]:
    return Counter(call.name for call in found)


def _whole(found: list[ToolCall]) -> Counter[tuple[str, str]]:
    return Counter((call.name, same(call.arguments)) for call in found)


def _single(found: list[ToolCall]) -> Counter[tuple[str, str, str]]:
    """Function, argument and value of each argument."""
    return Counter(
        (call.name, key, same(value))
        for call in found
        for key, value in (
            call.arguments.items() if isinstance(call.arguments, dict) else [("", call.arguments)]
        )
    )


def _bare(found: list[ToolCall]) -> Counter[tuple[str, str]]:
    """Argument and value of each argument."""
    return Counter((key, value) for (_, key, value), n in _single(found).items() for _ in range(n))


def _counts(got: Counter[Any], want: Counter[Any]) -> tuple[float, float, float]:
    return (got & want).total(), got.total(), want.total()
