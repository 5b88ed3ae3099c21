"""The ledger of a cleaning: one line for each text that changed and each row that went, enough to undo it.

A line is a JSON object: source ("train.json:17"), in (the row's number in the input, from 1), out (its number
in the output; null when it was removed), step, and

- for a changed text: path (["conversations", 2, "value"]) and changes, each {kind, start, end, before, after}
  with offsets in characters of the text as the step found it;
- for a suggestion: path and suggested, each {kind, start, end, shown};
- for a removed row: reason and row, as it was after the changes listed before; a row that could not be read
  at all has raw, what the reader made of it.

The last line is the account: rows in and out, and the sha256 of the output, so that a file that was edited
later is not mistaken for it. `before` and `row` are the real data, private parts included.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from luthier.data import sources
from luthier.data.sources.json_values import Decoder
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError
from luthier.prepare import leaves, numbered
from luthier.prepare.pipeline import Event
from luthier.prepare.span import Change, apply
from luthier.prepare.write import encode
from luthier.runs import hashing
from luthier.types import BadRow

SUFFIX = ".ledger.jsonl"
VERSION = 1


def of(output: Path) -> Path:
    """Where the ledger of an output is: beside it."""
    return output.with_name(output.name + SUFFIX)


class Journal:
    """A ledger while it is written, readable by its owner alone. path: None keeps none."""

    def __init__(self, path: Path | None) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        self._file = None if path is None else open(os.open(path, flags, 0o600), "wb")  # noqa: SIM115

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, source: str, before: int, after: int | None, events: Sequence[Event]) -> None:
        """The events of one row, whose number was `before` and is now `after`."""
        for event in events:
            line: dict[str, Any] = {"source": source, "in": before, "out": after, "step": event.step}
            if event.removed:
                line["reason"] = event.reason
                line["row" if isinstance(event.row, dict) else "raw"] = event.row
            else:
                line["path"] = list(event.path)
            if event.changes:
                line["changes"] = [asdict(change) for change in event.changes]
            if event.suggested:
                line["suggested"] = [asdict(span) for span in event.suggested]
            self._put(line)

    def close(self, account: Mapping[str, Any]) -> None:
        """The last line. The rest is on the disk when this returns."""
        self._put({"luthier": "clean", "version": VERSION, **account})
        if self._file is not None:
            self._file.flush()

    def _put(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write((encode(line) + "\n").encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Wanted:
    """What to undo. steps, rows: () for all."""

    steps: tuple[str, ...] = ()
    rows: numbered.Rows = ()

    def has(self, line: Mapping[str, Any]) -> bool:
        if self.steps and line["step"] not in self.steps:
            return False
        return not self.rows or numbered.has(self.rows, str(line["source"]))


@dataclass
class Undone:
    """The account of an undo. changes: texts put back · rows: rows brought back · kept: (source, step, path)
    of what could not be undone because a later step changed the same place · lost: rows that could never be
    read, so that they are only in the original file."""

    changes: int
    rows: int
    kept: list[tuple[str, str, str]]
    lost: list[str]


def account(output: Path) -> dict[str, Any]:
    """The last line of the ledger of `output`. Raises DataError when there is none that fits it."""
    path = of(output)
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such ledger -> a cleaning can be undone that was not told --ledger none,"
            " with its ledger beside its output"
        )
    with path.open("rb") as file:
        last = deque(file, 1)
    found = _parsed(path, last.pop()) if last else {}
    if found.get("luthier") != "clean" or found.get("version") != VERSION:
        raise DataError(f"{path}: is no whole ledger of a cleaning -> take it from where it came")
    if found["sha256"] != hashing.sha256_file(output):
        raise DataError(
            f"{output}: has changed since it was cleaned, so its rows cannot be told from the ledger's"
            " -> undo an unchanged copy of it, or clean the original again with other steps"
        )
    return found


def undo(output: Path, total: int, wanted: Wanted, done: Undone) -> Iterator[dict[str, Any]]:
    """The rows of `output` with what is `wanted` undone, in the order of the input.

    total: rows of the input · done: receives the account. Raises DataError when the ledger is damaged.
    """
    rows = _rows(output)
    lines = _by_row(of(output))
    number, entries = next(lines, (0, []))
    for place in range(1, total + 1):
        mine: list[dict[str, Any]] = []
        if number == place:
            mine = entries
            number, entries = next(lines, (0, []))
        row = _brought_back(mine, wanted, done) if mine and mine[-1]["out"] is None else _next(rows, output)
        if row is not None:
            yield _reverted(row, mine, wanted, done)


def _next(rows: Iterator[dict[str, Any]], output: Path) -> dict[str, Any]:
    row = next(rows, None)
    if row is None:
        raise DataError(f"{output}: has fewer rows than were written -> clean the original again")
    return row


def _brought_back(mine: list[dict[str, Any]], wanted: Wanted, done: Undone) -> dict[str, Any] | None:
    """A removed row as it was when it went; None when it stays away."""
    last = mine[-1]
    if not wanted.has(last):
        return None
    if "row" not in last:
        done.lost.append(str(last["source"]))
        return None
    done.rows += 1
    row: dict[str, Any] = last["row"]
    return row


def _reverted(
    row: dict[str, Any], mine: list[dict[str, Any]], wanted: Wanted, done: Undone
) -> dict[str, Any]:
    """The row without the changes that are wanted back, the last one first."""
    later: dict[tuple[str | int, ...], list[list[Change]]] = {}
    for line in reversed(mine):
        if not line.get("changes"):
            continue
        path, changes = tuple(line["path"]), [Change(**change) for change in line["changes"]]
        above = later.setdefault(path, [])
        try:
            back = without(leaves.at(row, path), changes, above) if wanted.has(line) else None
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{line['source']}: {leaves.shown(path)}: is not the text that the ledger speaks of ({error})"
            ) from error
        if back is not None:
            text, later[path] = back
            leaves.replace(row, path, text)
            done.changes += 1
            continue
        if wanted.has(line):
            done.kept.append((line["source"], line["step"], leaves.shown(path)))
        later[path] = [changes, *above]
    return row


def without(
    text: str, changes: Sequence[Change], later: Sequence[Sequence[Change]]
) -> tuple[str, list[list[Change]]] | None:
    """(`text` without `changes`, the `later` changes as they would then be); None where a later one touches.

    changes: of one step · later: of each step after it, in order, which `text` has too. Raises ValueError
    when the text is not what they lead to.
    """
    places, shift = [], 0
    for change in changes:  # where each ended up: first in the text after its own step
        start = change.start + shift
        places.append((start, start + len(change.after)))
        shift += len(change.after) - len(change.before)
    moved = []
    for level in later:
        if any(_touch(place, change) for place in places for change in level):
            return None
        moved.append([_moved(change, _growth(changes, places, change.start)) for change in level])
        places = [_carried(place, level) for place in places]
    back = [
        Change(change.kind, start, end, change.after, change.before)
        for (start, end), change in zip(places, changes, strict=True)
    ]
    return apply(text, back), moved


def _touch(place: tuple[int, int], change: Change) -> bool:
    """Whether they overlap; what is empty (a deletion, an insertion) also touches at its edges."""
    empty = place[0] == place[1] or change.start == change.end
    return change.start < place[1] + empty and place[0] < change.end + empty


def _growth(changes: Sequence[Change], places: Sequence[tuple[int, int]], before: int) -> int:
    """By how much the text before a position grows when `changes` are taken back."""
    return sum(
        len(change.before) - len(change.after)
        for change, (_, end) in zip(changes, places, strict=True)
        if end <= before
    )


def _moved(change: Change, by: int) -> Change:
    return Change(change.kind, change.start + by, change.end + by, change.before, change.after)


def _carried(place: tuple[int, int], level: Sequence[Change]) -> tuple[int, int]:
    by = sum(len(change.after) - len(change.before) for change in level if change.end <= place[0])
    return place[0] + by, place[1] + by


def _rows(output: Path) -> Iterator[dict[str, Any]]:
    for row in sources.read(DatasetSpec(output.name, "file", str(output))):
        if isinstance(row, BadRow):
            raise DataError(f"{row.source}: {row.reason}")
        yield row.data


def _by_row(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The ledger's lines, those of one row together."""
    number, entries = 0, list[dict[str, Any]]()
    with path.open("rb") as file:
        for text in file:
            line = _parsed(path, text)
            if "in" not in line:
                continue
            if line["in"] != number and entries:
                yield number, entries
                entries = []
            number = line["in"]
            entries.append(line)
    if entries:
        yield number, entries


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    """A line. Numbers stay as they were written, so that a row comes back as it was."""
    try:
        line, _ = Decoder()(text.decode())
    except ValueError as error:
        raise DataError(f"{path}: is damaged ({error}) -> take it from where it came") from error
    if not isinstance(line, dict):
        raise DataError(f"{path}: is no ledger of a cleaning")
    return line
