"""Perplexity of text over tokens, with each text as a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.measure.types import Measured


def measured(nats: Sequence[float], tokens: Sequence[int]) -> Measured:
    """exp of the mean negative log likelihood of a token over all rows (Jelinek et al., 1977).

    nats: natural log probability of each text (negative) · tokens: how many tokens each has.
    """
    rows = np.stack([-np.array(nats, np.float64), np.array(tokens, np.float64)], axis=1)
    return Measured(rows, lambda sums: np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1)), higher=False)
