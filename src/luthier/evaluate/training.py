"""The rows that a run learnt from, or would: examples for the prompt, and what stands near a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError, UsageError
from luthier.infer.questions import Question, held_out
from luthier.types import BadRow, Example, Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.evaluate.plan import Request


def known(config: Config, request: Request, asked: Sequence[Question]) -> tuple[Example, ...] | None:
    """The training rows of a request, None where they are not known and not needed.

    Raises UsageError where examples are to be shown and there are none, or no base to show them to.
    """
    if request.shots and not (request.baseline or config.run or config.adapter_name_or_path):
        raise UsageError("--shots: the base is asked with examples -> add --baseline only, or name a run")
    found = rows(config, {question.example.source for question in asked}, request.examples)
    if request.shots and not found:
        raise UsageError("--shots: the training rows are not to be had -> --examples NAME of a data set")
    return found


def rows(
    config: Config, evaluated: Set[str] = frozenset(), names: Sequence[str] = ()
) -> tuple[Example, ...] | None:
    """Training rows with an answer, in the order of their files; None where they are not to be had.

    evaluated: sources of the evaluated rows; where val_size held these out of the same files, they are no
    training rows · names: data sets that the user calls training data, whatever the run says; else those of
    the run, or of a configuration that names other rows to evaluate, as many rows as it would train on.
    Raises DataError for `names` that cannot be read.
    """
    if names:
        chosen = _read(config, names, config.dataset_dir, None)
        if not chosen:
            raise DataError(f"{', '.join(names)}: no row with an answer to show as an example")
        return chosen
    found: tuple[Example, ...] | None = None
    if config.run is not None:
        found = _of_run(config)
    elif config.dataset and (config.eval_dataset or held_out(config)):
        found = _read(config, config.dataset, config.dataset_dir, config.max_samples)
    if found and held_out(config):
        found = tuple(one for one in found if one.source not in evaluated)
    return found or None


def conversation(example: Example) -> tuple[Message, ...]:
    """The turns of a training row without its system message, ending with the answer."""
    answer = example.branches[0] if example.branches else ()
    return tuple(turn for turn in (*example.trunk, *answer) if turn.role != "system")


def _of_run(config: Config) -> tuple[Example, ...] | None:
    from luthier.runs import Run

    resolved: dict[str, Any] = Run.open(str(config.run)).read_json("config.resolved.json")
    if resolved.get("stage") != "sft" or resolved.get("streaming"):
        return None
    try:
        return _read(config, resolved["dataset"], resolved["dataset_dir"], resolved.get("max_samples"))
    except DataError:
        return None  # moved or deleted since; the report then says nothing about what was trained


def _read(config: Config, names: Sequence[str], folder: str, limit: int | None) -> tuple[Example, ...]:
    from luthier.data import prepare, registry

    found = []
    for spec in registry.specs(names, folder, stage="sft", hub=prepare.hub_of(config)):
        most = limit if spec.num_samples is None else None
        for example in prepare.examples(spec, "sft", most):
            if not isinstance(example, BadRow) and example.branches and example.verdict is not False:
                found.append(example)
    return tuple(found)
