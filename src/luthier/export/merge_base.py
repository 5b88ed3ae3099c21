"""Into which base an adapter is merged that was trained on a quantized one, and what each choice changes.

While it was trained, the adapter saw the rounded weights. Merged into the original ones it meets others;
merged into the rounded ones, taken back to float32, it meets the same, and the rounding stays for ever.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from luthier.config import Config
from luthier.export import parity
from luthier.model import load as loading
from luthier.model import methods, quantize

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHOICES = ("original", "quantized")


def load(
    config: Config, bits: int | None, tokenizer: PreTrainedTokenizerBase, into: str | None = None
) -> PreTrainedModel:
    """The base in float32. bits: of the one that was trained on · into: `merge_into` unless it is given.

    With "quantized" each weight that was rounded has its rounded value.
    """
    plain = config.replace(quantization_bit=None)
    base = loading.model(plain, torch.float32, training=False, tokenizer=tokenizer)
    if bits is not None and (into or config.merge_into) == "quantized":
        rounded = _rounded(config, bits, tokenizer)
        with torch.no_grad():
            for name, value in quantize.dequantized(rounded):
                base.get_parameter(f"{name}.weight").copy_(value)
    return base


def choices(
    config: Config, bits: int, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[parity.Prompt]
) -> dict[str, Any]:
    """How far a merge into either base is from what was trained, on the prompts; KL divergences in nats."""
    trained = parity.logits(
        methods.prepare(_rounded(config, bits, tokenizer), config, training=False), prompts
    )
    found: dict[str, Any] = {"bits": bits, "merged_into": config.merge_into}
    for into in CHOICES:
        gc.collect()
        base = load(config, bits, tokenizer, into)
        logits = parity.logits(methods.prepare(base, config, training=False), prompts)
        del base
        found[into] = {
            "max_abs_difference": max(parity.differences(trained, logits)),
            "mean_kl": parity.divergence(trained, logits),
        }
    found["recommended"] = min(CHOICES, key=lambda into: float(found[into]["mean_kl"]))
    chosen: dict[str, Any] = found[config.merge_into]
    return found | chosen


def told(found: dict[str, Any]) -> str:
    """What was measured, in a sentence."""
    into = found["merged_into"]
    bases = {"original": "the base as it was before rounding", "quantized": "the rounded weights"}
    other = next(name for name in CHOICES if name != into)
    here, there = (found[name]["mean_kl"] for name in (into, other))
    text = (
        f"the adapter was trained on the base in {found['bits']} bits and is merged into {bases[into]}: "
        f"mean KL divergence {here:.2g} from what was trained (into {bases[other]}: {there:.2g})"
    )
    if found["recommended"] != into:
        text += f"; --merge_into {found['recommended']} is nearer to what was trained"
    return text


def _rounded(config: Config, bits: int, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    asked = config.replace(quantization_bit=bits)
    found = loading.model(asked, torch.float32, training=False, tokenizer=tokenizer)
    quantize.keep_layout(found)
    return found
