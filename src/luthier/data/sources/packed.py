"""What a data file really is, whatever its name says; and packed files that unpack to far too much.

Archives are never unpacked: their members may carry any path, any number and any size. gzip of one file is
read as a stream, and Excel workbooks (zip archives of XML) are measured before openpyxl sees them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from luthier.config import plain
from luthier.errors import DataError

HEAD = 512  # bytes that show what a file is; a tar archive says so last, at byte 257
CHECK = "check that it is there, and that you may read it"
UNPACK = "unpack it and name the files or their folder"
# what it is -> (how its first bytes look, what to do)
KINDS: dict[str, tuple[re.Pattern[bytes], str]] = {
    "a zip archive": (
        re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)"),
        UNPACK + " (a workbook: rename it to .xlsx)",
    ),
    "a tar archive": (re.compile(rb"(?s)(?=.{0,256}\0).{257}ustar[\0 ]"), UNPACK),
    "a 7z archive": (re.compile(rb"7z\xbc\xaf\x27\x1c"), UNPACK),
    "a rar archive": (re.compile(rb"Rar!\x1a\x07"), UNPACK),
    "packed with gzip": (re.compile(rb"\x1f\x8b\x08"), "unpack it (gzip -d), or add .gz to its name, once"),
    "packed with bzip2": (re.compile(rb"BZh[1-9]1AY&SY"), "unpack it (bzip2 -d)"),
    "packed with xz": (re.compile(rb"\xfd7zXZ\0"), "unpack it (xz -d)"),
    "packed with zstd": (re.compile(rb"\x28\xb5\x2f\xfd"), "unpack it (zstd -d)"),
    "a Parquet file": (re.compile(rb"PAR1"), "name it .parquet"),
    "an Arrow file": (re.compile(rb"ARROW1\0\0|FEA1"), "name it .arrow"),
    "an old Office file, or one with a password": (
        re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        "save it as .xlsx without a password, or as CSV in UTF-8",
    ),
    "a PDF": (re.compile(rb"%PDF-\d\.\d"), "turn documents into rows first"),
    "a pickle, which can run code when it is read": (
        re.compile(rb"\x80[\x02-\x05]"),
        "save its rows as JSON Lines",
    ),
    "a web page": (
        re.compile(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html)"),
        "download the data file itself (a hub's link has /resolve/ or /raw/ in it)",
    ),
    "a Git LFS pointer, which stands for the file": (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "fetch the file (git lfs pull)",
    ),
    "a database": (re.compile(rb"SQLite format 3\0"), "save its rows as JSON Lines or CSV"),
}
# file name extensions of a binary format -> what its files are
EXPECTED = {
    ".xlsx": "a zip archive",
    ".xlsm": "a zip archive",
    ".parquet": "a Parquet file",
    ".arrow": "an Arrow file",
    ".feather": "an Arrow file",
}
# A gzip file of text unpacks to 3 to 50 times its size, and to 1,000 times when it is made to.
RATIO, HARMLESS = 250, 256 << 20
# Bytes of a workbook's parts: sheets and texts, and all others, which are read whole.
LARGEST_SHEET, LARGEST_PART, MOST_PARTS = 256 << 20, 16 << 20, 10_000
SHEET_RATIO, SHEET_HARMLESS = 250, 16 << 20


def check_file(path: Path) -> None:
    """Raise DataError for a pipe or a device, which would be read for ever."""
    try:
        kind = plain.strange(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error} -> {CHECK}") from error
    if kind:
        raise DataError(f"{path}: is {kind}, not a file -> save its rows as a file and name that")


def check_head(path: Path, head: bytes, kind: str) -> None:
    """Hold a file's first (unpacked) bytes against what its extension promises.

    Raises DataError for what is an archive or another format under a wrong name.
    """
    found = next((what for what, (shape, _) in KINDS.items() if shape.match(head)), "")
    if found and found != EXPECTED.get(kind) and (found, kind) != ("a web page", ".txt"):
        inside = "holds, once unpacked," if path.name.lower().endswith(".gz") else "is"
        raise DataError(f"{path}: {inside} {found} -> {KINDS[found][1]}")


def growth(path: Path) -> Callable[[int], None]:
    """A check of how many bytes a packed file has become. Raises DataError when they are far too many."""
    packed = max(path.stat().st_size, 1) if path.name.lower().endswith(".gz") else 0

    def check(unpacked: int) -> None:
        if packed and unpacked > HARMLESS and unpacked > RATIO * packed:
            raise DataError(
                f"{path}: unpacks to more than {RATIO} times its size, {unpacked >> 20:,} MB so far"
                " -> unpack it yourself (gzip -d) if that is meant"
            )

    return check


def check_workbook(path: Path, file: IO[bytes]) -> None:
    """Raise DataError for a workbook whose parts are too large, or declare entities, as no program writes."""
    with zipfile.ZipFile(file) as book:
        parts = book.infolist()
        if len(parts) > MOST_PARTS:
            raise DataError(f"{path}: has {len(parts):,} parts -> save it as CSV in UTF-8")
        for part in parts:
            if not part.filename.lower().endswith((".xml", ".rels")):
                continue  # pictures and the like, which nobody reads
            rows = part.filename.lower().startswith(("xl/worksheets/", "xl/sharedstrings"))
            limit = LARGEST_SHEET if rows else LARGEST_PART
            ratio = part.file_size / max(part.compress_size, 1)
            if part.file_size > limit or (part.file_size > SHEET_HARMLESS and ratio > SHEET_RATIO):
                raise DataError(
                    f"{path}: its part {part.filename} unpacks to {part.file_size >> 20:,} MB,"
                    f" {ratio:.0f} times its size -> save it as CSV in UTF-8"
                )
            with book.open(part) as content:
                _check_xml(path, part.filename, content)
    file.seek(0)


class _Done(Exception):
    """The root element has begun: no document type can follow."""


def _check_xml(path: Path, name: str, content: IO[bytes]) -> None:
    def begun(*unused: Any) -> None:
        raise _Done

    def declared(*unused: Any) -> None:
        raise DataError(
            f"{path}: its part {name} declares a document type -> save it again as .xlsx, or as CSV"
        )

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler, parser.StartElementHandler = declared, begun
    try:
        while block := content.read(1 << 16):
            parser.Parse(block)
    except _Done:
        return
    except expat.ExpatError as error:
        raise DataError(
            f"{path}: its part {name} is not sound ({error}) -> save it again as .xlsx, or as CSV in UTF-8"
        ) from error
