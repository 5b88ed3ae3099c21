"""What is asked of every system: the rows of the data sets, and the suite against forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from luthier.evaluate import sets, suite
from luthier.evaluate.answers import Job, Record
from luthier.evaluate.notes import Note, note
from luthier.evaluate.sets import SUITE, TEXTS, Set
from luthier.infer.engine import Generation, generation
from luthier.types import Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer


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
    notes: tuple[Note, ...] = ()


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
    items, notes = list[suite.Item](), list[Note]()
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
        notes.append(note("suite_too_long", count=len(suite.items()) - len(items)))
    jobs.append(_texts(renderer.tokenizer, context))
    return replace(plan, jobs=tuple(jobs), items=tuple(items), notes=tuple(notes))


def _texts(tokenizer: Any, context: int) -> Job:
    """The suite's prose, each text as far as the model can read it, after its first token."""
    ids = [tokenizer.encode(one.text)[:context] for one in suite.texts()]
    rows: list[Record] = [
        {"source": one.id, "tokens": len(text) - 1} for one, text in zip(suite.texts(), ids, strict=True)
    ]
    return Job(TEXTS, [one[:1] for one in ids], rows, continuations=[[one[1:]] for one in ids])
