"""Bytes of a file -> text: gzip, and the encodings that data files really come in.

UTF-8 is the rule. UTF-16 (with or without a byte order mark), GB18030 (which contains GBK and GB2312, the
default of spreadsheets on Chinese Windows) and Big5 are recognised and read, and a note says so. Text that
is merely damaged UTF-8 is never re-interpreted: almost any bytes are "valid" GB18030, so guessing there
would train a model on mojibake.
"""

from __future__ import annotations

import codecs
import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from luthier.data.sources import charsets, packed
from luthier.errors import DataError

SAMPLE = 64 << 20  # bytes looked at before the encoding is decided
CHUNK = 1 << 20  # bytes decoded at a time
LONGEST = 64 << 20  # characters of a line or row; one that has not ended by then never will
MOST_SPACE = 16 << 20  # bytes of white space in a row; a file of more is no data, but takes as long to read
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DAMAGED_LINE = re.compile("^[^\n\ufffd]*\ufffd", re.MULTILINE)
BOM = "\ufeff"
RARE = 20  # damage is rare when at most one line in so many has some
SPOKEN = {
    "gb18030": "GB18030 (GBK)",
    "big5": "Big5",
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be"), "UTF-16"),
}


def note(notes: list[str] | None, text: str) -> None:
    """Say something to the user once (files are read more than once: to look, to count, to train)."""
    if notes is not None and text not in notes:
        notes.append(text)


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked when its name ends in .gz. The caller closes it."""
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def seekable(path: Path, stack: ExitStack) -> IO[bytes]:
    """The file, for formats read from their end; a packed one is unpacked to a temporary file first."""
    if not path.name.lower().endswith(".gz"):
        try:
            return stack.enter_context(open_bytes(path))
        except OSError as error:
            why = error.strerror or str(error)
            raise DataError(f"{path}: cannot be read: {why} -> {packed.CHECK}") from error
    unpacked = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
    for block in blocks(path):
        unpacked.write(block)
    unpacked.seek(0)
    return unpacked


def blocks(path: Path, size: int = CHUNK) -> Iterator[bytes]:
    """The file's (unpacked) bytes, `size` at a time. Raises DataError when it cannot be read, or unpacks to
    far more than a data file does."""
    done = space = 0
    try:
        check = packed.growth(path)
        with open_bytes(path) as file:
            while block := file.read(size):
                done += len(block)
                check(done)
                space = space + len(block) if block.isspace() else 0
                if space > MOST_SPACE:
                    raise DataError(f"{path}: holds {space >> 20} MB of white space in a row -> leave it out")
                yield block
    except EOFError as error:
        raise DataError(
            f"{path}: the gzip file is truncated after {done} unpacked bytes -> copy or download it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not a sound gzip file ({error}) -> rename it if it is not packed, or pack it again"
        ) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read: {why} -> {packed.CHECK}") from error


def detect(path: Path, notes: list[str] | None = None) -> str:
    """The name of the file's encoding, decided on its first 64 MB; a note says what was recognised.

    Raises DataError naming line and byte offset when the bytes are in no encoding that can be told apart.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen, line = 0, 1
    for block in blocks(path):
        if not seen:
            marked = next((name for mark, name in BYTE_ORDER_MARKS if block.startswith(mark)), None)
            marked = marked or _utf16_without_mark(block)
            if marked and marked != "utf-8":
                note(notes, f"{path.name}: read as {SPOKEN.get(marked, marked.upper())}")
                return marked
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            place = seen - pending + error.start
            line += block.count(b"\n", 0, max(place - seen, 0))
            return _not_utf8(path, place, f"line {line}: byte offset {place}", notes)
        seen += len(block)
        line += block.count(b"\n")
        if seen >= SAMPLE:
            break
    return "utf-8"


def _utf16_without_mark(block: bytes) -> str | None:
    """UTF-16 text has a zero in every second byte wherever it is ASCII (braces, quotes, digits, newlines).

    A few zeros in what is valid UTF-8 are zeros in a text, or padding, and not UTF-16.
    """
    head = block[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) <= 4 * min(even, odd) or (10 * (even + odd) < 2 * len(head) and _is_utf8(head)):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(path: Path, offset: int, place: str, notes: list[str] | None) -> str:
    """Tell Chinese encodings from damaged UTF-8 and from everything else, around the first offence."""
    sample, before = bytearray(), 0
    for block in blocks(path):
        sample += block
        if before + len(sample) > offset + 4 * CHUNK:
            break
        if len(sample) > 8 * CHUNK:  # drop whole lines that are far from it
            cut = sample.rfind(b"\n", 0, len(sample) - 4 * CHUNK) + 1
            del sample[:cut]
            before += cut
    replaced = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    damage = replaced.count("\ufffd")
    foreign = len(charsets.ASCII.sub("", replaced)) - damage
    if foreign <= 4 * damage:  # else nearly all of it is good UTF-8
        name = charsets.chinese(bytes(sample))
        if name:
            note(notes, f"{path.name}: read as {SPOKEN[name]}; it is not UTF-8")
            return name
        if RARE * len(DAMAGED_LINE.findall(replaced)) > replaced.count("\n"):
            raise DataError(
                f"{path}: {place}: not UTF-8 (byte 0x{sample[offset - before]:02x}), and not plausible as"
                " UTF-16, GB18030 or Big5 -> save the file as UTF-8"
            )
    note(notes, f"{path.name}: {place}: not valid UTF-8; rows with such bytes are refused")
    return "utf-8"


def chunks(path: Path, notes: list[str] | None = None) -> Iterator[str]:
    """The file's text in pieces of about 1 MB. Bytes that are not UTF-8 come as halves of surrogate pairs
    (PEP 383), so that they cost their row alone; `formats.fields.sound` refuses it. Raises DataError naming
    the place of a byte that is not of another encoding."""
    name = detect(path, notes)
    decoder = codecs.getincrementaldecoder(name)("surrogateescape" if name == "utf-8" else "strict")
    done, line, first = 0, 1, True
    for block in blocks(path):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError as error:
            place = done - pending + error.start
            line += block.count(b"\n", 0, max(place - done, 0))
            raise DataError(
                f"{path}: line {line}: byte offset {place}: not valid {SPOKEN.get(name, name.upper())}"
                " -> repair that place, or save the file again as UTF-8"
            ) from error
        done += len(block)
        line += block.count(b"\n")
        if first:
            text, first = text.lstrip(BOM), not text
        if text:
            yield text
    left = decoder.getstate()[0]
    if left:
        note(notes, f"{path.name}: ends in the middle of a character (byte offset {done - len(left)})")
        yield "".join(chr(0xDC00 + byte) for byte in left if byte >= 0x80)


def lines(path: Path, notes: list[str] | None = None) -> Iterator[str]:
    r"""The file's lines without their ends. Only \n, \r\n (and, in a file with no \n, \r) end a line.

    str.splitlines would also cut at U+2028 and others, which may stand inside a JSON string or a cell.
    """
    rest: list[str] = []  # pieces of the line that has not ended yet
    length, number, old_mac = 0, 1, None
    for chunk in chunks(path, notes):
        if old_mac is None:
            old_mac = "\r" in chunk and "\n" not in chunk
        parts = (chunk.replace("\r", "\n") if old_mac else chunk).split("\n")
        if len(parts) > 1:
            parts[0] = "".join((*rest, parts[0]))
            rest, length = [], 0
        rest.append(parts.pop())
        length += len(rest[-1])
        number += len(parts)
        for part in parts:
            yield part[:-1] if part.endswith("\r") else part
        if length > LONGEST:
            raise DataError(
                f"{path}: line {number} has more than {LONGEST >> 20} million characters, too many for a row"
                " -> break it into lines, one row each"
            )
    if length:
        yield "".join(rest)


def whole(path: Path, notes: list[str] | None = None) -> str:
    """The whole text of a small file (a dataset_info.json, a README)."""
    return "".join(chunks(path, notes))
