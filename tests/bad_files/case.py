"""What a bad file is: how it is written, and what must come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Texts = tuple[Any, ...]
LONG = 2000  # characters (and turns) above which a text (a conversation) is compared by its digest

ROWS = [
    {"instruction": "你好，请问几点开门？", "output": "您好！早上九点。"},
    {"instruction": "a, b", "output": 'say "c"\nd'},
]
GOOD: list[Texts] = [("你好，请问几点开门？", "您好！早上九点。"), ("a, b", 'say "c"\nd')]
CSV = 'instruction,output\n你好，请问几点开门？,您好！早上九点。\n"a, b","say ""c""\nd"\n'


@dataclass(frozen=True)
class Case:
    """write: puts the file(s) into an empty folder and returns what is to be read, a name in that folder.

    kept: the texts of the examples, in order; "system: …" and "tool: …" for such turns, "call: …" for calls,
    the verdict of a KTO row last · bad: (row or "file:row", field, part of the reason) of each refused row ·
    notes: a part of each note, besides the one that says which format was recognised · refused: a part of
    the error with which the whole file is refused; what was read before it is in `kept` and `bad`.
    as_nobody: read without root's right to read everything · meanwhile: done when the first row was read.
    """

    write: Callable[[Path], str]
    kept: Sequence[Texts] = ()
    bad: Sequence[tuple[int | str, str, str]] = ()
    notes: Sequence[str] = ()
    refused: str = ""
    stage: str = "sft"
    as_nobody: bool = False
    meanwhile: Callable[[Path], object] | None = None


def file(content: str | bytes, name: str = "d.json") -> Callable[[Path], str]:
    """A writer of one file."""

    def write(folder: Path) -> str:
        (folder / name).write_bytes(
            content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        )
        return name

    return write


def made(make: Callable[[], str | bytes], name: str = "d.json") -> Callable[[Path], str]:
    """A writer of one file whose content is made when it is needed, as it is large."""
    return lambda folder: file(make(), name)(folder)


def listed(rows: Any, **entry: Any) -> Callable[[Path], str]:
    """A writer of rows with their entry "d" in dataset_info.json."""

    def write(folder: Path) -> str:
        (folder / "d.json").write_text(dumps(rows), encoding="utf-8")
        info = {"d": {"file_name": "d.json", **entry}}
        (folder / "dataset_info.json").write_text(dumps(info), encoding="utf-8")
        return "d"

    return write


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def jsonl(rows: Sequence[Any]) -> str:
    return "".join(dumps(row) + "\n" for row in rows)


def pair(number: int) -> dict[str, str]:
    return {"instruction": f"question {number}", "output": f"answer {number}"}


def asked(*numbers: int) -> list[Texts]:
    """What `pair` of each number is as an example."""
    return [(f"question {number}", f"answer {number}") for number in numbers]


def human(value: Any) -> dict[str, Any]:
    return {"from": "human", "value": value}


def gpt(value: Any) -> dict[str, Any]:
    return {"from": "gpt", "value": value}


def say(role: Any, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def shortened(texts: Sequence[Any]) -> list[Any]:
    """Texts as they are compared: long ones, and very many, by length and digest."""
    if len(texts) > LONG:
        return [
            len(texts),
            hashlib.sha256("\0".join(map(str, texts)).encode("utf-8", "surrogatepass")).hexdigest(),
        ]
    return [_short(text) for text in texts]


def _short(text: Any) -> Any:
    if not isinstance(text, str) or len(text) <= LONG:
        return text
    return [len(text), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]
