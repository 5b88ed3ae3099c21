"""Which examples take part in which optimizer step: a pure function of lengths, settings and seed.

Nothing here looks at tokens, ranks' clocks or earlier steps, so a run that resumes at step n asks
for step n and gets what it would have got. The batch arithmetic is the user's
(`per_device_train_batch_size x gradient_accumulation_steps x world`); how a step is cut into forward
passes is decided later, by memory alone (`luthier.data.batch.cut`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def permutation(n: int, seed: int, epoch: int) -> Ints:
    """The order of an epoch; the same on every machine (PCG64 is stable across NumPy versions)."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)


def pack(lengths: Ints, capacity: int) -> list[Ints]:
    """Best-fit decreasing: bins of example indices whose lengths sum to at most `capacity`.

    An example longer than the capacity gets a bin of its own. Johnson (1974) bounds the waste.
    """
    order = np.argsort(-lengths, kind="stable")
    bins: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(capacity + 1)]  # free space -> bins that have it
    fullest = 0
    for i in order:
        size = int(lengths[i])
        at = next((r for r in range(size, fullest + 1) if room[r]), None) if size <= capacity else None
        if at is None:
            bins.append([int(i)])
            left, where = capacity - size, len(bins) - 1
        else:
            where, left = room[at].pop(), at - size
            bins[where].append(int(i))
        if left > 0:
            room[left].append(where)
            fullest = max(fullest, left)
    return [np.array(sorted(b), np.int64) for b in bins]


@dataclass(frozen=True, eq=False)
class Plan:
    """step -> rank -> examples.

    units: what the user's batch size counts — single examples, or packed bins of them.
    per_step: units in one optimizer step over all ranks; the last step of an epoch may have fewer.
    """

    units: int
    per_step: int
    seed: int
    epochs: float = 1.0
    max_steps: int = -1
    world: int = 1
    shuffle: bool = True
    bins: tuple[Ints, ...] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return max(1, math.ceil(self.units / self.per_step))

    @property
    def total_steps(self) -> int:
        return self.max_steps if self.max_steps > 0 else math.ceil(self.epochs * self.steps_per_epoch)

    def epoch_at(self, step: int) -> float:
        """Epochs completed once `step` optimizer steps are done; fractions count steps."""
        return step / self.steps_per_epoch

    def examples(self, step: int, rank: int = 0) -> list[int]:
        """Examples of optimizer step `step` (0 is the first) on `rank`, in plan order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = _order(self.units, self.seed, epoch) if self.shuffle else np.arange(self.units)
        mine = order[within * self.per_step : (within + 1) * self.per_step][rank :: self.world]
        if self.bins is None:
            return [int(i) for i in mine]
        return [int(i) for unit in mine for i in self.bins[unit]]


@lru_cache(maxsize=2)
def _order(units: int, seed: int, epoch: int) -> Ints:
    return permutation(units, seed, epoch)
