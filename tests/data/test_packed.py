"""Files that are not what their names say, and packed ones that unpack to too much: named, with advice."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from luthier.data import sources
from luthier.data.sources import encoding, packed, tables
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError

ROWS = b'{"instruction": "a", "output": "b"}\n'


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(sources.read(DatasetSpec(path.name, "file", str(path))))
    assert path.name in str(caught.value) and " -> " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.json", b"PK\x03\x04zip", "is a zip archive -> unpack it and name the files"),
        ("a.csv", b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        ("a.txt", b"Rar!\x1a\x07\x00", "is a rar archive"),
        ("a.jsonl", gzip.compress(ROWS), "is packed with gzip -> unpack it (gzip -d), or add .gz"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(ROWS)), "holds, once unpacked, packed with gzip"),
        ("a.json.gz", gzip.compress(b"PK\x05\x06"), "holds, once unpacked, a zip archive"),
        ("a.csv", b"PAR1rest", "is a Parquet file -> name it .parquet"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, or one with a password -> save"),
        ("a.parquet", b"PK\x03\x04", "is a zip archive"),
        ("a.json", b"\x80\x04cos\nsystem\n", "is a pickle"),
        ("a.json", b"%PDF-1.7", "is a PDF"),
        ("a.7z", b"", "(.7z) are not read -> unpack it"),
        ("a.rar", b"", "(.rar) are not read -> unpack it"),
    ],
)
def test_what_a_file_is(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert what in refused(tmp_path / name)


def test_a_tar_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(ROWS)
    for name, mode in (("a.jsonl", "w"), ("b.jsonl.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(tmp_path / "rows", "rows")
        assert "a tar archive -> unpack it" in refused(tmp_path / name)


@pytest.mark.parametrize("text", ["PK is short for", "BZh, he said", "Rar! 7z", "ustar", "%PDF is a format"])
def test_texts_that_begin_alike(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    (row,) = sources.read(DatasetSpec("a", "file", str(tmp_path / "a.txt")))
    assert row.data == {"text": text}


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("/dev/zero")
    (tmp_path / "c.jsonl").write_bytes(ROWS)
    (tmp_path / "d.jsonl").symlink_to("c.jsonl")
    assert "is a pipe, not a file" in refused(tmp_path / "a.jsonl")
    assert "is a device, not a file" in refused(tmp_path / "b.jsonl")
    assert len(list(sources.read(DatasetSpec("d", "file", str(tmp_path / "d.jsonl"))))) == 1


def test_a_packed_file_that_grows_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "HARMLESS", 1 << 20)
    for name in ("a.jsonl.gz", "a.csv.gz", "a.parquet.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b" " * (4 << 20)))
        assert "unpacks to more than 250 times its size" in refused(tmp_path / name)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(os.urandom(1 << 20).hex().encode()))
    assert len(list(sources.read(DatasetSpec("b", "file", str(tmp_path / "b.txt.gz"))))) == 1


def test_a_line_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("short\n" + "x" * (3 << 20) + "\nshort\n")
    assert [len(line) for line in encoding.lines(tmp_path / "a.txt")] == [5, 3 << 20, 5]
    monkeypatch.setattr(encoding, "LONGEST", 1 << 20)
    assert "line 2 has more than 1 million characters" in refused(tmp_path / "a.txt")


def test_a_cell_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_CELL", 1 << 16)
    (tmp_path / "a.csv").write_text('a,b\n1,2\n"' + "x,y\n" * (1 << 16))
    assert "line 3: a quote is opened and never closed" in refused(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("part", "content", "what"),
    [
        ("xl/sharedStrings.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a/>', "declares a document type"),
        ("xl/styles.xml", '<!DOCTYPE a SYSTEM "file:///x"><a/>'.encode("utf-16"), "declares a document type"),
        ("xl/worksheets/sheet1.xml", b"<a>" + b" " * (20 << 20) + b"</a>", "unpacks to 20 MB"),
        ("xl/theme/theme1.xml", b"<a/>" + os.urandom(17 << 20), "unpacks to 17 MB"),
        ("xl/workbook.xml", b"<a", "not a sound"),
    ],
)
def test_workbooks_that_are_measured(tmp_path: Path, part: str, content: bytes, what: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr(part, content)
    assert what in refused(tmp_path / "a.xlsx")
