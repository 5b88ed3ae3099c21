"""Encoding damage: text that was read in another encoding than it was written in.

Three families. UTF-8 read as a Latin encoding ("cafÃ©") is repaired by ftfy, which is asked for the encoding
alone: its other repairs would change Chinese punctuation and quotation marks. UTF-8 read as GBK ("浣犲ソ" for
你好) and GBK read as Latin-1 ("ÄãºÃ") are what Chinese data suffers from and ftfy does not know; they are
found by their bytes and counted only when the bytes decode strictly into common characters. The third is
beyond repair and only reported: U+FFFD, what it becomes (锟斤拷), and uninitialised memory (烫烫烫烫).
"""

from __future__ import annotations

import functools
import re
from typing import Any

from luthier.errors import MissingPackage
from luthier.prepare.span import Change, Span, excerpt, replaced

_LOST = re.compile("\ufffd+|(?:锟斤拷)+锟?|烫{4,}|屯{4,}")
# What UTF-8 bytes look like as Latin-1 or Windows-1252: a lead byte, then a continuation byte.
_LATIN = re.compile("[\u00c2-\u00f4][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
# GBK pairs of common characters (rows B0 to D7 of GB 2312) as Latin-1.
_GBK_AS_LATIN = re.compile("(?:[\u00b0-\u00d7\u00a1-\u00a3][\u00a1-\u00fe]){2,}")


def find(text: str) -> list[Span]:
    """Places of encoding damage: "mojibake" can be repaired, "lost" cannot. Asks ftfy where needed."""
    if text.isascii():
        return []
    found = [Span("lost", *lost.span(), excerpt(lost.group())) for lost in _LOST.finditer(text)]
    for change in _repairs(text):
        if all(change.end <= lost.start or change.start >= lost.end for lost in found):
            shown = f"{excerpt(change.before, 20)} → {excerpt(change.after, 20)}"
            found.append(Span("mojibake", change.start, change.end, shown))
    return sorted(found, key=lambda span: span.start)


def repair(text: str) -> tuple[str, list[Change]]:
    """`text` as it was written, as far as that is certain, and the changes."""
    changes = {change.start: change for change in _repairs(text)} if not text.isascii() else {}
    places = [Span("mojibake", start, change.end, "") for start, change in changes.items()]
    return replaced(text, places, lambda place: changes[place.start].after)


def _repairs(text: str) -> list[Change]:
    """What can be repaired, in order and without overlap."""
    changes = [
        Change("mojibake", *found.span(), found.group(), new)
        for found in _gbk_pattern().finditer(text)
        if (new := _utf8_of_gbk(found.group()))
    ]
    if _GBK_AS_LATIN.search(text):
        for found in _GBK_AS_LATIN.finditer(text):
            if new := _common(found.group().encode("latin-1"), "gb2312"):
                changes.append(Change("mojibake", *found.span(), found.group(), new))
    if _LATIN.search(text):
        changes += [c for c in _latin(text) if all(c.end <= d.start or c.start >= d.end for d in changes)]
    return sorted(changes, key=lambda change: change.start)


def _latin(text: str) -> list[Change]:
    """ftfy's repairs, line by line, since a damaged line says nothing about the next."""
    repaired, changes, at = _ftfy(), [], 0
    for line in text.splitlines(keepends=True):
        if _LATIN.search(line):
            new = repaired(line)
            changes += [
                Change("mojibake", at + c.start, at + c.end, c.before, c.after)
                for c in _differences(line, new)
            ]
        at += len(line)
    return changes


def _differences(old: str, new: str) -> list[Change]:
    from difflib import SequenceMatcher

    if old == new:
        return []
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [Change("mojibake", a, b, old[a:b], new[c:d]) for tag, a, b, c, d in blocks if tag != "equal"]


@functools.cache
def _ftfy() -> Any:
    """ftfy's `fix_encoding` and nothing else of ftfy."""
    try:
        import ftfy
    except ImportError as missing:
        raise MissingPackage("ftfy", "repairing wrongly decoded text", "data") from missing
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
    )
    return functools.partial(ftfy.fix_encoding, config=config)


@functools.cache
def _gbk_pattern() -> re.Pattern[str]:
    """Runs of GBK characters whose bytes may be UTF-8 of Han characters: three for every two characters.

    Han characters are E3..E9 and two continuation bytes (80..BF) in UTF-8; the three GBK characters that six
    such bytes make are one of 448, one of 441 and one of 4032, of which the first are rare in real text.
    """
    first = _gbk_set(range(0xE3, 0xEA), range(0x80, 0xC0))
    second = _gbk_set(range(0x81, 0xC0), range(0xE3, 0xEA))
    third = _gbk_set(range(0x81, 0xC0), range(0x80, 0xC0))
    return re.compile(f"(?:[{first}][{second}][{third}])+")


def _gbk_set(leads: range, trails: range) -> str:
    signs = (bytes((a, b)).decode("gb18030", "replace") for a in leads for b in trails)
    return "".join(re.escape(sign) for sign in signs if len(sign) == 1 and sign != "\ufffd")


def _utf8_of_gbk(run: str) -> str:
    """`run` decoded as it should have been; "" when it is ordinary text."""
    raw = run.encode("gb18030")
    return _common(raw[: len(raw) // 3 * 3], "utf-8") if len(run) % 3 == 0 else ""


def _common(raw: bytes, encoding: str) -> str:
    """`raw` decoded strictly, if it becomes common Han characters and Chinese punctuation; else ""."""
    try:
        text = raw.decode(encoding)
        rows = text.encode("gb2312")
    except UnicodeError:
        return ""
    common = all(0xA1 <= row <= 0xA3 or 0xB0 <= row <= 0xD7 for row in rows[::2])
    han = sum("\u4e00" <= sign <= "\u9fff" for sign in text)
    return text if common and len(rows) == 2 * len(text) and han >= 2 else ""
