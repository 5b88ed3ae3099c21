"""What is asked of every system: the rows of the data sets, and the suite against forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.evaluate import sets, suite
from luthier.evaluate.answers import Job, Record
from luthier.evaluate.notes import Note, note
from luthier.evaluate.sets import SUITE, TEXTS, Set
from luthier.evaluate.shots import DEFAULT, Pool, Room, Shots, shots
from luthier.infer.engine import Generation, generation
from luthier.types import Example, Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer


@dataclass(frozen=True)
class Request:
    """task: the kind that all data sets are, or None to recognise it · suite: ask the general suite too; None
    asks it of runs only · baseline: evaluate only the base, as before any training · curve: shares of the
    run's data in per cent to train on, for the learning curve · judge: address of an OpenAI-compatible
    server, whose model judge_model compares up to judge_rows answers to each data set of a kind in
    judge_kinds, or "all" · shots: ask the base with so many examples in the prompt, too; None does where only
    the base is evaluated and training rows are known · examples: data sets that are the training rows ·
    tolerance: how far from the right number an answer may be, as a part of that number · schema: file of a
    JSON schema that extracted JSON is to meet · lm_eval: names of tasks of the lm-eval package, or of the
    directory lm_eval_path, of which lm_eval_limit samples each are asked."""

    task: str | None = None
    suite: bool | None = None
    baseline: bool = False
    curve: tuple[int, ...] = ()
    judge: str | None = None
    judge_model: str | None = None
    judge_rows: int = 100
    judge_kinds: tuple[str, ...] = ("text",)
    shots: int | None = None
    examples: tuple[str, ...] = ()
    tolerance: float | None = None
    schema: str | None = None
    lm_eval: tuple[str, ...] = ()
    lm_eval_limit: int | None = None
    lm_eval_path: str | None = None

    def count(self, trained: Sequence[Example] | None) -> int:
        """How many examples the base is shown."""
        if self.shots is None:
            return DEFAULT if self.baseline and trained else 0
        return self.shots


@dataclass(frozen=True)
class Plan:
    """What is asked of every system. items: of the suite, those that the model has room to read · short:
    names of data sets whose answers end after the longest label, which the user did not ask for · trained:
    the training rows, None where they are not known · shots: name of a data set -> what the base is asked
    with examples in the prompt."""

    sets: tuple[Set, ...]
    jobs: tuple[Job, ...]
    short: frozenset[str] = frozenset()
    items: tuple[suite.Item, ...] = ()
    notes: tuple[Note, ...] = ()
    trained: tuple[Example, ...] | None = None
    shots: Mapping[str, Shots] = field(default_factory=dict)


def plan(
    asked: Sequence[Set],
    config: Config,
    request: Request,
    renderer: Renderer,
    context: int,
    trained: tuple[Example, ...] | None = None,
) -> Plan:
    """The jobs of all data sets and of the suite. context: tokens that the model reads.

    Raises DataError where a row is too long for it.
    """
    options = generation(config, renderer, do_sample=False)
    given = config.is_set("max_new_tokens") or config.is_set("max_length")
    jobs = [job for one in asked for job in sets.jobs(one, options, renderer, given, context)]
    _fit(jobs, context)
    short = frozenset(job.name for job in jobs if job.options not in (None, options))
    whole = Plan(tuple(asked), tuple(jobs), short, trained=trained)
    whole = _with_shots(whole, request.count(trained), Room(renderer, context, config.seed))
    wanted = config.run is not None or bool(config.adapter_name_or_path)
    if not (wanted if request.suite is None else request.suite):
        return whole
    return _with_suite(whole, options, renderer, context)


def _with_shots(plan: Plan, k: int, room: Room) -> Plan:
    if not k or not plan.trained:
        return plan
    pool, found = Pool(plan.trained), dict[str, Shots]()
    for one in plan.sets:
        alone = [job for job in plan.jobs if job.name in (one.name, f"{one.name}.likelihood")]
        if alone[0].options is not None:
            found[one.name] = shots(one, alone, pool, k, room)
    more = [job for one in found.values() for jobs in one.jobs.values() for job in jobs]
    return replace(plan, jobs=(*plan.jobs, *more), shots=found)


def _fit(jobs: Sequence[Job], context: int) -> None:
    """Raise DataError with all rows that the model cannot read, before the first is answered.

    Checked later, the first of them would end the work after those before it were answered.
    """
    lengths: dict[str, int] = {}
    for job in jobs:
        written = job.continuations or [[()]] * len(job.prompts)
        for prompt, row, ways in zip(job.prompts, job.rows, written, strict=True):
            least = len(prompt) + max(1, *map(len, ways))
            if least > context:
                lengths[row["source"]] = max(least, lengths.get(row["source"], 0))
    if lengths:
        shown = "\n".join(f"  {source}: {length} tokens" for source, length in [*lengths.items()][:20])
        raise DataError(
            f"{len(lengths)} rows leave no room for an answer; the model reads {context} tokens:\n{shown}\n"
            "Shorten these rows, or set rope_scaling"
        )


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
