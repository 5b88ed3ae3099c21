"""All about one run: what `luthier runs show RUN` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.errors import RunError
from luthier.measure import kinds
from luthier.runs import beside, curves, evidence, log, told
from luthier.runs.run import RESOLVED, Run
from luthier.runs.seal import CHECKSUMS, MANIFEST, verify

Result = dict[str, Any]
_SAMPLE, _LONGEST = ("source", "input", "answer", "reference"), 60  # of a sample, characters of each
_HIDDEN = (
    "checkpoints",
    "manifest",
    "evaluations",
    "samples",
    "sizes",
    "cost",
    "warnings",
    "problems",
    "log",
)


def detail(run: Run) -> Result:
    """What a run is made of, what it cost, how it was evaluated, and what is wrong with it ("problems").

    evaluations: task -> {"kind", "verdicts": {metric: seven figures}} · samples: the replies of the last step
    that has some · sizes: bytes · log: [step, tokens, loss].
    """
    problems: list[str] = []
    records = log.look(run.path)
    if records.damaged:
        problems += log.damage(run.path)
    results = beside.read_json(run, "all_results.json")
    drawn = curves.read(records.records)
    checkpoints = {str(folder): verify(folder) for folder in run.checkpoints()}
    return {
        **run.marker,
        "status": run.status,
        "path": str(run.path),
        "datasets": list(beside.read_json(run, RESOLVED).get("dataset") or []),
        "files": sorted(entry.name for entry in run.path.iterdir()),
        "checkpoints": checkpoints,
        "last": (records.records or [{}])[-1],
        "results": results,
        "cost": beside.cost(records.records, results, run),
        "sizes": _sizes(run),
        "log": {key: [[p.step, p.tokens, p.value] for p in points] for key, points in drawn.items()},
        "evaluations": _evaluations(run, problems),
        "samples": _samples(run),
        "warnings": [record["warning"] for record in records.records if "warning" in record],
        "manifest": beside.read_json(run, MANIFEST),
        "problems": [*problems, *_weights(run), *(p for found in checkpoints.values() for p in found)],
    }


def lines(result: Mapping[str, Any], unicode: bool) -> list[str]:
    """The same for a terminal. unicode: the stream can express Braille."""
    said = [f"{key}: {told.plain(value)}" for key, value in result.items() if key not in _HIDDEN]
    said += [f"{folder}: {'; '.join(wrong) or 'whole'}" for folder, wrong in result["checkpoints"].items()]
    sizes = ((name, told.cost("size", value)) for name, value in result["sizes"].items() if value)
    said.append("sizes, MiB: " + ", ".join(f"{name} {value}" for name, value in sizes))
    costs = ((key, value) for key, value in result["cost"].items() if value is not None and key != "size")
    said.append("cost: " + ", ".join(f"{told.name_of_cost(k)} {told.cost(k, v)}" for k, v in costs))
    curve = [(float(step), loss) for step, _, loss in result["log"].get("loss", [])]
    said += curves.plot({"": curve}, "training loss", "steps", unicode) if len(curve) > 1 else []
    for name, one in result["evaluations"].items():
        said.append(f"{name} ({one['kind']}):")
        said += told.table([(f"  {metric}", *_figure(metric, f)) for metric, f in one["figures"].items()])
    for sample in result["samples"]:
        texts = {key: told.shortened(str(sample.get(key, "")), _LONGEST) for key in _SAMPLE}
        said.append("sample: {source}: {input!r} -> {answer!r}, right {reference!r}".format(**texts))
    said += [f"warning: {one}" for one in result["warnings"]]
    said += [f"wrong: {one}" for one in result["problems"]]
    return told.safe(said)


def _sizes(run: Run) -> dict[str, int | None]:
    checkpoints = sum(beside.folder_size(folder) for folder in run.checkpoints())
    return {
        "weights": beside.size(run),
        "checkpoints": checkpoints,
        "all": beside.folder_size(run.path),
    }


def _evaluations(run: Run, problems: list[str]) -> Result:
    try:
        seen = evidence.seen(run)
    except RunError as error:
        problems.append(str(error))
        return {}
    return {
        name: {
            "kind": one.kind,
            "folder": str(one.folder),
            "fresh": one.fresh,
            "figures": _seven(one.figures),
        }
        for name, one in seen.items()
        if one.figures
    }


def _seven(figures: Mapping[str, Mapping[str, Any]]) -> Result:
    keys = ("before", "after", "delta", "low", "high", "n", "verdict")
    return {metric: {key: one.get(key) for key in keys} for metric, one in figures.items()}


def _figure(metric: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    if one["verdict"] is None:
        return (kinds.number(metric, one["after"]),) + ("",) * 4
    return told.figure(metric, one)


def _samples(run: Run) -> list[Any]:
    """The replies of the last step in samples.jsonl."""
    records = log.look(run.path, log.SAMPLES).records
    last = max((record.get("step", 0) for record in records), default=0)
    return [record for record in records if record.get("step", 0) == last]


def _weights(run: Run) -> list[str]:
    """What is wrong with the final weights."""
    return verify(run.path, CHECKSUMS) if Path(run.path, CHECKSUMS).is_file() else []
