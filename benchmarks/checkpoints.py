"""What checkpoints cost at the default settings (every 500 steps): with and without, alternating.

    OMP_NUM_THREADS=1 python benchmarks/checkpoints.py [--rounds 5]

Two cases: LoRA on the small base that `luthier demo` carries, whose steps are so fast that a save weighs
most; and full tuning of about 31 million weights, where a checkpoint has some 370 MB. Timed are the steps and
what is done between them. Printed: the median of the rounds' ratios with / without, and the median share of
the time that the saves themselves took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from prefix import prepare

import luthier.demo
from luthier.config import load
from luthier.train import observe
from luthier.train.run import train

BASE = Path(luthier.demo.__file__).parent / "base"


def timed(keys: dict[str, Any]) -> tuple[float, float]:
    """(seconds from the first to the last step and its saves, seconds in saves)."""
    marks: list[float] = []
    saves: list[float] = []
    inner_observe, inner_save = observe.observe, observe.save

    def watch(session: observe.Session, step: Any) -> None:
        marks.append(time.perf_counter() - (step.seconds if not marks else 0))
        inner_observe(session, step)
        marks.append(time.perf_counter())

    def save(session: observe.Session) -> None:
        began = time.perf_counter()
        inner_save(session)
        saves.append(time.perf_counter() - began)

    observe.observe, observe.save = watch, save
    try:
        train(load(keys, "train", {}))
    finally:
        observe.observe, observe.save = inner_observe, inner_save
    return marks[-1] - marks[0], sum(saves)


def case(name: str, keys: dict[str, Any], rounds: int, folder: Path) -> dict[str, Any]:
    ratios, shares = [], []
    for k in range(rounds):
        times = {}
        for strategy in ("steps", "no") if k % 2 else ("no", "steps"):
            place = {"output_dir": str(folder / f"{name}-{k}-{strategy}"), "save_strategy": strategy}
            times[strategy] = timed({**keys, **place})
        ratios.append(times["steps"][0] / times["no"][0] - 1)
        shares.append(times["steps"][1] / times["steps"][0])
    return {
        "case": name,
        "seconds": round(times["steps"][0], 1),
        "overhead": round(statistics.median(ratios), 4),
        "in saves": round(statistics.median(shares), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        prepare(folder)
        common = {
            "dataset": str(folder / "rows.json"), "template": "chatml", "learning_rate": 1e-4,
            "max_steps": 1000, "tokenized_path": str(folder / "tokens"), "disable_tqdm": True,
        }  # fmt: skip
        small = {**common, "model_name_or_path": str(BASE), "lora_target": "all"}
        large = {**common, "model_name_or_path": str(folder), "finetuning_type": "full", "max_steps": 500}
        print(json.dumps(case("LoRA, small base", small, rounds, folder)), flush=True)
        print(json.dumps(case("full, 31 M", large, 1, folder)), flush=True)


if __name__ == "__main__":
    main()
