"""CSV, TSV and Excel workbooks."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from bad_files.case import CSV, GOOD, Case, asked, file, made

HEAD = "instruction,output\n"
TWO = "question 1,answer 1\nquestion 2,answer 2\n"
COLUMNS = ("instruction", "output")


def _csv(text: str, name: str = "d.csv") -> Callable[[Path], str]:
    return file(HEAD + text, name)


def _book(*rows: Sequence[Any], then: Callable[[Any], object] = lambda book: None) -> Callable[[Path], str]:
    """A writer of a workbook with a header and these rows; `then` changes it before it is saved."""

    def write(folder: Path) -> str:
        from openpyxl import Workbook

        book = Workbook()
        for row in (COLUMNS, *rows):
            book.active.append(row)
        then(book)
        book.save(folder / "d.xlsx")
        return "d.xlsx"

    return write


def _edited(write: Callable[[Path], str], part: str, change: Callable[[str], str]) -> Callable[[Path], str]:
    """The workbook with one of its parts changed as no library would write it."""

    def edit(folder: Path) -> str:
        path = folder / write(folder)
        with zipfile.ZipFile(path) as book:
            parts = {name: book.read(name) for name in book.namelist()}
        parts[part] = change(parts[part].decode()).encode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
            for name, content in parts.items():
                book.writestr(name, content)
        return path.name

    return edit


def _other_sheets(book: Any) -> None:
    book.create_sheet("prices").append(["a"])
    book.create_sheet("hidden").sheet_state = "hidden"


def _empty_first(book: Any) -> None:
    book.create_sheet("empty", 0)


def _merged(book: Any) -> None:
    book.active.merge_cells("A2:A3")


def _codes(book: Any) -> None:
    book.active["B2"].number_format = "00000"


def _cached(xml: str) -> str:
    """The second answer's formula with the value that Excel saved for it."""
    return re.sub(r'(<c r="B3"[^>]*>)<f>(.*?)</f><v ?/?>(</v>)?', r"\1<f>\2</f><v>42</v>", xml)


def _in_5001() -> str:
    lines = [f"question {n},answer {n}" for n in range(1, 6001)]
    lines[5000] = "question 5001,answer,more"
    return HEAD + "\n".join(lines) + "\n"


SHEET = "xl/worksheets/sheet1.xml"
CASES: dict[str, Case] = {
    # --- separators
    **{
        f"{name} between the cells of .csv": Case(
            file(HEAD.replace(",", mark) + TWO.replace(",", mark), "d.csv"),
            asked(1, 2),
            notes=[f"cells are separated by {mark!r}"],
        )
        for name, mark in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|"))
    },
    "commas between the cells of .tsv": Case(
        file(HEAD + TWO, "d.tsv"), asked(1, 2), notes=["cells are separated by ','"]
    ),
    "semicolons, and commas in the cells": Case(
        file("instruction;output\na, b;1,5\n", "d.csv"), [("a, b", "1,5")], notes=["separated by ';'"]
    ),
    "Excel's line that names the separator": Case(
        file("sep=;\n" + (HEAD + TWO).replace(",", ";"), "d.csv"), asked(1, 2), notes=["separated by ';'"]
    ),
    "full-width commas": Case(
        file("instruction，output\n你好，您好\n", "d.csv"), refused="cells are separated by '，'"
    ),
    "two separators": Case(
        _csv("question 1,answer 1\na;b\n"),
        asked(1),
        [(2, "", "line 3: 1 cells, but the header names 2 columns")],
    ),
    # --- cells and quotes
    "too few and too many cells": Case(
        _csv("a\nquestion 1,answer 1\na,b,c\nquestion 2,answer 2,,\n"),
        asked(1, 2),
        [(1, "", "line 2: 1 cells"), (3, "", "line 4: 3 cells")],
    ),
    "a cell too many in row 5,001": Case(
        made(_in_5001, "d.csv"),
        asked(*range(1, 5001), *range(5002, 6001)),
        [(5001, "", "line 5002: 3 cells")],
    ),
    "line breaks in quoted cells": Case(
        _csv('"a\nb","c\n\nd"\nquestion 1,answer 1\n'), [("a\nb", "c\n\nd"), *asked(1)]
    ),
    "a quote that never ends": Case(
        _csv('question 1,answer 1\na,"b\n' + TWO), refused="line 3: a quote is opened and never closed"
    ),
    "text after a quoted cell": Case(
        _csv('"a" b,c\nquestion 1,answer 1\n'), asked(1), [(1, "", "line 2: ',' expected after '\"'")]
    ),
    "quotes escaped by a backslash": Case(
        _csv('a,"say \\"hi\\", now"\nquestion 1,answer 1\n'), asked(1), [(1, "", "line 2: ")]
    ),
    "quotes escaped by a backslash, over two lines": Case(
        _csv('a,"say \\"hi\nyou\\", ok"\nquestion 1,answer 1\n'),
        asked(1),
        [(1, "", "line 2: ',' expected"), (2, "", "line 3: a quote in the middle of a cell")],
    ),
    "inches": Case(_csv('5" nails,"a 5"" nail"\n'), [('5" nails', 'a 5" nail')]),
    "blank lines": Case(file("\n\n" + HEAD + "\n" + TWO + "\n,\n\n", "d.csv"), asked(1, 2)),
    "CR alone": Case(file((HEAD + TWO).replace("\n", "\r"), "d.csv"), asked(1, 2)),
    "CR LF": Case(file((HEAD + TWO).replace("\n", "\r\n"), "d.csv"), asked(1, 2)),
    "a NUL in a cell": Case(_csv("question 1,ans\0wer 1\n"), [("question 1", "ans\0wer 1")]),
    "words that mean nothing": Case(
        _csv("a,NA\nb,null\nc,None\nd,nan\ne,-\n"),
        [("a", "NA"), ("b", "null"), ("c", "None"), ("d", "nan"), ("e", "-")],
    ),
    "empty cells": Case(
        _csv("a,\n,b\n" + TWO),
        asked(1, 2),
        [(1, "output", "empty answer"), (2, "instruction", "empty question")],
    ),
    "numbers that must stay text": Case(
        _csv('00123,"1,234.50"\n1e5,1.10\n+86 138,0x1F\n'),
        [("00123", "1,234.50"), ("1e5", "1.10"), ("+86 138", "0x1F")],
    ),
    "cells that would be formulas": Case(_csv("=1+1,@SUM(1)\n"), [("=1+1", "@SUM(1)")]),
    "spaces around cells": Case(_csv(" a , b \n"), [(" a ", " b ")]),
    # --- headers
    "no header": Case(
        file("营业时间是什么时候？,早上九点。\n你们在哪里？,在车站旁边。\n", "d.csv"),
        refused="looks like a row",
    ),
    "no header, two labels": Case(
        file("刘翔夺冠,体育\n股市上涨,财经\n男篮获胜,体育\n", "d.csv"), refused="looks like a row"
    ),
    "no header, one column": Case(
        file("Where is my order?\nWhere is it?\n", "d.csv"), refused="looks like a row", stage="pt"
    ),
    "a column named twice": Case(
        file("instruction,output,output\na,b,c\n", "d.csv"), refused="names a column twice"
    ),
    "a header with spaces and a BOM": Case(
        file("\ufeff instruction , output \n" + TWO, "d.csv"), asked(1, 2)
    ),
    "a quoted header with a BOM": Case(file('\ufeff"instruction","output"\n' + TWO, "d.csv"), asked(1, 2)),
    "an unnamed column": Case(file(",instruction,output\n0,question 1,answer 1\n", "d.csv"), asked(1)),
    "only a header": Case(file(HEAD, "d.csv"), refused="holds no rows"),
    "only blank lines": Case(file("\n\n\n", "d.csv"), refused="holds no rows"),
    "only separators": Case(file(",,,\n,,,\n", "d.csv"), refused="holds no rows"),
    "an empty .csv": Case(file("", "d.csv"), refused="the file is empty"),
    "the header again, where two files were joined": Case(
        _csv("question 1,answer 1\n\ufeff" + HEAD + "question 2,answer 2\n"),
        asked(1, 2),
        [(2, "", "line 3: repeats the header")],
    ),
    "other names for the columns": Case(file("问题,答案\n你好,您好\n", "d.csv"), [("你好", "您好")]),
    "unknown names for the columns": Case(
        file("alpha,beta,gamma\na,b,c\n", "d.csv"),
        refused="cannot be told from their columns (alpha, beta, gamma)",
    ),
    "JSON named .csv": Case(
        file('[\n{"instruction": "a", "output": "b"}\n]\n', "d.csv"), refused="this is JSON"
    ),
    "10,000 columns": Case(
        file(
            ",".join([*COLUMNS, *(f"c{n}" for n in range(9998))])
            + "\n"
            + ",".join(["a", "b"] + ["c"] * 9998),
            "d.csv",
        ),
        [("a", "b")],
    ),
    # --- workbooks
    "a workbook": Case(_book(*GOOD), GOOD),
    "formulas with saved values": Case(
        _edited(_book(["a", "b"], ["question", "=40+2"]), SHEET, _cached), [("a", "b"), ("question", "42")]
    ),
    "formulas without saved values": Case(
        _book(["a", "b"], ["question", "=40+2"], ["c", "d"]),
        [("a", "b"), ("c", "d")],
        [(2, "output", "a formula whose value was not saved")],
    ),
    "errors of formulas": Case(
        _book(["a", "#N/A"], ["b", "#DIV/0!"], ["c", "d"]),
        [("c", "d")],
        [(1, "output", "holds Excel's error #N/A"), (2, "output", "holds Excel's error #DIV/0!")],
    ),
    "dates and times": Case(
        _book([date(2024, 5, 1), datetime(2024, 5, 1, 9, 30)], [time(9, 30), True]),
        [("2024-05-01", "2024-05-01 09:30:00"), ("09:30:00", "TRUE")],
    ),
    "numbers as they are shown": Case(
        _book(["a", 123], ["b", 0.1 + 0.2], ["c", 3.0], ["d", "00123"], then=_codes),
        [("a", "00123"), ("b", "0.3"), ("c", "3"), ("d", "00123")],
    ),
    "merged cells": Case(
        _book(["a", "b"], [None, "c"], then=_merged),
        [("a", "b")],
        [(2, "instruction", "empty question")],
        ["has merged cells"],
    ),
    "a title above the header": Case(
        _edited(
            _book(["a", "b"]),
            SHEET,
            lambda xml: xml.replace(
                "<sheetData>",
                '<sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>Questions of 2024</t></is></c></row>',
            ).replace('<row r="1"><c r="A1" t="s">', '<row r="2"><c r="A2" t="s">'),
        ),
        refused="2 cells, but the header names 1 columns",
    ),
    "several sheets, one hidden": Case(
        _book(["a", "b"], then=_other_sheets), [("a", "b")], notes=["not read: prices, hidden"]
    ),
    "an empty sheet before the rows": Case(
        _book(["a", "b"], then=_empty_first), refused='its first sheet "empty" is empty'
    ),
    "empty rows and columns": Case(
        _book([None, None], ["a", "b", None], [None, None], ["c", "d"]), [("a", "b"), ("c", "d")]
    ),
    "more cells than the header": Case(
        _book(["a", "b", "c"], ["d", "e"]), [("d", "e")], [(1, "", "row 1: 3 cells")]
    ),
    "line breaks in cells": Case(_book(["a\nb", "c_x000D_\nd"]), [("a\nb", "c\r\nd")]),
    "only a header in a workbook": Case(_book(), refused="holds no rows"),
    "a CSV named .xlsx": Case(file(CSV, "d.xlsx"), refused="not a sound Excel workbook"),
    "a workbook named .csv": Case(
        lambda folder: str((folder / _book(*GOOD)(folder)).rename(folder / "d.csv").name),
        refused="rename it to .xlsx",
    ),
    "a workbook with a password": Case(
        file(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "d.xlsx"),
        refused="an old Office file, or one with a password",
    ),
    "a workbook cut in the middle": Case(
        lambda folder: file((folder / _book(*GOOD)(folder)).read_bytes()[:3000], "d.xlsx")(folder),
        refused="not a sound Excel workbook",
    ),
    "an old workbook": Case(file(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "d.xls"), refused="save it as .xlsx"),
}
