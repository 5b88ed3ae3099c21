"""Personal data and secrets in texts, Chinese and English: found, masked, or replaced by consistent fake
values.

A false hit damages good data, a miss can be seen and added to, so every kind is narrow: a number must stand
alone, carry the right checksum where its kind has one (resident ID cards: GB 11643, ISO 7064 MOD 11-2; bank
cards: Luhn, ISO/IEC 7812) and a prefix that is really issued, and must not be called something else (an order
number, an ISBN, a version). Passport numbers and US social security numbers have no checksum and count only
where they are called so. Private and documentation addresses of the internet, example.com, hotlines (400,
800) and fictional 555 numbers belong to nobody. The patterns are data (pii.yaml); the shapes of keys and
tokens are `luthier.redact`'s. Names of people are not found: that needs a model, which may be handed in as
`also`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from typing import Any

import yaml

from luthier.errors import UsageError
from luthier.prepare import fakes
from luthier.prepare.span import Change, Span, replaced
from luthier.redact import SHAPES

KINDS = (
    "secret",
    "email",
    "id_card",
    "phone",
    "bank_card",
    "ssn",
    "passport",
    "ip",
    "plate",
    "address",
)
Finder = Callable[[str], Collection[Span]]
_Check = Callable[["re.Match[str]", str], bool]

# A length-preserving view, so that offsets hold: full-width digits, Latin letters and ＠．－＋ as ASCII.
_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ＠．－＋]")
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if _WIDE.match(chr(code))}
_SEVEN_DIGITS = re.compile(r"[0-9](?:[ ().-]{0,2}[0-9]){6}")
_DIGIT_RUN = re.compile(r"[0-9]+")
# Every shape of a secret has 11 such signs in a row, a letter first, or is a URL or a private key.
_SECRETIVE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{10}|://|-----")
_NEW_CLAUSE = re.compile(r"[，。；！？;!?\n]|, ")
_PAUSE = re.compile(r"[\s，。；！？,;!?]")
_BEFORE = 24


@dataclass(frozen=True)
class _Patterns:
    """pii.yaml, compiled."""

    one: dict[str, re.Pattern[str]]
    numbers: tuple[tuple[str, str, re.Pattern[str]], ...]
    said: re.Pattern[str]
    bins: dict[int, tuple[tuple[str, str], ...]]
    words: dict[str, frozenset[str]]


@functools.cache
def _patterns() -> _Patterns:
    raw: dict[str, Any] = yaml.safe_load(
        files("luthier.prepare").joinpath("pii.yaml").read_text(encoding="utf-8")
    )
    one = {
        name: re.compile(raw[name], re.VERBOSE)
        for name in (
            "email",
            "ipv4",
            "ipv6",
            "plate",
            "passport",
            "address_zh",
            "address_zh_flat",
            "address_en",
        )
    }
    one |= {
        name: re.compile(raw[name], re.VERBOSE | re.IGNORECASE)
        for name in (
            "email_nobody",
            "secret_nobody",
            "ipv4_words",
            "version_words",
            "phone_said",
            "ssn_words",
        )
    }
    one |= {name: re.compile(raw[name]) for name in ("address_zh_place", "address_zh_start")}
    numbers = tuple(
        (row["kind"], row["check"], _number(raw["number_left"], row["pattern"], raw["number_right"]))
        for row in raw["numbers"]
    )
    # In lower case on both sides: without IGNORECASE, `re` skips alternatives by their first letter.
    said = re.compile(f"(?P<other>{raw['other_words'].lower()})|(?:{raw['phone_words'].lower()})")
    bins: dict[int, tuple[tuple[str, str], ...]] = {}
    for span, *lengths in raw["bins"]:
        low, _, high = str(span).partition("-")
        for length in lengths:
            bins[length] = (*bins.get(length, ()), (low, high or low))
    words = {name: frozenset(raw[name].split()) for name in ("regions", "countries")}
    words["public"] = frozenset(raw["ipv4_public"])
    return _Patterns(one, numbers, said, bins, words)


def _number(left: str, pattern: str, right: str) -> re.Pattern[str]:
    return re.compile(f"{left}(?:{pattern}){right}", re.VERBOSE)


def find(text: str, kinds: Collection[str] = KINDS, also: Finder | None = None) -> list[Span]:
    """What of `kinds` stands in `text`, in order and without overlap.

    `also` adds spans of another finder (a named-entity model, Presidio), of kinds that may be new; where
    two overlap, ours stays. Raises UsageError for an unknown kind.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise UsageError(
            f"no kind of personal data: {', '.join(sorted(unknown))} -> one of {', '.join(KINDS)}"
        )
    view = text.translate(_NARROW) if _WIDE.search(text) else text
    ours = (Span(kind, a, b, _shown(kind, text[a:b])) for kind, a, b in _spans(view, kinds))
    found = _apart([], ours)
    return found if also is None else _apart(found, sorted(also(text), key=_start))


def _start(span: Span) -> int:
    return span.start


def _apart(found: list[Span], new: Iterable[Span]) -> list[Span]:
    """`found`, which is in order and without overlap, and those of `new` that overlap none before them.

    Spans of one kind come in order, so that a text with very many costs little more than their number.
    """
    run: list[Span] = []  # in order, behind each other, apart from all of `found`
    for span in new:
        if run and span.start < run[-1].start:
            found, run = sorted([*found, *run], key=_start), []
        at = bisect_right(found, span.start, key=_start)
        behind = (at == 0 or found[at - 1].end <= span.start) and (not run or run[-1].end <= span.start)
        if behind and (at == len(found) or span.end <= found[at].start):
            run.append(span)
    return sorted([*found, *run], key=_start)


def mask(text: str, kinds: Collection[str] = KINDS, also: Finder | None = None) -> tuple[str, list[Change]]:
    """`text` with [EMAIL], [PHONE], … in place of personal data."""
    return replaced(text, find(text, kinds, also), lambda found: f"[{found.kind.upper()}]")


def pseudonymise(
    text: str, key: str, kinds: Collection[str] = KINDS, also: Finder | None = None
) -> tuple[str, list[Change]]:
    """`text` with fake values: the same real value always becomes the same fake one under the same `key`.

    See `luthier.prepare.fakes` for the ranges they come from, and why `key` must be kept as a secret.
    Secrets, and kinds that only `also` knows, are masked.
    """

    def new(found: Span) -> str:
        return fakes.fake(found.kind, text[found.start : found.end].translate(_NARROW), key)

    return replaced(text, find(text, kinds, also), new)


def _spans(text: str, kinds: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end), the surest kinds first. A cheap look decides whether a pattern is tried."""
    one = _patterns().one
    if "secret" in kinds and _SECRETIVE.search(text):
        for shape in SHAPES.values():
            found = (m for m in shape.finditer(text) if not one["secret_nobody"].search(m.group()))
            yield from (("secret", *m.span()) for m in found)
    if "email" in kinds and "@" in text:
        yield from (("email", *m.span()) for m in one["email"].finditer(text) if _somebodys(text, m))
    if "passport" in kinds and ("护照" in text or "assport" in text or "ASSPORT" in text):
        yield from (("passport", *m.span("value")) for m in one["passport"].finditer(text))
    yield from (span for span in _numbers(text) if span[0] in kinds)
    if "ip" in kinds:
        yield from _addresses_of_hosts(text)
    if "plate" in kinds:
        plates = one["plate"].finditer(text)
        yield from (("plate", *m.span()) for m in plates if sum(c.isdigit() for c in m["serial"]) >= 3)
    if "address" in kinds:
        yield from _addresses(text)


def _somebodys(text: str, email: re.Match[str]) -> bool:
    """No reserved name, service or file, and no password before the host of a URL (ftp://user:password@host)."""
    before = text[max(0, email.start() - 64) : email.start()].split(" ")[-1]
    return "://" not in before and _patterns().one["email_nobody"].search(email.group()) is None


def _numbers(text: str) -> Iterator[tuple[str, int, int]]:
    """Every number of seven digits or more that stands alone, by the first kind that it fits."""
    at = 0
    while begin := _SEVEN_DIGITS.search(text, at):
        start = begin.start()
        while start > at and text[start - 1] in "+(":
            start -= 1
        for kind, check, pattern in _patterns().numbers:
            found = pattern.match(text, start)
            if found and _CHECKS[check](found, text[max(0, start - _BEFORE) : start]):
                group = "value" if "value" in pattern.groupindex else 0
                yield (kind, *found.span(group))
                at = found.end()
                break
        else:
            run = _DIGIT_RUN.match(text, begin.start())
            at = run.end() if run else begin.start() + 1


def _called(before: str) -> str:
    """What the words before a number, in its own clause, say that it is: "phone", "other" or ""."""
    words = list(_patterns().said.finditer(_NEW_CLAUSE.split(before)[-1].lower()))
    return "" if not words else "other" if words[-1]["other"] else "phone"


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def luhn(digits: str) -> bool:
    """True when the last digit is the check digit of those before (ISO/IEC 7812-1, annex B)."""
    return fakes.luhn_digit(digits[:-1]) == digits[-1]


def _unless_other(found: re.Match[str], before: str) -> bool:
    return _called(before) != "other"


def _is_id_card(found: re.Match[str], before: str) -> bool:
    number = found.group().replace(" ", "").upper()
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    plausible = date(1870, 1, 1) <= born <= date.today()
    issued = number[:2] in _patterns().words["regions"] and number[14:17] != "000"
    return plausible and issued and fakes.id_card_digit(number[:17]) == number[17]


def _is_bank_card(found: re.Match[str], before: str) -> bool:
    digits = _digits(found.group())
    bins = _patterns().bins.get(len(digits), ())
    issued = any(low <= digits[: len(low)] <= high for low, high in bins)
    return issued and luhn(digits) and len(set(digits)) > 2 and _called(before) != "other"


def _is_landline(found: re.Match[str], before: str) -> bool:
    number = found.group()
    said = _called(before)
    return said != "other" and (said == "phone" or not number[:9].isdigit())


def _is_international(found: re.Match[str], before: str) -> bool:
    digits = _digits(found.group())
    code = next((digits[:n] for n in (3, 2, 1) if digits[:n] in _patterns().words["countries"]), "")
    if not code or _called(before) == "other" or not 9 <= len(digits) <= 15:
        return False
    if code == "1":
        return len(digits) == 11 and _north_american(digits[1:])
    if code == "86":  # mobile numbers have a row of their own
        return digits[2:4] == "10" or digits[2] not in "01"
    return len(digits) == 11 if code == "7" else len(digits) - len(code) >= 6


def _is_north_american(found: re.Match[str], before: str) -> bool:
    said = _called(before)
    return (
        said != "other"
        and (found["sep"] != " " or said == "phone")
        and _north_american(_digits(found["value"]))
    )


def _north_american(ten: str) -> bool:
    """An area code and an exchange that are assigned, no toll-free number, none of the fictional 555-01xx."""
    area, exchange = ten[:3], ten[3:6]
    assigned = area[0] >= "2" and exchange[0] >= "2" and area[1:] != "11" and exchange[1:] != "11"
    free = (area[0] == "8" and area[1] == area[2]) or area[1:] == "00"
    return assigned and not free and not (exchange == "555" and ten[6:8] == "01")


def _said_to_be_a_phone(found: re.Match[str], before: str) -> bool:
    digits = _digits(found.group())
    if digits.startswith(("000", "400", "800", "154")) or len(set(digits)) < 3:
        return False
    if len(digits) == 10 and digits[0] != "0" and not _north_american(digits):
        return False
    return _patterns().one["phone_said"].search(before) is not None


_CHECKS: dict[str, _Check] = {
    "id_card": _is_id_card,
    "unless_other": _unless_other,
    "bank_card": _is_bank_card,
    "landline": _is_landline,
    "international": _is_international,
    "north_american": _is_north_american,
    "ssn": lambda found, before: _patterns().one["ssn_words"].search(before) is not None,
    "said_to_be_a_phone": _said_to_be_a_phone,
}


def _addresses_of_hosts(text: str) -> Iterator[tuple[str, int, int]]:
    """Addresses of the internet that belong to somebody: global, and no open name server."""
    one, public = _patterns().one, _patterns().words["public"]
    if text.count(".") >= 3:
        for found in one["ipv4"].finditer(text):
            before = text[max(0, found.start() - _BEFORE) : found.start()]
            if (
                _is_global(found.group())
                and found.group() not in public
                and _no_version(found.group(), before)
            ):
                yield ("ip", *found.span())
    if text.count(":") >= 2:
        for found in one["ipv6"].finditer(text):
            if _is_global(found.group()):
                yield ("ip", *found.span())


def _no_version(address: str, before: str) -> bool:
    """1.2.3.4 is a version or a section unless called an address; 47.93.12.8 an address unless called so."""
    one = _patterns().one
    if one["version_words"].search(before):
        return False
    return max(map(int, address.split("."))) >= 32 or one["ipv4_words"].search(before) is not None


def _is_global(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and not parsed.is_multicast


def _addresses(text: str) -> Iterator[tuple[str, int, int]]:
    one = _patterns().one
    if "号" in text:
        for found in one["address_zh"].finditer(text):
            if span := _address_zh(text, found):
                yield ("address", *span)
    if "," in text:
        yield from (("address", *m.span()) for m in one["address_en"].finditer(text))


def _address_zh(text: str, found: re.Match[str]) -> tuple[int, int] | None:
    """The whole address around a street with a number, None where that is all there is of it.

    It starts at the place before (province, city, district) and ends with the flat after it.
    """
    one = _patterns().one
    floor = max(0, found.start() - 30)
    floor += max(
        (m.end() for m in re.finditer(r"[\s，。；！？,;!?]", text[floor : found.start()])), default=0
    )
    lead = one["address_zh_start"].match(text[floor : found.start()])
    floor += lead.end() if lead else 0
    flat = one["address_zh_flat"].match(text, found.end())
    end = flat.end() if flat else found.end()
    place = one["address_zh_place"].search(text, floor, found.start())
    if found.start() == floor or "示例" in text[floor:end] or not (place or end > found.end() + 1):
        return None
    return floor, end


def _shown(kind: str, value: str) -> str:
    """Enough of a value to know it again, not enough to use it."""
    if kind == "email":
        return f"{value[0]}***@***{value[value.rfind('.') :]}"
    if kind == "secret":
        return value[: min(4, len(value) // 4)] + "***"
    keep = min(3, len(value) // 4)
    return value[:keep] + "***" + value[len(value) - min(2, keep) :]
