"""Data files that are archives, bombs or lies: named, with what to do, in bounded memory and time."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tasks
from faults.bench import Bench, Done, Trial
from faults.yamls import confined

ROWS = b'{"instruction": "where is it", "input": "", "output": "here"}\n' * 20
SECONDS = 90
KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml."
PARTS = {"workbook": "sheet.main", "worksheets/sheet1": "worksheet", "sharedStrings": "sharedStrings"}
CONTENT_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    + "".join(f'<Override PartName="/xl/{p}.xml" ContentType="{KIND}{k}+xml"/>' for p, k in PARTS.items())
    + "</Types>"
)
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="{type}" Target="{target}"/></Relationships>'
)


def _zip(names: tuple[str, ...] = ("rows.jsonl",)) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, ROWS)
    return file.getvalue()


def _tar(mode: str = "w") -> bytes:
    """A tar with a path that leaves its folder, and links."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, kind, target in (
            ("../../STOLEN.jsonl", tarfile.REGTYPE, ""),
            ("link", tarfile.SYMTYPE, "/etc"),
            ("link/STOLEN", tarfile.REGTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, 0 if target else len(ROWS)
            archive.addfile(member, None if target else io.BytesIO(ROWS))
    return file.getvalue()


def _gzip_bomb(row: bytes, megabytes: int = 10_240) -> bytes:
    """gzip of `row` and then so many MB of the letter a: the same packed megabyte again and again.

    Nobody gets as far as the check sum at its end, which is wrong.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(row) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b"a" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * megabytes + packer.flush()


def _workbook(sheet: str, extra: dict[str, bytes] | None = None, strings: str = "") -> bytes:
    """A workbook of one sheet, written by hand so that it may lie."""
    file = io.BytesIO()
    book = f'<?xml version="1.0"?><workbook xmlns="{MAIN}" xmlns:r="{RELATION}"><sheets>'
    book += '<sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>'
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", CONTENT_TYPES)
        archive.writestr(
            "_rels/.rels", RELATIONS.format(type=f"{RELATION}/officeDocument", target="xl/workbook.xml")
        )
        archive.writestr("xl/workbook.xml", book)
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            RELATIONS.format(type=f"{RELATION}/worksheet", target="worksheets/sheet1.xml"),
        )
        archive.writestr("xl/worksheets/sheet1.xml", sheet)
        archive.writestr("xl/sharedStrings.xml", strings or f'<sst xmlns="{MAIN}"/>')
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def _sheet(rows: str, head: str = "") -> str:
    return f'<?xml version="1.0"?>{head}<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>'


def _cells(*texts: str) -> str:
    return "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in texts)


TABLE = f"<row>{_cells('instruction', 'output')}</row>" + f"<row>{_cells('where', 'here')}</row>" * 20
ENTITY = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
LAUGHS = '<!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12)
) + "]>"  # fmt: skip


def _big_sheet() -> bytes:
    """Twenty megabytes of one row, which pack to a three-hundredth."""
    return _workbook(_sheet(f"<row>{_cells('x')}</row>" * 450_000))


def _big_strings() -> bytes:
    return _workbook(_sheet(TABLE), strings=f'<sst xmlns="{MAIN}"><si><t>{"a" * (20 << 20)}</t></si></sst>')


def _parquet(lie: Callable[[bytearray], None]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"instruction": ["a"] * 50, "output": ["b"] * 50}), file)
    content = bytearray(file.getvalue())
    lie(content)
    return bytes(content)


def _longer_footer(content: bytearray) -> None:
    content[-8:-4] = struct.pack("<I", 0x7FFFFFF0)


def _broken_footer(content: bytearray) -> None:
    size = struct.unpack("<I", content[-8:-4])[0]
    content[-8 - size : -8] = b"\xff" * size


def _arrow_with_wild_offsets() -> bytes:
    """A sound Arrow stream whose text column says that its texts are 2 GB further on."""
    import pyarrow as pa

    table = pa.table({"instruction": ["row"] * 64, "output": ["out"] * 64})
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    offsets = struct.pack("<65i", *range(0, 65 * 3, 3))
    wild = struct.pack("<65i", *([0x7FFFFF00] * 65))
    return file.getvalue().replace(offsets, wild)


def _beside_a_loop(folder: Path) -> str:
    (folder / "data" / "loop.json").symlink_to("loop.json")
    return "loop.json"


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "data" / "pipe.jsonl")
    return "pipe.jsonl"


# name -> (file name, its content, what the refusal must say)
ATTACKS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "zip by its name": ("a.zip", _zip, "unpack it and name the files"),
    "zip called .json": ("a.json", _zip, "is a zip archive -> unpack it"),
    "tar.gz by its name": ("a.tar.gz", lambda: _tar("w:gz"), "unpack it and name the files"),
    "tar with paths and links that leave it, called .csv": ("a.csv", _tar, "is a tar archive -> unpack it"),
    "7z called .jsonl": ("a.jsonl", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(64), "is a 7z archive"),
    "rar called .txt": ("a.txt", lambda: b"Rar!\x1a\x07\x01\0" + bytes(64), "is a rar archive -> unpack it"),
    "gzip bomb of one line": ("a.jsonl.gz", lambda: _gzip_bomb(b'{"a": "'), "64 million"),
    "gzip in gzip": ("a.jsonl.gz", lambda: gzip.compress(gzip.compress(ROWS)), "unpacked, packed with gzip"),
    "truncated gzip": ("a.jsonl.gz", lambda: gzip.compress(os.urandom(4096) + ROWS)[:2000], "truncated"),
    "workbook with a sheet that is a bomb": ("a.xlsx", _big_sheet, "save it as CSV"),
    "workbook with an external entity": ("a.xlsx", lambda: _workbook(_sheet(TABLE, ENTITY)), "document type"),
    "parquet with a footer that is too long": ("a.parquet", lambda: _parquet(_longer_footer), "not a sound"),
    # --- beyond the twelve
    "gzip bomb of one cell": ("a.csv.gz", lambda: _gzip_bomb(b'a,b\n"'), "64 million"),
    "gzip without .gz": ("a.jsonl", lambda: gzip.compress(ROWS), "is packed with gzip"),
    "gzip bomb of one JSON text": ("a.json.gz", lambda: _gzip_bomb(b'[{"a": "'), "times its size"),
    "gzip with rubbish after it": ("a.txt.gz", lambda: gzip.compress(ROWS) + b"rubbish", "not a sound gzip"),
    "gzip bomb as Parquet": ("a.parquet.gz", lambda: _gzip_bomb(b"PAR1"), "times its size"),
    "tar.gz called .json.gz": ("a.json.gz", lambda: _tar("w:gz"), "once unpacked, a tar archive"),
    "zip called .parquet": ("a.parquet", _zip, "is a zip archive"),
    "zip that is no workbook, called .xlsx": ("a.xlsx", lambda: _zip(("../../STOLEN",)), "not a sound Excel"),
    "workbook with texts that are a bomb": ("a.xlsx", _big_strings, "save it as CSV"),
    "workbook with a billion laughs": ("a.xlsx", lambda: _workbook(_sheet(TABLE, LAUGHS)), "document type"),
    "workbook whose rows are a billion apart": (
        "a.xlsx", lambda: _workbook(_sheet(TABLE + f'<row r="{10**15}">{_cells("x")}</row>')), "empty rows",
    ),
    "workbook with an unsound sheet": ("a.xlsx", lambda: _workbook(_sheet("<row><c>")), "not a sound"),
    "parquet with a footer of rubbish": ("a.parquet", lambda: _parquet(_broken_footer), "not a sound"),
    "arrow with offsets outside of it": ("a.arrow", _arrow_with_wild_offsets, "not a sound"),
    "pickle called .json": ("a.json", lambda: b"\x80\x04cos\nsystem\n", "a pickle"),
}  # fmt: skip


def archives(bench: Bench, count: int) -> Iterator[Trial]:
    """`luthier train` on each: refused by the file's name with what to do, nothing written, little memory."""
    base = bench.folder()
    settings = tasks.make(base)
    names = list(ATTACKS)
    for name in [names[k * len(names) // count] for k in range(count)] if count < len(names) else names:
        file, make, reason = ATTACKS[name]
        folder = bench.folder()
        (folder / "data").mkdir()
        (folder / "data" / file).write_bytes(make())
        yield Trial(name, _tried(bench, folder, file, reason, settings))
    folder = bench.folder()
    (folder / "data").mkdir()
    yield Trial("a link to itself", _tried(bench, folder, _beside_a_loop(folder), "does not exist", settings))
    yield Trial("a pipe", _tried(bench, folder, _pipe(folder), "is a pipe, not a file", settings))
    yield Trial("a workbook with more parts, one of them above it", _good_workbook(bench, settings))


def _tried(bench: Bench, folder: Path, file: str, reason: str, settings: dict[str, object]) -> str:
    words = tasks.words(
        {**settings, "dataset": str(folder / "data" / file), "output_dir": str(folder / "run"),
         "tokenized_path": str(folder / "tokens")}
    )  # fmt: skip
    before = _tree(folder.parent)
    try:
        done = bench.start(["train", *words], folder, None, confined, [SECONDS]).finish(2 * SECONDS)
    except TimeoutError:
        return f"not refused within {2 * SECONDS} s"
    left = {name for name in _tree(folder.parent) - before if "/cache" not in name}
    return _wrong(done, file, reason) or (f"left behind: {sorted(left)[:5]}" if left else "")


def _tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if not path.name.startswith("stdout-")}


def _wrong(done: Done, file: str, reason: str) -> str:
    said = done.out + done.err
    if done.code not in (1, 2):
        return f"exit code {done.code}: {said[-600:]}"
    if "Traceback" in said:
        return f"a traceback: {said[-900:]}"
    if file not in said or reason not in said or " -> " not in said:
        return f"does not say {reason!r}: {said[-600:]}"
    return ""


def _good_workbook(bench: Bench, settings: dict[str, object]) -> str:
    """Members that are no parts of a workbook are never written anywhere, and disturb nothing."""
    folder = bench.folder()
    (folder / "data").mkdir()
    (folder / "data" / "a.xlsx").write_bytes(_workbook(_sheet(TABLE), {"../../STOLEN": ROWS}))
    changes = {"dataset": str(folder / "data" / "a.xlsx"), "output_dir": str(folder / "run"), "max_steps": 1}
    done = bench.luthier(["train", *tasks.words({**settings, **changes})], folder)
    if done.code != 0:
        return f"a sound workbook was refused: {done.err[-600:]}"
    return "written outside" if list(folder.parent.rglob("STOLEN*")) else ""
