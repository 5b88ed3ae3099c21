"""JSON files -> rows: arrays, JSON Lines, concatenated objects, and an object that holds one list of rows.

The reader is incremental (memory does not grow with the file) and tolerant: a broken line costs that row,
a broken element of an array costs the rows up to the next whole one, a truncated file yields every whole
row before the cut. Each loss is a BadRow that names the line. NaN and Infinity are read; so are literal
line breaks and tabs inside strings, which strict JSON forbids but exporters write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.data.sources.encoding import LONGEST, chunks, lines, note
from luthier.data.sources.json_values import Decoder, reason
from luthier.errors import DataError
from luthier.types import BadRow

SKIP = re.compile(r"[\s,\ufeff]*")
SPACE = re.compile(r"[\s\ufeff]*")
PADDING = re.compile(r"[\s\ufeff\0;]*")  # what may follow the end
PIECE, TRIM = 1 << 12, 1 << 16  # characters
MOST_SHAPES = 16  # sets of keys that rows have had
NEXT_ROW = re.compile(r",\s*(?=\{)")
MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})
CUT = "<end of file>"  # BadRow.field of a truncated file
Item = tuple[int, Any]  # (number of the row in the file, counted from 1; its value or a BadRow)


def read_json(path: Path, notes: list[str] | None = None) -> Iterator[Item]:
    """Rows of a .json file. What kind of JSON it is, is decided by its first characters, not by its name."""
    window = Window(path, notes)
    window.fill_past_space()
    head = window.text[window.at :]
    if not head:
        return
    if head[0] == "[":
        yield from _array(window)
    elif head[0] != "{":
        raise DataError(
            f"{path}: line 1: a JSON data file begins with [ or {{, this one with {head[:20]!r}"
            " -> write one object per row, or rename the file if it is not JSON"
        )
    elif _first_line_is_whole(head):
        yield from _lines_or_container(path, notes)
    else:
        yield from _objects(window, notes)


def read_jsonl(path: Path, notes: list[str] | None = None) -> Iterator[Item]:
    """Rows of a JSON Lines file, numbered by line. A file named .jsonl that holds an array is read as one."""
    window = Window(path, notes)
    window.fill_past_space()
    head = window.text[window.at :]
    if head.startswith("["):
        note(notes, f"{path.name}: holds a JSON array, not JSON Lines; read as an array")
        yield from _array(window)
    elif head and re.match(r"\{\s*\n", head):  # pretty-printed objects, one after another
        yield from _objects(window, notes)
    else:
        yield from _json_lines(path, notes)


class Window:
    """A sliding piece of the file's text: `text[at:]` is not read yet, `line` is the line of `text[0]`."""

    def __init__(self, path: Path, notes: list[str] | None) -> None:
        self.path, self.chunks, self.decode = path, chunks(path, notes), Decoder()
        self.text, self.at, self.line, self.done, self.ended = "", 0, 1, 0, False

    def fill(self) -> bool:
        """Drop what was read, and append as much again as is held (up to LONGEST, which is enough to see that
        a row is too long). False at the end of the file."""
        self.line += self.text.count("\n", 0, self.at)
        self.done += self.at
        parts = [self.text[self.at :]]
        self.text, self.at = "", 0  # before the pieces are joined: there is no third copy
        wanted = max(1, min(len(parts[0]), LONGEST - len(parts[0])))
        while wanted > 0 and not self.ended:
            chunk = next(self.chunks, None)
            self.ended = chunk is None
            if chunk is not None:
                parts.append(chunk)
                wanted -= len(chunk)
        grown = len(parts) > 1
        self.text = "".join(parts)
        return grown

    def fill_past_space(self, space: re.Pattern[str] = SPACE) -> None:
        """Move to the next character that is not space, reading on as needed."""
        while True:
            self.at = space.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches anything
            if self.at < len(self.text) or not self.fill():
                return

    def trim(self) -> None:
        """Drop what was read: the line of an error is counted from the beginning of `text`."""
        if self.at > TRIM:
            self.line += self.text.count("\n", 0, self.at)
            self.done += self.at
            self.text, self.at = self.text[self.at :], 0

    def offset(self) -> int:
        """The position in the file's text of what is not read yet."""
        return self.done + self.at

    def line_at(self, position: int) -> int:
        """The line (from 1) of a position in `text`."""
        return self.line + self.text.count("\n", 0, position)


def _array(window: Window) -> Iterator[Item]:
    """Elements of a top-level array. Raises DataError for text after it, which may be more rows."""
    number, shapes = 0, set[frozenset[str]]()
    window.at += 1
    while True:
        window.fill_past_space(SKIP)
        if window.at >= len(window.text):
            yield number + 1, _truncated(window, "array")
            return
        if window.text[window.at] == "]":
            break
        window.trim()
        number, at = number + 1, window.offset()
        value = _element(window, "array")
        if window.offset() > at:
            if isinstance(value, dict) and len(shapes) < MOST_SHAPES:
                shapes.add(frozenset(value))
            yield number, value
        elif value.field == CUT or not _resynchronise(window, shapes):
            yield number, value
            return
        else:
            line = window.line_at(window.at)
            yield number, replace(value, reason=f"{value.reason}; the next row is in line {line}")
    window.at += 1
    window.fill_past_space(PADDING)
    if window.at < len(window.text):
        raise DataError(
            f"{window.path}: line {window.line_at(window.at)}: more text after the JSON array:"
            f" {window.text[window.at :][:20]!r} -> write one array, or one object per line (.jsonl)"
        )


def _element(window: Window, kind: str) -> Any:
    """The value at the window's position, which moves past it; a BadRow (position kept) when it is broken."""
    while True:
        try:
            value, window.at = window.decode(window.text, window.at)
            return value
        except json.JSONDecodeError as error:
            why = reason(error, window.line_at(error.pos))  # before fill() moves the text
            if _may_be_cut(window, error, window.at):
                if window.fill():
                    continue
                if not window.text.rstrip().endswith("]" if kind == "array" else "}"):
                    return _truncated(window, kind)
            return BadRow("", "", why)


def _may_be_cut(window: Window, error: json.JSONDecodeError, start: int) -> bool:
    """Whether an error may only mean that the window ends too early (16: longer than any literal)."""
    at_the_end = error.msg.startswith("Unterminated") or error.pos >= len(window.text) - 16
    return at_the_end and len(window.text) - start < LONGEST


def _truncated(window: Window, kind: str) -> BadRow:
    line = window.line_at(len(window.text.rstrip()))
    return BadRow("", CUT, f"the file is truncated at line {line}: the JSON {kind} does not end")


def _resynchronise(window: Window, shapes: set[frozenset[str]]) -> bool:
    """Move to the next element that is whole and looks like a row before; False when there is none."""
    position = window.at + 1
    while True:
        found = NEXT_ROW.search(window.text, position)
        if found is None:
            window.at, position = (
                max(position, len(window.text) - 256),
                0,
            )  # a separator may lie across the seam
            if not window.fill():
                return False
            continue
        position = found.end()
        if _hopeless(window, position):
            continue
        try:
            value, _ = window.decode(window.text, position)
        except json.JSONDecodeError as error:
            window.at = found.start()
            if _may_be_cut(window, error, window.at):
                position = 0 if window.fill() else len(found.group())
            continue
        if _like_a_row(value.data if isinstance(value, BadRow) else value, shapes):
            window.at = position
            return True


def _hopeless(window: Window, position: int) -> bool:
    """Whether what begins here is broken within a few characters: an error costs as much as the text before
    it is long (its line is counted), and there may be one at every comma."""
    piece = window.text[position : position + PIECE]
    try:
        window.decode(piece)
    except json.JSONDecodeError as error:
        return not error.msg.startswith("Unterminated") and error.pos < len(piece) - 16
    return False


def _like_a_row(value: Any, shapes: set[frozenset[str]]) -> bool:
    """Whether an object has at least half of the keys of some row before (and is not a part of one)."""
    if not isinstance(value, dict):
        return False
    if not shapes:
        return not _is_message(value)
    return any(2 * len(keys & value.keys()) >= len(keys) for keys in shapes)


def _first_line_is_whole(head: str) -> bool:
    """True when the first line is a JSON object of its own, or is broken in itself rather than continued."""
    first, newline, _ = head.partition("\n")
    try:
        _, end = Decoder()(first)
    except json.JSONDecodeError as error:
        return (
            bool(newline) and error.pos < len(first.rstrip()) - 1 and not error.msg.startswith("Unterminated")
        )
    return not first[end:].lstrip(" \t,").startswith("{")  # several objects in one line


def _json_lines(path: Path, notes: list[str] | None) -> Iterator[Item]:
    unended: Item | None = None  # a line that stops too early: a bad row, or, as the last one, a cut file
    decode = Decoder()
    for number, line in enumerate(lines(path, notes), 1):
        text = line.strip("\ufeff \t\r\n\0")
        if not text:
            if "\0" in line:
                note(notes, f"{path.name}: line {number} holds only NUL characters, as a crash leaves them")
            continue
        if unended is not None:
            yield unended
            unended = None
        try:
            value, end = decode(text)
        except json.JSONDecodeError as error:
            bad = number, BadRow("", "", reason(error, number), text[:1000])
            if _stops_early(error, text):
                unended = bad
            else:
                yield bad
            continue
        more = text[end:].strip()
        if more == ",":
            note(notes, f"{path.name}: lines end with commas, which are left out")
        elif more:
            why = f"line {number}: more text after the JSON object: {more[:40]!r}"
            value = BadRow("", "", f"{why} -> write one object per line", text[:1000])
        yield number, value
    if unended is not None:
        why = f"the file is truncated at line {unended[0]}: the JSON object does not end"
        yield unended[0], replace(unended[1], field=CUT, reason=why)


def _stops_early(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text could have made an object of it."""
    return text.startswith("{") and (error.msg.startswith("Unterminated") or error.pos >= len(text) - 1)


def _lines_or_container(path: Path, notes: list[str] | None) -> Iterator[Item]:
    """JSON Lines, unless the file is one line whose object holds the list of rows."""
    rows = _json_lines(path, notes)
    first = next(rows, None)
    second = next(rows, None)
    if first is not None and second is None and isinstance(first[1], dict):
        yield from _unpack(first[1], path, notes)
        return
    yield from (item for item in (first, second) if item is not None)
    yield from rows


def _objects(window: Window, notes: list[str] | None) -> Iterator[Item]:
    """Objects spread over lines, one after another; a single one may hold the list of rows."""
    number, first = 0, None
    while True:
        window.fill_past_space(SKIP)
        if window.at >= len(window.text):
            break
        number, at = number + 1, window.offset()
        value = _closed(window) if window.text[window.at] == "]" else _element(window, "object")
        if window.offset() == at and value.field != CUT:
            raise DataError(
                f"{window.path}: {value.reason}; what follows cannot be told apart"
                " -> repair it, or write one object per line (.jsonl)"
            )
        if number == 1:
            first = value
            continue
        if first is not None:
            yield 1, first
            first = None
        yield number, value
        if window.offset() == at:
            return
    if isinstance(first, dict):
        yield from _unpack(first, window.path, notes)
    elif first is not None:
        yield 1, first


def _closed(window: Window) -> BadRow:
    line = window.line_at(window.at)
    window.at += 1
    return BadRow("", "", f"line {line}: a ] without its [ -> write [ before the first row")


def _unpack(value: dict[str, Any], path: Path, notes: list[str] | None) -> Iterator[Item]:
    """The rows of a file that is one object: its only list of objects, or itself as the only row."""
    lists = [
        key for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)
    ]
    others = [key for key, item in value.items() if isinstance(item, str) and len(item) > 200]
    if len(lists) == 1 and not others and not _is_part(lists[0], value[lists[0]][0]):
        note(notes, f'{path.name}: one JSON object; its rows are the list under "{lists[0]}"')
        yield from enumerate(value[lists[0]], 1)
    elif len(lists) > 1 and not others and not any(_is_part(key, value[key][0]) for key in lists):
        names = ", ".join(f'"{key}"' for key in lists)
        raise DataError(f"{path}: one object with several lists of rows ({names}) -> save each as a file")
    else:
        yield 1, value


def _is_part(key: str, first: Any) -> bool:
    """Whether a list of objects is a field of a row, not a list of rows."""
    return _is_message(first) or key in ("tools", "functions")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and any(keys <= set(value) for keys in MESSAGE_KEYS)
