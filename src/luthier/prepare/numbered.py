"""Rows by number, as words of a command: "17,20-30", with a file where there are several: "b.json:4-9"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

Rows = tuple[tuple[str, int, int], ...]
"""(name of a file or "" for any, first row, last row)."""
_PART = re.compile(r"(?:(.*):)?(\d+)(?:-(\d+))?", re.DOTALL)


def parsed(text: str) -> Rows:
    """Raises ValueError with the part that names no rows."""
    found = []
    for part in filter(None, text.split(",")):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(part)
        found.append((match[1] or "", int(match[2]), int(match[3] or match[2])))
    return tuple(found)


def has(rows: Rows, source: str) -> bool:
    """Whether the row `source` ("train.json:17") is one of `rows`."""
    name, _, number = source.rpartition(":")
    return any(first <= int(number) <= last and file in ("", name) for file, first, last in rows)


def written(sources: Iterable[str], one_file: bool) -> str:
    """`sources`, in the order of the data set, as `parsed` reads them; "" when a file's name has a comma."""
    ranges = list(_ranges(sources))
    if not one_file and any("," in name for name, _, _ in ranges):
        return ""
    parts = ((name, f"{first}-{last}" if first < last else str(first)) for name, first, last in ranges)
    return ",".join(span if one_file else f"{name}:{span}" for name, span in parts)


def _ranges(sources: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    current: tuple[str, int, int] | None = None
    for source in sources:
        name, _, number = source.rpartition(":")
        if current is not None and (name, int(number)) == (current[0], current[2] + 1):
            current = name, current[1], int(number)
            continue
        if current is not None:
            yield current
        current = name, int(number), int(number)
    if current is not None:
        yield current
