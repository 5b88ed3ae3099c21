"""Rows per second (CPU time) and peak memory of the checks for duplicates, leaks and contradictions.

    python benchmarks/near.py --rows 100000 [--kind headlines|questions|mixed] [--task checks|leakage|…]

The rows are made from a seed: Chinese headlines of about 20 characters and English questions of about 60,
both with one of 20 labels, and mixed rows of about 300 characters with free answers. Words follow Zipf's
law, as in any language. Of 50 rows one repeats another, one repeats it with a slip of the keyboard, and one
repeats it with another answer. Each measurement runs in a process of its own; `peak_mb` is of that whole
process, the table included. `recall` is the share of planted rows that were found.

Measured on one of two shared cores (Python 3.11, rensa 0.5.0), duplicates and contradictions together,
`OMP_NUM_THREADS=1 nice -n 15 python benchmarks/near.py --rows 1000000`:

    kind       rows/s  peak_mb  table_mb  recall: exact  near    contradiction
    headlines  25,630      862       279          1.0    0.959   1.0
    questions  20,516      870       278          1.0    0.975   1.0
    mixed       6,535    1,576       771          1.0    0.99995 1.0

The slips that are not found stand in very short texts, or make another word of a short one. Leaks, of
100,000 rows, half of them for evaluation (mixed rows of 200 characters): 27,898, 22,291 and 11,926 rows/s.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from luthier.data.spec import DatasetSpec
from luthier.prepare import near, noise
from luthier.prepare.checks import Data, duplicates
from luthier.prepare.table import Table

KINDS = ("headlines", "questions", "mixed")
EVERY = 50
OPENINGS = (
    "How do I", "What is the best way to", "Why does my", "Can I", "Is it possible to", "Where can I find",
    "What happens when", "Should I", "How long does it take to", "Which", "Who", "Does anyone know how",
)  # fmt: skip


class Words:
    """Random words by Zipf's law, from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        han = [chr(0x4E00 + int(c)) for c in self.rng.permutation(6000)[:3000]]
        self.chinese = ["".join(self.rng.choice(han, n)) for n in self.rng.integers(1, 4, 30_000)]
        letters = list("eeeeaaaaiiioootttnnnrrrssslllcccuuddppmmhhggbbffyywwkvxzjq")
        self.english = ["".join(self.rng.choice(letters, n)) for n in self.rng.integers(2, 10, 30_000)]

    def picked(self, words: list[str], count: int) -> list[str]:
        ranks = np.exp(self.rng.random(count) * np.log(len(words))).astype(np.int64) - 1
        return [words[i] for i in ranks]

    def text(self, kind: str) -> str:
        number = int(self.rng.integers(0, 1_000))
        if kind == "headlines":
            tail = f"{number}" if number < 200 else ""
            return "".join(self.picked(self.chinese, int(self.rng.integers(8, 14)))) + tail
        if kind == "questions":
            opening = OPENINGS[number % len(OPENINGS)]
            return f"{opening} {' '.join(self.picked(self.english, int(self.rng.integers(5, 12))))}?"
        if number % 2:
            return "，".join(self.text("headlines") for _ in range(13)) + "。"
        return " ".join(self.text("questions") for _ in range(4))


def rows(count: int, kind: str) -> Iterator[tuple[str, str, str]]:
    """(input, answer, how it was planted: "", "exact", "near" or "contradiction")."""
    words = Words(5)
    text = answer = ""
    for k in range(count):
        if k % EVERY == 1:
            yield text, answer, "exact"
        elif k % EVERY == 2:
            place = next(i for i in range(len(text) // 2, len(text)) if text[i].isalpha())
            yield text[:place] + text[place + 1 :], answer, "near"
        elif k % EVERY == 3:
            yield text, "No." if kind == "mixed" else f"label {k % 20 + 10}", "contradiction"
        else:
            text = words.text(kind)
            answer = words.text("headlines") if kind == "mixed" else f"label {k % 20}"
            yield text, answer, ""


def table(count: int, kind: str) -> tuple[Table, dict[str, set[int]]]:
    """The rows as a table, and which rows were planted."""
    made = Table(DatasetSpec("made", "file", "made.json"), "sft")
    planted: dict[str, set[int]] = {}
    for i, (text, answer, how) in enumerate(rows(count, kind)):
        made.sources.append(f"made.json:{i + 1}")
        made.inputs.append(text)
        made.answers.append(sys.intern(answer))
        made.systems.append("")
        made.turns.append(2)
        if how:
            planted.setdefault(how, set()).add(i)
    return made, planted


def checks(made: Table, planted: dict[str, set[int]]) -> dict[str, Any]:
    data = Data("made.json", made, say=lambda line: None)
    found = [*duplicates.duplicates(data), *duplicates.contradictions(data)]
    place = {source: i for i, source in enumerate(made.sources)}
    result: dict[str, Any] = {}
    for finding in found:
        result[finding.what] = len(finding.rows)
    named = {
        name: {place[row] for f in found if f.check == name for row in f.rows}
        for name in ("duplicates", "contradictions")
    }
    told_by = {"exact": "duplicates", "near": "duplicates", "contradiction": "contradictions"}
    recall = {how: len(where & named[told_by[how]]) / len(where) for how, where in planted.items()}
    return {"found": result, "recall": recall}


def leakage(made: Table, planted: dict[str, set[int]]) -> dict[str, Any]:
    half = Table(made.spec, "sft")
    for column in ("sources", "inputs", "answers", "systems", "turns"):
        values = getattr(made, column)
        setattr(half, column, values[1::2])
        setattr(made, column, values[::2])
    found = list(duplicates.leakage(Data("made.json", made, [half], say=lambda line: None)))
    return {"found": {finding.what: len(finding.rows) for finding in found}}


TASKS: dict[str, Callable[[Table, dict[str, set[int]]], dict[str, Any]]] = {
    "checks": checks,
    "leakage": leakage,
    "exact": lambda made, _: {"found": len(near.stars(near.alike([made.inputs, made.answers], None, None)))},
    "noise": lambda made, _: {"found": noise.label_noise(made.inputs, made.answers).rows},
}


def measure(task: str, count: int, kind: str) -> dict[str, Any]:
    made, planted = table(count, kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    result = TASKS[task](made, planted)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "task": task, "kind": kind, "rows": count, "rows_per_s": round(count / seconds),
        "peak_mb": round(peak / 1024), "table_mb": round(before / 1024), **result,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--task", choices=TASKS, default="checks")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for kind in asked.kind or KINDS:
        if asked.here:
            print(json.dumps(measure(asked.task, asked.rows, kind), ensure_ascii=False))
            continue
        command = [sys.executable, __file__, "--here", "--task", asked.task, "--kind", kind]
        done = subprocess.run(
            [*command, "--rows", str(asked.rows)], capture_output=True, text=True, check=True
        )
        print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
