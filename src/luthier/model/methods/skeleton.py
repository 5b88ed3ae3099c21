"""What adapters make of each weight of a base, one weight at a time and without loading the base.

PEFT puts each adapter on a model of the same shape whose weights take no memory. To merge a weight, its value
is put in, PEFT merges as it does in memory, and the value is taken out again: the same bits come out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config


@dataclass(frozen=True)
class Edit:
    """What an adapter makes of a weight: make(its value so far, float32) -> the merged one, float32.

    replaces: the weight is the adapter's own, so the value so far is not looked at.
    """

    make: Callable[[Tensor | None], Tensor]
    replaces: bool = False


_PLAIN_INITIAL = (True, False, "gaussian", "orthogonal", "eva")


class Whole(Exception):
    """Why an adapter can only be merged with the whole model in memory."""


def edits(merged: PreTrainedModel, adapters: Sequence[Path], config: Config) -> list[dict[str, Edit]]:
    """By adapter, in order: name of a weight -> what the adapter makes of it.

    merged: a model of the shape that the adapters are put on, whose values are not looked at. Raises `Whole`.
    """
    return [dict(_edits(_skeleton(merged, path, config))) for path in adapters]


def _skeleton(merged: PreTrainedModel, adapter: Path, config: Config) -> nn.Module:
    """The model with the adapter on it; weights of the base are zeros that share one number."""
    from luthier.model.methods import peft  # brings bitsandbytes, which takes a second to load

    with torch.device("meta"):
        empty = type(merged)(copy.deepcopy(merged.config))
    empty._apply(lambda tensor: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape))
    tuned = peft.put_blank(empty.requires_grad_(False).eval(), adapter, config)
    settings = tuned.peft_config[peft.NAME]
    for what, plain in (
        (f"a {settings.peft_type} adapter", settings.peft_type == "LORA"),
        ("an adapter that trains biases", settings.bias == "none" and not settings.lora_bias),
        ("an adapter that changed the base's weights", settings.init_lora_weights in _PLAIN_INITIAL),
        ("an adapter on bare parameters", not getattr(settings, "target_parameters", None)),
        ("an adapter that repeats layers", not settings.layer_replication),
    ):
        if not plain:
            raise Whole(f"{adapter.name} is {what}")
    for parameter in tuned.parameters():
        if not _blank(parameter):
            parameter.data = parameter.data.float()
    base: nn.Module = tuned.get_base_model()
    return base


def _edits(base: nn.Module) -> Iterator[tuple[str, Edit]]:
    from luthier.model.methods import peft

    inside: list[str] = []
    for name, module in base.named_modules():
        if any(name.startswith(f"{other}.") for other in inside):
            continue
        if isinstance(module, peft.LoraLayer):
            if type(module) not in peft.MERGED_ALONE:
                raise Whole(f"{name} has an adapter of the kind {type(module).__name__}")
            yield f"{name}.weight", _merging(module)
        elif hasattr(module, "token_adapter"):
            yield f"{name}.weight", _merging(module.token_adapter)
        elif hasattr(module, "modules_to_save"):
            saved = module.modules_to_save[peft.NAME]
            yield from ((f"{name}.{key}", _replaced(value)) for key, value in saved.named_parameters())
        else:
            own = module.named_parameters(prefix=name, recurse=False)
            yield from ((key, _replaced(value)) for key, value in own if not _blank(value))
            continue
        inside.append(name)


def _merging(layer: Any) -> Edit:
    """PEFT's own merge of one layer, on a value that is put in for as long as it takes."""
    own = None if _blank(layer.get_base_layer().weight) else layer.get_base_layer().weight.data

    def make(value: Tensor | None) -> Tensor:
        base = layer.get_base_layer()
        before = base.weight
        start = value if own is None else own.clone()
        assert start is not None, "a weight of the base was not read"
        base.weight = nn.Parameter(start, requires_grad=False)
        layer.merge(safe_merge=True)
        found: Tensor = base.weight.data
        base.weight = before
        layer.merged_adapters.clear()
        return found

    return Edit(make, replaces=own is not None)


def _replaced(value: Tensor) -> Edit:
    return Edit(lambda _: value.detach().float(), replaces=True)


def _blank(parameter: Tensor) -> bool:
    """Whether it is one of the zeros that stand for the base's weights."""
    return not any(parameter.stride())
