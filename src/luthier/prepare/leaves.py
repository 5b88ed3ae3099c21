"""The texts of a row as it stands in its file: where each is, who says it, and how a new one is put there.

Cleaning works on these and not on Examples, so that what it writes keeps the file's own format, the names
of its columns and everything that training does not read. What is no text (a number, null) is no leaf. Tool
calls and tool descriptions are none either: changing them would break what they name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier.data.formats.messages import roles as accepted_roles
from luthier.data.spec import OPENAI_TAGS, DatasetSpec
from luthier.prepare.span import Change, whole

Path = tuple[str | int, ...]
Said = Literal["system", "user", "assistant", "rejected", "tool", "text", "other"]
ROLES: tuple[Said, ...] = ("system", "user", "assistant", "rejected", "tool", "text", "other")
"""Who says a text; "rejected" is the worse answer of a pair, "other" a column that training does not read."""
_FIELDS: dict[str, tuple[tuple[str, Said], ...]] = {
    "alpaca": (("system", "system"), ("prompt", "user"), ("query", "user"), ("response", "assistant")),
    "sharegpt": (("system", "system"),),
    "openai": (("system", "system"),),
    "text": (("prompt", "text"),),
}
_TURNS: dict[str, Said] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A text of a row.

    path: the keys and positions that lead to it ("conversations", 2, "value") · inside: where a cell holds
    JSON as text, as tables must, the place within that JSON; `path` then leads to the cell.
    """

    path: Path
    role: Said
    text: str
    inside: Path = ()

    @property
    def shown(self) -> str:
        """The place in words, as luthier writes it everywhere: conversations[2].value"""
        return shown((*self.path, *self.inside))


def shown(path: Sequence[str | int]) -> str:
    """A path in words: conversations[2].value"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def leaves(data: Mapping[str, Any], spec: DatasetSpec, stage: str) -> Iterator[Leaf]:
    """The texts of `data`, in the order in which the format's columns are read, then those of other columns.

    A row that is not as its format wants it gives those that can be found: what is wrong in one place does
    not keep private data in another from being seen.
    """
    read = set()
    for found in _read(data, spec, stage):
        read.add(found.path[0])
        yield found
    known = {name for name in _columns(spec).values() if name}
    for name, value in data.items():
        if isinstance(value, str) and name not in known and name not in read:
            yield Leaf((name,), "other", value)


def _read(data: Mapping[str, Any], spec: DatasetSpec, stage: str) -> Iterator[Leaf]:
    names = _columns(spec)
    for key, role in _FIELDS.get(str(spec.formatting), ()):
        name = names.get(key) or ""
        if key == "prompt" and names.get("history"):
            yield from _history(data, str(names["history"]))
        if isinstance(value := data.get(name), str):
            yield Leaf((name,), "text" if stage == "pt" else role, value)
    if names.get("messages"):
        name = str(names["messages"])
        yield from _in_cell((name,), data.get(name), spec.tags)
    for key in ("chosen", "rejected") if spec.ranking else ():
        if name := names.get(key) or "":
            for leaf in _ending((name,), data.get(name), spec):
                worse = key == "rejected" and leaf.role == "assistant"
                yield dataclasses.replace(leaf, role="rejected") if worse else leaf


def _columns(spec: DatasetSpec) -> dict[str, str | None]:
    """Columns that the format reads: a spec names all, with defaults that another format would read."""
    names = dict(spec.columns)
    chat = spec.formatting in ("sharegpt", "openai")
    unread = {"prompt", "query", "response", "history"} if chat else {"messages"}
    unread |= {"response"} if spec.ranking else {"chosen", "rejected"}
    return {key: None if key in unread else name for key, name in names.items()}


def _history(data: Mapping[str, Any], name: str) -> Iterator[Leaf]:
    inside, value = _json(data.get(name))
    for i, pair in enumerate(value if isinstance(value, list) else ()):
        for k, text in enumerate(pair if isinstance(pair, list) else ()):
            role: Said = "assistant" if k else "user"
            if isinstance(text, str):
                yield Leaf((name,), role, text, (i, k)) if inside else Leaf((name, i, k), role, text)


def _ending(path: Path, value: Any, spec: DatasetSpec) -> Iterator[Leaf]:
    """The better or worse answer of a pair: a text, a message, or messages."""
    if isinstance(value, str):
        yield Leaf(path, "assistant", value)
        return
    first = value[0] if isinstance(value, list) and value else value
    plain = spec.formatting == "alpaca" and isinstance(first, Mapping) and "role" in first
    tags = OPENAI_TAGS if plain else spec.tags
    if isinstance(value, Mapping):
        yield from _message(path, value, tags)
    else:
        yield from _messages(path, value, tags)


def _in_cell(path: Path, value: Any, tags: Mapping[str, str | None]) -> Iterator[Leaf]:
    """Messages, which a cell of a table can hold only as JSON text."""
    inside, parsed = _json(value)
    for leaf in _messages(() if inside else path, parsed, tags):
        yield Leaf(path, leaf.role, leaf.text, leaf.path) if inside else leaf


def _json(value: Any) -> tuple[bool, Any]:
    """(the value was JSON text, what it says)."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return False, value
    try:
        return True, json.loads(value, strict=False)
    except (ValueError, RecursionError):  # the reader says what is wrong with it
        return False, value


def _messages(path: Path, messages: Any, tags: Mapping[str, str | None]) -> Iterator[Leaf]:
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, Mapping):
            yield from _message((*path, i), message, tags)


def _message(path: Path, message: Mapping[str, Any], tags: Mapping[str, str | None]) -> Iterator[Leaf]:
    name = message.get(str(tags.get("role_tag")))
    tag, role = accepted_roles(tags).get(name, ("", "user")) if isinstance(name, str) else ("", "user")
    said = _TURNS.get(role, "user")
    if isinstance(thought := message.get("reasoning_content"), str):
        yield Leaf((*path, "reasoning_content"), said, thought)
    key = str(tags.get("content_tag"))
    content = message.get(key)
    if isinstance(content, str) and tag != "function_tag":
        yield Leaf((*path, key), said, content)
    for i, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, str):
            yield Leaf((*path, key, i), said, part)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            yield Leaf((*path, key, i, "text"), said, part["text"])


def put(data: Any, leaf: Leaf, text: str, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Write the new `text` of a leaf, which `changes` lead to, into `data`.

    Returns the changes of the value at `leaf.path`: `changes` themselves, or, for a text inside a cell of
    JSON, the one change of the cell.
    """
    if not leaf.inside:
        replace(data, leaf.path, text)
        return changes
    old = at(data, leaf.path)
    parsed = json.loads(old, strict=False)
    replace(parsed, leaf.inside, text)
    dumped = json.dumps(parsed, ensure_ascii=False)
    new = dumped.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair stays an escape
    replace(data, leaf.path, new)
    return tuple(whole(changes[0].kind, old, new))


def at(data: Any, path: Sequence[str | int]) -> Any:
    """The value at `path`. Raises LookupError or TypeError when there is none."""
    for part in path:
        data = data[part]
    return data


def replace(data: Any, path: Sequence[str | int], text: str) -> None:
    """Put `text` at `path`, where there is a text by now."""
    at(data, path[:-1])[path[-1]] = text
