"""Packed files and archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from bad_files.case import Case, asked, dumps, file, jsonl, made, pair

TWO = jsonl([pair(1), pair(2)]).encode()


def _zip() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("../../d.jsonl", TWO)
    return memory.getvalue()


def _tar(mode: str) -> Callable[[], bytes]:
    def make() -> bytes:
        memory = io.BytesIO()
        with tarfile.open(fileobj=memory, mode=mode) as archive:  # type: ignore[call-overload]
            member = tarfile.TarInfo("d.jsonl")
            member.size = len(TWO)
            archive.addfile(member, io.BytesIO(TWO))
        return memory.getvalue()

    return make


def bomb(start: bytes, megabytes: int = 2000, letter: bytes = b"a") -> bytes:
    """gzip of `start` and then so many megabytes of one letter, a thousandth of that on the disk."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(letter * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * megabytes + packer.flush()


CASES: dict[str, Case] = {
    "gzip": Case(made(lambda: gzip.compress(TWO), "d.jsonl.gz"), asked(1, 2)),
    "two gzip members": Case(
        made(lambda: gzip.compress(TWO) + gzip.compress(jsonl([pair(3)]).encode()), "d.jsonl.gz"),
        asked(1, 2, 3),
    ),
    "gzip of an array in UTF-16": Case(
        made(lambda: gzip.compress(dumps([pair(1)]).encode("utf-16")), "d.json.gz"),
        asked(1),
        notes=["read as UTF-16"],
    ),
    "gzip, the name in capitals": Case(made(lambda: gzip.compress(TWO), "D.JSONL.GZ"), asked(1, 2)),
    "gzip of nothing": Case(made(lambda: gzip.compress(b""), "d.json.gz"), refused="the file is empty"),
    "gzip cut in the middle": Case(
        made(lambda: gzip.compress(TWO + os.urandom(9999).hex().encode())[:2000], "d.jsonl.gz"),
        refused="is truncated after",
    ),
    "gzip without its check sum": Case(
        made(lambda: gzip.compress(TWO)[:-8], "d.jsonl.gz"), refused="truncated"
    ),
    "gzip with a wrong check sum": Case(
        made(lambda: gzip.compress(TWO)[:-8] + b"12345678", "d.jsonl.gz"),
        refused="not a sound gzip file (CRC check failed",
    ),
    "gzip with a flipped bit": Case(
        made(lambda: gzip.compress(TWO)[:20] + b"\xff" + gzip.compress(TWO)[21:], "d.jsonl.gz"),
        refused="not a sound gzip",
    ),
    "gzip and then rubbish": Case(
        made(lambda: gzip.compress(TWO) + b"rubbish", "d.jsonl.gz"), refused="not a sound gzip"
    ),
    "named .gz and not packed": Case(file(TWO, "d.jsonl.gz"), refused="rename it if it is not packed"),
    "packed and not named .gz": Case(made(lambda: gzip.compress(TWO), "d.jsonl"), refused="packed with gzip"),
    "packed twice": Case(
        made(lambda: gzip.compress(gzip.compress(TWO)), "d.jsonl.gz"), refused="once unpacked, packed"
    ),
    "a name of .gz alone": Case(
        made(lambda: gzip.compress(TWO), "d.gz"), refused="files of this kind (no extension)"
    ),
    "a bomb of one line": Case(made(lambda: bomb(b'{"a": "'), "d.jsonl.gz"), refused="too many for a row"),
    "a bomb of one JSON text": Case(
        made(lambda: bomb(b'[{"a": "'), "d.json.gz"), refused="250 times its size"
    ),
    "a bomb of brackets": Case(made(lambda: bomb(b"[", letter=b"["), "d.json.gz"), refused=" -> "),
    "a bomb of one cell": Case(made(lambda: bomb(b'a,b\n1,"'), "d.csv.gz"), refused="too many for a row"),
    "a bomb of blank lines": Case(
        made(lambda: bomb(TWO, letter=b"\n"), "d.jsonl.gz"), refused="of white space in a row"
    ),
    "a bomb of spaces": Case(
        made(lambda: bomb(b" ", letter=b" "), "d.json.gz"), refused="of white space in a row"
    ),
    "a bomb as a workbook": Case(made(lambda: bomb(b"PK\3\4"), "d.xlsx.gz"), refused="250 times its size"),
    "a bomb as Parquet": Case(made(lambda: bomb(b"PAR1"), "d.parquet.gz"), refused="250 times its size"),
    "zip": Case(made(_zip, "d.zip"), refused="unpack it and name the files or their folder"),
    "zip named .json": Case(made(_zip), refused="is a zip archive -> unpack it"),
    "zip named .xlsx": Case(made(_zip, "d.xlsx"), refused="not a sound Excel workbook"),
    "tar": Case(made(_tar("w"), "d.tar"), refused="unpack it and name the files"),
    "tar named .jsonl": Case(made(_tar("w"), "d.jsonl"), refused="is a tar archive"),
    "tar.gz": Case(made(_tar("w:gz"), "d.tar.gz"), refused="unpack it and name the files"),
    "tar.gz named .json.gz": Case(made(_tar("w:gz"), "d.json.gz"), refused="once unpacked, a tar archive"),
    "bzip2": Case(made(lambda: bz2.compress(TWO), "d.jsonl.bz2"), refused="unpack it (bzip2 -d)"),
    "bzip2 named .jsonl": Case(made(lambda: bz2.compress(TWO), "d.jsonl"), refused="is packed with bzip2"),
    "xz": Case(made(lambda: lzma.compress(TWO), "d.jsonl.xz"), refused="unpack it (xz -d)"),
    "xz named .csv": Case(made(lambda: lzma.compress(TWO), "d.csv"), refused="is packed with xz"),
    "zstd": Case(file(b"\x28\xb5\x2f\xfd0000", "d.jsonl.zst"), refused="unpack it (zstd -d)"),
    "7z named .jsonl": Case(file(b"7z\xbc\xaf\x27\x1c00", "d.jsonl"), refused="is a 7z archive"),
    "rar named .txt": Case(file(b"Rar!\x1a\x07\x01\0", "d.txt"), refused="is a rar archive"),
    "a pickle named .json": Case(file(b"\x80\x04cos\nsystem\n"), refused="is a pickle"),
    "a database named .csv": Case(file(b"SQLite format 3\0rest", "d.csv"), refused="is a database"),
    "a PDF named .txt": Case(file(b"%PDF-1.7\n", "d.txt"), refused="is a PDF"),
}
