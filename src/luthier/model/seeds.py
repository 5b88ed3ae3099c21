"""Random numbers that depend on the seed alone, whatever was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed`; afterwards its generators are where they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
