"""Rows before they are split: the class of each, and which of them must stay together."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.errors import DataError, UsageError
from luthier.measure import closed
from luthier.prepare import near
from luthier.prepare.opened import Opened
from luthier.prepare.report import some
from luthier.prepare.table import Table
from luthier.types import BadRow, Row

AUTO, LABEL, NONE, COLUMN = "auto", "label", "none", "column:"


@dataclass
class Strata:
    """Position i of classes and groups is the i-th row of `table`, which can be used.

    by, group: what they are, in words; "" where all rows are one class, or each is a group of its own.
    """

    table: Table
    classes: Sequence[Hashable]
    groups: Sequence[Hashable]
    by: str
    group: str

    def together(self) -> list[list[int]]:
        """Groups of more than one row, the largest first."""
        members: dict[Hashable, list[int]] = {}
        for i, group in enumerate(self.groups):
            members.setdefault(group, []).append(i)
        return sorted((rows for rows in members.values() if len(rows) > 1), key=len, reverse=True)


def look(source: Opened, by: str = AUTO, group: str = AUTO) -> Strata:
    """Read the rows. by: "auto", "label", "none" or a column · group: "auto" (near-duplicates), "none" or a
    column. Raises DataError when no row can be used, UsageError for a column without values or answers that
    are no labels."""
    wanted = {name for name in (_column(by, LABEL), _column(group)) if name}
    table, columns = Table(source.spec, source.stage), {name: list[str | None]() for name in wanted}
    seen: dict[str, None] = {}
    for row, meant in source.rows():
        table.add(row, meant)
        if isinstance(row, Row) and not isinstance(meant, BadRow):
            if wanted and len(seen) < 1000:
                seen.update(dict.fromkeys(row.data))
            for name, values in columns.items():
                values.append(_key(row.data.get(name)))
    if not len(table):
        raise DataError(f"{source.spec.name}: none of {some(table.rows)} can be used -> luthier data check")
    for name, values in columns.items():
        if not any(value is not None for value in values):
            hint = difflib.get_close_matches(name, [*seen, LABEL, NONE, AUTO], 1, 0.5)
            meant_name = f'did you mean "{hint[0]}"?' if hint else f"the rows have {', '.join(seen)}"
            raise UsageError(f'{source.spec.name}: no row has a value in the column "{name}" -> {meant_name}')
    classes, told_by = _classes(table, by, columns)
    groups, told_group = _groups(table, group, columns)
    return Strata(table, classes, groups, told_by, told_group)


def _column(text: str, *words: str) -> str:
    """The column that an option names; "" for one of the words."""
    return "" if text in (AUTO, NONE, *words) else text.removeprefix(COLUMN)


def _key(value: Any) -> str | None:
    """A value as a class or group; None for a cell without one."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _classes(table: Table, by: str, columns: dict[str, list[str | None]]) -> tuple[Sequence[Hashable], str]:
    if _column(by, LABEL):
        return columns[_column(by, LABEL)], f'the column "{_column(by, LABEL)}"'
    if by != NONE and table.verdicts:
        return [str(verdict).lower() for verdict in table.verdicts], "verdict"
    if table.stage == "sft" and by != NONE and closed.labels(table.answers) is not None:
        return table.answers, "label"
    if by == LABEL:
        kinds = len(Counter(table.answers))
        raise UsageError(
            f"--by label: the answers are free text ({kinds:,} different in {some(len(table))})"
            " -> name a column, or --by none"
        )
    return [""] * len(table), ""


def _groups(table: Table, group: str, columns: dict[str, list[str | None]]) -> tuple[Sequence[Hashable], str]:
    if group == NONE:
        return range(len(table)), ""
    name = _column(group)
    if name:
        values = columns[name]  # a row without a value is a group of its own
        return [i if value is None else value for i, value in enumerate(values)], f'the same "{name}"'
    texts = [question or answer for question, answer in zip(table.inputs, table.answers, strict=True)]
    return near.components(texts), "near-duplicates"
