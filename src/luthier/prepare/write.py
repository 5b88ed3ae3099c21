"""Rows -> a new data file of any kind that `luthier.data.sources` reads, whole or absent.

What is written is read back with equal values. Where a kind of file cannot keep a value (a table's cell is
text), the writer says so in `Writer.lost`, value by value; it never changes one without a word.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from luthier.data.sources import READERS, extension
from luthier.data.sources.json_values import WrittenFloat
from luthier.errors import DataError, UsageError
from luthier.runs import atomic

Put = Callable[[Mapping[str, Any]], None]
_CELLS, _COLUMNS = (f"luthier.prepare.{name}" for name in ("cells", "columns"))
# extension -> dotted path of a context manager (file, writer) that yields a Put
WRITERS: dict[str, str] = {
    ".json": __name__ + ":array",
    ".jsonl": __name__ + ":lines",
    ".ndjson": __name__ + ":lines",
    ".txt": __name__ + ":texts",
    ".csv": _CELLS + ":csv_file",
    ".tsv": _CELLS + ":csv_file",
    ".xlsx": _CELLS + ":workbook",
    ".parquet": _COLUMNS + ":parquet_file",
    ".arrow": _COLUMNS + ":arrow_file",
    ".feather": _COLUMNS + ":arrow_file",
}
PACKED = (".json", ".jsonl", ".ndjson", ".txt", ".csv", ".tsv")  # also as .gz
SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
HALF = re.compile("[\ud800-\udfff]")


@dataclass
class Writer:
    """An open file of rows. target: where it will be · count: rows in it · lost: what this kind of file could
    not keep, in words · warned: what is kept, but other programs read otherwise."""

    target: Path
    count: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
    put: Put = field(repr=False, default=lambda row: None)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row after the others. Raises DataError for one that this kind of file cannot hold."""
        before = self.lost[LEFT_OUT]
        try:
            self.put(row)
        except RecursionError:
            raise DataError(f"{self.place}: is nested too deeply -> flatten it") from None
        self.count += self.lost[LEFT_OUT] == before

    @property
    def place(self) -> str:
        """The next row, for messages."""
        return f"{self.target.name}:{self.count + 1}"


LEFT_OUT = "rows left out: a table has no place for a row without text, or one that repeats the header"


def check(path: Path, like: Path | None = None, overwrite: bool = False) -> None:
    """Raise UsageError where `rows` would refuse: an unknown kind, a file that exists, an input."""
    kind, target = extension(path), Path(os.path.realpath(path))
    if kind not in WRITERS:
        hint = "write .xlsx" if kind == ".xlsm" else f"use one of {', '.join(WRITERS)}"
        raise UsageError(f"{path}: files of this kind ({kind or 'no extension'}) are not written -> {hint}")
    if path.name.lower().endswith(".gz") and kind not in PACKED:
        raise UsageError(f"{path}: {kind} is packed already -> leave out .gz")
    source = Path(os.path.realpath(like)) if like is not None else None
    if source is not None and (target == source or (source.is_dir() and target.parent == source)):
        what = "is the input" if target == source else f"would become a part of the input {like}"
        raise UsageError(f"{path}: {what}, which is never changed -> give another name")
    if target.is_dir():
        raise UsageError(f"{path}: is a folder -> give a file's name, such as {path / 'rows.jsonl'}")
    if target.exists() and not overwrite:
        raise UsageError(f"{path}: exists already -> give another name, or --overwrite to replace it")


@contextmanager
def rows(path: Path, like: Path | None = None, overwrite: bool = False) -> Iterator[Writer]:
    """A Writer of the file `path`, whose extension (.gz is looked through) says of which kind it is.

    The file appears when the body ends, whole, or not at all when the body raises. like: the file or folder
    that the rows come from; it is never replaced, whatever `overwrite` says. Raises UsageError for a file
    that exists already, an input, or a kind that is not written; DataError when no row was written (an empty
    file cannot be read) or a row cannot be held; RunError when the disk refuses; MissingPackage for .xlsx.
    """
    check(path, like, overwrite)
    writer = Writer(Path(os.path.realpath(path)))
    with ExitStack() as stack:
        with atomic.explained(writer.target):
            writer.target.parent.mkdir(parents=True, exist_ok=True)
            atomic.recover(writer.target.parent, only=writer.target.name)
            folder = stack.enter_context(atomic.scratch(writer.target))
        stack.enter_context(atomic.explained(writer.target, only_disk=True))
        with _sink(path)(folder / "rows", writer) as writer.put:
            yield writer
            if not writer.count:
                raise DataError(f"{path}: there is no row to write, and a file without rows cannot be read")
        with atomic.explained(writer.target):
            atomic.settle(folder / "rows", writer.target)


def written_kind(kind: str) -> str:
    """The extension to write for an input's: its own, or .xlsx for a workbook with macros."""
    return kind if kind in WRITERS or kind not in READERS else ".xlsx"


def _sink(path: Path) -> Callable[[Path, Writer], AbstractContextManager[Put]]:
    module, _, name = WRITERS[extension(path)].partition(":")
    return cast(Callable[[Path, Writer], AbstractContextManager[Put]], getattr(import_module(module), name))


@contextmanager
def opened(file: Path, writer: Writer) -> Iterator[IO[bytes]]:
    """The new file's bytes, packed when the target's name ends in .gz (without a time: equal rows give
    equal files)."""
    with file.open("wb") as plain:
        if not writer.target.name.lower().endswith(".gz"):
            yield plain
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=plain, mtime=0) as packed:
            yield cast(IO[bytes], packed)


@contextmanager
def lines(file: Path, writer: Writer) -> Iterator[Put]:
    """JSON Lines: one object a line."""
    with opened(file, writer) as out:
        yield lambda row: _write(out, encode(row) + "\n", writer)


@contextmanager
def array(file: Path, writer: Writer) -> Iterator[Put]:
    """A JSON array, indented by two as LLaMA-Factory's files are."""
    with opened(file, writer) as out:

        def put(row: Mapping[str, Any]) -> None:
            text = encode(row, 2).replace("\n", "\n  ")  # a text's own line breaks are \n in JSON
            _write(out, (",\n  " if writer.count else "[\n  ") + text, writer)

        yield put
        out.write(b"\n]\n")


@contextmanager
def texts(file: Path, writer: Writer) -> Iterator[Put]:
    """Plain text: the field "text" of each row, one row a line."""
    with opened(file, writer) as out:

        def put(row: Mapping[str, Any]) -> None:
            text = row.get("text")
            if len(row) != 1 or not isinstance(text, str):
                raise DataError(f"{writer.place}: a .txt file holds texts alone -> write .jsonl")
            if "\n" in text or "\r" in text or not text.strip() or text.startswith("\ufeff"):
                raise DataError(f"{writer.place}: is not one line of text -> write .jsonl")
            out.write((legible(text, "text", writer) + "\n").encode())

        yield put


def _write(out: IO[bytes], text: str, writer: Writer) -> None:
    try:
        out.write(text.encode())
    except UnicodeEncodeError:  # halves of surrogate pairs: JSON has escapes for them, in keys and texts
        if SPLIT_PAIR.search(text):
            writer.lost["two halves of surrogate pairs side by side are read as one character"] += 1
        out.write(text.encode("utf-8", "backslashreplace"))


def legible(text: str, column: str, writer: Writer) -> str:
    r"""The text, for files without escapes: halves of surrogate pairs (damage) become \udc80, counted."""
    if text.isascii() or not HALF.search(text):
        return text
    writer.lost[f'"{column}": halves of surrogate pairs (damaged text) are written as escapes'] += 1
    return text.encode("utf-8", "backslashreplace").decode()


def encode(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, numbers as their file wrote them (1.10 stays 1.10: read as text it says so)."""
    if not _as_written(value):
        return json.dumps(value, ensure_ascii=False, indent=indent)
    return _encode(value, indent, "\n")


def _as_written(value: Any) -> bool:
    """Whether a number in `value` was written otherwise than Python would."""
    if isinstance(value, WrittenFloat):
        return value.written != float.__repr__(value)
    if isinstance(value, dict):
        return any(map(_as_written, value.values()))
    return isinstance(value, list | tuple) and any(map(_as_written, value))


def _encode(value: Any, indent: int | None, line: str) -> str:
    if isinstance(value, WrittenFloat) and (math.isfinite(value) or value.written[-1].isdigit()):
        return value.written
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = line + " " * indent if indent is not None else ""
    comma, end = ("," + inner, line) if indent is not None else (", ", "")
    if isinstance(value, dict):
        pairs = (
            f"{json.dumps(k, ensure_ascii=False)}: {_encode(v, indent, inner)}" for k, v in value.items()
        )
        return "{" + inner + comma.join(pairs) + end + "}"
    return "[" + inner + comma.join(_encode(item, indent, inner) for item in value) + end + "]"
