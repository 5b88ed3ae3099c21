"""Runs below a directory, each in one line; what the command line and the interface show.

A run that is damaged is listed with what is wrong with it: it never hides the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from luthier.errors import LuthierError
from luthier.runs import evidence
from luthier.runs.run import RESOLVED, Run
from luthier.runs.seal import MARKER

_T = TypeVar("_T")
SORTS = ("updated", "loss", "metric")


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric that stands for the data set that a run was evaluated on last. verdict: against its base,
    None where only one of the two was evaluated · higher: larger is better."""

    task: str
    name: str
    value: float
    verdict: str | None
    higher: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """step, total: optimizer steps done and planned · loss: the last logged · updated: ISO 8601 · seconds: of
    training · problem: what of the run cannot be read, "" for nothing; then what it would say is missing."""

    path: str
    status: str
    verb: str
    stage: str
    method: str
    base: str
    datasets: tuple[str, ...]
    step: int | None
    total: int | None
    loss: float | None
    metric: Metric | None
    seconds: float | None
    updated: str
    problem: str


def find(root: str | Path) -> Iterator[Path]:
    """The runs at and below `root`, by path. A run's own folders and hidden folders are not searched."""
    for folder, names, files in os.walk(root):
        if MARKER in files:
            names.clear()
            yield Path(folder)
        names[:] = sorted(name for name in names if not name.startswith("."))


def summary(folder: Path) -> Summary:
    """One line about a run; a marker or log that is damaged makes the status "damaged"."""
    problems: list[str] = []
    run = Run(folder)
    marker: dict[str, Any] = _tried(problems, lambda: run.marker, {})
    log: list[dict[str, Any]] = _tried(problems, run.read_log, [])
    status = "damaged" if problems else _tried(problems, lambda: run.status, "damaged")
    config: dict[str, Any] = _tried(problems, lambda: _object(run, RESOLVED), {})
    results: dict[str, Any] = _tried(problems, lambda: _object(run, "all_results.json"), {})
    metric = None if "damaged" in status else _tried(problems, lambda: _metric(run), None)
    steps = [record for record in log if "current_steps" in record]
    losses = [record["loss"] for record in steps if "loss" in record]
    return Summary(
        path=str(folder),
        status=status,
        verb=marker.get("verb", ""),
        stage=marker.get("stage", ""),
        method=marker.get("finetuning_type", ""),
        base=str(marker.get("base", "")),
        datasets=tuple(map(str, config.get("dataset") or ())),
        step=steps[-1]["current_steps"] if steps else None,
        total=steps[-1].get("total_steps") if steps else None,
        loss=losses[-1] if losses else None,
        metric=metric,
        seconds=results.get("train_runtime", _elapsed(steps)),
        updated=marker.get("updated", ""),
        problem="; ".join(problems),
    )


def matches(one: Summary, words: Sequence[str]) -> bool:
    """Whether every word occurs in the line of a run, in whatever case."""
    metric = (one.metric.task, one.metric.name, one.metric.verdict or "") if one.metric else ()
    parts = (one.path, one.status, one.stage, one.method, one.base, *one.datasets, *metric, one.problem)
    line = "\n".join(parts).lower()
    return all(word.lower() in line for word in words)


def ordered(found: Sequence[Summary], by: str) -> list[Summary]:
    """The newest, the lowest loss, or of each data set the best metric first; runs without it come last."""
    newest = sorted(found, key=lambda one: one.updated, reverse=True)
    if by == "loss":
        return sorted(newest, key=lambda one: (one.loss is None, one.loss or 0.0))
    return sorted(newest, key=_by_metric) if by == "metric" else newest


def _by_metric(one: Summary) -> tuple[bool, str, str, float]:
    if one.metric is None:
        return True, "", "", 0.0
    worth = -one.metric.value if one.metric.higher else one.metric.value
    return False, one.metric.task, one.metric.name, worth


def _metric(run: Run) -> Metric | None:
    """Of the newest evaluation; of several data sets in it, of the first."""
    reported = [one for one in evidence.seen(run).values() if one.figures and one.kind != "suite"]
    if not reported:
        return None
    newest = reported[-1].folder
    one = next(one for one in reported if one.folder == newest)
    name, figure = evidence.leading(one)
    if figure.get("after") is None:
        return None
    higher = figure.get("higher", name != "perplexity")
    return Metric(one.name, name, float(figure["after"]), figure.get("verdict"), bool(higher))


def _tried(problems: list[str], read: Callable[[], _T], otherwise: _T) -> _T:
    """What `read` says; `otherwise`, and a line among the problems, where a file is not what it should be."""
    try:
        return read()
    except (LuthierError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = str(error) if isinstance(error, LuthierError | OSError) else f"{type(error).__name__}: {error}"
        problems.append(said.splitlines()[0] if said else type(error).__name__)
        return otherwise


def _object(run: Run, name: str) -> dict[str, Any]:
    return dict(run.read_json(name)) if (run.path / name).is_file() else {}


def _elapsed(steps: Sequence[dict[str, Any]]) -> float | None:
    """Seconds that the log's last line says, "1:02:03"."""
    parts = str(steps[-1].get("elapsed_time", "")).split(":") if steps else []
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return None
    return float(int(parts[0]) * 3600 + int(parts[1]) * 60 + int(parts[2]))
