"""Fake values for real ones: consistent within a data set, valid by their checksum, never anybody's.

Consistent: the digits come from a keyed hash (BLAKE2) of the kind and the real value, so no table is kept,
and processes and files agree. The layout stays (138-0013-8000 becomes 154-…-…), and so do the spaces and
hyphens. Whoever knows `key` can hash every mobile number there is and so turn a fake one back: keep the key
as secret as the real data, or draw one and forget it. Two real values may share a fake one (of 10^8 mobile
numbers, 1 in 10^8 for each pair), which is what a pseudonym costs that needs no table.

Never anybody's: mobile prefix 154, numbers that begin with 000, the North American numbers 555-01xx, country
code 999, region 99 of ID cards, cards that begin with 9999, 240.0.0.0/4 and 2001:db8::/32 (RFC 1112, 3849),
example.com (RFC 2606), plates and passports with I or O, social security area 666, a city called Example.
`pii.find` does not see them as personal data, so doing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def fake(kind: str, value: str, key: str) -> str:
    """A fake `value`; "[KIND]" for kinds that have none (secrets and what another finder named)."""
    make = _MAKERS.get(kind)
    if make is None:
        return f"[{kind.upper()}]"
    plain = "".join(filter(str.isalnum, value)).lower() if kind != "ip" else value.lower()
    return make(value, _stream(kind, plain, key))


def id_card_digit(first: str) -> str:
    """The 18th sign for the 17 digits before it: ISO 7064 MOD 11-2, as in GB 11643."""
    return "10X98765432"[
        sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, first, strict=True)) % 11
    ]


def luhn_digit(first: str) -> str:
    """The check digit that follows the digits `first` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(first)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def _stream(kind: str, value: str, key: str) -> Iterator[int]:
    """Numbers from 0 to 2^16 - 1, as many as are asked for."""
    for block in range(1 << 30):
        name = f"{kind}\0{value}\0{block}".encode()
        digest = hashlib.blake2b(name, key=hashlib.sha256(key.encode()).digest()).digest()
        yield from (int.from_bytes(digest[at : at + 2], "big") for at in range(0, len(digest), 2))


def _some(stream: Iterator[int], count: int, signs: str = "0123456789") -> str:
    return "".join(signs[next(stream) % len(signs)] for _ in range(count))


def _laid_out(value: str, signs: str) -> str:
    """`signs` in place of the letters and digits of `value`, whose blanks and hyphens stay."""
    rest = iter(signs)
    return "".join(next(rest) if sign.isalnum() else sign for sign in value)


def _email(value: str, stream: Iterator[int]) -> str:
    return f"user{_some(stream, 8, '0123456789abcdef')}@example.com"


def _phone(value: str, stream: Iterator[int]) -> str:
    digits = "".join(filter(str.isdigit, value))
    if value.startswith("+"):
        new = "999" + _some(stream, len(digits) - 3)
    elif len(digits) == 11 and digits[0] == "1":
        new = "154" + _some(stream, 8)
    elif len(digits) == 10 and digits[0] != "0":
        new = "2" + _some(stream, 1, "0345678") + _some(stream, 1, "234567") + "55501" + _some(stream, 2)
    else:
        new = "000" + _some(stream, len(digits) - 3)
    return _laid_out(value, new)


def _id_card(value: str, stream: Iterator[int]) -> str:
    born = f"{1950 + next(stream) % 55}{1 + next(stream) % 12:02}{1 + next(stream) % 28:02}"
    first = "99" + _some(stream, 4) + born + _some(stream, 3)
    return _laid_out(value, first + id_card_digit(first))


def _bank_card(value: str, stream: Iterator[int]) -> str:
    first = "9999" + _some(stream, sum(map(str.isdigit, value)) - 5)
    return _laid_out(value, first + luhn_digit(first))


def _ssn(value: str, stream: Iterator[int]) -> str:
    return f"666-{1 + next(stream) % 99:02}-{1 + next(stream) % 9999:04}"


def _passport(value: str, stream: Iterator[int]) -> str:
    return "EO" + _some(stream, 7)


def _ip(value: str, stream: Iterator[int]) -> str:
    if ":" in value:
        return "2001:db8:" + ":".join(_some(stream, 4, "123456789abcdef") for _ in range(6))
    return ".".join([str(240 + next(stream) % 15), *(str(next(stream) % 256) for _ in range(3))])


def _plate(value: str, stream: Iterator[int]) -> str:
    serial = _some(stream, len(value) - 2) if value[2].isalnum() else value[2] + _some(stream, len(value) - 3)
    return f"{value[0]}I{serial}"


def _address(value: str, stream: Iterator[int]) -> str:
    number = 1 + next(stream) % 9999
    if value[0].isdigit() and value.isascii():
        return f"{number} Example Street, Exampleville, ZZ 00000"
    return f"示例市示例区示例路{number}号"


_MAKERS: dict[str, Callable[[str, Iterator[int]], str]] = {
    "email": _email,
    "phone": _phone,
    "id_card": _id_card,
    "bank_card": _bank_card,
    "ssn": _ssn,
    "passport": _passport,
    "ip": _ip,
    "plate": _plate,
    "address": _address,
}
