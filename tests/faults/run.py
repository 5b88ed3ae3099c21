"""`make faults`: every experiment in its long form, one line each, and tests/faults/results.json.

    PYTHONPATH=tests python -m faults.run [--short] [--seed N] [--jobs N] [NAME ...]

NAME: a row of table.py, or a part of one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from faults.bench import Bench, Trial, Unavailable
from faults.table import EXPERIMENTS

RESULTS = Path(__file__).parent / "results.json"
Experiment = Callable[[Bench, int], Iterator[Trial]]


def find(name: str) -> Experiment:
    module, _, function = EXPERIMENTS[name][0].partition(":")
    found: Experiment = getattr(importlib.import_module(module), function)
    return found


def measure(name: str, bench: Bench, count: int) -> dict[str, Any]:
    """Run an experiment; what came of it, as results.json keeps it."""
    began = time.perf_counter()
    trials: list[Trial] = []
    try:
        trials.extend(find(name)(bench, count))
    except Unavailable as error:
        return {"passed": 0, "total": 0, "skipped": str(error)}
    except Exception as error:  # the others are still worth their figures
        trials.append(Trial("the experiment itself", repr(error)))
    counts: Counter[str] = Counter()
    for trial in trials:
        counts.update(trial.counts)
    return {
        "passed": sum(not trial.problem for trial in trials),
        "total": len(trials),
        "counts": dict(sorted(counts.items())),
        "seconds": round(time.perf_counter() - began, 1),
        "seed": bench.seed,
        "failed": [f"{trial.what}: {trial.problem}" for trial in trials if trial.problem],
    }


def line(name: str, result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"{name} skipped: {result['skipped']}"
    counts = ", ".join(f"{value} {key}" for key, value in result["counts"].items())
    return f"{name} {result['passed']}/{result['total']}" + (f" ({counts})" if counts else "")


def fell_short(result: dict[str, Any], count: int) -> bool:
    return "skipped" not in result and (result["passed"] < result["total"] or result["total"] < count)


def one(name: str, count: int, seed: int) -> tuple[str, dict[str, Any]]:
    """An experiment on a bench of its own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as place, Bench(Path(place), seed) as bench:
        return name, measure(name, bench, count)


def main(words: list[str]) -> int:
    """0 when every trial of every experiment passed and none had fewer trials than it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="experiments at a time")
    asked = parser.parse_args(words)
    names = [n for n in EXPERIMENTS if not asked.names or any(part in n for part in asked.names)]
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() and asked.names else {}
    counts = {name: EXPERIMENTS[name][1 if asked.short else 2] for name in names}

    code = 0
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, mp_context=fresh) as pool:
        for future in as_completed([pool.submit(one, name, counts[name], asked.seed) for name in names]):
            name, result = future.result()
            results[name] = result
            print(line(name, result), flush=True)
            for problem in result.get("failed", ()):
                print(f"  {problem}", flush=True)
            code = code or int(fell_short(result, counts[name]))
            if not asked.short:
                ordered = {n: results[n] for n in EXPERIMENTS if n in results}
                RESULTS.write_text(json.dumps(ordered, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
