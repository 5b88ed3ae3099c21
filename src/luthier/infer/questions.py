"""Rows of data sets as questions with a known answer: what to predict on, and what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from luthier.errors import DataError, TemplateError
from luthier.infer.engine import Generation, text_of
from luthier.measure import tasks
from luthier.types import BadRow, Example, Message, Row

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.ledger import Ledger
    from luthier.data.render import Renderer
    from luthier.data.spec import DatasetSpec

Say = Callable[[str], None]
Place = tuple[int, str]
"""Which data set, and which row of it ("file:row")."""


@dataclass(frozen=True)
class Question:
    """One row: the prompt in tokens, the reference answer ("" where the row has none), and "file:row".

    example: what is asked, and as its only branch the turn that answers it · dataset: name of its set ·
    turn: 0 for the row's last turn, else the place of an earlier one, counted from 1, as `source` names it.
    """

    prompt: list[int]
    label: str
    source: str
    example: Example
    dataset: str
    turn: int = 0


def questions(config: Config, renderer: Renderer, say: Say, evaluating: bool = False) -> list[Question]:
    """Rows of the data sets to predict on, in order, with their prompts.

    That is `eval_dataset`, or `dataset` where it is given on the command line; without eval_dataset the part
    of `dataset` that val_size holds out. evaluating: ask also for each earlier turn of a row in which the
    model is to call a tool, and take texts of pre-training, whose prompt is their first token.
    Raises DataError when nothing is left or too many rows are bad.
    """
    names, wanted = _which(config, renderer, say)
    ends = Generation(stop_ids=frozenset(renderer.stop_ids), stop_strings=renderer.stop_strings)
    found = []
    for place, example in _examples(names, config, say, "eval" if evaluating else "predict"):
        if wanted is not None and place not in wanted:
            continue
        for part in tasks.turns(example) if evaluating else (example,):
            one = _question(part, names[place[0]], config, renderer, ends)
            turn = sum(message.role != "system" for message in part.trunk) + 1
            early = part is not example
            found.append(replace(one, turn=turn, source=f"{one.source}, turn {turn}") if early else one)
    if not found:
        raise DataError(f"{', '.join(names)}: no row to predict on; check the data set and max_samples")
    return found


def held_out(config: Config) -> bool:
    """Whether the rows to predict on are the part of `dataset` that val_size holds out."""
    return not _named(config) and not config.eval_dataset and config.val_size > 0


def _named(config: Config) -> bool:
    """Whether `dataset` was given on the command line, which then means the rows to predict on."""
    return config.verb == "predict" and config.where.get("dataset", "").lstrip("-") in ("dataset", "argument")


def _which(config: Config, renderer: Renderer, say: Say) -> tuple[Sequence[str], set[Place] | None]:
    """Names of data sets, and the rows that count (None: all)."""
    from luthier.data import prepare, store

    if _named(config):
        return config.dataset, None
    if config.eval_dataset:
        return config.eval_dataset, None
    if held_out(config):
        if config.stage == "pt":
            raise DataError(
                "val_size: holds out blocks of pre-training text, whose documents may go on in blocks that"
                " were trained -> eval_dataset, or --dataset with texts of their own"
            )
        held = prepare.prepare(config, renderer, lambda _: None).evals["validation"]
        assert isinstance(held, store.Corpus), "only pre-training streams"
        say(f"predicting on the {len(held)} rows that val_size held out")
        return config.dataset, {(int(held.index[i, 0]), held.source(i)) for i in range(len(held))}
    say(f"predicting on {', '.join(config.dataset)}; eval_dataset or --dataset NAME chooses another")
    return config.dataset, None


def _examples(names: Sequence[str], config: Config, say: Say, stage: str) -> Iterator[tuple[Place, Example]]:
    """Rows as for training, with their answer as a branch; rows that ask without an answer have none."""
    from luthier.data import prepare, registry, sources
    from luthier.data.ledger import Ledger

    hub = prepare.hub_of(config)
    for k, spec in enumerate(registry.specs(names, config.dataset_dir, stage=stage, hub=hub)):
        ledger, bad = Ledger(spec.name, notes=list(spec.notes)), list[BadRow]()
        limit = config.max_samples if spec.num_samples is None else None
        for row in sources.read(spec, ledger.notes, limit=limit):
            example = _example(row, spec, ledger)
            if isinstance(example, BadRow):
                ledger.drop(example)
                bad.append(example)
            else:
                ledger.rows_in += 1
                ledger.kept += 1
                yield (k, example.source), example
        prepare.judge(config, ledger, bad)
        for line in [*_account(ledger), *ledger.notes]:
            say(line if line.startswith(spec.name) else f"{spec.name}: {line}")


def _example(row: Row | BadRow, spec: DatasetSpec, ledger: Ledger) -> Example | BadRow:
    from luthier.data import formats

    if isinstance(row, BadRow):
        return row
    try:
        return formats.to_example(row, spec, "sft", ledger.converted)
    except formats.RowProblem:
        try:
            return formats.to_example(row, spec, "predict", ledger.converted)
        except formats.RowProblem as problem:
            return BadRow(row.source, problem.field, problem.reason, row.data)


def _account(ledger: Ledger) -> list[str]:
    lines = [f"{ledger.rows_in} rows = {ledger.kept} kept + {ledger.bad} dropped"]
    return lines + [f"  dropped {count}: {reason}" for reason, count in ledger.dropped.most_common(10)]


def _question(
    example: Example, dataset: str, config: Config, renderer: Renderer, ends: Generation
) -> Question:
    """The conversation up to the last answer, and that answer as training would have the model write it."""
    if example.branches and example.branches[0][-1].role == "text":
        text = example.branches[0][-1].content
        return Question(document(example, renderer)[:1], text, example.source, example, dataset)
    trunk = list(example.trunk)
    if config.system is not None and not (trunk and trunk[0].role == "system"):
        trunk.insert(0, Message("system", config.system))
    example = replace(example, trunk=tuple(trunk))
    if not example.branches:
        return Question(_prompt(trunk, example, renderer), "", example.source, example, dataset)
    *before, answer = example.branches[0]
    asked = replace(example, trunk=(*trunk, *before), branches=((answer,),))
    prompt = _prompt(list(asked.trunk), example, renderer)
    return Question(prompt, _label(answer, example, renderer, ends), example.source, asked, dataset)


def document(example: Example, renderer: Renderer) -> list[int]:
    """The tokens of a text as pre-training reads it, from its beginning to the end of text.

    Raises DataError where it cannot be rendered.
    """
    found = renderer.examples([example])[0]
    if isinstance(found, BadRow):
        raise DataError(f"{found.source}: {found.reason}")
    ids: list[int] = found[-1].branches[0].ids.tolist()
    return ids


def _prompt(messages: list[Message], example: Example, renderer: Renderer) -> list[int]:
    try:
        return renderer.prompt(messages, example.tools)
    except TemplateError as error:
        raise TemplateError(f"{example.source}: {error}") from error


def _label(answer: Message, example: Example, renderer: Renderer, ends: Generation) -> str:
    """The answer as the template writes it: its tokens as text, without the end of the turn."""
    found = renderer.examples([replace(example, branches=example.branches[:1])])[0]
    if isinstance(found, BadRow):
        return answer.content
    ids = found[-1].branches[0].ids.tolist()
    last = max((i for i, token in enumerate(ids) if token in ends.stop_ids), default=len(ids))
    return text_of(renderer.tokenizer, ids[:last], ends)
