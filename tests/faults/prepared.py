"""A training that was killed half-way, to be copied by experiments, and what the clean one came to."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks
from faults.bench import Bench
from luthier.runs.hashing import sha256_file, sha256_tree


@dataclass(frozen=True)
class Half:
    """settings: keys of the training · run: the directory, killed after `step` · clean: sha256 of weights."""

    settings: Mapping[str, Any]
    run: Path
    step: int
    clean: Mapping[str, str]
    whole: Path

    def copy(self, name: str) -> tuple[Path, list[str]]:
        """A copy of the directory under another name, and the words that train there."""
        place = self.run.with_name(name)
        shutil.copytree(self.run, place)
        return place, self.words(place)

    def words(self, place: Path, **changes: Any) -> list[str]:
        return tasks.words({**self.settings, "output_dir": str(place), **changes})

    def differs(self, place: Path) -> str:
        """What is wrong with the final weights in `place`; "" when they are those of the clean run."""
        found = weights(place)
        return "" if found == self.clean else f"final weights differ: {sorted(found)}"


def weights(run: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(run.glob("*.safetensors"))}


def tree(folder: Path) -> dict[str, str]:
    """Every file's sha256, without the lock."""
    return sha256_tree(folder, leave_out=[".luthier.lock"])


def half(bench: Bench, folder: Path, step: int, **changes: Any) -> Half:
    """Train a clean run, and one that SIGKILL ends when checkpoint-`step` is announced."""
    settings = tasks.make(folder, **changes)
    whole, place = folder / "whole", folder / "half"
    done = bench.luthier(["train", *tasks.words({**settings, "output_dir": str(whole)})])
    assert done.code == 0, done.err
    child = bench.start(["train", *tasks.words({**settings, "output_dir": str(place)})])
    for line in child.lines():
        if line.startswith(f"checkpoint {step} durable"):
            child.send(signal.SIGKILL)
            break
    assert child.finish().code == -signal.SIGKILL
    for later in place.glob("checkpoint-*"):
        if int(later.name.split("-")[1]) > step:
            shutil.rmtree(later)
    return Half(settings, place, step, weights(whole), whole)
