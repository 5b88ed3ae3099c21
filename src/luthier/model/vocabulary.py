"""Tokens that the user adds, and the rows that the model's embeddings grow for them."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from luthier.errors import ModelError
from luthier.model import files, locate
from luthier.model.quantize import is_quantized
from luthier.model.seeds import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from luthier.config import Config

log = logging.getLogger(__name__)
_MATRIX = re.compile(r"base_model\.model\.(.+?)(?:\.base_layer|\.modules_to_save)?\.weight")
"""A whole matrix in an adapter's file: its name in the model."""
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


def follow(model: PreTrainedModel, adapter: Path) -> None:
    """Grow the embeddings (in place) to those that an adapter brings along, whose rows then take their place.

    Raises ModelError where the base is quantized, or where the adapter has only one of two matrices.
    """
    brought = {
        found[1]: shape[0]
        for key, shape in files.header(adapter / locate.ADAPTER_WEIGHTS)[1].items()
        if (found := _MATRIX.fullmatch(key)) and len(shape) == 2
    }
    names = {module: name for name, module in model.named_modules()}
    ends = [names[layer] for layer in _embeddings(model)]
    rows = model.get_input_embeddings().weight.shape[0]
    wanted = max((brought.get(name, 0) for name in ends), default=0)
    if wanted <= rows:
        return
    lacking = [name for name in ends if brought.get(name) != wanted]
    if is_quantized(model) or lacking:
        why = f"does not bring {lacking[0]} along" if lacking else "is for a base that is not quantized"
        raise ModelError(
            f"adapter_name_or_path: {adapter} was trained with {wanted} tokens, the base has {rows}, and the "
            f"adapter {why}. Give the base as it was resized, or write quantization_bit: null"
        )
    log.warning("%s was trained with %d tokens: the embeddings grow from %d rows", adapter, wanted, rows)
    model.resize_token_embeddings(wanted, mean_resizing=False)


def settle_ties(model: PreTrainedModel) -> PreTrainedModel:
    """Have the model's config say whether its input and output matrices are one (equal ones become one).

    Where they are not, no library may tie them again: one matrix would be lost.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None or not getattr(model, "all_tied_weights_keys", None):
        return model
    if inputs.weight.shape == outputs.weight.shape and torch.equal(inputs.weight, outputs.weight):
        outputs.weight = inputs.weight
    tied = outputs.weight is inputs.weight
    for settings in (model.config, model.config.get_text_config()):
        settings.tie_word_embeddings = tied
    if not tied:
        model.all_tied_weights_keys = {}
        log.warning("input and output embeddings were one matrix, and are two after the merge")
    return model


def _embeddings(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Input embeddings and, unless they share one matrix, the output layer."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None or outputs.weight is inputs.weight:
        return [inputs]
    return [inputs, outputs]
