"""Data sets as they are evaluated: which task each is, which rows count, and what is asked of a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import DataError
from luthier.evaluate.answers import Job, Record
from luthier.evaluate.notes import Note, note
from luthier.infer.engine import Generation
from luthier.infer.questions import Question, Say, document
from luthier.measure import closed, references, tasks
from luthier.measure.strings import normalise, without_thought
from luthier.measure.tasks import Asked, Task
from luthier.measure.types import Answered, Measured
from luthier.types import BadRow, Example, Message

if TYPE_CHECKING:
    from luthier.data.render import Renderer

SUITE, TEXTS = "suite", "general_text"
"""Tasks of the report that are no data set of the user's."""
RESERVED = {SUITE, TEXTS}
MOST_SCORED = 200  # labels; more would make each row as long as a text
_SLACK = 4  # tokens beyond the longest label: an answer that is longer is none of the labels


@dataclass(frozen=True)
class Set:
    """A data set, or a part of it, that is one task of the report.

    rows: as asked, side by side with `questions` · labels: of a closed task all that there are · notes: what
    the reader of the report must know · scoring: options of its metrics, by name.
    """

    name: str
    task: Task
    questions: tuple[Question, ...]
    rows: tuple[Asked, ...]
    labels: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    scoring: Mapping[str, Any] = field(default_factory=dict)

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(row.answer for row in self.rows)


def sets(
    questions: Sequence[Question], kind: str | None, trained: Sequence[Example] | None, thought: Thought
) -> list[Set]:
    """One Set of each data set. Raises DataError where no row can be scored, and what `recognise` raises.

    Also raises MissingPackage for a metric that could not be computed afterwards. trained: the training rows,
    whose labels count, too; None where they are not known.
    """
    names = dict.fromkeys(question.dataset for question in questions)
    known = None if trained is None else tuple(tasks.asked(one).answer.strip() for one in trained)
    short = {name: Path(name).stem if Path(name).is_file() else name for name in names}
    if len(set(short.values())) < len(short):
        short = {name: name for name in names}
    short = {name: f"data.{text}" if text in RESERVED else text for name, text in short.items()}
    return [
        _set(short[name], [q for q in questions if q.dataset == name], kind, known, thought) for name in names
    ]


def jobs(one: Set, options: Generation, renderer: Renderer, given: bool, context: int) -> list[Job]:
    """What is asked of each system: answers, and of closed labels also their likelihood.

    given: the user chose max_new_tokens; else answers to closed questions need not be longer than a label ·
    context: tokens that the model reads; texts of which perplexity is measured end there.
    """
    prompts = [question.prompt for question in one.questions]
    rows: list[Record] = [
        {"source": question.source, "input": row.question, "reference": row.answer}
        for question, row in zip(one.questions, one.rows, strict=True)
    ]
    if one.task.kind == "perplexity":
        texts = [
            continuation(q, row.answer, renderer) for q, row in zip(one.questions, one.rows, strict=True)
        ]
        read = [ids[: max(0, context - len(q.prompt))] for ids, q in zip(texts, one.questions, strict=True)]
        rows = [
            {**row, "tokens": len(ids), "cut": len(ids) < len(text)}
            for row, ids, text in zip(rows, read, texts, strict=True)
        ]
        return [Job(one.name, prompts, rows, continuations=[[ids] for ids in read])]
    if one.task.kind != "labels" or len(one.labels) > MOST_SCORED:
        return [Job(one.name, prompts, rows, options)]
    written = [continuation(one.questions[0], label, renderer) for label in one.labels]
    if not given and renderer.template.thought is None:
        longest = max(map(len, written)) + _SLACK
        options = replace(options, max_new_tokens=min(longest, options.max_new_tokens or longest))
    sources: list[Record] = [{"source": question.source} for question in one.questions]
    return [
        Job(one.name, prompts, rows, options),
        Job(f"{one.name}.likelihood", prompts, sources, continuations=[written] * len(prompts)),
    ]


def continuation(question: Question, text: str, renderer: Renderer) -> list[int]:
    """The tokens with which the model would give `text` as its answer, up to the end of its turn; of a text
    of pre-training all that follow its first."""
    if question.example.branches and question.example.branches[0][-1].role == "text":
        return document(question.example, renderer)[1:]
    answer = Message("assistant", text, train=1.0)
    found = renderer.examples([replace(question.example, branches=((answer,),))])[0]
    if not isinstance(found, BadRow):
        ids = [*found[-1].trunk.ids.tolist(), *found[-1].branches[0].ids.tolist()]
        ends = [i for i, token in enumerate(ids) if token in renderer.stop_ids]
        begin = len(question.prompt)
        if ids[:begin] == list(question.prompt) and ends and ends[-1] >= begin:
            return ids[begin : ends[-1] + 1]
    return [*renderer.tokenizer.encode(text, add_special_tokens=False), *sorted(renderer.stop_ids)[:1]]


def measure(one: Set, got: Mapping[str, Sequence[Record]], thought: Thought) -> dict[str, Answered]:
    """What was said to a set: by generation under "", of closed labels also by "likelihood"."""
    records = got[one.name]
    if one.task.kind == "perplexity":
        return {}
    said = Answered(
        tuple(question.source for question in one.questions),
        tuple(row.question for row in one.rows),
        one.references,
        tuple(without_thought(record["answer"], thought).strip() for record in records),
        tuple(bool(record["cut"]) for record in records),
        labels=one.labels,
    )
    scored = got.get(f"{one.name}.likelihood")
    if scored is None:
        return {"": said}
    scores = np.array([record["scores"] for record in scored], dtype=np.float64)
    likely = tuple(one.labels[i] for i in scores.argmax(1))
    return {"": said, "likelihood": replace(said, answers=likely, cut=(), scores=scores)}


def metric_of(one: Set) -> Callable[[Answered], dict[str, Measured]]:
    metric = references.metric_of(one.task)
    return partial(metric, **one.scoring) if one.scoring else metric


Thought = tuple[str, str] | None
"""The words around a reasoning model's thoughts."""
Known = tuple[str, ...] | None
"""The answers of the training rows, None where these are not known."""


def _set(name: str, questions: list[Question], kind: str | None, known: Known, thought: Thought) -> Set:
    rows = [references.asked(question.example, thought) for question in questions]
    task = tasks.recognise(rows, kind)
    if task.kind != "calls" and any(question.turn for question in questions):
        return _set(name, [q for q in questions if not q.turn], kind, known, thought)
    if kind in (None, "labels") and all(len(row.answer) <= closed.LONGEST for row in rows):
        wider = tasks.recognise(rows, kind, known or ())
        task = wider if wider.kind == "labels" or task.kind != "labels" else task
    one = Set(name, task, tuple(questions), tuple(rows))
    one = _usable(one)
    if task.kind != "labels":
        return one
    labels = references.labels(task.labels, one.references)
    notes = [*one.notes, *_unseen(one.references, known)]
    if len(labels) > MOST_SCORED:
        notes.append(note("too_many_labels", count=len(labels), most=MOST_SCORED))
    return replace(one, labels=labels, notes=tuple(notes))


def _usable(one: Set) -> Set:
    """Without rows that no answer could be held against; each kind of reason is a note."""
    notes = list[Note]()
    metric = None if one.task.kind == "perplexity" else metric_of(one)
    pairs = zip(one.questions, one.rows, strict=True)
    reasons = [references.unusable(one.task, question.source, row, metric) for question, row in pairs]
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    lost = [reason for reason in reasons if reason is not None]
    if not kept:
        raise DataError(f"{one.name}: no row can be scored; the first: {lost[0]}")
    if lost:
        notes.append(note("rows_not_scored", count=len(lost), rows=len(reasons), first=lost[0]))
    questions = tuple(one.questions[i] for i in kept)
    return replace(one, questions=questions, rows=tuple(one.rows[i] for i in kept), notes=tuple(notes))


def _unseen(references: Sequence[str], trained: Known) -> list[Note]:
    if not trained:
        return []
    seen = {normalise(text) for text in trained}
    missing = sorted({text for text in references if normalise(text) not in seen})
    if not missing:
        return []
    rows = sum(normalise(text) not in seen for text in references)
    shown = ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "")
    return [note("labels_not_trained", count=len(missing), rows=rows, shown=shown)]


def say_tasks(found: Sequence[Set], say: Say) -> None:
    """What was recognised, before an hour of answering."""
    for one in found:
        say(f"{one.name}: {len(one.rows)} rows, task {one.task.kind}: {one.task.why}")
        for told in one.notes:
            say(f"{one.name}: {told['en']}")
