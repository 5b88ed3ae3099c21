"""Supervised fine-tuning and pre-training: the cross-entropy of the trained tokens."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from luthier.data.batch import Batch
from luthier.model.attention import forward
from luthier.train.losses import target_nll, weighted_sum


def loss(model: nn.Module, batch: Batch, layout: str) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Sum over the pass of weight x (-log p(token | what stands before it))."""
    logits = forward(model, batch, layout)
    return weighted_sum(target_nll(logits, batch.pick, batch.targets), batch.weight), {}
