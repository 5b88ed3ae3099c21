"""CSV, TSV, XLSX and plain text -> rows. Cells are text: an empty cell is "", never None."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from luthier.data.sources import packed
from luthier.data.sources.encoding import lines, note, seekable
from luthier.errors import DataError, MissingPackage
from luthier.types import BadRow

Item = tuple[int, Any]
DELIMITERS = ",\t;|"
LONGEST_CELL = 64 << 20  # characters (4 bytes each in csv); its own limit is less than one long document
SPACE = "\ufeff \t\r\n\xa0\u3000"
MOST_EMPTY = 1 << 20  # rows, as many as a sheet of Excel has


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
    """The likeliest delimiter of a header line (counted outside quotes)."""
    bare = "".join(header.split('"')[0::2])
    counts = {mark: bare.count(mark) for mark in ("\t," if ".tsv" in path.name.lower() else "") + DELIMITERS}
    return max(counts, key=lambda mark: counts[mark])


def _csv_rows(path: Path, header_line: str, source: Iterator[str], delimiter: str) -> Iterator[Item]:
    csv.field_size_limit(LONGEST_CELL)

    def text() -> Iterator[str]:
        yield header_line + "\n"
        for line in source:
            yield line + "\n"

    reader = csv.reader(text(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number, began = 0, 1
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
            began = reader.line_num + 1
            continue
        if cells is None:
            return
        if not cells or not any(cells):
            pass  # a blank line is not a row
        elif header is None:
            header = _header(path, cells)
        else:
            number += 1
            yield number, _row(header, cells, f"line {began}")
        began = reader.line_num + 1


def _header(path: Path, cells: Sequence[Any]) -> list[str]:
    """Column names of a table; an unnamed column gets a name from its place. Raises DataError for doubles."""
    names = ["" if cell is None else str(cell).strip(SPACE) for cell in cells]
    while names and not names[-1]:
        names.pop()  # spreadsheets keep empty columns at the right
    double = sorted({name for name in names if name and names.count(name) > 1})
    if double:
        raise DataError(f"{path}: the header names a column twice: {', '.join(double)} -> rename one of them")
    return [name or f"column_{place}" for place, name in enumerate(names, 1)]


def _row(header: list[str], cells: Sequence[str], where: str) -> Any:
    """A dict, or a BadRow when the cells do not fit the header."""
    cells = list(cells)
    while len(cells) > len(header) and cells[-1] == "":
        cells.pop()
    if len(cells) != len(header):
        return BadRow(
            "", "", f"{where}: {len(cells)} cells, but the header names {len(header)} columns", cells
        )
    return dict(zip(header, cells, strict=True))


def read_xlsx(path: Path, notes: list[str] | None = None) -> Iterator[Item]:
    """Rows of an Excel workbook's first sheet; its first row that is not empty names the columns."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingPackage("openpyxl", f"reading {path.name}", "xlsx") from error
    try:
        with ExitStack() as stack:
            file = seekable(path, stack)
            packed.check_workbook(path, file)
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            book.worksheets[0].reset_dimensions()  # the sheet's own word for its size may be anything
            if len(book.worksheets) > 1:
                others = ", ".join(sheet.title for sheet in book.worksheets[1:])
                note(
                    notes,
                    f'{path.name}: its first sheet "{book.worksheets[0].title}" is read; not read: {others}',
                )
            yield from _sheet_rows(path, book.worksheets[0].iter_rows(values_only=True))
    except DataError:
        raise
    except (
        Exception
    ) as error:  # openpyxl raises whatever its parts meet: ValueError, TypeError, ParseError, ...
        raise DataError(
            f"{path}: not a sound Excel workbook ({error}) -> save it again as .xlsx, or as CSV in UTF-8"
        ) from error


def _sheet_rows(path: Path, rows: Iterator[tuple[Any, ...]]) -> Iterator[Item]:
    header: list[str] | None = None
    number = empty = 0
    for cells in rows:
        if all(cell is None or cell == "" for cell in cells):
            empty += 1
            if empty > MOST_EMPTY:
                raise DataError(f"{path}: has more than {MOST_EMPTY:,} empty rows -> save it as CSV in UTF-8")
            continue
        if header is None:
            header = _header(path, cells)
            continue
        number += 1
        texts = [_cell(cell) for cell in cells]
        texts += [""] * (len(header) - len(texts))
        yield number, _row(header, texts, f"row {number}")


def _cell(value: Any) -> str:
    """A cell as the sheet shows it: 3 rather than 3.0, TRUE rather than True, ISO dates."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return str(value)


def read_text(path: Path, notes: list[str] | None = None) -> Iterator[Item]:
    """Lines of a text file as {"text": line}, numbered by line; blank lines are not rows."""
    for number, line in enumerate(lines(path, notes), 1):
        if line.strip():
            yield number, {"text": line}
