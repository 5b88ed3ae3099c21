"""A task's rows held against answers: by which metrics, which labels there are, which rows can be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from luthier.errors import DataError
from luthier.measure import kinds, metrics, tasks
from luthier.measure.strings import normalise, without_thought
from luthier.measure.tasks import Asked, Task
from luthier.measure.types import Answered, Metric
from luthier.types import Example


def metric_of(task: Task) -> Metric:
    """The metrics of a task. Raises MissingPackage where they could not be computed."""
    return metrics.load(kinds.METRICS_OF.get(task.kind, task.kind))


def asked(example: Example, thought: tuple[str, str] | None) -> Asked:
    """What an Example asks and its right answer, without the thoughts that stand between the two words."""
    found = tasks.asked(example)
    return replace(found, answer=without_thought(found.answer, thought).strip())


def labels(known: Sequence[str], references: Sequence[str]) -> tuple[str, ...]:
    """The labels of the task, and after them rare ones that occur as references only."""
    forms: dict[str, str] = {}
    for label in (*known, *references):
        forms.setdefault(normalise(label), label.strip())
    return tuple(forms.values())


def unusable(task: Task, source: str, row: Asked, metric: Metric | None) -> str | None:
    """Why no answer could be held against this row; None where one can. metric: None where there is none."""
    if not row.answer:
        return f"{source}: it has no answer to compare with"
    if metric is not None and task.kind in ("extraction", "choice", "number"):
        try:
            metric(Answered((source,), (row.question,), (row.answer,), (row.answer,)))
        except DataError as error:
            return str(error)
    return None
