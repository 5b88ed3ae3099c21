"""Rows per second (user CPU, one core) and memory of duplicates, leakage and label noise.

    python benchmarks/near.py --rows 100000 [--characters 120]

Rows are Chinese and English sentences made from a seed; 2 % repeat another row, 2 % repeat it with one
character changed. Each measurement runs in a process of its own. `found` counts the planted rows found.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable

CHINESE = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就"
    "分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
)
ENGLISH = (
    "account address answer arrive balance bank card cash change charge check contact country currency "
    "deposit exchange explain fee find help identity limit lost money month order payment pending phone "
    "please rate receive refund reset send show statement support top transfer verify virtual wait why"
).split()
TASKS = ("exact", "near", "leaks", "noise")


def rows(count: int, characters: int) -> tuple[list[str], list[str]]:
    """Texts and labels; of 50 texts one repeats the one before, and one does so with a changed character."""
    rng = random.Random(5)
    texts: list[str] = []
    for k in range(count):
        if k % 50 == 1:
            texts.append(texts[-1])
        elif k % 50 == 2:
            place = rng.randrange(2, len(texts[-1]) - 2)
            texts.append(texts[-1][:place] + rng.choice("xyz") + texts[-1][place + 1 :])
        elif k % 2:
            texts.append("".join(rng.choices(CHINESE, k=rng.randint(characters // 4, characters // 2))))
        else:
            words = rng.choices(ENGLISH, k=rng.randint(characters // 9, characters // 5))
            texts.append(" ".join(words))
    return texts, [f"label {rng.randrange(20)}" for _ in texts]


def measure(task: str, count: int, characters: int) -> dict[str, float | int | str]:
    from luthier.prepare import exact, leakage, near, noise

    texts, labels = rows(count, characters)
    work: dict[str, Callable[[], int]] = {
        "exact": lambda: sum(1 for _ in exact.repeats(texts)),
        "near": lambda: sum(len(cluster.copies) for cluster in near.clusters(texts)),
        "leaks": lambda: len(leakage.leaks(texts[::2], texts[1::2])),
        "noise": lambda: noise.label_noise(texts, labels).rows,
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    found = work[task]()
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "task": task, "rows": count, "found": found, "rows_per_s": round(count / seconds),
        "peak_mb": round(peak / 1024), "of_that_own_mb": round((peak - before) / 1024),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--characters", type=int, default=120)
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--one", choices=TASKS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.rows, asked.characters)))
        return
    for task in asked.task or TASKS:
        command = [sys.executable, __file__, "--one", task]
        command += ["--rows", str(asked.rows), "--characters", str(asked.characters)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
