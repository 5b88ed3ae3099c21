"""Disk space: what a run will need, what there is, and an error that says both before anything is written.

Needs are upper bounds. Every file is counted in whole blocks, and a margin is added for what a file system
keeps about files (extents, checksums, journals: about 1 % of large files, some blocks for small ones).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from luthier.errors import RunError

BLOCK = 4096
MARGIN = 128 << 10
"""Bytes added to a save: its folder, the names in it, and small files that are not worth a formula."""


@dataclass(frozen=True)
class Save:
    """Bytes of one checkpoint: weights in the form that the method writes, the optimizer's moments (0 where
    they are not saved), and what lies beside (tokenizer, template, history)."""

    weights: int
    moments: int
    beside: int

    @property
    def bytes(self) -> int:
        return padded([self.weights, self.moments, self.beside])

    @property
    def result(self) -> int:
        """Bytes of the final weights, which have no moments."""
        return padded([self.weights, self.beside])


@dataclass(frozen=True)
class Course:
    """What a run is still to write. saves: checkpoints to come · there: those there now · limit: how many are
    kept, 0 for all · beside_newest: the best is kept beside the newest even if that is one more."""

    save: Save
    saves: int
    there: int
    limit: int
    beside_newest: bool = False

    @property
    def most(self) -> int:
        """Checkpoints at once beyond those there now. A new one is durable before the oldest goes."""
        kept = max(self.limit, 1 + self.beside_newest) if self.limit else self.there + self.saves
        return min(self.saves, max(kept + 1 - self.there, 1))

    @property
    def left(self) -> int:
        """Checkpoints beyond those there now when the result is written."""
        kept = max(self.limit, 1 + self.beside_newest) if self.limit else self.there + self.saves
        return min(self.saves, max(kept - self.there, 0))

    @property
    def bytes(self) -> int:
        """The most that the run will hold at one time, beyond what is there now."""
        return max(self.most * self.save.bytes, self.left * self.save.bytes + self.save.result)

    def __str__(self) -> str:
        """How it adds up."""
        one, result = shown(self.save.bytes), shown(self.save.result)
        if not self.saves:
            return f"the final weights take {result}"
        new = "; a new one is durable before the oldest goes" if self.most > self.left else ""
        limit = f"save_total_limit: {self.limit}" if self.limit else "no save_total_limit"
        there = f" beside the {self.there} there now" if self.there else ""
        return f"{self.most} x {one} for checkpoints{there} ({limit}{new}), {result} for the final weights"


def padded(parts: Iterable[int]) -> int:
    """Bytes on the disk of files of these sizes."""
    total = sum(-(-size // BLOCK) * BLOCK for size in parts)
    return total + total // 100 + MARGIN


def tree_bytes(top: Path) -> int:
    """Bytes on the disk of every file below `top`. Raises OSError where something cannot be looked at."""
    sizes = [
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(top, onerror=_stop)
        for name in names
    ]
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


def _stop(error: OSError) -> None:
    raise error


def free(folder: Path) -> int | None:
    """Bytes that may still be written where `folder` is or will be; None where the system does not say."""
    usage = shutil.disk_usage(_existing(folder))
    return usage.free if usage.total else None


def require(need: int, folder: Path, what: str, instead: str) -> None:
    """Raise RunError ("need X, have Y") when fewer than `need` bytes are free where `folder` is."""
    have = free(folder)
    if have is not None and have < need:
        where = f"on {device(folder)}"
        raise RunError(f"{what}: need {shown(need)}, have {shown(have)} {where}: {instead}")


def device(folder: Path) -> str:
    """Where a folder lies, as a person calls it: "/data (ext4)"."""
    real = _existing(folder).resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if real.is_relative_to(m.mountpoint)]
    if not mounts:
        return str(real)
    last = max(mounts, key=lambda mount: len(mount.mountpoint))
    return f"{last.mountpoint} ({last.fstype})"


def shown(size: int) -> str:
    """Bytes with three digits: 0.052 MB, 5.3 GB."""
    for unit, name in ((10**12, "TB"), (10**9, "GB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 10**6:.3g} MB" if size < 10**8 else f"{size / 10**6:.0f} MB"


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(p for p in (folder, *folder.parents) if p.is_dir())
