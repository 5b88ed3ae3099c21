"""Which optional packages a request cannot do without, and whether they are installed (not imported)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from luthier.config.schema import Config

TRACKERS = ("tensorboard", "wandb", "mlflow", "swanlab", "trackio")


@dataclass(frozen=True)
class Need:
    """key: what asked for it · module: as imported · extra: `pip install "luthier[extra]"`."""

    key: str
    value: str
    module: str
    extra: str


def missing(config: Config) -> list[Need]:
    """What is not installed. Trackers and plots are left out by `resolve` instead."""
    return [need for need in _wanted(config) if not installed(need.module)]


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _wanted(config: Config) -> list[Need]:
    needs = []
    if config.quantization_bit:
        needs.append(Need("quantization_bit", str(config.quantization_bit), "bitsandbytes", "quant"))
    if config.hub == "modelscope":
        needs.append(Need("hub", "modelscope", "modelscope", "modelscope"))
    if config.verb == "train" and ("8bit" in config.optim or config.optim.startswith("paged")):
        needs.append(Need("optim", config.optim, "bitsandbytes", "quant"))
    return needs
