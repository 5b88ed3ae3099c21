"""Which number format each weight of a quantized GGUF file gets; the rules lie in mixtures.yaml."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from luthier.errors import UsageError
from luthier.gguf.read import Header, TensorInfo

_LAYER = re.compile(r"blk\.(\d+)\.(\w+?)(?:_exps|_shexp)?\.weight$")
_EXACT = ("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")
BLOCK = {"q4_0": 32, "q4_1": 32, "q5_0": 32, "q5_1": 32, "q8_0": 32, "iq4_nl": 32}
"""Values of a block; 256 of all other quantized formats."""
NEED_IMPORTANCE = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s")
"""Formats that cannot be made without an importance matrix."""


@dataclass(frozen=True)
class Model:
    """What the rules ask of a model. gqa4: four query heads share a key · tied: the output is the embedding ·
    importance: there is an importance matrix."""

    layers: int
    gqa4: bool
    tied: bool
    importance: bool


def kinds() -> tuple[str, ...]:
    """The quantized kinds, from large to small."""
    return tuple(_rules()["kinds"])


def check(kind: str, importance: bool) -> None:
    """Raise UsageError where there is no such kind, or it needs an importance matrix."""
    if kind not in kinds():
        raise UsageError(f"--quant {kind}: there is no such kind -> one of {', '.join(kinds())}")
    used = _formats(kind)
    if not importance and any(one in NEED_IMPORTANCE for one in used):
        raise UsageError(f"--quant {kind}: needs an importance matrix -> --importance true")


def model(head: Header, importance: bool) -> Model:
    """What a file's metadata say about these."""
    told, name = head.metadata, head.architecture
    heads = int(told[f"{name}.attention.head_count"])
    keys = int(told.get(f"{name}.attention.head_count_kv", heads))
    experts = int(told.get(f"{name}.expert_count", 0))
    tied = all(tensor.name != "output.weight" for tensor in head.tensors)
    return Model(int(told[f"{name}.block_count"]), heads // keys >= 4 or experts >= 4, tied, importance)


def plan(head: Header, kind: str, importance: bool = False) -> dict[str, str]:
    """Name of each tensor -> format: "f32" and "f16" stay as they are. Raises UsageError, see `check`."""
    check(kind, importance)
    about = model(head, importance)
    return {tensor.name: _format(tensor, kind, about) for tensor in head.tensors}


def _format(tensor: TensorInfo, kind: str, about: Model) -> str:
    if len(tensor.shape) < 2 or not tensor.name.endswith(".weight") or tensor.name.endswith(_EXACT):
        return "f32"
    wanted = _wanted(tensor.name, kind, about)
    columns = tensor.shape[-1]
    if columns % BLOCK.get(wanted, 256):
        wanted = _rules()["narrow"].get(wanted, wanted)
    return "f16" if columns % BLOCK.get(wanted, 256) else wanted


def _wanted(name: str, kind: str, about: Model) -> str:
    rules = _rules()["kinds"][kind]
    base: str = rules["base"]
    if name == "output.weight" or (about.tied and name == "token_embd.weight"):
        return rules.get("output") or ("q8_0" if base == "q8_0" else "q6_k")
    if name == "token_embd.weight":
        return str(rules.get("token_embd", base))
    found = _LAYER.match(name)
    if found is None:
        return base
    for condition, given in rules.get(found[2], []):
        if all(_holds(one, int(found[1]), about) for one in condition.split("+")):
            return str(given)
    return base


def _holds(condition: str, layer: int, about: Model) -> bool:
    n = about.layers
    eighth = n // 8
    first, last = layer < eighth, layer >= 7 * n // 8
    return {
        "all": True,
        "more": first or last or (layer - eighth) % 3 == 2,
        "first/8": first,
        "first/16": layer < n // 16,
        "middle": not first and not last,
        "first2": layer < 2,
        "first4": layer < 4,
        "gqa4": about.gqa4,
        "with": about.importance,
        "without": not about.importance,
    }[condition]


def _formats(kind: str) -> Sequence[str]:
    rules = _rules()["kinds"][kind]
    lists = [pair[1] for value in rules.values() if isinstance(value, list) for pair in value]
    return [*lists, *(value for value in rules.values() if isinstance(value, str))]


@functools.cache
def _rules() -> dict[str, Any]:
    text = files("luthier.export").joinpath("mixtures.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
