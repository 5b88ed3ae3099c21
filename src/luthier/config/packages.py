"""Which optional packages a request needs, and whether they are installed (without importing them)."""

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
    """Optional packages that the request asks for and that are not installed."""
    return [need for need in _wanted(config) if not installed(need.module)]


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _wanted(config: Config) -> list[Need]:
    needs = []
    if config.quantization_bit:
        needs.append(Need("quantization_bit", str(config.quantization_bit), "bitsandbytes", "quant"))
    if config.hub == "modelscope":
        needs.append(Need("hub", "modelscope", "modelscope", "modelscope"))
    if config.verb != "train":
        return needs
    if "8bit" in config.optim or config.optim.startswith("paged"):
        needs.append(Need("optim", config.optim, "bitsandbytes", "quant"))
    if config.plot_loss:
        needs.append(Need("plot_loss", "true", "matplotlib", "plot"))
    for tracker in config.report_to:
        if tracker not in ("none", "all"):
            needs.append(Need("report_to", tracker, tracker, tracker))
    return needs
