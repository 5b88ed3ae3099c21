"""The base with examples of the training data in its prompt: what tuning has to beat (Brown et al., 2020).

Two choices of k examples: `random`, the same for every question, so that the model computes them once, and
for closed labels of as many different classes as there can be; and `retrieved`, the k training rows most
like the question, the most similar one next to it (Liu et al., 2022, "What Makes Good In-Context Examples for
GPT-3?"). They are earlier turns of the conversation through the run's own template; the question keeps its
system message. No question is shown itself as an example, however it is written.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luthier.errors import TemplateError
from luthier.evaluate import report, sets, training
from luthier.evaluate.answers import Job
from luthier.evaluate.nearest import Index
from luthier.evaluate.notes import Note, note
from luthier.evaluate.sets import Set
from luthier.infer.questions import Question
from luthier.measure import tasks
from luthier.measure.strings import normalise
from luthier.measure.types import Measured
from luthier.types import Example, Message

if TYPE_CHECKING:
    from luthier.data.render import Renderer
    from luthier.evaluate.results import Heard

WAYS, DEFAULT = ("random", "retrieved"), 4
Ways = Mapping[str, Mapping[str, Measured]]
"""Way of answering ("", "likelihood") -> metric -> Measured."""
_SLACK = 4


class Room(NamedTuple):
    """renderer: writes prompts · context: tokens that the model reads · seed: of the random choice."""

    renderer: Renderer
    context: int
    seed: int


class Pool:
    """The training rows that can be shown, each question once."""

    def __init__(self, trained: Sequence[Example]) -> None:
        found: dict[str, tuple[tasks.Asked, Example]] = {}
        for example in trained:
            row = tasks.asked(example)
            if row.question.strip() and row.answer.strip():
                found.setdefault(same(row.question), (row, example))
        self.keys = list(found)
        self.rows = [row for row, _ in found.values()]
        self.turns = [training.conversation(example) for _, example in found.values()]
        self._index: Index | None = None

    def nearest(self, questions: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        self._index = self._index or Index([row.question for row in self.rows])
        return self._index.nearest(questions, k)

    def drawn(self, count: int, seed: int, closed: bool) -> list[int]:
        """`count` rows by chance; closed: first one of each class, then a second one, and so on."""
        order: list[int] = np.random.default_rng(seed).permutation(len(self.rows)).tolist()
        if closed:
            seen, turn = Counter[str](), dict[int, int]()
            for i in order:
                label = normalise(self.rows[i].answer)
                turn[i] = seen[label]
                seen[label] += 1
            order.sort(key=turn.__getitem__)
        return order[:count]


@dataclass(frozen=True)
class Shots:
    """What the base is asked with k examples. jobs: way -> as the set's own jobs, in their order · itself:
    questions that are training rows, too, which were left out · fewer: way -> questions that had room for
    fewer examples."""

    k: int
    jobs: Mapping[str, tuple[Job, ...]]
    itself: int
    fewer: Mapping[str, int]


def shots(one: Set, alone: Sequence[Job], pool: Pool, k: int, room: Room) -> Shots:
    """The questions of a set with examples before them. alone: the jobs of the set without examples."""
    own = [same(row.question) for row in one.rows]
    random = pool.drawn(k + 1, room.seed, one.task.kind == "labels")
    near = pool.nearest([row.question for row in one.rows], k + 1)
    picked = {"random": [random] * len(own), "retrieved": [[i for i, _ in row] for row in near]}
    most = _most(one, alone, room)
    jobs, fewer = dict[str, tuple[Job, ...]](), dict[str, int]()
    for way, rows in picked.items():
        chosen = [[i for i in row if pool.keys[i] != key][:k] for row, key in zip(rows, own, strict=True)]
        made = [
            _prompt(question, [pool.turns[i] for i in places], most, room.renderer)
            for question, places in zip(one.questions, chosen, strict=True)
        ]
        fewer[way] = sum(count < len(places) for (_, count), places in zip(made, chosen, strict=True))
        prompts = [prompt for prompt, _ in made]
        jobs[way] = tuple(
            dataclasses.replace(job, name=f"{job.name}.shots.{way}", prompts=prompts, only="before")
            for job in alone
        )
    known = set(pool.keys)
    return Shots(k, jobs, sum(key in known for key in own), fewer)


def told(heard: Heard) -> dict[str, Any]:
    """`shots` of the report: examples against the base alone, and the tuned model against examples."""
    one, shown = heard.one, heard.plan.shots.get(heard.one.name)
    if shown is None:
        return {}
    found: dict[str, Any] = {"k": shown.k, "tokens": {}, "cut": {}}
    for way, jobs in shown.jobs.items():
        records = heard.got["before"]
        got = {job.name.removesuffix(f".shots.{way}"): records[job.name] for job in jobs}
        said = sets.measure(one, got, heard.thought)
        asked = [how for how in said if how in heard.measured["before"]]
        measured = {how: sets.metric_of(one)(said[how]) for how in asked}
        found[way] = _figures(heard.measured["before"], measured, heard.config.seed)
        found["tokens"][way], found["cut"][way] = _mean(jobs[0]), sum(said[""].cut)
        if "after" in heard.measured:
            against = _figures(measured, heard.measured["after"], heard.config.seed)
            found[f"tuned_against_{way}"] = against
    found["tokens"]["without"] = _mean(next(job for job in heard.plan.jobs if job.name == one.name))
    return {"shots": found, "notes": _notes(shown, len(one.rows))}


def _figures(before: Ways, after: Ways, seed: int) -> dict[str, Any]:
    """As the figures of a task: of label likelihood with `likelihood_` before their names."""
    found: dict[str, Any] = {}
    for how, metrics in after.items():
        sides = {"before": before[how], "after": metrics}
        names = {name: f"{how}_{name}" if how else name for name in metrics}
        found |= {names[name]: one for name, one in report.figures(sides, seed).items()}
    found.pop("likelihood_outside_labels", None)
    return found


def same(text: str) -> str:
    """What two questions have in common that are one: without case, width, blanks and a final full stop."""
    return " ".join(normalise(text).split())


def _notes(shown: Shots, rows: int) -> list[Note]:
    notes = [note("shots_itself", count=shown.itself, rows=rows)] if shown.itself else []
    return notes + [
        note(f"shots_fewer_{way}", count=count, rows=rows, k=shown.k)
        for way, count in shown.fewer.items()
        if count
    ]


def _most(one: Set, alone: Sequence[Job], room: Room) -> int:
    """Tokens that a prompt may have, so that an answer twice as long as any right one still fits."""
    options = next(job.options for job in alone if job.options is not None)
    encode = room.renderer.tokenizer.encode
    longest = 2 * max(len(encode(text, add_special_tokens=False)) for text in one.references) + _SLACK
    scored = max((len(ids) for job in alone for ways in job.continuations[:1] for ids in ways), default=0)
    if options.max_new_tokens:
        return room.context - max(scored, min(longest, options.max_new_tokens))
    return min(room.context, options.max_length) - max(scored, longest)


def _prompt(
    question: Question, examples: Sequence[Sequence[Message]], most: int, renderer: Renderer
) -> tuple[list[int], int]:
    """The question after its examples, the first of them next to it, and how many there was room for.

    An example that the template cannot express at this place (roles that do not alternate) is left out as one
    that is too long.
    """
    turns = list(question.example.trunk)
    head = turns[:1] if turns and turns[0].role == "system" else []
    for count in range(len(examples), 0, -1):
        before = [turn for example in reversed(examples[:count]) for turn in example]
        try:
            ids = renderer.prompt([*head, *before, *turns[len(head) :]], question.example.tools)
        except TemplateError:
            continue
        if len(ids) <= most:
            return ids, count
    return question.prompt, 0


def _mean(job: Job) -> float:
    """Tokens of a prompt in the mean."""
    return sum(map(len, job.prompts)) / len(job.prompts)
