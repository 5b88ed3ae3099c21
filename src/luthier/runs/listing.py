"""Runs below a directory, each in one line; what the command line and the interface show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import RunError
from luthier.runs.run import Run
from luthier.runs.seal import MARKER


@dataclass(frozen=True, slots=True)
class Summary:
    """step, total: optimizer steps done and planned · loss: the last logged · updated: ISO 8601."""

    path: str
    status: str
    verb: str
    stage: str
    base: str
    step: int | None
    total: int | None
    loss: float | None
    updated: str


def find(root: str | Path) -> Iterator[Run]:
    """The runs at and below `root`, by path. A run's own folders and hidden folders are not searched."""
    for folder, names, files in os.walk(root):
        if MARKER in files:
            names.clear()
            yield Run.open(folder)
        names[:] = sorted(name for name in names if not name.startswith("."))


def summary(run: Run) -> Summary:
    """One line about a run; a marker or log that is damaged makes the status "damaged"."""
    try:
        marker, log, status = run.marker, run.read_log(), run.status
    except (RunError, ValueError):
        marker, log, status = {}, [], "damaged"
    steps = [record for record in log if "current_steps" in record]
    losses = [record["loss"] for record in steps if "loss" in record]
    return Summary(
        path=str(run.path),
        status=status,
        verb=marker.get("verb", ""),
        stage=marker.get("stage", ""),
        base=marker.get("base", ""),
        step=steps[-1]["current_steps"] if steps else None,
        total=steps[-1].get("total_steps") if steps else None,
        loss=losses[-1] if losses else None,
        updated=marker.get("updated", ""),
    )
