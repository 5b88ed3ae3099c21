"""Rows that say the same to the letter: one normalised form of a text, and rows whose forms are equal.

The normalised form decides what "the same" means and is never written to a file: NFKC (so full-width and
half-width letters, digits and commas are equal), without invisible characters (zero-width blanks, byte order
marks, soft hyphens), case folded, every run of white space as one blank, none at the ends. Punctuation and
digits stay: "C#" is not "C++".
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.errors import DataError

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A row: its position in the list that was given (from 0) and its name ("train.json:17")."""

    index: int
    source: str


def refs(count: int, sources: Sequence[str] | None) -> list[Ref]:
    """Names for `count` rows; without `sources` they are called "row 1", "row 2", …

    Raises DataError when there are not as many names as rows.
    """
    check_names(count, sources)
    return [ref(i, sources) for i in range(count)]


def ref(index: int, sources: Sequence[str] | None) -> Ref:
    """The name of one row."""
    return Ref(index, f"row {index + 1}" if sources is None else sources[index])


def check_names(count: int, sources: Sequence[str] | None) -> None:
    """Raises DataError when `sources` are there and not as many as rows."""
    if sources is not None and len(sources) != count:
        raise DataError(f"{count} rows but {len(sources)} names of rows -> give one source for each row")


def normalise(text: str) -> str:
    """The form in which texts are compared (see the top of this file)."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return " ".join(text.casefold().split())


def key(text: str) -> bytes:
    """16 bytes, equal for texts whose normalised forms are equal (and, but for chance, only for those)."""
    return hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
