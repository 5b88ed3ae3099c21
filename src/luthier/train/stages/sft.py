"""Supervised fine-tuning and pre-training: the cross-entropy of the trained tokens."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from luthier.data.batch import Batch
from luthier.model.attention import forward
from luthier.train.losses import shares, target_nll, weighted_sum


def loss(model: nn.Module, batch: Batch, layout: str) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Sum over the pass of weight x (-log p(token | what stands before it)).

    Outside training also, summed over sequences, the share of each one's trained tokens that greedy decoding
    would have got right: LLaMA-Factory's accuracy (`compute_accuracy`).
    """
    logits = forward(model, batch, layout)
    total = weighted_sum(target_nll(logits, batch.pick, batch.targets), batch.weight)
    if model.training:
        return total, {}
    right = (logits.argmax(-1)[batch.pick] == batch.targets).float()
    return total, {"token_accuracy": shares(right, batch.weight, batch.owner).sum()}
