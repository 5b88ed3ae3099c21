"""Answers that stop in the middle."""

from __future__ import annotations

from collections.abc import Iterator

from luthier.prepare import endings
from luthier.prepare.checks import Data
from luthier.prepare.report import Finding, some

SAMPLES = 5


def truncation(data: Data) -> Iterator[Finding]:
    """Certain signs and endings unlike the others, as one finding; of pairs, the chosen answers."""
    table = data.table
    found = endings.unfinished(table.answers)
    if not found:
        return
    certain = sum(bool(one.why) for one in found)
    rows = [table.sources[one.index] for one in found]
    yield Finding(
        "truncation",
        "warning",
        f"{some(len(found))} whose answer stops in the middle, which teaches a model to stop there "
        f"({certain} with plain signs, {len(found) - certain} unlike the other endings)",
        rows=rows,
        fix=data.or_leave_out("complete these answers", rows),
        samples=[f"{table.sources[one.index]}: {one.why or 'ends'}: {one.shown}" for one in found[:SAMPLES]],
        figures={"plain": certain, "unlike": len(found) - certain},
    )
