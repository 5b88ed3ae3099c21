"""A LoRA adapter as GGUF, to be laid over its base by llama.cpp or Ollama (ADAPTER in a Modelfile).

W + s·B·A with s = alpha / r: the rows of B are put where the rows of W go in GGUF, A stays as it is. GGUF
keeps one alpha for all tensors, so where modules differ in s the rest of it is multiplied into B. What no
such file can say is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from luthier.errors import ExportError
from luthier.gguf import architectures, tensors, write
from luthier.gguf.tensors import Tensor
from luthier.model.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from luthier.streams import say

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_PREFIX = "base_model.model."
_TENSOR = re.compile(rf"{re.escape(_PREFIX)}(.+)\.lora_([AB])\.weight")
_CANNOT = {
    "use_dora": "DoRA rescales each column of the sum",
    "modules_to_save": "whole modules were trained beside it",
    "target_parameters": "it changes parameters that are no linear layers",
    "trainable_token_indices": "rows of the embedding were trained",
    "lora_bias": "its matrices have biases",
    "alora_invocation_tokens": "it begins in the middle of a prompt",
    "layer_replication": "it repeats layers of the base",
    "use_qalora": "it pools its inputs",
    "fan_in_fan_out": "its base keeps weights the other way round",
}
"""Settings of PEFT's LoRA that GGUF has no word for."""
_INSTEAD = "--to gguf merges it"


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of PEFT. pairs: module of the base -> (A [r, in], B [out, r]) · settings: its config."""

    folder: Path
    settings: Mapping[str, Any]
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]

    def scale(self, module: str) -> float:
        """What B·A is multiplied by: alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023)."""
        patterns = self.settings.get("alpha_pattern") or {}
        own = next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), None)
        alpha = float(patterns[own] if own is not None else self.settings["lora_alpha"])
        rank = self.pairs[module][0].shape[0]
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)


def load(folder: Path) -> Adapter:
    """An adapter's two files. Raises ExportError, naming what GGUF cannot say and what to do instead."""
    from safetensors.torch import load_file

    settings = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    _refuse(folder, settings)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(folder / ADAPTER_WEIGHTS).items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise ExportError(f"{folder}: {name} has no place in a LoRA file of GGUF -> {_INSTEAD}")
        found.setdefault(match[1], {})[match[2]] = tensor.float()
    halves = [module for module, pair in found.items() if set(pair) != {"A", "B"}]
    if halves or not found:
        raise ExportError(f"{folder}: {halves[0] if halves else 'nothing'} has not both matrices")
    return Adapter(folder, settings, {module: (pair["A"], pair["B"]) for module, pair in found.items()})


def _refuse(folder: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ExportError(f"{folder}: is {kind}; GGUF knows adapters of LoRA only -> {_INSTEAD}")
    wrong = [f"{name}: {why}" for name, why in _CANNOT.items() if settings.get(name)]
    if settings.get("bias", "none") != "none":
        wrong.append("bias: biases of the base were trained")
    if wrong:
        raise ExportError(f"{folder}: cannot be a LoRA file of GGUF ({'; '.join(wrong)}) -> {_INSTEAD}")


def convert(adapter: Adapter, config: PretrainedConfig, out: Path) -> Path:
    """Write an adapter of the model that `config` describes as `out`, in float32; returns `out`.

    Raises ExportError for a module that GGUF has no name for, or that is no matrix there by itself.
    """
    one = architectures.of(config)
    first = next(iter(adapter.pairs))
    alpha = adapter.scale(first) * adapter.pairs[first][0].shape[0]
    fields = {
        "general.type": "adapter",
        "general.name": out.stem,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    }
    write.write(out, one.name, fields, list(_tensors(adapter, config, alpha)), say)
    return out


def _tensors(adapter: Adapter, config: PretrainedConfig, alpha: float) -> Iterator[Tensor]:
    one = architectures.of(config)
    named = tensors.places(config, one)
    for module, (a, b) in adapter.pairs.items():
        source = f"{module}.weight"
        name = named(source)
        if name is None or "embed" in module or (module == "lm_head" and config.tie_word_embeddings):
            raise ExportError(f"{adapter.folder}: {module} has no LoRA in GGUF's {one.name!r} -> {_INSTEAD}")
        factor = adapter.scale(module) * a.shape[0] / alpha
        moved = tensors.change(source, config, one)(b * factor)
        yield Tensor(f"{name}.lora_a", tuple(a.shape), "f32", lambda a=a: [a])  # type: ignore[misc]
        yield Tensor(f"{name}.lora_b", tuple(b.shape), "f32", lambda m=moved: [m])  # type: ignore[misc]
