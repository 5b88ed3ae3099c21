"""Rows -> Examples. One function per format, one row of FORMATS each; another package adds rows as
entry points of the group "luthier.formats".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path

from luthier.data.formats.fields import Fields, RowProblem
from luthier.data.formats.guess import guess, settle
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError
from luthier.types import BadRow, Example, Row

__all__ = ["FORMATS", "RowProblem", "guess", "names", "settle", "to_example", "write_rejected"]

# format -> dotted path of a function Fields -> Example that raises RowProblem
FORMATS: dict[str, str] = {
    "alpaca": "luthier.data.formats.alpaca:convert",
    "sharegpt": "luthier.data.formats.chat:convert",
    "openai": "luthier.data.formats.chat:convert",
    "text": "luthier.data.formats.text:convert",
}


def to_example(row: Row, spec: DatasetSpec, stage: str = "sft", tally: Counter[str] | None = None) -> Example:
    """The row as an Example for a stage (pt, sft, rm, kto, ppo, grpo, predict ...).

    tally: counts values that were converted (a number read as text) rather than rejected.
    Raises RowProblem(field, reason) when the row cannot be understood, DataError for an unknown format.
    """
    fields = Fields(row.data, spec, stage, row.source)
    if tally is not None:
        fields.tally = tally
    return _converter(spec.formatting)(fields)


@cache
def _converter(name: str | None) -> Callable[[Fields], Example]:
    target = _table().get(str(name))
    if target is None:
        raise DataError(f'unknown format "{name}" -> use one of {", ".join(names())}')
    module, _, function = target.partition(":")
    converter: Callable[[Fields], Example] = getattr(import_module(module), function)
    return converter


@cache
def _table() -> dict[str, str]:
    from importlib.metadata import entry_points

    return FORMATS | {point.name: point.value for point in entry_points(group="luthier.formats")}


def names() -> list[str]:
    """The known formats, those of other packages included."""
    return sorted(_table())


def write_rejected(path: Path | str, bad_rows: Iterable[BadRow]) -> int:
    """Write bad rows as JSON Lines (source, field, reason, data) and return how many there were."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for bad in bad_rows:
            entry = {"source": bad.source, "field": bad.field, "reason": bad.reason, "data": bad.data}
            text = json.dumps(entry, ensure_ascii=False, default=str)
            file.write(
                text.encode("utf-8", "backslashreplace").decode() + "\n"
            )  # half surrogates stay legible
            count += 1
    return count
