"""What the model can do by now: its answers to rows of the evaluation sets, while it is trained.

A loss says how likely the right answer is; whether it is given is another question, and the two may part (a
model that over-fits grows too sure of itself long before it answers worse). The model answers as it is, with
the engine and the decoding of `luthier predict`, the most likely token each time. That changes nothing: no
random number is drawn, no weight touched, and each module is left in the mode in which it was.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from luthier.config import Config
from luthier.data.render import Renderer
from luthier.errors import DataError, MissingPackage, TrainError
from luthier.infer import caches, loading
from luthier.infer.engine import Generation, generation, text_of
from luthier.infer.questions import Question, questions
from luthier.measure import closed, kinds, references, strings, tasks
from luthier.measure.tasks import Asked, Task
from luthier.measure.types import Answered, Measured, Metric
from luthier.train import memory
from luthier.train.passes import Job
from luthier.types import BadRow

REPLIES = 3
"""Replies that are shown where `sample_replies` is not given."""
_KNOWN = 20_000  # rows of each training set that are looked at for labels
_SIMILAR = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")  # what LLaMA-Factory measures of every task
_SLACK = 4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Reply:
    """What was answered. cut: it ran into the most tokens that it may have."""

    text: str
    cut: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one evaluation set that are answered, `questions` and `rows` side by side.

    samples: places of those whose replies are kept and shown · task: None where nothing is scored · metric:
    the task's own measures, None where there are none beyond LLaMA-Factory's · labels: of a closed task all
    that there are · higher: metric -> larger is better.
    """

    questions: tuple[Question, ...]
    rows: tuple[Asked, ...]
    options: Generation
    samples: tuple[int, ...] = ()
    task: Task | None = None
    metric: Metric | None = None
    labels: tuple[str, ...] = ()
    higher: Mapping[str, bool] = field(default_factory=dict)

    @property
    def leading(self) -> str:
        """The metric that stands for the task, "" where nothing is scored."""
        return kinds.leading(self.task.kind, self.higher) if self.task else ""

    @property
    def bytes(self) -> int:
        """Of the sample replies of one evaluation, about: each answer as long as it may be."""
        texts = [self.rows[i].question + 2 * self.rows[i].answer for i in self.samples]
        return sum(512 + len(text.encode()) + 4 * self.options.max_new_tokens for text in texts)

    def pick(self, places: Iterable[int]) -> Rows:
        """The rows at these places, and of the samples those among them."""
        kept = sorted(places)
        return replace(
            self,
            questions=tuple(self.questions[i] for i in kept),
            rows=tuple(self.rows[i] for i in kept),
            samples=tuple(new for new, old in enumerate(kept) if old in self.samples),
        )


@dataclass(frozen=True, eq=False)
class Quality:
    """What is asked at each evaluation: name of an evaluation set -> its rows."""

    config: Config
    renderer: Renderer
    sets: Mapping[str, Rows]

    def replies(self, name: str, job: Job, check: Callable[[], None]) -> tuple[list[Reply], float]:
        """The answers to the rows of a set, in their order and on every rank, and the seconds that it took.

        Each rank answers its share. check: called with each finished answer; it may raise. Raises TrainError,
        on every rank, when the memory of one does not suffice for a single row.
        """
        began, rank, world = time.perf_counter(), job.engine.rank, job.engine.world
        rows = self.sets[name]
        own, problem = list[Reply](), ""
        try:
            own = memory.watched(lambda: self._own(rows, range(rank, len(rows.rows), world), job, check))
        except memory.Shortage as shortage:
            problem = (
                f"rank {rank}: out of memory while answering rows of the evaluation set ({shortage.said})"
            )
        reports = job.engine.gather((own, problem))
        problems = [problem for _, problem in reports if problem]
        if problems:
            raise TrainError(
                "\n".join(problems) + " -> a smaller max_new_tokens, or less predict_with_generate"
            )
        found: list[Reply] = [Reply("", False)] * len(rows.rows)
        for other, (said, _) in enumerate(reports):
            found[other::world] = said
        return found, time.perf_counter() - began

    def _own(self, rows: Rows, places: Sequence[int], job: Job, check: Callable[[], None]) -> list[Reply]:
        model, tokenizer = job.engine.unwrap(job.model), self.renderer.tokenizer
        prompts = [rows.questions[i].prompt for i in places]
        with undisturbed(model):
            engine = loading.engine_of(model, tokenizer, self.config)
            answers = engine.generate(prompts, rows.options, lambda place, ids: check())
        room = [min(rows.options.budget(len(p)), engine.context - len(p)) for p in prompts]
        skip = self.config.skip_special_tokens
        return [
            Reply(text_of(tokenizer, ids, rows.options, skip), len(ids) >= most)
            for ids, most in zip(answers, room, strict=True)
        ]

    def scores(self, name: str, replies: Sequence[Reply], seconds: float) -> dict[str, float]:
        """The task's metrics, LLaMA-Factory's beside them, and what the answers cost."""
        rows = self.sets[name]
        if rows.task is None:
            return {}
        thought = self.renderer.template.thought
        answers = [strings.without_thought(reply.text, thought).strip() for reply in replies]
        found = {key: measured.value for key, measured in _measured(rows, answers).items()}
        similar = [_similar(r.text, q.label) for r, q in zip(replies, rows.questions, strict=True)]
        means = {key: sum(row[key] for row in similar) / len(similar) for key in _SIMILAR}
        return {
            **{key: round(value, 6) for key, value in {**found, **means}.items()},
            "generate_cut": sum(reply.cut for reply in replies) / len(replies),
            "generate_runtime": round(seconds, 4),
            "generate_samples_per_second": round(len(replies) / max(seconds, 1e-9), 3),
        }

    def samples(self, name: str, replies: Sequence[Reply]) -> list[dict[str, str]]:
        """The fixed rows and what is answered to them by now."""
        rows = self.sets[name]
        return [
            {
                "dataset": name,
                "source": rows.questions[i].source,
                "input": rows.rows[i].question,
                "reference": rows.rows[i].answer,
                "answer": replies[i].text,
            }
            for i in rows.samples
        ]

    def fit(self, model: nn.Module, say: Say) -> Quality:
        """Without the rows that leave no room for an answer. Raises DataError when none of a set is left."""
        context, sets = caches.context_length(model), {}
        for name, rows in self.sets.items():
            kept = [i for i, question in enumerate(rows.questions) if len(question.prompt) < context]
            if not kept:
                raise DataError(
                    f"{name}: no prompt leaves room for an answer: the model reads {context} tokens; shorten "
                    "the rows, set rope_scaling, or leave out predict_with_generate and sample_replies"
                )
            if len(kept) < len(rows.questions):
                say(f"note: {name}: {len(rows.questions) - len(kept)} prompts are too long to be answered")
            sets[name] = rows.pick(kept)
        return replace(self, sets=sets)


def prepare(config: Config, renderer: Renderer, evals: Sequence[str], say: Say) -> Quality | None:
    """What is to be asked at each evaluation, None for nothing. evals: names of the evaluation sets.

    Raises DataError and TemplateError as reading the data does.
    """
    shown = config.sample_replies if config.sample_replies is not None else REPLIES
    if not config.predict_with_generate and config.sample_replies is None:
        shown = 0
    if config.stage != "sft" or not config.do_eval or not evals:
        return None
    if not config.predict_with_generate and not shown:
        return None
    asked = questions(config, renderer, lambda line: None, evaluating=True)
    sets = {}
    for name in evals:
        found = [q for q in asked if len(evals) == 1 or q.dataset == name]
        sets[name] = _rows(name, found, shown, (config, renderer), say)
    if config.predict_with_generate and strings.word_cutter()[1] != "jieba":
        say('note: ROUGE is over characters, not words: jieba is missing (pip install "luthier[metrics]")')
    return Quality(config, renderer, sets)


def _rows(name: str, found: Sequence[Question], shown: int, how: tuple[Config, Renderer], say: Say) -> Rows:
    """The rows of a set that are answered, and how they are scored."""
    config, renderer = how
    rows = [references.asked(question.example, renderer.template.thought) for question in found]
    all_of_them = Rows(tuple(found), tuple(rows), _options(found, config, renderer))
    if not config.predict_with_generate:
        samples = _varied(rows, [i for i, question in enumerate(found) if not question.turn], shown)
        return replace(all_of_them, samples=samples).pick(samples)
    task, metric = _task(rows, config, say)
    if task.kind != "calls" and any(
        question.turn for question in found
    ):  # calls alone are asked turn by turn
        return _rows(name, [question for question in found if not question.turn], shown, how, say)
    lost = [references.unusable(task, q.source, row, metric) for q, row in zip(found, rows, strict=True)]
    usable = [i for i, reason in enumerate(lost) if reason is None]
    if not usable:
        raise DataError(f"{name}: no row can be scored; the first: {lost[0]}")
    most = min(config.eval_generate_rows or len(usable), len(usable))
    picked = sorted(random.Random(config.seed).sample(usable, most))
    labels = references.labels(task.labels, [rows[i].answer for i in usable]) if task.kind == "labels" else ()
    samples = _varied(rows, picked, shown)
    scored = replace(all_of_them, samples=samples, task=task, metric=metric, labels=labels).pick(picked)
    say(f"{name}: each evaluation answers {most} of {len(rows)} rows; task {task.kind}: {task.why}")
    ours = _measured(scored, [row.answer for row in scored.rows])
    higher = {key: measured.higher for key, measured in ours.items()} | dict.fromkeys(_SIMILAR, True)
    return replace(scored, higher=higher)


def _task(rows: Sequence[Asked], config: Config, say: Say) -> tuple[Task, Metric | None]:
    """What is asked for, told from the answers, and its measures as far as their packages are there."""
    task = tasks.recognise(rows)
    if all(len(row.answer) <= closed.LONGEST for row in rows):
        known = tasks.recognise(rows, None, _trained(config))
        task = known if known.kind == "labels" or task.kind != "labels" else task
    if task.kind == "perplexity":  # nothing is asked, so nothing can be answered rightly
        return task, None
    try:
        return task, references.metric_of(task)
    except MissingPackage as error:
        say(f"note: {error}; until then ROUGE and BLEU-4 alone are measured")
        return task, None


def _trained(config: Config) -> list[str]:
    """Answers of the training data: a small evaluation set shows few of the labels."""
    from luthier.data import prepare as data
    from luthier.data import registry

    found = list[str]()
    for spec in registry.specs(
        config.dataset or (), config.dataset_dir, stage=config.stage, hub=data.hub_of(config)
    ):
        for example in data.examples(spec, config.stage, min(_KNOWN, config.max_samples or _KNOWN)):
            if not isinstance(example, BadRow):
                found.append(tasks.asked(example).answer)
    return found


def _options(found: Sequence[Question], config: Config, renderer: Renderer) -> Generation:
    """The most likely answer. Where the user gave no limit it may be half as long again as the longest right
    one: a model that has learnt little yet would else ramble on at every evaluation.
    """
    options = generation(config, renderer, do_sample=False)
    if config.is_set("max_new_tokens") or config.is_set("max_length"):
        return options
    encode = renderer.tokenizer.encode
    longest = max((len(encode(question.label, add_special_tokens=False)) for question in found), default=0)
    limit = longest + max(_SLACK, longest // 2)
    return replace(options, max_new_tokens=min(limit, options.max_new_tokens or limit))


def _varied(rows: Sequence[Asked], places: Sequence[int], count: int) -> tuple[int, ...]:
    """Some of the places: first one row of each right answer, so that not all samples are of one class."""
    first: dict[str, int] = {}
    for i in places:
        first.setdefault(rows[i].answer, i)
    order = [*first.values(), *(i for i in places if first[rows[i].answer] != i)]
    return tuple(sorted(order[:count]))


def _measured(rows: Rows, answers: Sequence[str]) -> dict[str, Measured]:
    """The task's own metrics over these answers, {} where it has none."""
    if rows.metric is None:
        return {}
    said = Answered(
        tuple(question.source for question in rows.questions),
        tuple(row.question for row in rows.rows),
        tuple(row.answer for row in rows.rows),
        tuple(answers),
        labels=rows.labels,
    )
    return rows.metric(said)


def _similar(answer: str, label: str) -> dict[str, float]:
    return {**strings.rouge(answer, label), "bleu-4": strings.bleu_4(answer, label)}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, each module's mode and torch's random numbers are afterwards what they were.

    On a GPU what the allocator holds back is given free first: the engine sizes its batches by free memory.
    """
    modes = [(module, module.training) for module in model.modules()]
    device: Any = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
