"""Standard error as long as it is there.

A terminal that has gone away, a pipe without a reader and a log file on a full disk are no reason to end
hours of work: what cannot be printed is not printed.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO


class Lasting:
    """A text stream that takes everything, whether or not there is still somebody to read it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):  # ValueError: it was closed
            return len(text)
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False


def say(line: str) -> None:
    """A line on stderr."""
    print(line, file=Lasting(sys.stderr), flush=True)


_ILLEGIBLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


def legible(text: str) -> str:
    """The text with control characters and halves of surrogate pairs as their escapes: it can be printed."""
    return _ILLEGIBLE.sub(lambda found: repr(found.group())[1:-1], text)
