"""Weights as GGUF wants them: names, which of them are put together, and in which number format.

Each tensor is described first and made only when it is written, so memory holds one of them at a time.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from luthier.errors import ExportError, MissingPackage
from luthier.gguf import architectures
from luthier.gguf.architectures import Architecture
from luthier.model import files

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Array = npt.NDArray[Any]
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ENDS_F16 = 65520.0  # what is smaller is rounded to 65504, the largest value of float16
_PART = 4 << 20  # bytes that are read at a time; a multiple of every type's size
_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(\w+_proj)\.weight$")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file. kind: "f32", "f16" or "bf16" · make(): its values in the order of `shape`, part
    by part where they are many, in whatever type of floating point."""

    name: str
    shape: tuple[int, ...]
    kind: str
    make: Callable[[], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: begin is a byte of the file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int


class Weights:
    """The safetensors files of a model directory, read part by part and never mapped into memory.

    Raises ModelError where there are none, or where one that the index names is missing or cut off.
    """

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, _Place] = {}
        for path in files.weights(folder):  # these are checked: what their heads say is so
            with open(path, "rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                told = json.loads(file.read(size))
            for name, one in told.items():
                if name != "__metadata__":
                    begin = 8 + size + int(one["data_offsets"][0])
                    dtype = _DTYPES.get(one["dtype"])
                    if dtype is None:
                        raise ExportError(f"{path}: {name} has type {one['dtype']}, which is not read")
                    self._places[name] = _Place(path, dtype, tuple(one["shape"]), begin)

    def names(self) -> list[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ExportError for a weight that is not there."""
        if name not in self._places:
            raise ExportError(f"{name}: is not among the weights; a causal language model has one")
        return self._places[name].shape

    def get(self, name: str) -> torch.Tensor:
        """Float32, whatever the file has."""
        return torch.cat(list(self.parts(name))).reshape(self.shape(name)).float()

    def parts(self, name: str) -> Iterator[torch.Tensor]:
        """The values in the file's own type, some megabytes at a time, flat."""
        place = self._places[name]
        left = math.prod(place.shape) * place.dtype.itemsize
        with open(place.file, "rb", buffering=0) as file:
            file.seek(place.begin)
            while left:
                part = bytearray(min(left, _PART))
                if file.readinto(part) != len(part):
                    raise ExportError(f"{place.file}: has become shorter while it was read")
                left -= len(part)
                yield torch.frombuffer(part, dtype=place.dtype)


def plan(weights: Weights, config: PretrainedConfig, one: Architecture, kind: str) -> list[Tensor]:
    """All tensors of the file, by layer. Raises ExportError for a weight that has no place in it."""
    named = places(config, one)

    def place(source: str) -> str:
        found = named(source)
        if found is None:
            raise ExportError(f"{source}: GGUF's {one.name!r} has no place for this weight")
        return found

    tied = bool(config.tie_word_embeddings)
    plain = [n for n in weights.names() if not _EXPERT.match(n) and not (tied and n == "lm_head.weight")]
    found = [_plain(weights, n, place(n), config, one, kind) for n in plain]
    found += _experts(weights, place, kind)
    found += _frequencies(config, one)
    return sorted(found, key=lambda tensor: _order(tensor.name))


def places(config: PretrainedConfig, one: Architecture) -> Callable[[str], str | None]:
    """A weight's name in transformers -> its name in GGUF, None where it has none. Raises MissingPackage."""
    try:
        import gguf
    except ImportError as error:
        raise MissingPackage("gguf", "writing GGUF files", "gguf") from error
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == one.name)
    names = gguf.get_tensor_name_map(number, int(config.num_hidden_layers))
    return lambda source: names.get_name(source, try_suffixes=(".weight", ".bias"))


def _plain(
    weights: Weights, source: str, name: str, config: PretrainedConfig, one: Architecture, kind: str
) -> Tensor:
    shape = weights.shape(source)
    moved = change(source, config, one)
    if shape[:1] == (1,) and len(shape) == 2 and "shared_expert_gate" in source:
        shape = shape[1:]

    def make() -> Iterable[torch.Tensor]:
        return weights.parts(source) if moved is _same else [moved(weights.get(source))]

    # What is added or multiplied, and what chooses experts, stays exact; so llama.cpp expects it.
    exact = len(shape) == 1 or name.endswith("ffn_gate_inp.weight")
    return Tensor(name, shape, "f32" if exact else kind, make)


def change(
    source: str, config: PretrainedConfig, one: Architecture
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a weight's values become in GGUF: rows are moved, or all is scaled, so B of a LoRA fits, too."""
    part = source.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    if one.rotate and part in heads:
        return lambda value: _pairs(value, int(heads[part]))
    scale = _query_scale(config, one)
    if one.plus_one and source.endswith("norm.weight"):
        factor = scale if part == "q_norm" else 1.0
        return lambda value: (value + 1) * factor
    if scale != 1.0 and part == "q_proj" and one.name != "gemma3":
        return lambda value: value * scale
    return _same


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


def _pairs(value: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from (first halves, second halves) of the rotated pairs to adjacent pairs."""
    halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def _query_scale(config: PretrainedConfig, one: Architecture) -> float:
    """gemma divides queries by sqrt(query_pre_attn_scalar), llama.cpp by what the model's size tells it."""
    if one.name not in ("gemma2", "gemma3"):
        return 1.0
    largest = {"gemma2": 46, "gemma3": 62}[one.name]
    taken = architectures.head_dim(config)
    if int(config.num_hidden_layers) == largest:
        taken = int(config.hidden_size) // int(config.num_attention_heads)
    return math.sqrt(taken / float(config.query_pre_attn_scalar))


def _experts(weights: Weights, place: Callable[[str], str], kind: str) -> Iterator[Tensor]:
    """The experts of a layer as one tensor [experts, rows, columns] of each projection."""
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for name in weights.names():
        if found := _EXPERT.match(name):
            groups.setdefault((found[1], found[3]), {})[int(found[2])] = name
    for (head, projection), members in groups.items():
        if sorted(members) != list(range(len(members))):
            raise ExportError(f"{head}: experts {sorted(members)} are not all there")
        sources = [members[i] for i in range(len(members))]
        shape = (len(sources), *weights.shape(sources[0]))
        yield Tensor(place(f"{head}.{projection}.weight"), shape, kind, _stacked(weights, sources))


def _stacked(weights: Weights, sources: Sequence[str]) -> Callable[[], Iterable[torch.Tensor]]:
    return lambda: (part for name in sources for part in weights.parts(name))


def _frequencies(config: PretrainedConfig, one: Architecture) -> list[Tensor]:
    """Factors by which rotary frequencies are divided, where the model scales each otherwise."""
    told = architectures.rope(config)
    kind = told.get("rope_type", "default")
    size = architectures.rotated(config, one) // 2
    if kind == "llama3":
        values = {"rope_freqs.weight": llama3(told, size)}
    elif kind == "longrope":
        values = {
            f"rope_factors_{name}.weight": np.asarray(told[f"{name}_factor"], np.float32)
            for name in ("long", "short")
        }
    else:
        return []
    return [
        Tensor(name, (len(value),), "f32", lambda value=value: [torch.from_numpy(value)])  # type: ignore[misc]
        for name, value in values.items()
    ]


def llama3(told: Mapping[str, Any], size: int) -> Array:
    """What each rotary frequency of Llama 3.1 is divided by [size]: transformers' `rope_type: llama3`."""
    theta = float(told.get("rope_theta", 10000.0))
    inverse = theta ** (-np.arange(size, dtype=np.float64) / size)
    length = 2 * np.pi / inverse
    old = float(told["original_max_position_embeddings"])
    low, high, factor = (float(told[f"{name}factor"]) for name in ("low_freq_", "high_freq_", ""))
    smooth = (old / length - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(length < old / high, 1.0, np.where(length > old / low, factor, between))
    return found.astype(np.float32)


def _order(name: str) -> tuple[int, int, str]:
    parts = name.split(".")
    return (1, int(parts[1]), name) if parts[0] == "blk" else (0, 0, name)


def encode(value: torch.Tensor, kind: str) -> Array:
    """Values as in the file: float32, float16, or bfloat16 (as uint16). Raises ExportError on overflow."""
    value = value.contiguous()
    if kind == "f32":
        return value.float().numpy()
    if kind == "f16":
        if value.dtype != torch.float16:
            least, most = torch.aminmax(value)
            if not float(torch.maximum(-least, most)) < _ENDS_F16:
                raise ExportError("a weight is no number, or too large for float16 -> --quant bf16")
        return value.half().numpy()
    return value.bfloat16().view(torch.uint16).numpy()
