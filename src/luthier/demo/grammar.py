"""Sentences from templates.

`(a|b)` picks one alternative and may be nested; `<name>` is filled from the table of slots. Within one
sentence (or one question and its answer) a slot keeps its value, so that an answer can repeat what was
asked; `<name#2>` is a second, different value of the same slot. A slot whose values are records is read
with `<name.field>`. "#" in a value becomes a random digit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

Slots = Mapping[str, Sequence[Any]]

_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"<(\w+)(#\d+)?(?:\.(\w+))?>")


def table(name: str) -> Any:
    """A data file of the demo."""
    import yaml

    return yaml.safe_load(files("luthier.demo").joinpath("data", name).read_text(encoding="utf-8"))


def expand(template: str, slots: Slots, rng: random.Random, bound: dict[str, Any] | None = None) -> str:
    """One sentence of `template`; `bound` carries the slots' values from a question to its answer."""
    values = {} if bound is None else bound
    while "(" in template:
        reduced = _ALTERNATIVES.sub(lambda found: rng.choice(found[1].split("|")), template)
        if reduced == template:
            raise ValueError(f"unbalanced parentheses in the template {template!r}")
        template = reduced

    def fill(found: re.Match[str]) -> str:
        name, tag, field = found[1], found[2] or "", found[3]
        if name + tag not in values:
            values[name + tag] = _pick(name, slots, rng, values)
        value = values[name + tag]
        return str(value[field] if field else value)

    text = re.sub(" +", " ", _SLOT.sub(fill, template)).strip()  # an empty alternative leaves two spaces
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def _pick(name: str, slots: Slots, rng: random.Random, bound: Mapping[str, Any]) -> Any:
    """A value of the slot that none of its other tags has yet."""
    taken = [value for key, value in bound.items() if key.split("#")[0] == name]
    value = rng.choice([value for value in slots[name] if value not in taken])
    if isinstance(value, str):
        return re.sub("#", lambda _: str(rng.randrange(10)), value)
    return value
