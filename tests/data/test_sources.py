"""Files -> rows: every kind, every encoding, and what is said of files that are not sound."""

import gzip
import json
from pathlib import Path

import pytest

from luthier.data import sources
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError
from luthier.types import BadRow, Row

ROWS = [{"instruction": "你好", "output": "您好！"}, {"instruction": "a, b", "output": 'say "c"\nd'}]
CSV = 'instruction,output\n你好,您好！\n"a, b","say ""c""\nd"\n'


def read(path, notes=None, limit=None):
    return list(
        sources.read(DatasetSpec("d", "file", str(path), base=str(Path(path).parent)), notes, limit=limit)
    )


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def make(path: Path) -> Path:
    """ROWS in the kind of file that the name says."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    kind = sources.extension(path)
    if kind == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == ".feather":
        pa.feather.write_feather(pa.Table.from_pylist(ROWS), path)
    elif kind == ".arrow":  # a stream, as `datasets` writes
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif kind == ".xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for cells in (list(ROWS[0]), *(list(row.values()) for row in ROWS)):
            book.active.append(cells)
        book.save(path)
    else:
        text = {
            ".json": json.dumps(ROWS, indent=2),
            ".jsonl": jsonl(ROWS),
            ".csv": CSV,
            ".tsv": CSV.replace(",", "\t").replace("a\t b", "a, b"),
        }
        write(path, text[kind])
    return path


KINDS = ["json", "jsonl", "csv", "tsv", "parquet", "arrow", "feather", "xlsx"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(tmp_path, kind):
    rows = read(make(tmp_path / f"d.{kind}"))
    assert [row.data for row in rows] == ROWS
    assert [row.source for row in rows] == [f"d.{kind}:1", f"d.{kind}:2"]


@pytest.mark.parametrize("kind", KINDS)
def test_gzip_of_every_kind(tmp_path, kind):
    packed = gzip.compress(make(tmp_path / f"d.{kind}").read_bytes())
    rows = read(write(tmp_path / f"e.{kind}.gz", packed))
    assert [row.data for row in rows] == ROWS
    assert rows[0].source == f"e.{kind}.gz:1"


def test_text_is_one_row_per_line_and_blank_lines_are_none(tmp_path):
    rows = read(write(tmp_path / "t.txt", "one\n\n  two\u2028still two\r\n"))
    assert rows == [Row({"text": "one"}, "t.txt:1"), Row({"text": "  two\u2028still two"}, "t.txt:3")]


def test_folder_reads_its_data_files_in_order_and_says_so(tmp_path):
    write(tmp_path / "b.jsonl", '{"text": "2"}\n')
    write(tmp_path / "a.jsonl", '{"text": "1"}\n')
    write(tmp_path / "dataset_info.json", "{}")
    write(tmp_path / "notes.md", "not data")
    notes: list[str] = []
    rows = list(sources.read(DatasetSpec("d", "file", str(tmp_path)), notes))
    assert [row.data["text"] for row in rows] == ["1", "2"]
    assert [row.source.split("/")[-1] for row in rows] == ["a.jsonl:1", "b.jsonl:1"]
    assert notes == [f"{tmp_path.name}: 2 files are read as one data set: a.jsonl, b.jsonl"]


def test_folder_of_splits_reads_the_training_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write(tmp_path / split / "data.jsonl", json.dumps({"text": split}) + "\n")
    assert [row.data for row in read(tmp_path)] == [{"text": "train"}]


def test_limit_stops_early(tmp_path):
    path = write(tmp_path / "d.jsonl", '{"text": "a"}\n' * 5)
    assert len(read(path, limit=2)) == 2


# Encodings


@pytest.mark.parametrize(
    "encoding, said",
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("gbk", "d.json: read as GB18030 (GBK); it is not UTF-8"),
        ("utf-16", "d.json: read as UTF-16"),
        ("utf-16-le", "d.json: read as UTF-16"),
        ("utf-16-be", "d.json: read as UTF-16"),
    ],
)
def test_encodings_are_recognised_and_said_aloud(tmp_path, encoding, said):
    path = write(tmp_path / "d.json", json.dumps(ROWS, ensure_ascii=False).encode(encoding))
    notes: list[str] = []
    assert [row.data for row in read(path, notes)] == ROWS
    assert notes == ([said] if said else [])


def test_gbk_csv_and_bom_csv(tmp_path):
    notes: list[str] = []
    assert [row.data for row in read(write(tmp_path / "d.csv", CSV.encode("gbk")), notes)] == ROWS
    assert notes == ["d.csv: read as GB18030 (GBK); it is not UTF-8"]
    assert [row.data for row in read(write(tmp_path / "d.csv", CSV.encode("utf-8-sig")))] == ROWS


def test_gbk_far_into_the_file_is_found(tmp_path):
    rows = [{"text": "x" * 1000}] * 3000 + [{"text": "客户服务中心"}]
    notes: list[str] = []
    found = read(write(tmp_path / "d.jsonl", jsonl(rows).encode("gbk")), notes)
    assert found[-1].data == {"text": "客户服务中心"} and len(notes) == 1


def test_one_damaged_byte_is_not_taken_for_gbk(tmp_path):
    data = jsonl([{"text": "客户服务中心，请问有什么可以帮您？"}] * 20).encode()
    at = data.index("服".encode(), 300)
    path = write(tmp_path / "d.jsonl", data[:at] + data[at + 1 :])
    notes: list[str] = []
    rows = read(path, notes)
    line = data[:at].count(b"\n")
    place = f"d.jsonl: line {line + 1}: byte offset {at}"
    assert notes == [f"{place}: not valid UTF-8; rows with such bytes are refused"]
    assert len(rows) == 20 and [n for n, row in enumerate(rows) if "\udc8d" in row.data["text"]] == [line]


def test_latin_1_is_refused_with_its_offset(tmp_path):
    path = write(tmp_path / "d.csv", "instruction,output\ncafé,ol\xe9 na\xefve\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"byte offset 22: .* save the file as UTF-8"):
        read(path)


TRADITIONAL = "question,answer\n請問營業時間,早上九點到下午五點\n"


def test_traditional_chinese_in_gbk_and_in_big5(tmp_path):
    rows = read(write(tmp_path / "d.csv", TRADITIONAL.encode("gbk")))
    assert rows[0].data == {"question": "請問營業時間", "answer": "早上九點到下午五點"}
    assert read(write(tmp_path / "d.csv", TRADITIONAL.encode("big5")))[0].data == rows[0].data


def test_characters_across_block_borders(tmp_path, monkeypatch):
    from luthier.data.sources import encoding

    path = write(tmp_path / "t.txt", "客户服务中心" * 20)
    for size in (1, 2, 3, 5, 7):
        monkeypatch.setattr(encoding.blocks, "__defaults__", (size,))
        assert "".join(encoding.chunks(path)) == "客户服务中心" * 20


# Tables


def test_csv_ragged_rows_and_stray_quotes_are_bad_rows_with_their_line(tmp_path):
    text = 'q,a\n1,x\n2\n3,"y"z\n4,y,more\n\n5,w\n'
    rows = read(write(tmp_path / "d.csv", text))
    assert [row.data for row in rows if isinstance(row, Row)] == [{"q": "1", "a": "x"}, {"q": "5", "a": "w"}]
    bad = [(row.source, row.reason) for row in rows if isinstance(row, BadRow)]
    assert bad == [
        ("d.csv:2", "line 3: 1 cells, but the header names 2 columns"),
        ("d.csv:3", "line 4: ',' expected after '\"'"),
        ("d.csv:4", "line 5: 3 cells, but the header names 2 columns"),
    ]


def test_csv_quote_that_never_closes_is_an_error_not_one_lost_row(tmp_path):
    path = write(tmp_path / "d.csv", 'q,a\n1,x\n2,"y\n3,z\n4,w\n')
    with pytest.raises(DataError, match="line 3: a quote is opened and never closed"):
        read(path)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_csv_delimiter_is_seen_from_the_header(tmp_path, mark):
    notes: list[str] = []
    rows = read(write(tmp_path / "d.csv", f"q{mark}a\nx, y{mark}z\n"), notes)
    assert [row.data for row in rows] == [{"q": "x, y", "a": "z"}]
    assert notes == [f"d.csv: cells are separated by {mark!r}"]


def test_csv_empty_cells_are_empty_text_and_mac_line_ends_work(tmp_path):
    assert [row.data for row in read(write(tmp_path / "d.csv", "q,a\r1,\r2,x\r"))] == [
        {"q": "1", "a": ""},
        {"q": "2", "a": "x"},
    ]


def test_csv_column_named_twice(tmp_path):
    with pytest.raises(DataError, match="names a column twice: q"):
        read(write(tmp_path / "d.csv", "q,a,q\n1,2,3\n"))


def test_xlsx_cells_become_the_text_that_is_shown(tmp_path):
    from datetime import date

    from openpyxl import Workbook

    book = Workbook()
    for cells in (["q", "a", None], [1.0, True], [2.5, date(2024, 5, 1)], [None, None], ["x", None]):
        book.active.append(cells)
    book.create_sheet("more")
    book.save(tmp_path / "d.xlsx")
    notes: list[str] = []
    assert [row.data for row in read(tmp_path / "d.xlsx", notes)] == [
        {"q": "1", "a": "TRUE"},
        {"q": "2.5", "a": "2024-05-01"},
        {"q": "x", "a": ""},
    ]
    assert notes == ['d.xlsx: its first sheet "Sheet" is read; not read: more']


def test_parquet_null_is_none(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([{"q": "1", "a": None}]), tmp_path / "d.parquet")
    assert [row.data for row in read(tmp_path / "d.parquet")] == [{"q": "1", "a": None}]


# Files that cannot be read


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("d.json", b"", "the file is empty"),
        ("d.json", b"  \n ", "holds no rows"),
        ("d.json", b"[]", "holds no rows"),
        ("d.csv", b"q,a\n", "holds no rows"),
        ("d.json", b"hello", r"begins with \[ or \{, this one with 'hello'"),
        ("d.xls", b"x", "not read -> open it and save it as .xlsx"),
        ("d.dat", b"x", r"not read -> use one of .arrow, .csv"),
        ("d.xlsx", b"x", "not a sound Excel workbook"),
        ("d.parquet", b"x", "not a sound Parquet or Arrow file"),
        ("d.arrow", b"x", "not a sound Parquet or Arrow file"),
        ("d.json.gz", b"[{}]", "not a sound gzip file"),
        ("d.json.gz", gzip.compress(b"[{}]" * 99)[:-9], "gzip file is truncated"),
    ],
)
def test_unsound_files(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content))


def test_missing_file_and_folder_without_data(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: no such file or folder"):
        read(tmp_path / "none.json")
    with pytest.raises(DataError, match="no data files in this folder"):
        read(tmp_path)
