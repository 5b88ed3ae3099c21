"""Which models GGUF knows, and the metadata that each is described by.

What a model computes is decided by its architecture's name in GGUF; a model whose configuration asks for
anything else than that name computes is refused here, because llama.cpp would run it wrongly and say nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from luthier.errors import ExportError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Value = int | float | bool | str
GEMMA3_LOCAL = 10000.0
"""Base of the rotary embedding that llama.cpp gives gemma3's layers with a sliding window."""


@dataclass(frozen=True)
class Architecture:
    """A row of architectures.yaml, where the fields are explained."""

    model: str
    name: str
    rotate: bool = False
    plus_one: bool = False
    partial: bool = False
    window: str = ""
    scalings: tuple[str, ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


def of(config: PretrainedConfig) -> Architecture:
    """The architecture of a model. Raises ExportError that names those that are known."""
    model = str(config.model_type)
    row = _rows()["models"].get(model)
    if row is None:
        known = ", ".join(sorted(_rows()["models"]))
        raise ExportError(
            f"model_type {model!r} cannot be written to GGUF here; it can be: {known} (and what is"
            " distilled into these). --to hf writes any model"
        )
    found = Architecture(model, **row)
    wrong = [
        f"{name} is {_shown(config, name)!r}, only {wanted!r} can be written"
        for name, wanted in found.fixed.items()
        if (_shown(config, name) or False) != (wanted or False)
    ]
    if wrong:
        raise ExportError(f"{model}: GGUF's {found.name!r} computes something else: {'; '.join(wrong)}")
    return found


def metadata(config: PretrainedConfig, one: Architecture) -> tuple[dict[str, Value], list[str]]:
    """Key without the architecture's name -> value; and notes on what the file can do less than the model."""
    wanted = {**_rows()["common"], **one.numbers}
    found: dict[str, Value] = {}
    for key, name in wanted.items():
        value = getattr(config, name, None)
        if value is not None:
            found[key] = value
    head = head_dim(config)
    found |= {"attention.key_length": head, "attention.value_length": head}
    notes = [*_window(config, one, found), *_rope(config, one, found)]
    _layers(config, one)
    return found, notes


def head_dim(config: PretrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope(config: PretrainedConfig) -> Mapping[str, Any]:
    """Parameters of the rotary embedding; of gemma3 those of its layers that see everything."""
    found = config.rope_parameters
    nested = found.get("full_attention")
    return dict(nested if isinstance(nested, dict) else found)


def rotated(config: PretrainedConfig, one: Architecture) -> int:
    """How many dimensions of a head are rotated."""
    share = float(rope(config).get("partial_rotary_factor") or 1.0) if one.partial else 1.0
    return int(head_dim(config) * share)


def _shown(config: PretrainedConfig, name: str) -> Any:
    value = getattr(config, name, None)
    return list(value) if isinstance(value, (list, tuple)) else value


def _window(config: PretrainedConfig, one: Architecture, found: dict[str, Value]) -> list[str]:
    """llama.cpp has no sliding window for this architecture: equal as far as the window reaches."""
    window = getattr(config, "sliding_window", None)
    uses = getattr(config, "use_sliding_window", True) and any(
        kind == "sliding_attention" for kind in getattr(config, "layer_types", None) or ["sliding_attention"]
    )
    if one.window == "kept" or not window or not uses or window >= int(found["context_length"]):
        return []
    found["context_length"] = int(window)
    return [
        f"the model slides a window of {window} tokens, which GGUF's {one.name!r} does not: num_ctx {window}"
    ]


def _rope(config: PretrainedConfig, one: Architecture, found: dict[str, Value]) -> list[str]:
    told = rope(config)
    found["rope.freq_base"] = float(told.get("rope_theta", 10000.0))
    found["rope.dimension_count"] = rotated(config, one)
    local = config.rope_parameters.get("sliding_attention") if one.name == "gemma3" else None
    if local:
        _local(local, found)
    kind = told.get("rope_type", "default")
    known = ("default", "linear", "yarn", *one.scalings)
    if kind not in known:
        raise ExportError(
            f"{one.model}: rope_type {kind!r} cannot be written to GGUF; it can be: {', '.join(known)}"
        )
    writer = {"linear": _linear, "yarn": _yarn, "longrope": _longrope}.get(kind)
    return writer(told, found) if writer else []


def _local(told: Mapping[str, Any], found: dict[str, Value]) -> None:
    """Layers with a window. llama.cpp never scales their rotary embedding."""
    if told.get("rope_type", "default") != "default":
        raise ExportError(
            f"gemma3: rope_type {told['rope_type']!r} of sliding layers cannot be written to GGUF"
        )
    if float(told.get("rope_theta", GEMMA3_LOCAL)) != GEMMA3_LOCAL:
        found["rope.freq_base_swa"] = float(told["rope_theta"])


def _linear(told: Mapping[str, Any], found: dict[str, Value]) -> list[str]:
    found |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(told["factor"])}
    return []


def _yarn(told: Mapping[str, Any], found: dict[str, Value]) -> list[str]:
    unlike = {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": None,
        "mscale": None,
        "mscale_all_dim": None,
    }
    other = [name for name, usual in unlike.items() if told.get(name, usual) not in (usual, None)]
    if other or told.get("truncate") is False:
        raise ExportError(f"yarn with its own {', '.join(other) or 'truncate'} cannot be written to GGUF")
    found |= {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(told["factor"]),
        "rope.scaling.original_context_length": int(told["original_max_position_embeddings"]),
    }
    return []


def _longrope(told: Mapping[str, Any], found: dict[str, Value]) -> list[str]:
    """Two sets of factors, which are tensors of the file. transformers takes the long ones for a text that is
    longer than the original context, llama.cpp for every text as soon as the context may get longer: so the
    file reads no further than the original context, where both take the short ones. LongRoPE:
    https://arxiv.org/abs/2402.13753, whose scale of attention is section 3.3's."""
    whole, original = int(found["context_length"]), int(told["original_max_position_embeddings"])
    factor = float(told.get("factor") or whole / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    given = told.get("attention_factor")
    found["rope.scaling.attn_factor"] = float(usual if given is None else given)
    if whole <= original:
        return []
    found["context_length"] = original
    return [
        f"a text of more than {original} tokens changes how this model sees positions, which llama.cpp does"
        f" not do within a conversation: num_ctx {original}"
    ]


def _layers(config: PretrainedConfig, one: Architecture) -> None:
    """Patterns of layers that llama.cpp has built in."""
    kinds = list(getattr(config, "layer_types", None) or [])
    every = {"gemma2": 2, "gemma3": 6}.get(one.name)
    if every and kinds != [
        ("full" if i % every == every - 1 else "sliding") + "_attention" for i in range(len(kinds))
    ]:
        raise ExportError(
            f"{one.model}: GGUF knows a full layer after each {every - 1} sliding ones, not {kinds}"
        )
    flags = list(getattr(config, "no_rope_layers", None) or [])
    if one.name == "smollm3" and flags != [int((i + 1) % 4 != 0) for i in range(len(flags))]:
        raise ExportError(
            f"{one.model}: GGUF leaves each fourth layer without positions, not those of {flags}"
        )


@functools.cache
def _rows() -> dict[str, Any]:
    text = files("luthier.gguf").joinpath("architectures.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
