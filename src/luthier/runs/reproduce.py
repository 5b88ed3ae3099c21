"""Is what a run read still the same, and where do two trainings of one configuration part?

The training itself, and the comparison of weights, need a room above this one (train/again).
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luthier.errors import RunError
from luthier.runs import compare, curves, hashing, manifest
from luthier.runs.run import CONFIG, RESOLVED, TEMPLATE, Run
from luthier.runs.seal import CHECKSUMS, MANIFEST, verify

OWN = frozenset(
    "report_to do_predict overwrite_output_dir resume_from_checkpoint confirm_changes format".split()
)
"""Keys that a reproduction sets for itself: none of them has a part in the weights."""
_MACHINE = ("device", "name", "processor", "system", "host")
_ORDER = (
    *("process.device", "process.world", "machine.device", "machine.name", "versions.torch", "versions."),
    *("process.threads", "machine."),
)


def unchanged(run: Run) -> tuple[list[str], list[str]]:
    """Hold a run against the disk: (what differs of what it read, what may change the last digits)."""
    kept, template = run.read_json(MANIFEST), run.path / TEMPLATE
    text = template.read_text("utf-8") if template.is_file() else None
    differences, notes = manifest.check(kept, text)
    if hashing.sha256_json(run.read_json(RESOLVED)) != kept.get("config"):
        differences.append(f"{run.path / RESOLVED} has changed")
    return differences, notes


def finished(run: Run) -> list[str]:
    """What is wrong with the weights that the reproduction is to be held against; [] for nothing.

    Raises RunError for a run that has none yet, or whose log cannot be read.
    """
    if run.status != "complete" or not (run.path / CHECKSUMS).is_file():
        raise RunError(
            f"{run.path}: is {run.status}, so there is nothing to compare with -> luthier runs resume"
        )
    run.read_log()
    return [f"{run.path}: {problem}" for problem in verify(run.path, CHECKSUMS)]


def command(run: Run, out: str | Path) -> str:
    """The words that train it again by hand."""
    verb = run.marker.get("verb", "train")
    words = ["luthier", verb, os.path.abspath(run.path / CONFIG), f"output_dir={os.path.abspath(out)}"]
    there = run.read_json(MANIFEST).get("cwd")
    return (f"cd {shlex.quote(there)} && " if there not in (None, os.getcwd()) else "") + shlex.join(words)


def losses(first: Run, again: Run) -> dict[str, Any]:
    """The logged losses and measures held against each other, step by step.

    compared: how many values both logged · first: the earliest that differs, as {"step", "key", "then",
    "now", "delta"} with null where one of the runs did not log it; null where all are equal.
    """
    then, now = curves.read(first.read_log()), curves.read(again.read_log())
    parted, compared = list[dict[str, Any]](), 0
    for key in dict.fromkeys([*then, *now]):
        old, new = _by_step(then.get(key, ())), _by_step(now.get(key, ()))
        compared += len(old.keys() & new.keys())
        found = [place for place in sorted(old.keys() | new.keys()) if old.get(place) != new.get(place)]
        if found:
            a, b = old.get(found[0]), new.get(found[0])
            delta = b - a if a is not None and b is not None else None
            parted.append({"step": found[0][0], "key": key, "then": a, "now": b, "delta": delta})
    return {"compared": compared, "first": min(parted, key=lambda one: int(one["step"]), default=None)}


def causes(first: Run, again: Run) -> list[str]:
    """What differs between two trainings and may be why, the likeliest first: what changes the mathematics,
    the device and its kind, versions of what computes, the number of threads, the machine."""
    configs = [_config(run) for run in (first, again)]
    manifests = [run.read_json(MANIFEST) for run in (first, again)]
    found = compare.all_changes(*configs, *manifests)
    found += _machine(*(one.get("machine") or {} for one in manifests))
    found.sort(key=_likely)
    return [
        f"{change.key}: {compare.shown(change.old)} then, {compare.shown(change.new)} now" for change in found
    ]


def _by_step(curve: curves.Curve) -> dict[tuple[int, int], float]:
    """(step, how many were logged at this step before) -> value."""
    seen: Counter[int] = Counter()
    found = {}
    for point in curve:
        found[point.step, seen[point.step]] = point.value
        seen[point.step] += 1
    return found


def _config(run: Run) -> dict[str, Any]:
    ours = OWN | compare.PLACES | {"micro_batch_tokens"}
    return {key: value for key, value in run.read_json(RESOLVED).items() if key not in ours}


def _machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[compare.Change]:
    pairs = ((name, then.get(name), now.get(name)) for name in _MACHINE)
    return [compare.Change(f"machine.{name}", a, b, "harmless") for name, a, b in pairs if a != b]


def _likely(change: compare.Change) -> int:
    if change.kind != "harmless":
        return -1
    return next((place for place, name in enumerate(_ORDER) if change.key.startswith(name)), len(_ORDER))
