"""How a key is declared: a dataclass field whose metadata holds help, choices and limits."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["str", "int", "float", "bool", "strs", "floats", "map"]
Limits = tuple[float | None, float | None]

_KINDS: dict[Any, Kind] = {str: "str", int: "int", float: "float", bool: "bool"}


@dataclass(frozen=True)
class Key:
    """One key of the schema.

    kind: how a written value is read; "strs" and "floats" are tuples, written as a list or with commas,
    "map" is a mapping or a JSON object · optional: null is allowed · limits: smallest and largest value,
    both allowed · aliases: other spellings of a value (lower case) -> the value meant · cosmetic: changes
    what is shown or kept, never what is computed, so that a resumed run may differ in it.
    """

    name: str
    kind: Kind
    optional: bool
    default: Any
    section: str
    help: str
    choices: tuple[Any, ...] = ()
    aliases: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limits: Limits = (None, None)
    cosmetic: bool = False


def key(
    default: Any,
    help: str,
    choices: tuple[Any, ...] = (),
    *,
    aliases: Mapping[str, Any] | None = None,
    limits: Limits = (None, None),
    cosmetic: bool = False,
) -> Any:
    """Declare a key as the field of a section; see `Key` for the arguments."""
    metadata = {
        "help": help,
        "choices": choices,
        "aliases": aliases or {},
        "limits": limits,
        "cosmetic": cosmetic,
    }
    return dataclasses.field(default=default, metadata=metadata)


def keys_of(section: type, title: str) -> dict[str, Key]:
    """The keys that a section's dataclass declares, in order."""
    hints = typing.get_type_hints(section)
    found = {}
    for f in dataclasses.fields(section):
        kind, optional = _kind(hints[f.name])
        found[f.name] = Key(f.name, kind, optional, f.default, title, **f.metadata)
    return found


def _kind(hint: Any) -> tuple[Kind, bool]:
    optional = isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
    if optional:
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is tuple:
        return ("floats" if typing.get_args(hint)[0] is float else "strs"), optional
    return _KINDS.get(hint, "map"), optional
