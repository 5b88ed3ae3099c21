"""Tokens that the user adds, and the rows that the model's embeddings grow for them."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch

from luthier.errors import ModelError
from luthier.model.quantize import is_quantized
from luthier.model.seeds import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from luthier.config import Config

log = logging.getLogger(__name__)
MULTIPLE = 64
"""Row counts are rounded up to this: matrix products of such sizes are faster on accelerators."""


def grows(config: Config) -> bool:
    """Whether the request is for more tokens than the base has (adding tokens implies resize_vocab)."""
    return bool(config.resize_vocab or config.add_tokens or config.add_special_tokens)


def add_tokens(tokenizer: PreTrainedTokenizerBase, config: Config) -> None:
    """Add `add_tokens` and `add_special_tokens`; those that the tokenizer has already stay as they are."""
    if config.add_tokens:
        tokenizer.add_tokens(list(config.add_tokens))
    if config.add_special_tokens:
        tokenizer.add_tokens(list(config.add_special_tokens), special_tokens=True)


def resize(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Grow the embeddings to the tokenizer, where it has more tokens than they have rows.

    New rows are the mean of the old ones plus normal noise of deviation 1/sqrt(hidden size), which depends
    on `seed` alone, so that a base and the adapter trained on it meet again later.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return
    if is_quantized(model):
        raise ModelError(
            f"resize_vocab: the tokenizer has {len(tokenizer)} tokens, the embeddings {rows} rows, and a "
            "quantized model cannot grow. Leave quantization_bit out, or add no tokens"
        )
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    with torch.no_grad(), seeded(seed):
        for layer in _embeddings(model):
            weight = layer.weight.data
            old = weight[:rows].float()
            noise = torch.randn(weight.shape[0] - rows, weight.shape[1]) / math.sqrt(weight.shape[1])
            weight[rows:] = (old.mean(dim=0, keepdim=True) + noise.to(weight.device)).to(weight.dtype)
    log.info("embeddings grown from %d to %d rows", rows, model.get_input_embeddings().weight.shape[0])


def _embeddings(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Input embeddings and, unless they share one matrix, the output layer."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None or outputs.weight is inputs.weight:
        return [inputs]
    return [inputs, outputs]
