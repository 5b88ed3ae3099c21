"""What is written is read back by our own reader, or the writer says what was not kept."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.data import sources
from luthier.data.sources.json_values import WrittenFloat
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError, UsageError
from luthier.prepare import write
from luthier.types import Row

KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet", ".arrow", ".json.gz", ".csv.gz")
ODD = [
    "", " ", "\n", "a\nb", "a\rb", "a\r\nb", "\r", "\t", "\0", "a\0b", "\ud83d", "x\udc80", "\ud83d\udc80",
    "NA", "null", "None", "007", "1e5", "1.10", "=1+1", '=cmd|"/c calc"!A0', "+1", "-1", "- item", "@x",
    "#N/A", "'", '"', '""', ",", ";", "，", "\ufeff", "\u2028", "\x85", "\ufffe", "\uffff", "\x1b[0m",
    "_x000D_", "_x005F_", "😀", "体育", "[", "{", "</is>", "]]>", " a ", "　a", "true", "text", "name", "\\",
    "\\u0000", "\\ud83d",
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(ODD), st.text(st.characters(codec=None), max_size=8))
SCALAR = st.one_of(
    TEXT, st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(allow_nan=False),
    st.sampled_from([WrittenFloat("1.10"), WrittenFloat("1E400"), WrittenFloat("-0.0")]),
)  # fmt: skip
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["role", "k", ""]), inner, max_size=2)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["text", "instruction", "回答", "a,b", "x;y|z", 'q"', "sep=;", "{a", "_id"])


def read(path: Path) -> list[Any]:
    return [
        row.data if isinstance(row, Row) else row for row in sources.read(DatasetSpec("x", "file", str(path)))
    ]


def written(path: Path, rows: list[dict[str, Any]]) -> write.Writer:
    with write.rows(path) as writer:
        for row in rows:
            writer.add(row)
    return writer


def same(a: Any, b: Any) -> bool:
    """Equal, of the same type, and saying the same as text."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return (a == b or (math.isnan(a) and math.isnan(b))) and str(a) == str(b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.lists(st.dictionaries(NAMES, VALUE, min_size=1, max_size=3), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / f"{os.urandom(6).hex()}{kind}"
    try:
        writer = written(path, rows)
    except DataError as error:
        assert "no row to write" in str(error)
        assert kind[:4] in (".csv", ".tsv", ".xls")
        assert not path.exists()
        return
    back = read(path)
    assert len(back) == writer.count == len(rows) - writer.lost[write.LEFT_OUT]
    if not +writer.lost:
        assert all(map(same, rows, back)), (rows, back)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.lists(st.fixed_dictionaries({"q": TEXT, "回答": TEXT}), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_of_any_characters_come_back(tmp_path: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / f"{os.urandom(6).hex()}{kind}"
    rows = [row | {"q": row["q"] + "."} for row in rows]  # a table has no rows without text
    writer = written(path, rows)
    back = read(path)
    assert len(back) == len(rows)
    for row, again in zip(rows, back, strict=True):
        for name, text in row.items():
            half = write.HALF.search(text) and kind[:4] not in (".jso", ".ndj", ".xls")
            crlf = "\r\n" in text and kind[:4] in (".csv", ".tsv")
            pair = write.SPLIT_PAIR.search(text) and kind[:4] in (".jso", ".ndj")
            assert again[name] == text or ((half or crlf or pair) and +writer.lost), (text, again[name])


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    with pytest.raises(KeyError), write.rows(path) as writer:
        writer.add({"a": "1"})
        raise KeyError("the caller fails")
    assert list(path.parent.iterdir()) == []
    with pytest.raises(DataError, match="no row to write"), write.rows(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    path, source = tmp_path / "rows.jsonl", tmp_path / "in.jsonl"
    for file in (path, source):
        file.write_text('{"a": 1}\n')
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    with pytest.raises(UsageError, match="--overwrite"), write.rows(path):
        pass
    for same_file in (source, link):
        with pytest.raises(UsageError, match="input"), write.rows(same_file, source, overwrite=True):
            pass
    with pytest.raises(UsageError, match="part of the input"), write.rows(tmp_path / "more.csv", tmp_path):
        pass
    with write.rows(path, source, overwrite=True) as writer:
        writer.add({"a": 2})
    assert read(path) == [{"a": 2}]
    assert source.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("name", ["rows.xls", "rows", "rows.parquet.gz", "rows.xlsx.gz", "rows.xlsm"])
def test_kinds_that_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.gz|not written"), write.rows(tmp_path / name):
        pass


def test_columns_that_come_late(tmp_path: Path) -> None:
    rows = [{"a": "1"}, {"a": "2", "b": "x"}, {"c": "3"}]
    for kind in (".csv", ".xlsx", ".parquet"):
        path = tmp_path / f"rows{kind}"
        writer = written(path, rows)
        none = None if kind == ".parquet" else ""
        back = [
            {"a": "1", "b": none, "c": none},
            {"a": "2", "b": "x", "c": none},
            {"a": none, "b": none, "c": "3"},
        ]
        assert read(path) == back
        assert sum(writer.lost.values()) == 5  # empty cells


def test_formulas_are_texts(tmp_path: Path) -> None:
    from openpyxl import load_workbook

    rows = [{"q": '=cmd|"/c calc"!A0', "n": "-12.5"}, {"q": "- a list", "n": "+86"}]
    written(tmp_path / "rows.xlsx", rows)
    cells = [cell for row in load_workbook(tmp_path / "rows.xlsx").active.iter_rows() for cell in row]
    assert {(cell.data_type, cell.number_format) for cell in cells} == {("s", "@")}
    writer = written(tmp_path / "rows.csv", rows)
    assert sum(writer.warned.values()) == 2
    assert read(tmp_path / "rows.csv") == rows


def test_excel_limits_are_errors(tmp_path: Path) -> None:
    for text in ("x" * 32_768, "😀" * 16_384):
        with pytest.raises(DataError, match=r'rows.xlsx:1: "q": has more than 32,767 characters'):
            written(tmp_path / "rows.xlsx", [{"q": text}])
    writer = written(tmp_path / "rows.xlsx", [{"q": "x" * 32_767}])
    assert writer.count == 1


def test_json_is_indented_and_numbers_stay_as_written(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[{"q": "体育", "n": [1.10, 1E3, {}], "m": null}]')
    written(tmp_path / "out.json", read(path))
    assert (tmp_path / "out.json").read_text("utf-8") == (
        '[\n  {\n    "q": "体育",\n    "n": [\n      1.10,\n      1E3,\n      {}\n    ],\n'
        '    "m": null\n  }\n]\n'
    )


def test_objects_of_one_shape_stay_objects_in_parquet(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "a"}], "tools": {"a": {"b": 1}}},
        {"messages": [], "tools": {"c": {}}},
    ]
    writer = written(tmp_path / "rows.parquet", rows)
    back = read(tmp_path / "rows.parquet")
    assert [row["messages"] for row in back] == [row["messages"] for row in rows]
    assert back[0]["tools"] == '{"a": {"b": 1}}'
    assert list(writer.lost.values()) == [2]


def test_text_files_hold_lines(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", [{"text": "one"}, {"text": " two\u2028"}])
    assert read(tmp_path / "a.txt") == [{"text": "one"}, {"text": " two\u2028"}]
    for row in ({"text": "a\nb"}, {"text": ""}, {"text": "a", "id": 1}, {"q": "a"}):
        with pytest.raises(DataError, match="jsonl"):
            written(tmp_path / "b.txt", [row])


def test_equal_rows_give_equal_packed_files(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        written(tmp_path / name, [{"a": "1"}])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
