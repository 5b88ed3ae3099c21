"""What the user says of the scoring of answers: a tolerance of numbers, a JSON schema of extracted data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from luthier.errors import UsageError
from luthier.evaluate.notes import Note, note
from luthier.evaluate.sets import Set
from luthier.measure.metrics import json_schema

if TYPE_CHECKING:
    from luthier.evaluate.plan import Request
    from luthier.evaluate.results import Heard


def scored(asked: Sequence[Set], request: Request) -> list[Set]:
    """The data sets with the request's options for their metrics, and notes that say so.

    Raises UsageError where an option is for a kind of task that no data set is.
    """
    result = list(asked)
    if request.tolerance is not None:
        told = note("tolerance", percent=f"{request.tolerance:.6%}".rstrip("0%").rstrip("."))
        result = _with(result, "number", "tolerance", {"relative": request.tolerance}, told)
    if request.schema is not None:
        schema = json_schema.load(request.schema)
        told = note("schema_given", name=schema.name)
        result = _with(result, "extraction", "schema", {"schema": schema}, told)
        result = [_references(one, schema) if one.task.kind == "extraction" else one for one in result]
    return result


def told(heard: Heard) -> dict[str, Any]:
    """`tolerance`, and `schema`: {"file", "kinds": {kind of error: {side: how many answers have it}},
    "first": {kind: where and what}}, where the user asked for them."""
    given = heard.one.scoring
    found = {"tolerance": given["relative"]} if "relative" in given else {}
    return {**found, **(_faults(heard, given["schema"]) if "schema" in given else {})}


def _faults(heard: Heard, schema: json_schema.Schema) -> dict[str, Any]:
    found: dict[str, dict[str, int]] = {}
    first: dict[str, str] = {}
    notes = []
    for side, answered in heard.written.items():
        counts: Counter[str] = Counter()
        for source, text in zip(answered.sources, answered.answers, strict=True):
            faults = {fault.kind: fault.what for fault in reversed(schema.faults(text))}
            counts.update(faults.keys())
            first = {kind: f"{source}: {what}" for kind, what in faults.items()} | first
        for kind, count in counts.items():
            found.setdefault(kind, dict.fromkeys(heard.written, 0))[side] = count
        if counts:
            notes.append(_told("schema_broken", counts, side=side))
    return {"schema": {"file": schema.name, "kinds": found, "first": first}, "notes": notes}


def _with(asked: Sequence[Set], kind: str, option: str, scoring: Mapping[str, Any], told: Note) -> list[Set]:
    if all(one.task.kind != kind for one in asked):
        found = ", ".join(f"{one.name}: {one.task.kind}" for one in asked)
        raise UsageError(f'--{option}: is for the task "{kind}" ({found}) -> leave it out, or --task {kind}')
    return [
        replace(one, scoring={**one.scoring, **scoring}, notes=(*one.notes, told))
        if one.task.kind == kind
        else one
        for one in asked
    ]


def _references(one: Set, schema: json_schema.Schema) -> Set:
    """With a note where right answers themselves break the schema: then it asks for something else."""
    found = [schema.faults(text) for text in one.references]
    broken = [(q.source, faults[0]) for q, faults in zip(one.questions, found, strict=True) if faults]
    if not broken:
        return one
    first = f"{broken[0][0]}: {broken[0][1].what}"
    told = note("schema_references", count=len(broken), rows=len(one.rows), first=first)
    return replace(one, notes=(*one.notes, told))


def _told(key: str, counts: Counter[str], **values: Any) -> Note:
    return note(key, shown=", ".join(f"{kind} {count}" for kind, count in counts.most_common()), **values)
