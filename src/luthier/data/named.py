"""Named chat templates: rows of templates/slots.yaml in templates/skeleton.jinja, or whole .jinja files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

_FOLDER = files("luthier.data").joinpath("templates")
_PLACES = re.compile(r"\{\{(content|bos_token|eos_token)\}\}")
_SECOND_MACRO = "{%- endmacro %}\n"


@dataclass(frozen=True)
class Slots:
    """One row of slots.yaml, with every default filled in; the keys are explained there."""

    system: str = "{{content}}"
    user: str = "{{content}}"
    assistant: str = ""
    function: str = ""
    observation: str = ""
    header: str = ""
    prefix: str = ""
    tools: str = "default"
    calls: str = ""
    default_system: str = ""
    stops: tuple[str, ...] = ()
    replace_eos: bool = False
    final_eos: bool = False
    system_in_user: bool = False
    thought: tuple[str, str] | None = None
    empty_thought: str = ""


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    import yaml

    table: dict[str, dict[str, Any]] = yaml.safe_load(_read("slots.yaml"))
    return table


def _read(name: str) -> str:
    return _FOLDER.joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def names() -> dict[str, str]:
    """Every name and alias -> the row it means."""
    found = {name: name for name in _table()}
    for name, row in _table().items():
        found.update({alias: name for alias in row.get("aliases", ())})
    for file in _FOLDER.iterdir():
        if file.name.endswith(".jinja") and file.name != "skeleton.jinja":
            found[file.name.removesuffix(".jinja")] = file.name
    return found


def slots(name: str) -> Slots:
    """The row of a name that `names` knows, with the row that it is `like` underneath."""
    row = dict(_table()[names()[name]])
    while "like" in row:
        row = {**_table()[row.pop("like")], **row}
    row.pop("aliases", None)
    row["stops"] = tuple(row.get("stops", ()))
    if "thought" in row:
        row["thought"] = tuple(row["thought"])
        row.setdefault("empty_thought", "".join(row["thought"]))
    row.setdefault("assistant", "{{content}}" if row.get("final_eos") else "{{content}}{{eos_token}}")
    row.setdefault("function", row["assistant"])
    row.setdefault("observation", row.get("user", "{{content}}"))
    row.setdefault("calls", row.get("tools", "default"))
    return Slots(**row)


@lru_cache(maxsize=64)
def text(name: str) -> str:
    """The Jinja source of a named template."""
    if names()[name].endswith(".jinja"):
        return _read(names()[name])
    row = slots(name)
    marks = {
        "thought": row.thought is not None,
        "final": row.final_eos,
        "inside": row.system_in_user,
        "outside": not row.system_in_user,
    }
    words = {
        "DEFAULT_SYSTEM": row.default_system,
        "EMPTY": row.empty_thought,
        **({"OPEN": row.thought[0], "CLOSE": row.thought[1]} if row.thought else {}),
        **(
            {"OPEN_WORD": row.thought[0].strip(), "CLOSE_WORD": row.thought[1].strip()} if row.thought else {}
        ),
    }
    values = {key: _literal(value) for key, value in words.items()}
    for key in ("prefix", "system", "user", "observation", "header", "function", "assistant"):
        values[key.upper()] = _expression(getattr(row, key))
    return _fill(_tool_macros(row), marks, values)


def _fill(macros: str, marks: dict[str, bool], values: dict[str, str]) -> str:
    lines = []
    for line in _read("skeleton.jinja").splitlines():
        if line.startswith("#"):
            mark, _, rest = line[1:].partition(" ")
            if mark == "tools":
                lines.extend(macros.splitlines())
            elif not marks[mark]:
                continue
            line = rest
        lines.append(re.sub(r"\b[A-Z_]{4,}\b", lambda m: values.get(m[0], m[0]), line))
    return "\n".join(lines) + "\n"


def _tool_macros(row: Slots) -> str:
    """The two macros `describe(tools)` and `call(tool_calls)`."""
    describe = _read(f"tools/{row.tools}.jinja").partition(_SECOND_MACRO)
    source, calls = row.calls, _read(f"tools/{row.calls}.jinja").partition(_SECOND_MACRO)[2]
    while calls.startswith("#calls "):
        source = calls.split()[1]
        calls = _read(f"tools/{source}.jinja").partition(_SECOND_MACRO)[2]
    return describe[0] + describe[1] + calls


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _expression(slot: str) -> str:
    """`a{{content}}b` -> `"a" ~ content ~ "b"`."""
    parts = [part if k % 2 else _literal(part) for k, part in enumerate(_PLACES.split(slot)) if part]
    return " ~ ".join(parts) or '""'
