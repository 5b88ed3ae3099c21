"""Methods that train weights of the model itself: all of them, or those of a few layers."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from luthier.errors import ModelError
from luthier.model import files, locate
from luthier.model.methods import Method, upcast
from luthier.model.names import not_found

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config

log = logging.getLogger(__name__)

IN_LAYER = re.compile(r"\.(\d+)\.([^.]+)")
"""The first number in a parameter's name is its layer, the next word its module (self_attn, mlp, …)."""


def attach_full(model: PreTrainedModel, config: Config) -> PreTrainedModel:
    """Every weight is trained."""
    return model.requires_grad_(True)


def attach_freeze(model: PreTrainedModel, config: Config) -> PreTrainedModel:
    """Train the last n layers (the first n where n is negative), or some modules of them, and extra modules.

    Raises ModelError when a name is not in the model or nothing is left to train.
    """
    layers = _layers(model, config.freeze_trainable_layers)
    inside, outside = _module_names(model)
    modules, extra = set(config.freeze_trainable_modules), set(config.freeze_extra_modules)
    problems = [not_found("freeze_trainable_modules", n, inside) for n in sorted(modules - inside - {"all"})]
    problems += [not_found("freeze_extra_modules", n, outside) for n in sorted(extra - outside)]
    if problems:
        raise ModelError("\n".join(problems))
    chosen = 0
    for name, parameter in model.named_parameters():
        found = IN_LAYER.search(name)
        if found is None:
            trained = name.split(".")[-2] in extra
        else:
            trained = int(found[1]) in layers and ("all" in modules or found[2] in modules)
        parameter.requires_grad_(trained)
        chosen += trained
    if not chosen:
        raise ModelError("freeze_trainable_layers: 0 leaves nothing to train; give the number of layers")
    log.info("layers that learn: %s", ", ".join(map(str, sorted(layers))))
    return model


def _layers(model: PreTrainedModel, count: int) -> set[int]:
    config = model.config.get_text_config()
    total = getattr(config, "num_hidden_layers", None)
    if not total:
        raise ModelError(
            f"finetuning_type: freeze: a {config.model_type} model does not say how many layers it has"
        )
    if count > 0:
        return set(range(max(0, total - count), total))
    return set(range(min(-count, total)))


def _module_names(model: PreTrainedModel) -> tuple[set[str], set[str]]:
    """Names of modules inside the layers (self_attn), and of parameters' owners outside (embed_tokens)."""
    inside, outside = set(), set()
    for name, _ in model.named_parameters():
        found = IN_LAYER.search(name)
        if found is not None:
            inside.add(found[2])
        else:
            outside.add(name.split(".")[-2])
    return inside, outside


def save(model: PreTrainedModel, directory: Path, config: Config) -> None:
    """A whole model as transformers reads it. The cache, off while training, is on in what is written."""
    text = model.config.get_text_config()
    cached, text.use_cache = text.use_cache, True
    try:
        model.save_pretrained(str(directory))
    finally:
        text.use_cache = cached


def load(
    model: PreTrainedModel, directories: Sequence[str | Path], config: Config, trainable: bool
) -> PreTrainedModel:
    """Put the weights of a saved model into this one, to the last bit of each weight's own dtype."""
    if trainable:
        model = (attach_freeze if config.finetuning_type == "freeze" else attach_full)(model, config)
        upcast(model, config)
    for directory in directories:
        files.weights(Path(directory))
        with locate.explained(str(directory)):
            # Read in float32, which holds every half-precision value exactly; copying rounds nothing. Built
            # as this model is: the folder's own config.json decides nothing.
            saved = type(model).from_pretrained(
                str(directory), config=model.config, dtype=torch.float32, use_safetensors=True
            )
            model.load_state_dict(saved.state_dict())
    return model


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """There is nothing to merge: the trained weights are the model's own."""
    return model


FULL = Method(attach_full, save, load, merge)
FREEZE = Method(attach_freeze, save, load, merge)
