"""Unicode normalisation, one class of characters at a time, with an account of what was changed.

Python's own NFKC is no choice for Chinese: it turns every full-width comma and bracket into an ASCII one, "…"
into three dots, x² into x2, and it leaves most of the radicals that PDF extraction puts in place of
characters (⻓ for 长, U+2E80 to U+2EFF) as they are. So every class is a switch of its own:

| class | what it does |
|---|---|
| width | full-width Latin letters and digits to ASCII: Ａ１ to A1 |
| symbols (off) | full-width signs that are no Chinese punctuation to ASCII: ＋％＠ to +%@ |
| kana | half-width katakana and their punctuation to full width: ｶﾞ to ガ |
| radicals | radicals to the ideographs that look the same: ⻓ to 长, ⼯ to 工 |
| ideographs | compatibility ideographs to unified ones: U+F9E4 to 理 |
| ligatures | ﬁ to fi |
| spaces | no-break, thin and other Latin spaces to the plain one; U+3000 stays |
| invisible | zero-width spaces, joiners outside of emoji and scripts that need them, BOM, soft hyphen, tags |
| bidi | marks and overrides of direction, in texts without a letter that is written right to left |
| controls | control characters except tab and line feed, terminal colours |
| lines | CR LF, CR, U+2028, U+2029, NEL, VT and FF to LF |
| surrogates | pairs of surrogates to their character, single ones to U+FFFD |
| compose | NFC (UAX 15): e and a combining acute to é |
| compatibility (off) | NFKC of everything else: ① to 1, ㎏ to kg, x² to x2 |

Chinese punctuation (，。：；！？（）「」…… and U+3000) is never touched.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable
from importlib.resources import files

import yaml

from luthier.errors import UsageError
from luthier.prepare.span import Change, apply, chain

_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
# Letters of scripts that need joiners, pictographs and what follows them.
_JOINS = re.compile(
    "[\u0600-\u1aff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]"
)
# class -> (on unless said otherwise, its characters, pattern of a run where that is not just some of them)
_CLASSES: dict[str, tuple[bool, str, str]] = {
    "lines": (True, "\r\u2028\u2029\x85\x0b\x0c", "\r\n|[\r\u2028\u2029\x85\x0b\x0c]"),
    "controls": (
        True,
        "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f",
        "(?:\x1b\\[[0-9;]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f])+",
    ),
    "width": (True, "０-９Ａ-Ｚａ-ｚ", ""),
    "symbols": (False, "＂＃＄％＆＇＊＋－．／＜＝＞＠＼＾＿｀｛｜｝", ""),
    "kana": (True, "\uff61-\uff9f", ""),
    "radicals": (True, "\u2e80-\u2eff\u2f00-\u2fd5", ""),
    "ideographs": (True, "\uf900-\ufaff\U0002f800-\U0002fa1f", ""),
    "ligatures": (True, "\ufb00-\ufb06\ufb13-\ufb17", ""),
    "spaces": (True, "\u00a0\u1680\u2000-\u200a\u202f\u205f", ""),
    "invisible": (
        True,
        "\u00ad\u200b-\u200d\u2060-\u2064\ufeff\U000e0000-\U000e007f",
        "[\u00ad\u200b\u2060-\u2064\ufeff]+|[\u200c\u200d]+|\U0001f3f4?[\U000e0000-\U000e007f]+",
    ),
    "bidi": (True, "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069", ""),
    "surrogates": (True, "\ud800-\udfff", ""),
}
CLASSES: dict[str, bool] = {name: on for name, (on, *_) in _CLASSES.items()} | {
    "compose": True,
    "compatibility": False,
}


def normalise(text: str, **switches: bool) -> tuple[str, list[Change]]:
    """The normalised text, and one change (of the class's name) for every run of characters that differs.

    `switches` turn classes on or off; the others are as in `CLASSES`. Raises UsageError for an unknown class.
    """
    unknown = switches.keys() - CLASSES.keys()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise UsageError(f"no class of characters: {names} -> one of {', '.join(CLASSES)}")
    on = frozenset(name for name, default in CLASSES.items() if switches.get(name, default))
    changes: list[Change] = []
    if not text.isascii() or _ASCII_CONTROLS.search(text):
        changes = [change for change in _mapped(text, on) if change.before != change.after]
    if text.isascii() or not on & {"compose", "compatibility"}:
        return apply(text, changes), changes
    new = apply(text, changes)
    if "compose" in on and not unicodedata.is_normalized("NFC", new):
        changes = chain(changes, _composed(new, "ideographs" in on))
        new = apply(text, changes)
    if "compatibility" in on:
        pattern = _compatibility()
        more = [_change("compatibility", found, _nfkc(found)) for found in pattern.finditer(new)]
        changes = chain(changes, more)
    return apply(text, changes), changes


_ASCII_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def _mapped(text: str, on: frozenset[str]) -> list[Change]:
    quick, pattern = _patterns(on)
    first = quick.search(text)
    if first is None:
        return []
    changes = []
    for found in pattern.finditer(text, max(0, first.start() - 1)):
        name = found.lastgroup or ""
        changes.append(_change(name, found, _NEW[name](found)))
    return changes


def _change(kind: str, found: re.Match[str], new: str) -> Change:
    return Change(kind, found.start(), found.end(), found.group(), new)


@functools.lru_cache(maxsize=64)
def _patterns(on: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(one set of all characters that some class changes, the runs of each class as a named group).

    The set is what `re` looks for fastest; most texts hold none of it.
    """
    wanted = {name: row for name, row in _CLASSES.items() if name in on}
    runs = "|".join(f"(?P<{name}>{pattern or f'[{signs}]+'})" for name, (_, signs, pattern) in wanted.items())
    signs = "".join(row[1] for row in wanted.values())
    return re.compile(f"[{signs}]" if signs else "(?!)"), re.compile(runs or "(?!)")


def _nfkc(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found.group())


def _invisible(found: re.Match[str]) -> str:
    """Joiners stay between characters that they join: in emoji, in Arabic, Indic and South-East Asian
    letters.
    """
    run = found.group()
    if run[0] not in "\u200c\u200d":  # tags make flags of 🏴; elsewhere they hide text
        return run if run[0] == "\U0001f3f4" else ""
    before, after = (
        found.string[max(0, found.start() - 1) : found.start()],
        found.string[found.end() : found.end() + 1],
    )
    return run if _JOINS.match(before) or _JOINS.match(after) else ""


def _radicals(found: re.Match[str]) -> str:
    table = _radical_table()
    return "".join(table.get(sign) or unicodedata.normalize("NFKC", sign) for sign in found.group())


@functools.cache
def _radical_table() -> dict[str, str]:
    text = files("luthier.prepare").joinpath("normal.yaml").read_text(encoding="utf-8")
    return {pair[0]: pair[1:] for pair in yaml.safe_load(text)["radicals"].split()}


def _surrogates(found: re.Match[str]) -> str:
    return found.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_NEW: dict[str, Callable[[re.Match[str]], str]] = {
    "lines": lambda found: "\n",
    "controls": lambda found: "",
    "width": lambda found: found.group().translate(_TO_ASCII),
    "symbols": lambda found: found.group().translate(_TO_ASCII),
    "kana": _nfkc,
    "radicals": _radicals,
    "ideographs": lambda found: unicodedata.normalize("NFC", found.group()),
    "ligatures": _nfkc,
    "spaces": lambda found: " " * len(found.group()),
    "invisible": _invisible,
    "bidi": lambda found: found.group() if _RTL.search(found.string) else "",
    "surrogates": _surrogates,
}


def _composed(text: str, ideographs: bool) -> list[Change]:
    """NFC, one change for every base character with its marks.

    A segment begins at a character that is no mark and no vowel or final of Hangul; NFC never reaches over
    it.
    """
    changes, start = [], 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _continues(text[end]):
            continue
        piece = text[start:end]
        new = piece if piece.isascii() else unicodedata.normalize("NFC", piece)
        if new != piece and (ideographs or not re.match(f"[{_CLASSES['ideographs'][1]}]", piece)):
            changes.append(Change("compose", start, end, piece, new))
        start = end
    return changes


def _continues(sign: str) -> bool:
    return sign >= "\u0300" and (unicodedata.category(sign)[0] == "M" or "\u1160" <= sign <= "\u11ff")


@functools.cache
def _compatibility() -> re.Pattern[str]:
    """Characters that NFKC changes and NFC does not, but for full-width forms, vertical forms, dots and
    U+3000.
    """
    kept = re.compile("[\u2024-\u2026\u3000\ufe10-\ufe6f\uff00-\uffef\ud800-\udfff\u2e80-\u2fdf]")
    signs = (chr(code) for code in range(0xA0, sys.maxunicode + 1))
    found = [
        sign for sign in signs if unicodedata.decomposition(sign).startswith("<") and not kept.match(sign)
    ]
    return re.compile("[" + "".join(map(re.escape, found)) + "]+")
