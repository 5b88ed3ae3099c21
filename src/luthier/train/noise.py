"""NEFTune: uniform noise on the embeddings while training (Jain et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from luthier.data.batch import Batch


def attach(model: nn.Module, alpha: float) -> Callable[[Batch], None]:
    """Add noise of `alpha / sqrt(L x d)` to the input embeddings; returns what tells it L of each batch.

    L is the mean length of the batch's sequences: a row has no padded length, and a prefix that several
    sequences share is one place with one noise.
    """
    length = {"tokens": 1.0}

    def noisy(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        size = alpha / (length["tokens"] * output.shape[-1]) ** 0.5
        return output + torch.empty_like(output).uniform_(-size, size)

    model.get_input_embeddings().register_forward_hook(noisy)

    def tell(batch: Batch) -> None:
        length["tokens"] = batch.unshared / len(batch.sequences)

    return tell
