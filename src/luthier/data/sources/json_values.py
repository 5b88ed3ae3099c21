"""One JSON value at a time: nothing in it is lost or changed, and every fault has its place and a remedy."""

from __future__ import annotations

import json
from typing import Any

from luthier.types import BadRow

NOTHING = ("None", "undefined", "nan", "null", "NULL", "nil")
QUOTED = "write keys and texts in double quotes"


class WrittenFloat(float):
    """A number with a point or an exponent; as text it is what the file says (1.10, not 1.1)."""

    __slots__ = ("written",)

    def __new__(cls, written: str) -> WrittenFloat:
        number = super().__new__(cls, written)
        number.written = written
        return number

    written: str

    def __str__(self) -> str:
        return self.written


class Decoder:
    """A file's decoder: raw_decode with doubled keys found, and no error but JSONDecodeError."""

    def __init__(self) -> None:
        self.doubled: list[str] = []
        # strict=False: literal line breaks and tabs inside strings, which exporters write
        decoder = json.JSONDecoder(strict=False, object_pairs_hook=self._object, parse_float=WrittenFloat)
        self._decode = decoder.raw_decode

    def _object(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        """A dict; keys that are given again with another value are kept for `__call__` to report."""
        found = dict(items)
        if len(found) != len(items):
            self.doubled += [key for key, value in items if found[key] != value]
        return found

    def __call__(self, text: str, at: int = 0) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends; a BadRow for one that has a key twice."""
        self.doubled.clear()
        try:
            value, end = self._decode(text, at)
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", text, at) from None
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError):
                raise
            raise json.JSONDecodeError("a number of thousands of digits", text, at) from None
        if self.doubled:
            reason = "the key is given twice, with different values -> keep one of them"
            value = BadRow("", self.doubled[0], reason, value)
        return value, end


def reason(error: json.JSONDecodeError, line: int) -> str:
    """What is wrong in which line, and what to write instead where that is plain."""
    hint = _hint(error.doc, error.pos, error.msg)
    return f"line {line}: not valid JSON: {error.msg}" + (f" -> {hint}" if hint else "")


def _hint(text: str, at: int, message: str) -> str:
    rest = text[at : at + 100].lstrip()
    before = text[max(at - 100, 0) : at].rstrip()[-1:]
    if rest[:1] in ("}", "]") and before == ",":
        return f"delete the comma before {rest[0]}"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments: delete it"
    if message.startswith("Expecting property name") or rest[:1] in ("'", "“", "”", "‘"):
        return QUOTED
    if message == "Expecting value" and rest.startswith(NOTHING):
        return "write null"
    if message == "Expecting value" and rest.startswith(("True", "False")):
        return "write true or false"
    if message.startswith("Expecting ','") and before == '"' and rest[:1].isalnum():
        return 'write \\" for a quote inside a text'
    return "write \\\\ for a backslash" if message.startswith("Invalid \\") else ""
