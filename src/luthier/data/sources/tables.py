"""CSV, TSV and plain text -> rows. Cells are text: an empty cell is "", never None."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from luthier.data.sources.encoding import lines, note
from luthier.errors import DataError
from luthier.types import BadRow

Item = tuple[int, Any]
DELIMITERS = ",\t;|"
FULL_WIDTH = "，；"  # what Chinese keyboards write; it is in texts too, so it separates nothing
LONGEST_CELL = 64 << 20  # characters (4 bytes each in csv); its own limit is less than one long document
SPACE = "\ufeff \t\r\n\xa0\u3000"


def read_csv(path: Path, notes: list[str] | None = None) -> Iterator[Item]:
    """Rows of a CSV file with a header, which is not counted and shows what the delimiter is."""
    source = lines(path, notes)
    first = next(source, None)
    if first is None:
        return
    declared = first[4] if len(first) == 5 and first.lower().startswith("sep=") else None
    header_line = next(source, "") if declared else first
    delimiter = declared or _delimiter(path, header_line)
    if delimiter not in (",", "\t") or (delimiter == "\t") != (".tsv" in path.name.lower()):
        note(notes, f"{path.name}: cells are separated by {delimiter!r}")
    yield from _csv_rows(path, header_line, source, delimiter)


def _delimiter(path: Path, header: str) -> str:
    """The likeliest delimiter of a header line outside of quotes. Raises DataError for what is no CSV."""
    if header.lstrip().startswith(("{", "[")):
        raise DataError(
            f"{path}: line 1: this is JSON -> name the file .json, or .jsonl for an object a line"
        )
    bare = "".join(header.split('"')[0::2])
    counts = {mark: bare.count(mark) for mark in ("\t," if ".tsv" in path.name.lower() else "") + DELIMITERS}
    found = max(counts, key=lambda mark: counts[mark])
    wide = next((mark for mark in FULL_WIDTH if mark in bare), None)
    if wide and not counts[found]:
        raise DataError(
            f"{path}: line 1: the cells are separated by {wide!r} -> separate them by commas, as in"
            " instruction,output, and put cells that hold commas in quotes"
        )
    return found


def _csv_rows(path: Path, header_line: str, source: Iterator[str], delimiter: str) -> Iterator[Item]:
    csv.field_size_limit(LONGEST_CELL)

    def text() -> Iterator[str]:
        yield header_line + "\n"
        for line in source:
            yield line + "\n"

    reader = csv.reader(text(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number, began, broken = 0, 1, False
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise DataError(
                    f"{path}: line {began}: a quote is opened and never closed, so the rest is one cell"
                    ' -> close it, or write a quote inside a cell twice ("")'
                ) from error
            number += 1
            yield number, BadRow("", "", f"line {reader.line_num}: {error}")
            began, broken = reader.line_num + 1, True
            continue
        if cells is None:
            return
        if not cells or not any(cells):
            pass  # a blank line is not a row
        elif header is None:
            header = header_names(path, cells)
        else:
            number += 1
            row = row_of(header, cells, f"line {began}")
            broken = broken and (isinstance(row, BadRow) or any('"' in cell for cell in cells))
            if broken and not isinstance(row, BadRow):
                why = "a quote in the middle of a cell, perhaps the end of the broken row before"
                row = BadRow("", "", f'line {began}: {why} -> write a quote inside a cell twice ("")', cells)
            yield number, row
        began = reader.line_num + 1


def header_names(path: Path, cells: Sequence[Any]) -> list[str]:
    """Column names of a table; an unnamed column gets a name from its place. Raises DataError for doubles."""
    names = ["" if cell is None else str(cell).strip(SPACE) for cell in cells]
    while names and not names[-1]:
        names.pop()  # spreadsheets keep empty columns at the right
    double = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if double:
        raise DataError(f"{path}: the header names a column twice: {', '.join(double)} -> rename one of them")
    return [name or f"column_{place}" for place, name in enumerate(names, 1)]


def row_of(header: list[str], cells: Sequence[str], where: str) -> Any:
    """A dict, or a BadRow when the cells do not fit the header or are the header again (of a joined file)."""
    cells = list(cells)
    while len(cells) > len(header) and cells[-1] == "":
        cells.pop()
    if len(cells) != len(header):
        return BadRow(
            "", "", f"{where}: {len(cells)} cells, but the header names {len(header)} columns", cells
        )
    if [cell.strip(SPACE) for cell in cells] == header:
        return BadRow("", "", f"{where}: repeats the header -> delete the line", cells)
    return dict(zip(header, cells, strict=True))


def read_text(path: Path, notes: list[str] | None = None) -> Iterator[Item]:
    """Lines of a text file as {"text": line}, numbered by line; blank lines are not rows."""
    for number, line in enumerate(lines(path, notes), 1):
        if line.strip():
            yield number, {"text": line}
