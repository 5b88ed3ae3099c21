"""From the values that lm-eval gives single samples to figures with luthier's intervals and verdicts.

How the package made its figure out of the values is found by trying: a mean, or one of its perplexities. A
figure that comes out of none of these (BLEU of a corpus, F1) is shown as the package computes it, without an
interval and with a note; no interval is ever that of another figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.evaluate import report
from luthier.evaluate.notes import note
from luthier.evaluate.report import Figure
from luthier.measure.metrics import mean, over
from luthier.measure.types import Measured

Floats = npt.NDArray[np.float64]
_LIMIT = 700.0  # exp of more overflows


@dataclass(frozen=True)
class Metric:
    """A metric of a task. value: the package's figure · samples: [n] names of what was asked · measured: the
    same figure as sums over these, None where it cannot be had so."""

    value: float | None
    higher: bool
    samples: tuple[str, ...]
    measured: Measured | None


@dataclass(frozen=True)
class Found:
    """What came out of one name. metrics: task -> metric -> Metric · group: metrics of all tasks together, {}
    where the name is no group with figures of its own."""

    metrics: dict[str, dict[str, Metric]]
    group: dict[str, Metric]


Kept = dict[str, Any]
"""{"tasks": {task: {metric: {"value", "higher", "samples", "values"}}}, "groups": {name: {metric: value}}};
values are null where they are no numbers."""


def kept(results: Mapping[str, Any]) -> Kept:
    """What of the package's results is written to a file and read back by `found`."""
    tasks = {
        name: _metrics(samples, results["results"][name], results["higher_is_better"].get(name) or {})
        for name, samples in results["samples"].items()
    }
    groups = {
        name: {_label(key): _number(value) for key, value in values.items() if _is_metric(key)}
        for name, values in (results.get("groups") or {}).items()
    }
    return {"tasks": tasks, "groups": groups}


def found(name: str, one: Kept) -> Found:
    """The metrics of a task or group, each with its sums."""
    metrics = {
        task: {label: _metric(values) for label, values in labels.items()}
        for task, labels in one["tasks"].items()
    }
    group = {
        label: metric
        for label, value in one["groups"].get(name, {}).items()
        if (metric := _pooled([labels[label] for labels in metrics.values() if label in labels], value))
    }
    return Found(metrics, group)


def told(
    name: str, sides: Mapping[str, Found], seed: int
) -> dict[str, tuple[dict[str, Figure], dict[str, Any]]]:
    """`lm_eval.{name}` -> its figures and details: of a group the whole, with its tasks as slices; of a name
    for several tasks without a figure of all of them each task."""
    one = next(iter(sides.values()))
    if one.group:
        parts = [{side: found.group for side, found in sides.items()}]
        figures, detail = _told(name, parts[0], seed)
        label = next(iter(one.group))
        slices = _slices(label, sides, seed)
        return {f"lm_eval.{name}": (figures, detail | ({"slices": {"subtask": slices}} if slices else {}))}
    return {
        f"lm_eval.{task}": _told(
            task, {side: found.metrics.get(task, {}) for side, found in sides.items()}, seed
        )
        for task in one.metrics
    }


def _told(
    name: str, sides: Mapping[str, Mapping[str, Metric]], seed: int
) -> tuple[dict[str, Figure], dict[str, Any]]:
    last = list(sides.values())[-1]
    labels = [label for label in last if all(label in metrics for metrics in sides.values())]
    paired = [label for label in labels if _paired([metrics[label] for metrics in sides.values()])]
    measured = {side: {label: _sums(metrics[label]) for label in paired} for side, metrics in sides.items()}
    figures = report.figures(measured, seed) if paired else {}
    alone = [label for label in labels if label not in paired]
    figures |= {label: _alone({side: metrics[label] for side, metrics in sides.items()}) for label in alone}
    notes = [note("lm_eval_no_interval", name=name, metrics=", ".join(alone))] if alone else []
    rows = max((len(metric.samples) for metric in last.values()), default=0)
    why = {"why": f"task {name} of lm-eval", "why_zh": f"lm-eval 的任务 {name}"}
    return {label: figures[label] for label in labels}, {
        "kind": "lm_eval",
        **why,
        "rows": rows,
        "notes": notes,
    }


def _slices(label: str, sides: Mapping[str, Found], seed: int) -> dict[str, Any]:
    """Each task of a group by one metric."""
    names = [
        task
        for task in next(iter(sides.values())).metrics
        if all(label in found.metrics.get(task, {}) for found in sides.values())
        and _paired([found.metrics[task][label] for found in sides.values()])
    ]
    if not names:
        return {}
    measured = {
        side: {task: _sums(found.metrics[task][label]) for task in names} for side, found in sides.items()
    }
    return {task: {"metric": label, **figure} for task, figure in report.figures(measured, seed).items()}


def _paired(sides: Sequence[Metric]) -> bool:
    """Whether all sides have sums over the very same samples, in prompts that are the same."""
    return all(one.measured is not None and one.samples == sides[0].samples for one in sides)


def _sums(metric: Metric) -> Measured:
    assert metric.measured is not None, "a metric that is paired"
    return metric.measured


def _alone(sides: Mapping[str, Metric]) -> Figure:
    """The package's figures without an interval."""
    values = {side: metric.value for side, metric in sides.items()}
    before, after = values.get("before"), values.get("after")
    delta = after - before if before is not None and after is not None else None
    last = list(sides.values())[-1]
    figure: Figure = {"before": before, "after": after, "delta": delta, "low": None, "high": None}
    return {**figure, "n": len(last.samples), "verdict": None, "higher": last.higher}


def _metrics(
    samples: Sequence[Mapping[str, Any]], values: Mapping[str, Any], higher: Mapping[str, Any]
) -> dict[str, Any]:
    """Metric -> what is kept of it, samples of one filter together."""
    result = {}
    for key in filter(_is_metric, values):
        name, _, way = key.rpartition(",")
        rows = [one for one in samples if one["filter"] == way and name in one]
        numbers = [_numbers(one[name]) for one in rows]
        result[_label(key)] = {
            "value": _number(values[key]),
            "higher": higher.get(name) is not False,
            "samples": [f"{one['doc_id']} {one['doc_hash'][:8]} {one['prompt_hash'][:8]}" for one in rows],
            "values": None if None in numbers else numbers,
        }
    return result


def _is_metric(key: str) -> bool:
    """Keys of the package's results are "acc,none": metric and filter."""
    return "," in key and not key.rpartition(",")[0].endswith("_stderr")


def _label(key: str) -> str:
    """acc, or acc_strict-match where a filter took the answer out of the text."""
    name, _, way = key.rpartition(",")
    return name if way == "none" else f"{name}_{way}"


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, (bool, int, float, np.number)) and math.isfinite(value):
        return float(value)
    return None


def _numbers(value: Any) -> list[float] | None:
    """One number of a sample, or two (log likelihood and length), as a list; None for anything else."""
    parts = list(value) if isinstance(value, (tuple, list)) and len(value) == 2 else [value]
    numbers = [_number(part) for part in parts]
    return [part for part in numbers if part is not None] if None not in numbers else None


def _metric(one: Mapping[str, Any]) -> Metric:
    metric, values = Metric(one["value"], one["higher"], tuple(one["samples"]), None), one["values"] or []
    widths = {len(numbers) for numbers in values}
    if metric.value is None or len(widths) != 1:
        return metric
    rows = np.array(values, dtype=np.float64)
    for way in _WAYS[widths.pop()]:
        measured = way(rows, metric.higher)
        if _same(measured.value, metric.value):
            return replace(metric, measured=measured)
    return metric


def _pooled(parts: Sequence[Metric], value: float | None) -> Metric | None:
    """A figure of a group: the mean over all samples, or over the means of its tasks, whichever it is."""
    if value is None or not parts:
        return None
    samples = tuple(f"{i} {name}" for i, part in enumerate(parts) for name in part.samples)
    whole = Metric(value, parts[0].higher, samples, None)
    columns = [part.measured.per_row for part in parts if part.measured and part.measured.per_row is not None]
    if len(columns) < len(parts):
        return whole
    for way in (_pool, _average):
        measured = way(columns, whole.higher)
        if _same(measured.value, value):
            return replace(whole, measured=measured)
    return whole


def _same(mine: float, theirs: float) -> bool:
    """Whether two ways to the same figure differ by rounding only."""
    return math.isclose(mine, theirs, rel_tol=1e-6, abs_tol=1e-9)


def _pool(columns: Sequence[Floats], higher: bool) -> Measured:
    return mean(np.concatenate(columns), higher)


def _average(columns: Sequence[Floats], higher: bool) -> Measured:
    """The mean of the tasks' means, whatever their sizes: rows [n, 2 k], value and count in k tasks."""
    k, blocks = len(columns), []
    for i, column in enumerate(columns):
        block = np.zeros((len(column), 2 * k))
        block[:, i], block[:, k + i] = column, 1
        blocks.append(block)

    def of(sums: Floats) -> Floats:
        counts = sums[..., k:]
        return over(over(sums[..., :k], counts).sum(-1), (counts > 0).sum(-1))

    return Measured(np.concatenate(blocks), of, higher)


def _mean(rows: Floats, higher: bool) -> Measured:
    return mean(rows[:, 0], higher)


def _perplexity(rows: Floats, higher: bool) -> Measured:
    """exp(-mean of the log likelihoods)."""
    counted = np.stack([rows[:, 0], np.ones(len(rows))], axis=1)
    return Measured(counted, _of_weighted_perplexity, higher)


def _weighted_perplexity(rows: Floats, higher: bool) -> Measured:
    """exp(-log likelihood of all / words or bytes of all)."""
    return Measured(rows, _of_weighted_perplexity, higher)


def _bits(rows: Floats, higher: bool) -> Measured:
    """-log2 likelihood of all / bytes of all."""
    return Measured(rows, lambda sums: -over(sums[..., 0], sums[..., 1]) / math.log(2), higher)


def _of_weighted_perplexity(sums: Floats) -> Floats:
    return np.exp(np.minimum(_LIMIT, -over(sums[..., 0], sums[..., 1])))


_WAYS = {1: (_mean, _perplexity), 2: (_weighted_perplexity, _bits)}
"""Numbers of a sample -> how they may have become a figure."""
