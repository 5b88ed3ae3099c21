"""From answers to what report.json holds: the figures of each task, and the details behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from luthier.config import Config
from luthier.evaluate import report, sets, suite
from luthier.evaluate.answers import Record
from luthier.evaluate.plan import Plan
from luthier.evaluate.sets import SUITE, TEXTS, Set, Thought
from luthier.measure import metrics, statistics
from luthier.measure.strings import without_thought
from luthier.measure.types import Answered, Measured
from luthier.runs import hashing

Got = dict[str, list[Record]]
"""Name of a job -> its records, in the order of its rows."""


@dataclass(frozen=True)
class Heard:
    """All that the systems said to one set.

    got: side ("before", "after") -> its records by job · said, measured: side -> way of answering ("" is by
    generation, "likelihood") -> answers, or metric -> Measured.
    """

    one: Set
    plan: Plan
    config: Config
    thought: Thought
    got: Mapping[str, Got]
    said: Mapping[str, Mapping[str, Answered]]
    measured: Mapping[str, Mapping[str, Mapping[str, Measured]]]

    @property
    def written(self) -> dict[str, Answered]:
        """side -> what was answered by generation."""
        return {side: ways[""] for side, ways in self.said.items()}


def result(plan: Plan, got: Mapping[str, Got], config: Config, thought: Thought) -> dict[str, Any]:
    """`tasks` and `details` of report.json. got: side -> records by job."""
    tasks: dict[str, dict[str, Any]] = {}
    details: dict[str, dict[str, Any]] = {}
    for one in plan.sets:
        tasks[one.name], details[one.name] = _of_set(one, plan, got, config, thought)
    if plan.items:
        measured = {side: _suite(plan, records, thought) for side, records in got.items()}
        tasks[SUITE] = report.figures(measured, config.seed)
        tasks[TEXTS] = report.figures({s: _text_loss(plan, TEXTS, r) for s, r in got.items()}, config.seed)
        details[SUITE] = {"kind": "suite", "notes": list(plan.notes), **suite.identity()}
        details[TEXTS] = {"kind": "perplexity", "notes": []}
    return {"tasks": tasks, "details": details}


def _of_set(
    one: Set, plan: Plan, got: Mapping[str, Got], config: Config, thought: Thought
) -> tuple[dict[str, Any], dict[str, Any]]:
    details: dict[str, Any] = {
        "kind": one.task.kind,
        "why": one.task.why,
        "why_zh": one.task.why_zh,
        "rows": len(one.rows),
        "sha256": hashing.sha256_json([[row.question, row.answer] for row in one.rows]),
        "notes": list(one.notes),
    }
    if one.task.kind == "perplexity":
        losses = {side: _text_loss(plan, one.name, records) for side, records in got.items()}
        return report.figures(losses, config.seed), details
    said = {side: sets.measure(one, records, thought) for side, records in got.items()}
    metric = metrics.load(sets.METRIC_OF.get(one.task.kind, one.task.kind))
    measured = {side: {way: metric(found) for way, found in ways.items()} for side, ways in said.items()}
    figures: dict[str, Any] = {}
    for way in next(iter(measured.values())):
        found = report.figures({side: ways[way] for side, ways in measured.items()}, config.seed)
        figures |= {f"{way}_{name}" if way else name: figure for name, figure in found.items()}
    figures.pop("likelihood_outside_labels", None)  # by its making never outside
    heard = Heard(one, plan, config, thought, got, said, measured)
    for part in DETAILS:
        found = part(heard)
        details["notes"] += found.pop("notes", [])
        details |= found
    return figures, details


def _cut(heard: Heard) -> dict[str, Any]:
    one, plan = heard.one, heard.plan
    cut = {side: sum(answered.cut) for side, answered in heard.written.items()}
    limit = next(job.options.max_new_tokens for job in plan.jobs if job.name == one.name and job.options)
    return {"cut": cut, "notes": report.cut_notes(cut, len(one.rows), limit, one.name not in plan.short)}


def _parts(heard: Heard) -> dict[str, Any]:
    return report.by_part(heard.one.task.kind, heard.written)


def _scoring(heard: Heard) -> dict[str, Any]:
    """Which way of getting a label from the model is the better one, on the same rows."""
    last = heard.measured.get("after", heard.measured.get("before", {}))
    if "likelihood" not in last:
        return {}
    written, likely = last[""]["accuracy"], last["likelihood"]["accuracy"]
    found = statistics.compare(written, likely, heard.config.seed)
    words = {"improved": "likelihood", "regressed": "generation", "no evidence": "no evidence"}
    figure = {
        "generation": found.before,
        "likelihood": found.after,
        "delta": found.delta,
        "low": report.finite(found.low),
        "high": report.finite(found.high),
        "better": words[found.verdict],
    }
    return {"scoring": figure}


def _changed(heard: Heard) -> dict[str, Any]:
    return dict(report.changed(heard.written, {side: ways[""] for side, ways in heard.measured.items()}))


DETAILS: tuple[Callable[[Heard], dict[str, Any]], ...] = (_cut, _parts, _scoring, _changed)
"""What is told of a set beside its figures: keys of `details.{name}`; their "notes" are put together."""


def _suite(plan: Plan, got: Got, thought: Thought) -> dict[str, Measured]:
    said = [
        without_thought(record["answer"], thought)
        for ability in suite.abilities()
        for record in got[f"{SUITE}.{ability.key}"]
    ]
    return suite.measured(plan.items, said)


def _text_loss(plan: Plan, name: str, got: Got) -> dict[str, Measured]:
    job = next(job for job in plan.jobs if job.name == name)
    nats = [float(record["scores"][0]) for record in got[name]]
    return {"perplexity": sets.perplexity(nats, [len(one[0]) for one in job.continuations])}
