"""Excel workbooks -> rows. Cells are the text that the sheet shows; what has none to show is said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from luthier.data.sources import packed
from luthier.data.sources.encoding import CHUNK, note, seekable
from luthier.data.sources.tables import Item, header_names, row_of
from luthier.errors import DataError, MissingPackage
from luthier.types import BadRow

MOST_EMPTY = 1 << 20  # rows, as many as a sheet of Excel has
ZEROS = re.compile("0{2,}")  # a number format that fills up with zeros: 00123
EXACT = 10**15  # Excel keeps and shows 15 digits
FORMULA, MERGED = re.compile(rb"<f[ />]"), re.compile(rb"<mergeCell ")


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
            formulas = _look(path, book, notes)
            rows = _cells(book)
            if formulas:  # which only a second reading tells from cells that are empty
                written = _cells(load_workbook(file, read_only=True, keep_links=False))
                yield from _sheet_rows(path, book, map(_with_formulas, rows, written))
            else:
                yield from _sheet_rows(path, book, rows)
    except DataError:
        raise
    except (
        Exception
    ) as error:  # openpyxl raises whatever its parts meet: ValueError, TypeError, ParseError, ...
        raise DataError(
            f"{path}: not a sound Excel workbook ({error}) -> save it again as .xlsx, or as CSV in UTF-8"
        ) from error


def _look(path: Path, book: Any, notes: list[str] | None) -> bool:
    """Whether the first sheet has formulas; notes on merged cells and on sheets that are not read."""
    if len(book.worksheets) > 1:
        note(
            notes,
            f'{path.name}: its first sheet "{book.worksheets[0].title}" is read; not read: {_others(book)}',
        )
    formulas = merged = False
    with book._archive.open(book.worksheets[0]._worksheet_path) as part:
        tail = b""
        while block := part.read(CHUNK):
            formulas = formulas or FORMULA.search(tail + block) is not None
            merged = merged or MERGED.search(tail + block) is not None
            tail = block[-16:]
    if merged:
        note(
            notes,
            f"{path.name}: has merged cells; their text is in the first cell alone"
            " -> unmerge them and fill the others if it belongs to every row",
        )
    return formulas


def _others(book: Any) -> str:
    return ", ".join(sheet.title for sheet in book.worksheets[1:])


def _cells(book: Any) -> Iterator[Sequence[Any]]:
    sheet = book.worksheets[0]
    sheet.reset_dimensions()  # the sheet's own word for its size may be anything
    return iter(sheet.iter_rows())


class _NoValue:
    """A formula without the value that Excel would have saved with it."""

    data_type, value, number_format = "f", "", None


def _with_formulas(cells: Sequence[Any], written: Sequence[Any]) -> list[Any]:
    """The cells, with formulas that have no value marked."""
    pairs = zip(cells, written, strict=True)
    return [_NoValue if both.data_type == "f" and cell.value is None else cell for cell, both in pairs]


def _sheet_rows(path: Path, book: Any, rows: Iterator[Sequence[Any]]) -> Iterator[Item]:
    header: list[str] | None = None
    number = empty = 0
    for cells in rows:
        if all(cell.value in (None, "") and cell is not _NoValue for cell in cells):
            empty += 1
            if empty > MOST_EMPTY:
                raise DataError(f"{path}: has more than {MOST_EMPTY:,} empty rows -> save it as CSV in UTF-8")
            continue
        if header is None:
            header = header_names(path, [cell.value for cell in cells])
            continue
        number += 1
        texts = [_text(cell) for cell in cells]
        texts += [""] * (len(header) - len(texts))
        yield number, _fault(header, cells) or row_of(header, texts, f"row {number}")
    if header is None and len(book.worksheets) > 1:
        raise DataError(
            f'{path}: its first sheet "{book.worksheets[0].title}" is empty; not read: {_others(book)}'
            " -> move the sheet with the rows to the front"
        )


def _fault(header: list[str], cells: Sequence[Any]) -> BadRow | None:
    """The first cell of a row that shows no value of its own."""
    for name, cell in zip(header, cells, strict=False):
        if cell is _NoValue:
            return BadRow("", name, "a formula whose value was not saved -> open it in Excel and save it")
        if cell.data_type == "e":
            return BadRow("", name, f"holds Excel's error {cell.value} -> mend the cell or its formula")
    return None


def _text(cell: Any) -> str:
    """A cell as the sheet shows it: 3 rather than 3.0, 00123 where it is shown so, TRUE, ISO dates."""
    from openpyxl.utils.escape import unescape

    value = cell.value
    if isinstance(value, str):
        return str(unescape(value)) if "_x" in value else value  # _x000D_ is a carriage return
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, cell.number_format)
    return _moment(value)


def _number(value: float, shown: str | None) -> str:
    text = str(int(value)) if value == value // 1 and abs(value) < EXACT else f"{value:.15g}"
    return text.zfill(len(shown)) if shown and ZEROS.fullmatch(shown) else text


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    return value.isoformat() if isinstance(value, date | time) else str(value)
