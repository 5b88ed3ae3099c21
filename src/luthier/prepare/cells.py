"""Tables whose cells are text: CSV, TSV and Excel workbooks.

CSV begins with a byte order mark: without it Excel on a Chinese Windows reads UTF-8 as GBK and shows, then
saves, mojibake; our reader, pandas and `datasets` skip it. No cell is changed to keep a spreadsheet from
computing it: in a workbook cells are texts by their type (and by their format, also once edited), and in CSV,
which has no types, such cells are counted in `Writer.warned` (CWE-1236).
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from luthier.data.sources.encoding import BOM
from luthier.data.sources.tables import LONGEST_CELL, SPACE
from luthier.errors import DataError, MissingPackage
from luthier.prepare.write import LEFT_OUT, Put, Writer, encode, legible, opened

COMPUTED = re.compile(r"[=+\-@\t\r](?![\d.,]*$)")  # how a cell begins that a spreadsheet would compute
PLAIN = re.compile(r"[\w .-]+")
ESCAPED = re.compile("[\0-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
MOST_ROWS, MOST_COLUMNS, LONGEST = 1 << 20, 1 << 14, 32_767
"""What a sheet of Excel holds: rows (the header is one), columns, UTF-16 units of a cell."""


class Table:
    """Columns in the order in which they appear, and the cells of rows under them."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.columns = writer, dict[str, None]()

    def cells(self, row: Mapping[str, Any]) -> list[str] | None:
        """The texts of a row, in the order of the columns; None for a row that a table has no place for."""
        for name in row:
            if name not in self.columns:
                self._check(name)
                self.columns[name] = None
        texts = [self._text(name, row[name]) if name in row else "" for name in self.columns]
        if not any(texts) or [text.strip(SPACE) for text in texts] == list(self.columns):
            self.writer.lost[LEFT_OUT] += 1
            return None
        if len(row) < len(self.columns):
            for name in self.columns.keys() - row.keys():
                self.writer.lost[f'"{name}": rows without it have an empty cell'] += 1
        return texts

    def _check(self, name: str) -> None:
        """Raise DataError for a name that would be read otherwise."""
        if not name or name.strip(SPACE) != name or ESCAPED.search(name) or "\n" in name:
            raise DataError(
                f"{self.writer.place}: a table cannot name a column {name!r} -> rename it, or write .jsonl"
            )

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        lost = self.writer.lost
        if value is None:
            lost[f'"{name}": null is an empty cell'] += 1
            return ""
        if isinstance(value, bool):
            lost[f'"{name}": true and false are text'] += 1
            return "true" if value else "false"
        if isinstance(value, int | float):
            lost[f'"{name}": numbers are text'] += 1
            return str(value)
        lost[f'"{name}": nested values are JSON text'] += 1
        return encode(value)


@contextmanager
def csv_file(file: Path, writer: Writer) -> Iterator[Put]:
    """Comma-separated values after RFC 4180 (tabs between them for .tsv), a header first."""
    table, body = Table(writer), file.with_name("body")
    delimiter = "\t" if ".tsv" in writer.target.suffixes[-2:] else ","
    narrow = False
    with body.open("w", encoding="utf-8", newline="") as out:
        # \r\n also makes csv quote both characters wherever they stand in a cell
        lines = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")

        def put(row: Mapping[str, Any]) -> None:
            nonlocal narrow
            known = len(table.columns)
            texts = table.cells(row)
            narrow = narrow or (0 < known < len(table.columns) and writer.count > 0)
            if texts is not None:
                lines.writerow([_csv_text(*cell, writer) for cell in zip(table.columns, texts, strict=True)])

        yield put
    with opened(file, writer) as packed, body.open("rb") as rows:
        packed.write(BOM.encode())
        text = TextIOWrapper(packed, encoding="utf-8", newline="", write_through=True)
        # A quoted header shows the delimiter beyond doubt, whatever characters the names have.
        plain = all(map(PLAIN.fullmatch, table.columns))
        lines = csv.writer(
            text,
            delimiter=delimiter,
            lineterminator="\r\n",
            quoting=csv.QUOTE_MINIMAL if plain else csv.QUOTE_ALL,
        )
        lines.writerow(table.columns)
        if narrow:
            _widen(body, csv.writer(text, delimiter=delimiter, lineterminator="\r\n"), delimiter, table)
        else:
            shutil.copyfileobj(rows, packed)
        text.detach()


def _widen(body: Path, lines: Any, delimiter: str, table: Table) -> None:
    """Copy rows, with empty cells for columns that came later."""
    csv.field_size_limit(LONGEST_CELL)
    with body.open(encoding="utf-8", newline="") as rows:
        for cells in csv.reader(rows, delimiter=delimiter, strict=True):
            late = list(table.columns)[len(cells) :]
            for name in late:
                table.writer.lost[f'"{name}": rows without it have an empty cell'] += 1
            lines.writerow(cells + [""] * len(late))


def _csv_text(name: str, text: str, writer: Writer) -> str:
    if COMPUTED.match(text):
        writer.warned[
            f'"{name}": texts that begin with = + - or @, which spreadsheet programs compute when they open'
            " CSV -> write .xlsx for them"
        ] += 1
    if "\r\n" in text:
        writer.lost[f'"{name}": line ends \\r\\n in a text are read as \\n'] += 1
    if "\0" in text:
        writer.warned[f'"{name}": NUL characters, which many readers of CSV refuse'] += 1
    return legible(text, name, writer)


@contextmanager
def workbook(file: Path, writer: Writer) -> Iterator[Put]:
    """An Excel workbook of one sheet. Raises DataError for what a sheet cannot hold, MissingPackage."""
    try:
        import openpyxl
    except ImportError as error:
        raise MissingPackage("openpyxl", f"writing {writer.target.name}", "xlsx") from error
    table, body = Table(writer), file.with_name("body")
    with body.open("wb") as out:

        def put(row: Mapping[str, Any]) -> None:
            texts = table.cells(row)
            if texts is not None:
                cells = [_sheet_text(*cell, writer) for cell in zip(table.columns, texts, strict=True)]
                out.write(json.dumps(cells).encode() + b"\n")
            if writer.count + 2 > MOST_ROWS or len(table.columns) > MOST_COLUMNS:
                raise DataError(
                    f"{writer.place}: a sheet holds {MOST_ROWS - 1:,} rows below its header and"
                    f" {MOST_COLUMNS:,} columns -> write .csv"
                )

        yield put
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    sheet.append(_as_texts(sheet, list(table.columns)))
    with body.open("rb") as rows:
        for line in rows:
            cells = json.loads(line)
            for name in list(table.columns)[len(cells) :]:
                writer.lost[f'"{name}": rows without it have an empty cell'] += 1
            sheet.append(_as_texts(sheet, cells))
    book.save(file)


def _as_texts(sheet: Any, texts: list[str]) -> list[Any]:
    """Cells of type text: "=1+1" is no formula there, nor "#N/A" an error."""
    from openpyxl.cell import WriteOnlyCell

    cells = []
    for text in texts:
        cell = WriteOnlyCell(sheet, text)
        cell.data_type, cell.number_format = "s", "@"
        cells.append(cell)
    return cells


def _sheet_text(name: str, text: str, writer: Writer) -> str:
    """The text with what XML cannot hold as _x0000_ (ECMA-376 part 1, 22.9.2.19: ST_Xstring)."""
    text = ESCAPED.sub(lambda found: f"_x{ord(found.group()):04X}_", text)
    if len(text) > LONGEST // 2 and len(text.encode("utf-16-le")) // 2 > LONGEST:
        raise DataError(
            f'{writer.place}: "{name}": has more than {LONGEST:,} characters, the most that a cell of Excel'
            " holds -> write .csv or .jsonl"
        )
    return text
