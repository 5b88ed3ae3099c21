"""Which weights change: one row per method, each with attach, save, load and merge.

    model = prepare(load.model(config, dtype, training=True), config, training=True)
    save(model, directory, config)
    merged = merge(model)

Another package adds rows through the entry point group `luthier.methods`: name -> a `Method`.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from luthier.errors import ModelError
from luthier.model.quantize import is_quantized

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config

log = logging.getLogger(__name__)

METHODS: dict[str, str] = {
    "lora": "luthier.model.methods.peft:LORA",
    "full": "luthier.model.methods.select:FULL",
    "freeze": "luthier.model.methods.select:FREEZE",
}
"""Name of a finetuning_type -> where its `Method` is ("module:name"), imported when it is asked for."""


@dataclass(frozen=True)
class Method:
    """What a finetuning_type does with a model.

    attach(model, config): mark or add the parameters to train · save(model, directory, config): write what
    was trained so that it works on the base as the user has it · load(model, directories, config, trainable):
    put it back · merge(model): one plain model with the same outputs · quantized: works on a quantized base.
    """

    attach: Callable[[PreTrainedModel, Config], PreTrainedModel]
    save: Callable[[PreTrainedModel, Path, Config], None]
    load: Callable[[PreTrainedModel, Sequence[str | Path], Config, bool], PreTrainedModel]
    merge: Callable[[PreTrainedModel], PreTrainedModel]
    quantized: bool = False


def get(name: str) -> Method:
    """The row of a finetuning_type. Raises ModelError naming the nearest one."""
    path = METHODS.get(name)
    if path is not None:
        module, _, attribute = path.partition(":")
        row: Method = getattr(importlib.import_module(module), attribute)
        return row
    for entry in metadata.entry_points(group="luthier.methods"):
        if entry.name == name:
            added: Method = entry.load()
            return added
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "choose one of " + ", ".join(METHODS)
    raise ModelError(f"finetuning_type: there is no {name}; {hint}")


def prepare(
    model: PreTrainedModel, config: Config, training: bool, resume_from: Path | None = None
) -> PreTrainedModel:
    """A base model with the adapters of the request on it, and what is to be trained marked.

    Adapters in adapter_name_or_path are applied in order. In training the last one is trained further, or
    with `create_new_adapter` merged too and a new one attached. resume_from: a checkpoint, which takes the
    place of the adapter that was being trained. In use nothing is trainable and the last adapter stays apart.
    """
    adapters: list[str | Path] = list(config.adapter_name_or_path)
    if not training:
        model = get("lora").load(model, adapters, config, False) if adapters else model
        return model.requires_grad_(False).eval()
    method = get(config.finetuning_type)
    if is_quantized(model) and not method.quantized:
        raise ModelError(
            f"finetuning_type: {config.finetuning_type} cannot train a quantized model. "
            "Write finetuning_type: lora, or leave quantization_bit out"
        )
    if adapters and config.finetuning_type != "lora":
        raise ModelError(
            f"adapter_name_or_path: finetuning_type: {config.finetuning_type} has no adapters. Merge it "
            "first (luthier export) and give the result as model_name_or_path"
        )
    below = adapters if config.create_new_adapter else adapters[:-1]
    last = resume_from or (adapters[-1] if len(adapters) > len(below) else None)
    if last is not None:
        model = method.load(model, [*below, last], config, True)
    else:
        model = method.merge(method.load(model, below, config, False)) if below else model
        model = method.attach(model, config)
    upcast(model, config)
    return model.train()


def save(model: PreTrainedModel, directory: str | Path, config: Config) -> None:
    """Write what was trained into a directory that exists: safetensors and JSON only."""
    get(config.finetuning_type).save(model, Path(directory), config)


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """A plain model without adapters and with the same outputs; the model itself where it has none."""
    return get("lora").merge(model) if hasattr(model, "peft_config") else model


def trainable_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(trained, all) numbers of weights. A 4-bit weight counts as one, though two share a byte."""
    trained = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        total += count
        trained += count if parameter.requires_grad else 0
    return trained, total


def upcast(model: torch.nn.Module, config: Config) -> None:
    """Trained weights in float32 (in place), unless `pure_bf16` asks for the opposite.

    In half precision, steps smaller than the spacing of a weight's neighbours would be lost.
    """
    if config.pure_bf16:
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
