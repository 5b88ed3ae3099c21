"""`train=0.9,eval=0.1` or `train,eval=500`: how large the parts of a split are to be."""

from __future__ import annotations

from collections.abc import Mapping
from re import fullmatch

from luthier.errors import DataError, UsageError
from luthier.prepare.report import some

Number = float | int | None
"""Of a part: a share (float), rows (int), or None for what is left."""


def parsed(text: str) -> dict[str, Number]:
    """The parts by name, in the order given. Raises UsageError for what cannot be meant."""
    numbers: dict[str, Number] = {}
    for piece in text.split(","):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not fullmatch(r"[\w-]+", name) or name in numbers:
            raise UsageError(f"--parts {text}: {piece!r} -> different names, such as train=0.9,eval=0.1")
        numbers[name] = _number(value, piece) if equals else None
    rest = [name for name, number in numbers.items() if number is None]
    if len(rest) > 1 or len(numbers) < 2:
        what = f"{' and '.join(rest)} both get the rest" if rest[1:] else "one part is no split"
        raise UsageError(f"--parts {text}: {what} -> train=0.9,eval=0.1, or train,eval=500")
    total = sum(number for number in numbers.values() if isinstance(number, float))
    only_shares = not rest and not any(isinstance(number, int) for number in numbers.values())
    if total > 1 + 1e-6 or (only_shares and total < 1 - 1e-6):
        raise UsageError(f"--parts {text}: the shares add up to {total:g} -> let them add up to 1")
    return numbers


def _number(value: str, piece: str) -> Number:
    found: Number = None
    if fullmatch(r"\d+", value):
        found = int(value)
    elif fullmatch(r"\d*\.?\d+%?", value):
        found = float(value.rstrip("%")) / (100 if value.endswith("%") else 1)
    if not found or (isinstance(found, float) and found >= 1):
        raise UsageError(f"--parts: {piece!r} -> a share below 1 (0.1), a percentage (10%), or rows (500)")
    return found


def of(numbers: Mapping[str, Number], rows: int) -> dict[str, float]:
    """The shares of all parts, of so many rows. Raises DataError when the numbers do not fit them."""
    shares = {name: n / rows if isinstance(n, int) else n for name, n in numbers.items()}
    left = 1 - sum(share or 0.0 for share in shares.values())
    if None in shares.values() and left > 1e-9:
        return {name: left if share is None else share for name, share in shares.items()}
    if None in shares.values() or abs(left) > 1e-6:
        gap = f"{left * rows:,.0f} of them would be in no part" if left > 0 else "the parts need more"
        raise DataError(f"--parts: {some(rows)} can be used, and {gap} -> train,eval=500: train has the rest")
    return {name: share for name, share in shares.items() if share is not None}
