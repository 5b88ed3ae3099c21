"""Two or more runs side by side: what `luthier runs compare A B [C …] --format json` prints.

    {"runs":    {letter: {"path", "status", "stage", "method", "base", "datasets"}},
     "config":  [{"key", "kind", "a", "b", …}],   keys that differ; kind: what the change from A means
     "data":    [{"key", "a", "b", …}],           files (sha256), rows and tokens that differ
     "curves":  {"along": "steps"|"tokens", "loss": {letter: [[step, tokens, loss], …]}, "eval_loss": {…}, …},
     "results": [{"key", "a", "b", …}],           final numbers that differ
     "cost":    [{"key", "a", "b", …}],           seconds, tokens, tokens/s, steps, epochs, memory, size
     "tasks":   {name: {metric: {"before", "after", "delta", "low", "high", "n", "verdict"}}},
     "rows":    {name: {"rated", "won", "lost", "equal", "won_rows": [row, …], "lost_rows": [row, …]}},
     "kinds":   {name: kind of the task},
     "apart":   [{"task", "runs": [letter, …], "key", "en", "zh"}],  what could not be compared, and why
     "notes":   [{"task" or "run", "key", "en", "zh"}]}

A row is {"source", "input", "reference", "before", "after"}. Letters are the runs in the order given, and
"before" is always a. With three runs or more each of tasks.{name}.{metric} and rows.{name} holds what stands
above once per other run, by its letter. Values that are not finite are null.
"""

from __future__ import annotations

import math
import os
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.errors import UsageError
from luthier.measure.statistics import Comparison
from luthier.runs import compare, curves, evidence
from luthier.runs.compare import Change
from luthier.runs.evidence import Pair, Seen, Unfit
from luthier.runs.notes import note
from luthier.runs.run import RESOLVED, Run
from luthier.runs.seal import CHECKSUMS, MANIFEST

LETTERS = string.ascii_lowercase
_RESULTS, _LEDGER = "all_results.json", "ledger.json"
_ROWS = ("rows_in", "kept", "examples", "split_rows", "cut_rows", "tokens_in", "trained", "masked", "cut")
Result = dict[str, Any]
Line = dict[str, Any]


def beside(runs: Sequence[Run], shown: int = 5) -> Result:
    """The runs compared with the first of them. shown: rows won and lost that are listed, each.

    Raises UsageError for fewer than two or more than 26 runs, RunError for a file of theirs that is damaged.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise UsageError(f"{len(runs)} runs -> two to {len(LETTERS)} can be compared")
    named = dict(zip(LETTERS, runs, strict=False))
    made = {letter: _read(run) for letter, run in named.items()}
    config = _changed(made)
    result = {
        "runs": {letter: _about(run, made[letter]) for letter, run in named.items()},
        "config": [line for line in config if not line["key"].startswith("data.")],
        "data": _files(made) + _ledgers(made),
        "curves": _curves(made),
        **_numbers(named, made),
    }
    result |= _evidence(named, shown)
    result["notes"] = _overfitted(made) + result["notes"]
    return result


def read_json(run: Run, name: str) -> Any:
    """A JSON file of the run; {} when the run has none, as one that did not get that far."""
    return run.read_json(name) if (run.path / name).is_file() else {}


def cost(records: Sequence[Mapping[str, Any]], results: Mapping[str, Any], run: Run) -> Line:
    """What the training took; None: not recorded. seconds: of all steps · size: bytes of the weights."""
    seconds, tokens = results.get("train_runtime"), results.get("num_input_tokens_seen")
    steps = [record["current_steps"] for record in records if "current_steps" in record]
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "steps": steps[-1] if steps else None,
        "epochs": results.get("epoch"),
        "peak_memory": results.get("train_peak_memory"),
        "size": size(run),
    }


def size(run: Run) -> int | None:
    """Bytes of the final weights, None while there are none."""
    if not (run.path / CHECKSUMS).is_file():
        return None
    return sum(path.stat().st_size for path in run.path.glob("*.safetensors")) or None


def _read(run: Run) -> dict[str, Any]:
    """config, manifest, results, log and ledger of a run."""
    return {
        "config": read_json(run, RESOLVED),
        "manifest": read_json(run, MANIFEST),
        "results": read_json(run, _RESULTS),
        "log": run.read_log(),
        "ledger": read_json(run, _LEDGER) or [],
    }


def _about(run: Run, made: Mapping[str, Any]) -> Line:
    config = made["config"]
    return {
        "path": str(run.path),
        "status": run.status,
        "stage": run.marker.get("stage", ""),
        "method": run.marker.get("finetuning_type", ""),
        "base": run.marker.get("base", ""),
        "datasets": list(config.get("dataset") or []),
    }


# --- configuration and data


def _changed(made: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Keys in which a run differs from the first; `kind` is the gravest meaning of their changes."""
    first, *others = made
    one = made[first]
    found: dict[str, dict[str, Change]] = {}
    for letter in others:
        other = made[letter]
        changes = compare.all_changes(one["config"], other["config"], one["manifest"], other["manifest"])
        for change in changes:
            found.setdefault(change.key, {})[letter] = change
    graver = ("harmless", "changes the mathematics", "impossible")
    lines = []
    for key, by_run in found.items():
        old = next(iter(by_run.values())).old
        values = {letter: by_run[letter].new if letter in by_run else old for letter in made}
        kind = max((change.kind for change in by_run.values()), key=graver.index)
        lines.append({"key": key, "kind": kind, **values})
    return lines


def _files(made: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """sha256 of each data file by its name, wherever it lies; and their order where only that differs."""
    read = {letter: one["manifest"].get("data") or [] for letter, one in made.items()}
    by_name = {letter: _by_name(files) for letter, files in read.items()}
    names = dict.fromkeys(name for files in by_name.values() for name in files)
    lines = _lines(names, by_name, lambda name: name)
    orders = {letter: [file["sha256"] for file in files] for letter, files in read.items()}
    if not lines and len({tuple(order) for order in orders.values()}) > 1:
        shown = {k: ", ".join(os.path.basename(file["path"]) for file in files) for k, files in read.items()}
        lines.append({"key": "order of the files", **shown})
    return lines


def _by_name(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    seen: Counter[str] = Counter()
    found = {}
    for file in files:
        name = os.path.basename(file["path"])
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = file["sha256"]
    return found


def _ledgers(made: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Rows and tokens of each data set that differ, those that were dropped among them."""
    accounts: dict[str, dict[str, Any]] = {}
    for letter, one in made.items():
        for ledger in one["ledger"]:
            name = os.path.basename(str(ledger["dataset"]))
            counts = {f"{name}.{key}": ledger[key] for key in _ROWS if key in ledger}
            counts[f"{name}.dropped"] = sum((ledger.get("dropped") or {}).values())
            accounts.setdefault(letter, {}).update(counts)
    keys = dict.fromkeys(key for counts in accounts.values() for key in counts)
    return _lines(keys, {letter: accounts.get(letter, {}) for letter in made}, lambda key: key)


def _lines(
    keys: Mapping[str, None], values: Mapping[str, Mapping[str, Any]], name: Callable[[str], str]
) -> list[Line]:
    """A line for each key whose values are not all equal."""
    lines = [{"key": name(key), **{k: found.get(key) for k, found in values.items()}} for key in keys]
    return [line for line in lines if len({str(line[letter]) for letter in values}) > 1]


# --- training


def _curves(made: Mapping[str, Mapping[str, Any]]) -> Result:
    read = {letter: curves.read(one["log"]) for letter, one in made.items()}
    losses = [found["loss"] for found in read.values() if "loss" in found]
    drawn = {
        key: {
            letter: [[point.step, point.tokens, point.value] for point in found[key]]
            for letter, found in read.items()
            if key in found
        }
        for key in dict.fromkeys(["loss", "eval_loss", *(key for found in read.values() for key in found)])
    }
    return {"along": curves.axis(losses), **drawn}


def _numbers(named: Mapping[str, Run], made: Mapping[str, Mapping[str, Any]]) -> Result:
    """`results` that differ, and what each run cost."""
    results = {letter: one["results"] for letter, one in made.items()}
    costs = {k: cost(made[k]["log"], results[k], run) for k, run in named.items()}
    keys = dict.fromkeys(key for found in results.values() for key in found)
    cheap = [{"key": key, **{letter: costs[letter][key] for letter in costs}} for key in costs["a"]]
    return {
        "results": _lines(keys, results, lambda key: key),
        "cost": [line for line in cheap if any(line[letter] is not None for letter in named)],
    }


# --- evidence


def _evidence(named: Mapping[str, Run], shown: int) -> Result:
    """tasks, rows, kinds, apart and notes: the first run against each other one, on what both answered."""
    seen = {letter: evidence.seen(run) for letter, run in named.items()}
    out: Result = {"tasks": {}, "rows": {}, "kinds": {}, "apart": [], "notes": []}
    for name in dict.fromkeys(name for found in seen.values() for name in found):
        have = [letter for letter in named if name in seen[letter]]
        if len(have) < len(named):
            those = ", ".join(letter.upper() for letter in have)
            why = note("only_one" if len(have) == 1 else "only_some", those=those)
            out["apart"].append({"task": name, "runs": [k for k in named if k not in have], **why})
        if "a" not in have:
            continue
        for letter in have[1:]:
            _compared(out, name, letter, (seen["a"][name], seen[letter][name]), shown)
    if len(named) == 2:
        for key in ("tasks", "rows"):
            out[key] = {name: _without_letter(found) for name, found in out[key].items()}
    return out


def _compared(out: Result, name: str, letter: str, both: tuple[Seen, Seen], shown: int) -> None:
    """Add to `out` what the run `letter` answered better and worse than the first."""
    try:
        found = evidence.pair(*both)
    except Unfit as unfit:
        out["apart"].append({"task": name, "runs": [letter], **unfit.note})
        return
    out["kinds"][name] = found.kind
    out["notes"] += [{"task": name, **one} for one in found.notes]
    metrics = out["tasks"].setdefault(name, {})
    for metric, figure in found.figures.items():
        metrics.setdefault(metric, {})[letter] = _figure(figure)
    out["rows"].setdefault(name, {})[letter] = _rows(found, shown)


def _without_letter(found: Result) -> Result:
    """Of two runs: what stands under "b" stands directly."""
    if "b" in found:
        return dict(found["b"])
    return {metric: figures["b"] for metric, figures in found.items()}


def _figure(one: Comparison) -> Result:
    names = ("before", "after", "delta", "low", "high")
    figure = {name: _finite(getattr(one, name)) for name in names}
    return {**figure, "n": one.n, "verdict": one.verdict}


def _rows(found: Pair, shown: int) -> Result:
    return {
        "rated": found.rated,
        "won": len(found.won),
        "lost": len(found.lost),
        "equal": found.equal,
        "won_rows": found.won[:shown],
        "lost_rows": found.lost[:shown],
    }


def _overfitted(made: Mapping[str, Mapping[str, Any]]) -> list[Result]:
    steps = {letter: one["results"].get("overfitting_from_step") for letter, one in made.items()}
    return [{"run": k, **note("overfitted", step=step)} for k, step in steps.items() if step is not None]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def folder_size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
