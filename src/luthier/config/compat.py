"""LLaMA-Factory's and transformers' names that are not keys of the schema: the table in compat.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from luthier.config.schema import KEYS

Status = Literal["same", "translated", "ignored", "refused"]


@dataclass(frozen=True)
class Row:
    """What becomes of one foreign name.

    to: the key that it means · values: written value (lower case) -> value of that key, others ask for
    nothing · because: the reason, as the end of a sentence · use: what to write instead · default: the value
    that asks for nothing in the other program.
    """

    name: str
    status: Status
    to: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""
    use: str = ""
    default: Any = None

    def asks_nothing(self, value: Any) -> bool:
        """True for the other program's default: nothing was asked for, so nothing needs saying."""
        words = str(value).lower()
        if words in ("none", "null", "") or words == str(self.default).lower():
            return True
        return self.status == "refused" and words == "false"


@lru_cache(maxsize=1)
def keys() -> dict[str, Row]:
    """Foreign key -> its row."""
    return _rows("keys")


@lru_cache(maxsize=1)
def environment() -> dict[str, Row]:
    """Environment variable -> its row; `because` of a row that is the same says what reads it."""
    return _rows("env")


def _rows(part: str) -> dict[str, Row]:
    import yaml

    text = resources.files("luthier.config").joinpath("compat.yaml").read_text("utf-8")
    rows = {}
    for group in yaml.safe_load(text)[part]:
        common = {k: group[k] for k in ("status", "because", "use") if k in group}
        names = group["keys"] if isinstance(group["keys"], dict) else dict.fromkeys(group["keys"])
        for name, detail in names.items():
            rows[name] = Row(name=name, **common, **_detail(group["status"], part, detail))
    return rows


def _detail(status: str, part: str, detail: Any) -> dict[str, Any]:
    if status == "translated":
        return dict(detail)
    return {"because": detail} if status == "same" and part == "env" else {"default": detail}


def is_flag(name: str) -> bool:
    """True when `--name` may stand alone on the command line."""
    if name in KEYS:
        return KEYS[name].kind == "bool"
    row = keys().get(name)
    if row is None:
        return False
    if row.status == "translated":
        return "true" in row.values or KEYS[row.to].kind == "bool"
    return isinstance(row.default, bool)


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of `names`, or "" when none is similar."""
    known = {n.lower(): n for n in names}
    found = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return known[found[0]] if found else ""
