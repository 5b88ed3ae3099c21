"""Quantizing a model as it is loaded: the door to bitsandbytes.

A checkpoint that was quantized before (GPTQ, AWQ, …) needs nothing from here: transformers reads its
own quantization_config.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from luthier.errors import MissingPackage, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config

log = logging.getLogger(__name__)


def settings(config: Config, dtype: torch.dtype) -> Any:
    """transformers' quantization config for `quantization_bit`, or None when it is not set.

    dtype: in which the dequantized products are computed. Raises MissingPackage.
    """
    bits = config.quantization_bit
    if bits is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPackage("bitsandbytes", f"quantization_bit: {bits}", "quant")
    from transformers import BitsAndBytesConfig

    if bits == 8:
        if dtype is not torch.float16:
            log.warning("8-bit products are computed in float16, whatever the other number formats are")
            # bitsandbytes repeats this at every product of every step.
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=config.double_quantization,
        bnb_4bit_quant_type=config.quantization_type,
        bnb_4bit_quant_storage=dtype,  # FSDP shards only parameters of one floating dtype
    )


def is_quantized(model: PreTrainedModel) -> bool:
    return getattr(model, "quantization_method", None) is not None


def dequantized(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """By layer of a model as it was loaded: its name, and its rounded weight in float32 [out, in]."""
    from bitsandbytes import functional

    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if getattr(weight, "quant_state", None) is not None:
            yield name, functional.dequantize_4bit(weight.data, weight.quant_state).float()
        elif getattr(weight, "SCB", None) is not None:
            yield name, functional.int8_vectorwise_dequant(weight.data, weight.SCB)


def keep_layout(model: PreTrainedModel) -> None:
    """Have 4-bit weights stay as they were loaded, in place; for a base that is trained on.

    On CPUs with bfloat16 instructions bitsandbytes regroups them at the first evaluation, and back when the
    model is saved. The product of regrouped weights is rounded otherwise and passes no gradient on to its
    input, so what a step learns would depend on when the model was last evaluated or saved.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def check(model: PreTrainedModel) -> None:
    """Raises ModelError for a shape that 4-bit products on a CPU cannot handle.

    bitsandbytes regroups weights for the CPU in blocks of 64 inputs and fails in the middle of an
    evaluation where a layer's width is not a multiple of that.
    """
    if not getattr(model, "is_loaded_in_4bit", False) or next(model.parameters()).device.type != "cpu":
        return
    for name, module in model.named_modules():
        packed = hasattr(getattr(module, "weight", None), "quant_state")
        width = int(getattr(module, "in_features", 0)) if packed else 0
        if width % 64:
            raise ModelError(
                f"quantization_bit: 4 on a CPU needs layers whose width is a multiple of 64; {name} has "
                f"{width}. Use quantization_bit: 8, or none"
            )
