"""`luthier eval`: what did the base say to the same rows, did tuning help, and what did it damage?

Writes report.json, report.md and answers.before.jsonl, answers.after.jsonl into RUN/eval/NAME or output_dir.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.evaluate import report, sets, suite
from luthier.evaluate.answers import Job, Kept, Record, answer
from luthier.evaluate.sets import SUITE, TEXTS, Set, Thought
from luthier.evaluate.systems import System, ask, systems
from luthier.infer import loading, questions
from luthier.infer.engine import Generation, generation
from luthier.infer.loading import Ready
from luthier.infer.questions import Say
from luthier.measure import metrics, statistics
from luthier.measure.strings import without_thought
from luthier.measure.types import Answered, Measured
from luthier.runs import Run, hashing
from luthier.streams import say as to_stderr
from luthier.types import Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

NOWHERE = "evaluations"
"""Where results of a model go that is no run, when the request names no output_dir."""


@dataclass(frozen=True)
class Request:
    """task: the kind that all data sets are, or None to recognise it · suite: ask the general suite too; None
    asks it of runs only · baseline: evaluate only the base, as before any training."""

    task: str | None = None
    suite: bool | None = None
    baseline: bool = False


@dataclass(frozen=True)
class Plan:
    """What is asked of every system. items: of the suite, those that the model has room to read · short:
    names of data sets whose answers end after the longest label, which the user did not ask for."""

    sets: tuple[Set, ...]
    jobs: tuple[Job, ...]
    short: frozenset[str] = frozenset()
    items: tuple[suite.Item, ...] = ()
    notes: tuple[str, ...] = ()


Got = dict[str, list[Record]]


def evaluate(config: Config, request: Request | None = None, say: Say | None = None) -> dict[str, Any]:
    """Evaluate before and after on the rows that the request names; returns what report.json holds.

    Raises DataError, ModelError, UsageError, MissingPackage before the first answer where it can be known.
    """
    request, say = request or Request(), say or to_stderr
    began = time.perf_counter()
    if config.do_sample and config.is_set("do_sample"):
        say("note: do_sample is not used: the most likely answers of both systems are compared")
    found = systems(config, request.baseline)
    tokenizer, renderer = loading.text(config, say)
    rows = questions.questions(config, renderer, say)
    asked = sets.sets(rows, request.task, config, renderer.template.thought)
    sets.say_tasks(asked, say)
    with Run.join(_place(config, asked)) as run:
        plans, got = list[Plan](), dict[str, Got]()

        def work(system: System, ready: Ready) -> None:
            say(f"{system.side}: {ready.about if system.side == 'after' else system.name}")
            if not plans:
                plans.append(plan(asked, config, request, renderer, ready.engine.context))
            got[system.side] = _answers(system, ready, plans[0], run.path, say)

        try:
            ask(found, tokenizer, renderer, work)
        except KeyboardInterrupt:
            say(f"what was answered is in {run.path}; the same command goes on from there")
            raise
        result = _result(plans[0], got, config, renderer.template.thought)
        result |= report.about(config, found, plans[0].jobs)
        result["seconds"] = round(time.perf_counter() - began, 3)
        run.write_text("report.md", report.markdown(result))
        run.write_json("report.json", result)
        say(f"written: {run.path / 'report.json'}, {run.path / 'report.md'}")
    return result


def plan(asked: Sequence[Set], config: Config, request: Request, renderer: Renderer, context: int) -> Plan:
    """The jobs of all data sets and of the suite. context: tokens that the model reads."""
    options = generation(config, renderer, do_sample=False)
    given = config.is_set("max_new_tokens") or config.is_set("max_length")
    jobs = [job for one in asked for job in sets.jobs(one, options, renderer, given)]
    short = frozenset(job.name for job in jobs if job.options not in (None, options))
    whole = Plan(tuple(asked), tuple(jobs), short)
    wanted = config.run is not None or bool(config.adapter_name_or_path)
    if not (wanted if request.suite is None else request.suite):
        return whole
    return _with_suite(whole, options, renderer, context)


def _with_suite(plan: Plan, options: Generation, renderer: Renderer, context: int) -> Plan:
    jobs = list(plan.jobs)
    items, notes = list[suite.Item](), list[str]()
    for ability in suite.abilities():
        own = [item for item in suite.items() if item.ability == ability.key]
        prompts = {item.id: renderer.prompt([Message("user", item.prompt)]) for item in own}
        fit = [item for item in own if len(prompts[item.id]) < context]
        rows: list[Record] = [
            {"source": item.id, "input": item.prompt, "reference": item.answer} for item in fit
        ]
        limit = replace(options, max_new_tokens=ability.tokens)
        jobs.append(Job(f"{SUITE}.{ability.key}", [prompts[item.id] for item in fit], rows, limit))
        items += fit
    if len(items) < len(suite.items()):
        notes.append(f"{len(suite.items()) - len(items)} questions of the suite do not fit into the model")
    jobs.append(_texts(renderer.tokenizer, context))
    return replace(plan, jobs=tuple(jobs), items=tuple(items), notes=tuple(notes))


def _texts(tokenizer: Any, context: int) -> Job:
    """The suite's prose, each text as far as the model can read it, after its first token."""
    ids = [tokenizer.encode(one.text)[:context] for one in suite.texts()]
    rows: list[Record] = [{"source": one.id} for one in suite.texts()]
    return Job(TEXTS, [one[:1] for one in ids], rows, continuations=[[one[1:]] for one in ids])


def _answers(system: System, ready: Ready, plan: Plan, folder: Path, say: Say) -> Got:
    kept = Kept(folder / f"answers.{system.side}.jsonl")
    got = {
        job.name: answer(job, ready, kept, system.identity, lambda line: say(f"{system.side}: {line}"))
        for job in plan.jobs
    }
    kept.settle({job.name: job.fingerprint(system.identity) for job in plan.jobs})
    return got


# --- from answers to the report


def _result(plan: Plan, got: Mapping[str, Got], config: Config, thought: Thought) -> dict[str, Any]:
    tasks: dict[str, dict[str, Any]] = {}
    details: dict[str, dict[str, Any]] = {}
    for one in plan.sets:
        said = {side: sets.measure(one, records, thought) for side, records in got.items()}
        tasks[one.name], details[one.name] = _of_set(one, said, plan, got, config.seed)
    if plan.items:
        measured = {side: _suite(plan, records, thought) for side, records in got.items()}
        tasks[SUITE] = report.figures(measured, config.seed)
        tasks[TEXTS] = report.figures({s: _text_loss(plan, TEXTS, r) for s, r in got.items()}, config.seed)
        details[SUITE] = {"kind": "suite", "notes": list(plan.notes), **suite.identity()}
        details[TEXTS] = {"kind": "perplexity", "notes": []}
    return {"tasks": tasks, "details": details}


def _of_set(
    one: Set, said: Mapping[str, Mapping[str, Answered]], plan: Plan, got: Mapping[str, Got], seed: int
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
        return report.figures(losses, seed), details
    metric = metrics.load(sets.METRIC_OF.get(one.task.kind, one.task.kind))
    measured = {
        side: {way: metric(answered) for way, answered in ways.items()} for side, ways in said.items()
    }
    figures: dict[str, Any] = {}
    for way in next(iter(measured.values())):
        found = report.figures({side: ways[way] for side, ways in measured.items()}, seed)
        figures |= {f"{way}_{name}" if way else name: figure for name, figure in found.items()}
    figures.pop("likelihood_outside_labels", None)  # by its making never outside
    details["cut"] = {side: sum(ways[""].cut) for side, ways in said.items()}
    limit = next(job.options.max_new_tokens for job in plan.jobs if job.name == one.name and job.options)
    details["notes"] += report.cut_notes(details["cut"], len(one.rows), limit, one.name not in plan.short)
    details |= report.by_part(one.task.kind, {side: ways[""] for side, ways in said.items()})
    last = measured.get("after", measured.get("before", {}))
    if "likelihood" in last:
        details["scoring"] = _scoring(last[""]["accuracy"], last["likelihood"]["accuracy"], seed)
    details |= report.changed({s: w[""] for s, w in said.items()}, {s: w[""] for s, w in measured.items()})
    return figures, details


def _scoring(written: Measured, likely: Measured, seed: int) -> dict[str, Any]:
    """Which way of getting a label from the model is the better one, on the same rows."""
    found = statistics.compare(written, likely, seed)
    words = {"improved": "likelihood", "regressed": "generation", "no evidence": "no evidence"}
    return {
        "generation": found.before,
        "likelihood": found.after,
        "delta": found.delta,
        "low": report.finite(found.low),
        "high": report.finite(found.high),
        "better": words[found.verdict],
    }


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


def _place(config: Config, asked: Sequence[Set]) -> Path:
    """output_dir, or a folder of its own in the run, named after the data."""
    name = re.sub(r"[^\w.+-]+", "_", "+".join(Path(one.name).stem for one in asked)) or "data"
    asked_for = config.output_dir if config.is_set("output_dir") else None
    if asked_for and not (config.run and Path(asked_for).resolve() == Path(config.run).resolve()):
        return Path(asked_for)
    return Path(config.run) / "eval" / name if config.run else Path(NOWHERE) / name
