"""Figures of a whole text: scripts and language, repetition, symbols; and the rules that judge them.

Language is told by script alone: zh, ja, ko, ru, ar, en and a few others by their letters, "latin" for Latin
letters without English function words. That needs no model and no download, and is exact for what data sets
in these languages mix up. Portuguese from Spanish it cannot tell; a detector may be handed to the filter
instead.

A unit is a Latin word, a number, or a Han, kana or Hangul character. The n-gram rules of Gopher were made for
English words; a Chinese word has 1.5 to 2 characters, so duplicate n-grams of texts that are mostly Han are
taken over 2n characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from luthier.prepare.span import Span
from luthier.prepare.text import rules

_SCRIPTS: dict[str, str] = {
    "latin": "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",
    "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff〇々",
    "kana": "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f",
    "hangul": "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
    "cyrillic": "\u0400-\u052f",
    "arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "hebrew": "\u0591-\u05f4",
    "thai": "\u0e01-\u0e5b",
    "devanagari": "\u0900-\u097f",
}
_RUNS = re.compile("|".join(f"(?P<{name}>[{signs}]+)" for name, signs in _SCRIPTS.items()))
_LANGUAGES = {"hangul": "ko", "cyrillic": "ru", "arabic": "ar", "greek": "el", "hebrew": "he", "thai": "th"}
_LANGUAGES |= {"devanagari": "hi", "han": "zh"}
_SAYS = {"han": 5, "kana": 5, "hangul": 5}
ENGLISH = frozenset(
    "the of and to in is a for that it on are with as this be was you have not by or an at i we can".split()
)
# Function words of German, Spanish, French, Italian, Portuguese, Dutch and Indonesian that English lacks.
_OTHER = frozenset(
    "der die und das ist nicht ein eine el los las de la que en es un una por con para le les des et est une"
    " du il che di non sono um os o uma het een van yang dan dengan untuk ini".split()
)
_WORDS = re.compile(r"[A-Za-z]+")
_ACCENTED = re.compile("[À-ÖØ-öø-ɏḀ-ỿ]")
SINGLE = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_UNITS = re.compile(rf"[{SINGLE}]|[^\W{SINGLE}]+|#|…|\.\.\.")
_FOREIGN = re.compile("[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]")
_BULLET = re.compile(r"\s*(?:[-*•●▪‣·]|\d{1,3}[.)、])\s*\S")
_LEAST, _MOST = 50, 100_000


def letters(text: str) -> Counter[str]:
    """How many letters of each script are in `text`."""
    counts: Counter[str] = Counter()
    if text.isascii():
        counts["latin"] = sum(map(len, _WORDS.findall(text)))
    else:
        for run in _RUNS.finditer(text):
            counts[run.lastgroup or ""] += run.end() - run.start()
    return +counts


def weights(text: str) -> dict[str, int]:
    """Letters of each script in `text`, a Han, kana or Hangul character counted as five."""
    return {name: count * _SAYS.get(name, 1) for name, count in letters(text).items()}


def scripts(text: str) -> dict[str, float]:
    """Shares of the scripts among the letters of `text`, largest first; {} without letters."""
    counts = letters(text)
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()}


def language(text: str, least: int = 1) -> str:
    """zh, ja, ko, ru, ar, el, he, th, hi, en, latin (another one in Latin letters) or "" (too few letters).

    A Han character counts as much as a word of five letters, so a Chinese text full of English names is
    still Chinese. Han with a tenth of kana is Japanese. Latin text is taken for English unless it has 12
    words or more, under a tenth of them English function words, and something that English lacks: function
    words of other languages, or letters with accents. least: letters that it takes to tell.
    """
    found = weights(text)
    if sum(found.values()) < max(1, least):
        return ""
    if found.get("kana", 0) > 0.1 * found.get("han", 0):
        found["kana"] += found.pop("han", 0)
    else:
        found.pop("kana", 0)
    best = max(found, key=lambda name: found[name])
    if best == "latin":
        return "latin" if _is_foreign(text) else "en"
    return "ja" if best == "kana" else _LANGUAGES[best]


def _is_foreign(text: str) -> bool:
    """Latin letters, but not English: a list of English nouns has no function words either."""
    words = _WORDS.findall(text.lower())
    few = len(words) >= 12 and sum(word in ENGLISH for word in words) < 0.1 * len(words)
    if not few:
        return False
    accented = 0 if text.isascii() else len(_ACCENTED.findall(text))
    return accented >= 0.02 * sum(map(len, words)) or sum(w in _OTHER for w in words) >= 0.1 * len(words)


def units(text: str) -> list[str]:
    """The units of `text` in order (see the top of this file)."""
    return _UNITS.findall(text)


def strays(text: str) -> list[Span]:
    """Letters that slipped in from another script: "stray_script" and "mixed_word".

    A few Cyrillic, Arabic, Hangul, Thai or Hebrew letters in a text that is otherwise Chinese or English
    (under a twentieth of its letters) are a slip of a model or of an encoding; Latin words with Cyrillic
    letters inside are look-alikes. Greek is left out: it is mathematics.
    """
    if text.isascii():
        return []
    found = [Span("mixed_word", *pair.span(), pair.group()) for pair in _FOREIGN.finditer(text)]
    shares = scripts(text)
    few = {"cyrillic", "arabic", "hangul", "hebrew", "thai", "devanagari"} & shares.keys()
    few = {name for name in few if shares[name] < 0.05}
    for run in _RUNS.finditer(text) if few else ():
        if run.lastgroup in few:
            found.append(Span("stray_script", *run.span(), run.group()[:20]))
    return sorted(found, key=lambda span: span.start)


def measures(text: str) -> dict[str, float]:
    """Figures by name: counts, shares of 1, and those of Gopher (Rae et al. 2021, arXiv:2112.11446, A1.1).

    characters, units, letters (share of characters), symbols (share that is neither letter, digit, blank nor
    punctuation), digits, mean_word (Latin letters a word), and, with enough text, the names of `gopher` in
    text.yaml.
    """
    count = max(1, len(text))
    letters, digits, blanks = (sum(map(test, text)) for test in (str.isalpha, str.isdigit, str.isspace))
    marks = len(_PUNCTUATION.findall(text))
    parts = units(text)
    words = _WORDS.findall(text)
    figures = {
        "characters": float(len(text)),
        "units": float(len(parts)),
        "letters": letters / count,
        "digits": digits / count,
        "symbols": (len(text) - letters - digits - blanks - marks) / count,
        "mean_word": sum(map(len, words)) / len(words) if words else 0.0,
    }
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) >= 4:
        figures |= _of_lines("line", lines)
        figures["lines_with_bullets"] = sum(map(bool, map(_BULLET.match, lines))) / len(lines)
        figures["lines_ending_in_ellipsis"] = sum(s.endswith(("…", "...")) for s in lines) / len(lines)
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) >= 4:
        figures |= _of_lines("paragraph", paragraphs)
    if len(parts) >= _LEAST:
        figures |= _of_units(parts)
    return figures


_PUNCTUATION = re.compile(
    r"[!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011"
    r"\u3014-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)


def _of_lines(name: str, lines: Sequence[str]) -> dict[str, float]:
    counts = Counter(lines)
    again = sum(count - 1 for count in counts.values())
    signs = sum(len(line) * (count - 1) for line, count in counts.items())
    return {
        f"duplicate_{name}s": again / len(lines),
        f"duplicate_{name}_characters": signs / sum(map(len, lines)),
    }


def _of_units(units: Sequence[str]) -> dict[str, float]:
    """Figures of words and n-grams; of a longer text, those of its first 100 000 units."""
    units = units[:_MOST]
    lengths = list(map(len, units))
    total = sum(lengths)
    han = sum(len(unit) == 1 and not unit.isascii() for unit in units) > len(units) / 2
    figures = {
        "hash_or_ellipsis_per_unit": sum(unit in ("#", "…", "...") for unit in units) / len(units),
        "units_without_letters": sum(not any(map(str.isalpha, unit)) for unit in units) / len(units),
    }
    # One character for each distinct unit, so that an n-gram is a slice of a string.
    codes = {unit: chr(0x10000 + n) for n, unit in enumerate(dict.fromkeys(units))}
    coded = "".join(codes[unit] for unit in units)
    for n in (2, 3, 4):
        at, count = _most_common(coded, n)
        figures[f"top_{n}_gram"] = count * sum(lengths[at : at + n]) / total if count > 1 else 0.0
    again = 1.0
    for n in range(5, 11):  # where no short one is repeated, no long one is
        again = _duplicate(coded, lengths, 2 * n if han else n) / total if again else 0.0
        figures[f"duplicate_{n}_grams"] = again
    return figures


def _most_common(coded: str, n: int) -> tuple[int, int]:
    """Where the most frequent n-gram stands first, and how often it is there."""
    gram, count = Counter(_grams(coded, n)).most_common(1)[0]
    return coded.index(gram), count


def _grams(coded: str, n: int) -> list[str]:
    return [coded[at : at + n] for at in range(len(coded) - n + 1)]


def _duplicate(coded: str, lengths: Sequence[int], n: int) -> int:
    """Characters in n-grams that stood there before, each character counted once."""
    grams = _grams(coded, n)
    if len(set(grams)) == len(grams):
        return 0
    seen: set[str] = set()
    covered, until = 0, 0
    for at, gram in enumerate(grams):
        if gram in seen:
            covered += sum(lengths[max(at, until) : at + n])
            until = at + n
        seen.add(gram)
    return covered


def beyond(
    text: str, most: Mapping[str, float] | None = None, least: Mapping[str, float] | None = None
) -> list[Span]:
    """Figures of `text` above `most` (Gopher's limits unless given) or below `least`, one finding each."""
    figures = measures(text)
    found = []
    for name, limit in (rules()["gopher"] if most is None else most).items():
        if figures.get(name, 0.0) > limit:
            found.append(Span(name, 0, len(text), f"{figures[name]:.3g} > {limit:g}"))
    for name, limit in (least or {}).items():
        if figures.get(name, limit) < limit:
            found.append(Span(name, 0, len(text), f"{figures[name]:.3g} < {limit:g}"))
    return found
