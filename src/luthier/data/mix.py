"""Which rows of which data sets, in which order: pure functions of counts and seeds.

The strategies mean what `datasets.interleave_datasets` means by them, and with probabilities draw the same
sequence from the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError

Indices = npt.NDArray[np.int64]
STRATEGIES = ("concat", "interleave_under", "interleave_over", "interleave_once")
BLOCK = 1 << 16  # draws made at a time; the sequence does not depend on it


def order(
    counts: Sequence[int],
    strategy: str = "concat",
    probabilities: Sequence[float] | None = None,
    seed: int = 42,
) -> Indices:
    """(data set, row) pairs, int64 [n, 2], each data set's rows in their own order.

    concat: one after another. interleave_under: in turns, or drawn with `probabilities`, until the first data
    set is used up; interleave_over: until each was used up once, beginning again where one ends;
    interleave_once: until all are used up, skipping those that are. Raises DataError.
    """
    if strategy not in STRATEGIES:
        raise DataError(f'mix_strategy: unknown strategy "{strategy}" -> use one of {", ".join(STRATEGIES)}')
    if not counts or min(counts) < 1:
        raise DataError(f"mix_strategy: every data set needs at least one row, the counts are {list(counts)}")
    if strategy == "concat" or len(counts) == 1:
        return np.concatenate([_pairs(np.full(n, which), np.arange(n)) for which, n in enumerate(counts)])
    sizes = np.asarray(counts, dtype=np.int64)
    if probabilities is None:
        return _in_turns(sizes, strategy)
    return _drawn(sizes, strategy, _checked(probabilities, len(counts)), seed)


def _pairs(which: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Indices:
    return np.stack([which, rows], axis=1).astype(np.int64)


def _checked(probabilities: Sequence[float], sets: int) -> npt.NDArray[np.float64]:
    values = np.asarray(probabilities, dtype=np.float64)
    if len(values) != sets or (values <= 0).any() or not math.isclose(values.sum(), 1.0, abs_tol=1e-6):
        raise DataError(
            f"interleave_probs: {list(probabilities)}"
            f" -> write {sets} positive numbers, one per data set, with sum 1"
        )
    normal: npt.NDArray[np.float64] = values / values.sum()
    return normal


def _in_turns(sizes: npt.NDArray[np.int64], strategy: str) -> Indices:
    rounds = int(sizes.min() if strategy == "interleave_under" else sizes.max())
    which = np.tile(np.arange(len(sizes)), rounds)
    rows = np.repeat(np.arange(rounds), len(sizes))
    if strategy == "interleave_once":
        kept = rows < sizes[which]
        which, rows = which[kept], rows[kept]
    return _pairs(which, rows % sizes[which])


def _drawn(
    sizes: npt.NDArray[np.int64], strategy: str, probabilities: npt.NDArray[np.float64], seed: int
) -> Indices:
    """Data sets drawn one by one, up to the draw that uses up the first (or the last) of them."""
    generator = np.random.Generator(np.random.PCG64(seed))
    used = np.zeros(len(sizes), dtype=np.int64)
    which_parts, row_parts = [], []
    enough = np.any if strategy == "interleave_under" else np.all
    while not enough(used >= sizes):
        draws = generator.choice(len(sizes), size=BLOCK, p=probabilities)
        rows = np.empty(BLOCK, dtype=np.int64)
        for which in range(len(sizes)):
            mine = draws == which
            rows[mine] = used[which] + np.arange(int(mine.sum()))
        used += np.bincount(draws, minlength=len(sizes))
        which_parts.append(draws)
        row_parts.append(rows)
    which_drawn, rows_drawn = np.concatenate(which_parts), np.concatenate(row_parts)
    ends = np.flatnonzero(
        rows_drawn == sizes[which_drawn] - 1
    )  # where each data set is used up for the first time
    end = int(ends.min() if strategy == "interleave_under" else ends.max()) + 1
    which_drawn, rows_drawn = which_drawn[:end], rows_drawn[:end]
    if strategy == "interleave_once":
        kept = rows_drawn < sizes[which_drawn]
        which_drawn, rows_drawn = which_drawn[kept], rows_drawn[kept]
    return _pairs(which_drawn, rows_drawn % sizes[which_drawn])


def sample(
    count: int, num_samples: int | None = None, seed: int = 42, max_samples: int | None = None
) -> Indices:
    """Rows of one data set, int64 [n]: `num_samples` drawn in random order, then the first `max_samples`.

    Every row is drawn once before any is drawn again, so asking for more than there are repeats some.
    """
    if num_samples is None:
        rows = np.arange(count, dtype=np.int64)
    else:
        generator = np.random.Generator(np.random.PCG64(seed))
        rows = generator.permutation(count)[:num_samples].astype(np.int64)
        if num_samples > len(rows):
            rows = np.concatenate([rows, generator.integers(0, count, num_samples - len(rows))])
    return rows if max_samples is None else rows[:max_samples]


def split(count: int, val_size: float, seed: int = 42) -> tuple[Indices, Indices]:
    """(training rows, validation rows) in ascending order; val_size below 1 is a fraction, from 1 on a count.

    A fraction is rounded up, so that there is at least one validation row. Raises DataError when no
    training row would be left.
    """
    held = math.ceil(count * val_size) if val_size < 1 else int(val_size)
    if not 0 < held < count:
        raise DataError(
            f"val_size: {val_size:g} of {count} examples leaves {max(0, count - held)} to train on"
            " -> write a fraction (0.1), or a count below the number of examples"
        )
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(count).astype(np.int64)
    return np.sort(shuffled[held:]), np.sort(shuffled[:held])
