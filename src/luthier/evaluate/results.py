"""From answers to what report.json holds: the figures of each task, and the details behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier.config import Config
from luthier.evaluate import advice, calibrate, examples, report, scoring, sets, shots, slices, suite
from luthier.evaluate.answers import Record
from luthier.evaluate.notes import note
from luthier.evaluate.plan import Plan
from luthier.evaluate.sets import SUITE, TEXTS, Set, Thought
from luthier.measure import statistics
from luthier.measure.metrics import perplexity
from luthier.measure.strings import without_thought
from luthier.measure.tasks import asked
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
    def answered(self) -> bool:
        """Whether anything was answered; texts of pre-training are only read."""
        return self.one.task.kind != "perplexity"

    @property
    def written(self) -> dict[str, Answered]:
        """side -> what was answered by generation."""
        return {side: ways[""] for side, ways in self.said.items()}

    @property
    def by_generation(self) -> dict[str, Mapping[str, Measured]]:
        """side -> the metrics of what was answered by generation."""
        return {side: ways[""] for side, ways in self.measured.items()}


Detail = Callable[[Heard], dict[str, Any]]
"""What is told of a set beside its figures: keys of `details.{name}`, and "notes"."""


def result(
    plan: Plan, got: Mapping[str, Got], config: Config, thought: Thought, more: Sequence[Detail] = ()
) -> dict[str, Any]:
    """`tasks` and `details` of report.json. got: side -> records by job · more: told beside `DETAILS`."""
    tasks: dict[str, dict[str, Any]] = {}
    details: dict[str, dict[str, Any]] = {}
    of_sets = [hear(one, plan, got, config, thought) for one in plan.sets]
    for heard in of_sets:
        tasks[heard.one.name], details[heard.one.name] = _of_set(heard, more)
    found = slices.by_dataset([(heard.one, heard.by_generation) for heard in of_sets], config.seed)
    for name, parts in found.items():
        details[name].setdefault("slices", {})["dataset"] = parts
    if plan.items:
        measured = {side: _suite(plan, records, thought) for side, records in got.items()}
        tasks[SUITE] = report.figures(measured, config.seed)
        tasks[TEXTS] = report.figures({s: _text_loss(plan, TEXTS, r) for s, r in got.items()}, config.seed)
        points = {side: _points(plan, found) for side, found in measured.items()}
        cut = {side: _suite_cut(records) for side, records in got.items()}
        notes = [
            *plan.notes,
            *(note("suite_cut", side=s, count=n, rows=len(plan.items)) for s, n in cut.items() if n),
        ]
        details[SUITE] = {"kind": "suite", "notes": notes, "cut": cut, **suite.identity(), "points": points}
        whole = {"rows": len(suite.texts()), "sha256": suite.identity()["sha256"]}
        details[TEXTS] = {"kind": "perplexity", "notes": [], **whole}
    for heard in of_sets:
        details[heard.one.name] |= advice.told(heard, tasks, details[heard.one.name])
    return {"tasks": tasks, "details": details}


def hear(one: Set, plan: Plan, got: Mapping[str, Got], config: Config, thought: Thought) -> Heard:
    """What systems said to a set, and its metrics. got: name of a system -> its records by job."""
    said = {side: sets.measure(one, records, thought) for side, records in got.items()}
    if any(_unusable(ways.get("likelihood")) for ways in said.values()):
        said = {side: {"": ways[""]} for side, ways in said.items()}
    if one.task.kind == "perplexity":
        losses = {side: {"": _text_loss(plan, one.name, records)} for side, records in got.items()}
        return Heard(one, plan, config, thought, got, said, losses)
    metric = sets.metric_of(one)
    measured = {side: {way: metric(found) for way, found in ways.items()} for side, ways in said.items()}
    return Heard(one, plan, config, thought, got, said, measured)


def _of_set(heard: Heard, more: Sequence[Detail]) -> tuple[dict[str, Any], dict[str, Any]]:
    one, measured, config = heard.one, heard.measured, heard.config
    details: dict[str, Any] = {
        "kind": one.task.kind,
        "why": one.task.why,
        "why_zh": one.task.why_zh,
        "rows": len(one.rows),
        "sha256": hashing.sha256_json([[row.question, row.answer] for row in one.rows]),
        "notes": list(one.notes),
    }
    figures: dict[str, Any] = {}
    for way in next(iter(measured.values())):
        found = report.figures({side: ways[way] for side, ways in measured.items()}, config.seed)
        figures |= {f"{way}_{name}" if way else name: figure for name, figure in found.items()}
    figures.pop("likelihood_outside_labels", None)  # by its making never outside
    for part in (*DETAILS, *more) if heard.answered else (_texts_cut, _slices):
        found = part(heard)
        details["notes"] += found.pop("notes", [])
        details |= found
    return figures, details


def _cut(heard: Heard) -> dict[str, Any]:
    one, plan = heard.one, heard.plan
    cut = {side: sum(answered.cut) for side, answered in heard.written.items()}
    limit = next(job.options.max_new_tokens for job in plan.jobs if job.name == one.name and job.options)
    return {"cut": cut, "notes": report.cut_notes(cut, len(one.rows), limit, one.name not in plan.short)}


def _texts_cut(heard: Heard) -> dict[str, Any]:
    """Texts of which perplexity was measured only as far as the model reads; the same for every system."""
    count = sum(bool(record.get("cut")) for record in next(iter(heard.got.values()))[heard.one.name])
    return {"notes": [note("texts_cut", count=count, rows=len(heard.one.rows))]} if count else {}


def _parts(heard: Heard) -> dict[str, Any]:
    return report.by_part(heard.one.task.kind, heard.written)


def _unusable(scored: Answered | None) -> bool:
    """Whether a row has no label with a probability, as a model computes that overflows."""
    if scored is None or scored.scores is None:
        return False
    best = scored.scores.max(1)  # not a number where any is
    return not bool(np.isfinite(best).all())


def _likelihood(heard: Heard) -> dict[str, Any]:
    scored = any(f"{heard.one.name}.likelihood" in records for records in heard.got.values())
    lost = scored and all("likelihood" not in ways for ways in heard.said.values())
    return {"notes": [note("likelihood_unusable")]} if lost else {}


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
    return dict(examples.changed(heard.one.task.kind, heard.written, heard.by_generation))


def _extremes(heard: Heard) -> dict[str, Any]:
    """The best rows and the worst, these with the training rows most like them."""
    kind, trained = heard.one.task.kind, heard.plan.trained or ()
    found = examples.extremes(kind, heard.said, heard.measured)
    pairs = [(one.source, asked(one)) for one in trained]
    rows = [examples.Trained(source, one.question, one.answer.strip()) for source, one in pairs]
    worst, notes = examples.beside(kind, found["worst"], rows)
    return {**found, "worst": worst, "notes": notes}


def _slices(heard: Heard) -> dict[str, Any]:
    """Of labels by the way of answering that is the better one in deployment."""
    better = _scoring(heard).get("scoring", {}).get("better")
    way = "likelihood" if better == "likelihood" else ""
    sides = {side: ways[way] for side, ways in heard.measured.items()}
    return slices.slices(heard.one, sides, heard.config.seed, way)


DETAILS: tuple[Callable[[Heard], dict[str, Any]], ...] = (
    *(_cut, _parts, _likelihood, _scoring, calibrate.calibration),
    *(scoring.told, _changed, _extremes, _slices, shots.told),
)
"""What is told of a set beside its figures: keys of `details.{name}`; their "notes" are put together."""


def _suite(plan: Plan, got: Got, thought: Thought) -> dict[str, Measured]:
    said = [
        without_thought(record["answer"], thought)
        for ability in suite.abilities()
        for record in got[f"{SUITE}.{ability.key}"]
    ]
    return suite.measured(plan.items, said)


def _points(plan: Plan, measured: Mapping[str, Measured]) -> dict[str, dict[str, float]]:
    """Ability -> question -> 1 or 0, so that two runs can be compared on the questions that both had."""
    found: dict[str, dict[str, float]] = {}
    for ability, one in measured.items():
        asked = [item.id for item in plan.items if item.ability == ability]
        assert one.per_row is not None, "right or wrong of each question"
        found[ability] = dict(zip(asked, one.per_row.tolist(), strict=True))
    return found


def _suite_cut(got: Got) -> int:
    return sum(bool(one["cut"]) for ability in suite.abilities() for one in got[f"{SUITE}.{ability.key}"])


def _text_loss(plan: Plan, name: str, got: Got) -> dict[str, Measured]:
    job = next(job for job in plan.jobs if job.name == name)
    nats = [float(record["scores"][0]) for record in got[name]]
    return {"perplexity": perplexity.measured(nats, [len(one[0]) for one in job.continuations])}
