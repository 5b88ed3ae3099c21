"""Loss functions: pure, on tensors, each a sum that the loop divides once by the step's count."""

from __future__ import annotations

import torch
from torch import Tensor


def target_nll(logits: Tensor, pick: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target, natural log, computed in float32.

    logits [U, V]: one line for each distinct position; pick [M]: the line that predicts target m (several
    branches may continue one position); targets [M] -> [M].
    """
    log_probabilities = torch.log_softmax(logits.float(), dim=-1)
    return -log_probabilities[pick, targets]


def weighted_sum(nll: Tensor, weight: Tensor) -> Tensor:
    """Sum of `weight * nll` [M] -> []; the weights are those of the trained tokens (1 by default)."""
    return (nll * weight).sum()


def shares(right: Tensor, weight: Tensor, owner: Tensor) -> Tensor:
    """Of each sequence that has targets the weighted share of those that are right [S], in float32.

    right, weight [M]; owner [M]: the sequence that a target belongs to. Targets without weight count nowhere.
    """
    sums = torch.zeros(2, int(owner.max()) + 1 if owner.numel() else 0, device=right.device)
    sums = sums.index_add(1, owner, torch.stack([right * weight, weight]).float())
    return sums[0][sums[1] > 0] / sums[1][sums[1] > 0]
