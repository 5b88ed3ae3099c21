"""Rows per second of `luthier data check`, and its peak memory, on files made on the spot.

    OMP_NUM_THREADS=1 python benchmarks/doctor.py [--rows 100000] [--only structure,duplicates]

Three kinds of rows: Chinese headlines with labels (30 characters), English questions with answers (150), and
longer mixed rows (600); one row in fifty repeats an earlier one, nearly or exactly. Each kind is a JSON Lines
file that the real command checks in a process of its own; printed are its wall time, rows per second, CPU
time, and the largest resident set of it and its workers together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ZH = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动"
    "同工也能下过子说产种面而方后多定行学法所民得经"
)
_PARTS = (
    "ba be bi co da de di en fa ga in ka la le li ma me mo na ne no on pa pe ra re ri sa se ta te ti to va vi"
).split()
WORDS = [a + b + c for a in _PARTS for b in _PARTS for c in ("", "n", "st")]
WEIGHTS = list(itertools.accumulate(1 / (rank + 5) for rank in range(len(WORDS))))
"""Words are as unequal as those of a language (Zipf)."""


def zh(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(ZH) for _ in range(length))


def en(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, cum_weights=WEIGHTS, k=words)).capitalize() + "."


def headline(rng: random.Random) -> tuple[str, str]:
    return zh(rng, 24), f"label {rng.randrange(10)}"


def question(rng: random.Random) -> tuple[str, str]:
    return en(rng, 10)[:-1] + "?", en(rng, 18)


def long_row(rng: random.Random) -> tuple[str, str]:
    return f"{zh(rng, 80)}，{en(rng, 15)}", f"{zh(rng, 200)}。{en(rng, 40)}"


KINDS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "headlines": headline,
    "questions": question,
    "long rows": long_row,
}


def rows(kind: str, count: int) -> Iterator[dict[str, str]]:
    rng, kept = random.Random(kind), list[tuple[str, str]]()
    for k in range(count):
        made = KINDS[kind](rng)
        if kept and k % 50 == 0:
            old = rng.choice(kept)
            made = old if k % 100 == 0 else (old[0][:-2] + old[0][-1], old[1])
        elif k % 40 == 0:
            kept.append(made)
        yield {"instruction": made[0], "input": "", "output": made[1]}


def timed(words: list[str]) -> dict[str, Any]:
    """Wall and CPU seconds, and peak memory in MB, of a process and its workers."""
    began, peak, cpu = time.perf_counter(), 0, 0.0
    process = psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            all_of_it = [process, *process.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in all_of_it))
            cpu = max(cpu, sum(sum(one.cpu_times()[:2]) for one in all_of_it))
        except psutil.Error:
            pass  # it ended while it was looked at
        time.sleep(0.2)
    return {
        "status": process.returncode,
        "seconds": time.perf_counter() - began,
        "cpu": cpu,
        "mb": peak >> 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only")
    parser.add_argument("--kinds", default=",".join(KINDS))
    request = parser.parse_args()
    only = ["--only", request.only] if request.only else []
    with tempfile.TemporaryDirectory() as folder:
        for kind in request.kinds.split(","):
            path = Path(folder) / f"{kind}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for row in rows(kind, request.rows):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            words = [sys.executable, "-m", "luthier", "data", "check", str(path), "--format", "json", *only]
            made = timed(words)
            speed = request.rows / made["seconds"]
            print(
                f"{kind}: {request.rows:,} rows in {made['seconds']:.1f} s = {speed:,.0f} rows/s "
                f"({made['cpu']:.1f} s of CPU), {made['mb']:,} MB, exit {made['status']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
