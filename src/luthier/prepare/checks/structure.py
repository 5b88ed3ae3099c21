"""Rows that cannot be used, and values that were read as something else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from luthier.prepare.checks import Data
from luthier.prepare.report import Finding, shown, some
from luthier.types import BadRow

SAMPLES = 5
_NUMBER = re.compile(r"\d+")


def structure(data: Data) -> Iterator[Finding]:
    """One finding for each reason: what is the same but for its numbers is one reason."""
    groups: dict[str, list[BadRow]] = {}
    for bad in data.table.bad:
        groups.setdefault(_NUMBER.sub("N", f"{bad.field}: {bad.reason}"), []).append(bad)
    for same in sorted(groups.values(), key=len, reverse=True):
        first = same[0]
        field = f'"{first.field}": ' if first.field else ""
        yield Finding(
            "structure",
            "error",
            f"{some(len(same))} cannot be used: {field}{first.reason}",
            rows=[bad.source for bad in same],
            fix=f"mend them, or leave them out: luthier data clean {data.file} --steps structure",
            samples=[shown(bad) for bad in same[:SAMPLES]],
        )
    for what, count in data.converted.most_common():
        yield Finding(
            "structure", "note", what, count=count, fix="write it as text if it should look otherwise"
        )
