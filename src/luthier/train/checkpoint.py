"""Checkpoints: whole or absent, in safetensors and JSON only, enough to go on bit for bit.

Order of data, dropout and learning rate are functions of the step, so a checkpoint holds no more than
the weights, the optimizer's moments, and the history that observers need.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from luthier.errors import RunError
from luthier.model import files

OPTIMIZER = "optimizer.safetensors"
SETTINGS = "optimizer.json"


def save_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, directory: Path, scale: Mapping[str, float]
) -> None:
    """Moments by parameter name; what is no tensor, and fp16's scale, goes to JSON beside them."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        name = names[parameter]
        for key, value in state.items():
            if torch.is_tensor(value):
                tensors[f"{name}::{key}"] = value.detach().cpu().clone().contiguous()
            else:
                plain.setdefault(name, {})[key] = value
    save_file(tensors, directory / OPTIMIZER)
    (directory / SETTINGS).write_text(json.dumps({"plain": plain, "scale": dict(scale)}), encoding="utf-8")


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, directory: Path) -> dict[str, float]:
    """Put the moments of a checkpoint into a new optimizer; returns fp16's scale, {} where there was none.

    They live beside their parameters; Adam's step counter stays on the CPU, unless a fused kernel reads it.
    Raises ModelError for a damaged file; RunError when there are none, or when they are of parameters that
    this model does not train.
    """
    if not (directory / OPTIMIZER).is_file():
        raise RunError(
            f"{directory} has weights but no optimizer state (save_only_model), so it cannot be continued: "
            "give it as adapter_name_or_path (or model_name_or_path) of a new run instead"
        )
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    files.header(directory / OPTIMIZER)  # a file that is no safetensors is named
    settings = files.read_json(directory / SETTINGS)
    plain = settings.get("plain", {})
    states: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain.items()}
    with safe_open(directory / OPTIMIZER, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (safetensors' reader is no mapping)
            name, _, part = key.rpartition("::")
            states.setdefault(name, {})[part] = file.get_tensor(key)
    if set(states) - set(parameters):
        strange = ", ".join(sorted(set(states) - set(parameters))[:3])
        raise RunError(f"{directory}: moments of parameters that this model does not train ({strange}, …)")
    beside = {
        parameter
        for group in optimizer.param_groups
        if group.get("fused") or group.get("capturable")
        for parameter in group["params"]
    }
    for name, state in states.items():
        parameter = parameters[name]
        stays = () if parameter in beside else ("step",)
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if torch.is_tensor(value) and key not in stays else value
            for key, value in state.items()
        }
    return dict(settings.get("scale", {}))
