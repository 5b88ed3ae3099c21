"""Optimizers and learning-rate schedules, by the names that transformers and LLaMA-Factory use.

The schedule is used as a function of the step, not as an object with state: what the learning rate is
at step n does not depend on how the run got there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from luthier.config import Config
from luthier.errors import ConfigError, MissingPackage
from luthier.types import Problem

Groups = list[dict[str, Any]]


def _adamw(groups: Groups, config: Config, **extra: Any) -> torch.optim.Optimizer:
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, **extra)


def _adafactor(groups: Groups, config: Config) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=config.learning_rate, scale_parameter=False, relative_step=False)


def _bitsandbytes(
    kind: str, bits: int, paged: bool = False
) -> Callable[[Groups, Config], torch.optim.Optimizer]:
    def make(groups: Groups, config: Config) -> torch.optim.Optimizer:
        try:
            import bitsandbytes.optim as optim
        except ImportError as error:
            raise MissingPackage("bitsandbytes", f"optim: {config.optim}", "quant") from error
        names = {
            ("adamw", False): "AdamW",
            ("adamw", True): "PagedAdamW",
            ("lion", False): "Lion",
            ("lion", True): "PagedLion",
        }
        cls = getattr(
            optim, names[kind, paged] + ("8bit" if bits == 8 else "32bit" if kind == "adamw" else "")
        )
        more = {"eps": config.adam_epsilon} if kind == "adamw" else {}
        return cls(groups, lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2), **more)

    return make


OPTIMIZERS: dict[str, Callable[[Groups, Config], torch.optim.Optimizer]] = {
    "adamw_torch": _adamw,
    "adamw_torch_fused": lambda groups, config: _adamw(groups, config, fused=True),
    "adafactor": _adafactor,
    "sgd": lambda groups, config: torch.optim.SGD(groups, lr=config.learning_rate),
    "adagrad": lambda groups, config: torch.optim.Adagrad(groups, lr=config.learning_rate),
    "rmsprop": lambda groups, config: torch.optim.RMSprop(groups, lr=config.learning_rate),
    "adamw_bnb_8bit": _bitsandbytes("adamw", 8),
    "paged_adamw_8bit": _bitsandbytes("adamw", 8, paged=True),
    "paged_adamw_32bit": _bitsandbytes("adamw", 32, paged=True),
    "lion_8bit": _bitsandbytes("lion", 8),
    "paged_lion_8bit": _bitsandbytes("lion", 8, paged=True),
}


def build(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Optimizer over the trainable parameters. Raises ConfigError for a name that no row has."""
    if config.optim not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise ConfigError([Problem("optim", f"{config.optim!r} is not known", f"one of {known}")])
    return OPTIMIZERS[config.optim](groups(model, config), config)


def groups(model: nn.Module, config: Config) -> Groups:
    """Parameter groups: no weight decay on biases and norms; LoRA+ gives B matrices their own rate.

    LoRA+ (Hayou et al., 2024): the B matrices, which start at zero, learn `loraplus_lr_ratio` times faster.
    """
    split: dict[tuple[float, float], list[nn.Parameter]] = {}
    normed = _norm_parameters(model)
    ratio = config.loraplus_lr_ratio
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if name in normed or name.endswith("bias") else config.weight_decay
        rate = config.learning_rate
        if ratio is not None:
            if "lora_embedding" in name:
                rate, decay = config.loraplus_lr_embedding, config.weight_decay
            elif "lora_B" in name or parameter.ndim == 1:
                rate = config.learning_rate * ratio
        split.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in split.items()]


def _norm_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of normalisation layers, whatever class a model family gives them."""
    return {
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for inner, _ in module.named_parameters(recurse=False)
    }


def schedule(config: Config, total_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at optimizer step n (0 is the first), from transformers' schedules."""
    from transformers import get_scheduler

    # Some schedules (polynomial, *_min_lr) turn an absolute rate into a factor of the optimizer's own.
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    kwargs: Mapping[str, Any] = config.lr_scheduler_kwargs or {}
    made = get_scheduler(
        config.lr_scheduler_type,
        dummy,
        num_warmup_steps=warmup_steps(config, total_steps),
        num_training_steps=total_steps,
        scheduler_specific_kwargs=dict(kwargs),
    )
    if not hasattr(made, "lr_lambdas"):
        what = (
            f"{config.lr_scheduler_type!r} depends on the course of the run, which cannot be resumed exactly"
        )
        raise ConfigError([Problem("lr_scheduler_type", what, "cosine, linear, constant_with_warmup, …")])
    return made.lr_lambdas[0]  # type: ignore[no-any-return]


def warmup_steps(config: Config, total_steps: int) -> int:
    """`warmup_steps` as written (a fraction below 1 means a share of all steps), else `warmup_ratio`."""
    import math

    written = config.warmup_steps or 0
    if written >= 1:
        return int(written)
    return math.ceil(total_steps * (written or config.warmup_ratio or 0.0))
