"""A merged model's files, tensor by tensor: memory holds one of them, whatever the model's size.

Each weight is read from the base's files, taken to float32, changed by each adapter in turn, rounded once and
written. The format is described in https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from luthier.errors import ExportError
from luthier.model import files, load, locate
from luthier.model.methods import skeleton
from luthier.model.methods.skeleton import Edit, Whole
from luthier.runs import atomic, space
from luthier.streams import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config

KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
_SILENT = 5.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Piece:
    """One tensor of the result. make(): its value, in `shape` and `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def plan(merged: PreTrainedModel, config: Config, dtype: torch.dtype) -> list[Piece]:
    """What to write, by name. Only names and shapes of `merged` are looked at, so it may go before writing.

    Raises `Whole`, saying why, where the result cannot be made of the base's files one weight at a time.
    """
    if not type(merged).__module__.startswith("transformers."):
        raise Whole("the model's code is not of transformers")
    from luthier.model.methods import peft

    adapters = config.adapter_name_or_path and peft.chain(config.adapter_name_or_path, config)
    edits = skeleton.edits(merged, adapters, config) if adapters else []
    written, disk = _written(merged), _disk(config)
    unknown = {name for one in edits for name in one} - {own for own, *_ in written.values()} - _tied(merged)
    if unknown:
        raise Whole(f"{min(unknown)} lies otherwise in the files than in the model")
    found = []
    for name, (own, shape, kind) in sorted(written.items()):
        changes = [one[own] for one in edits if own in one]
        last = max((i for i, edit in enumerate(changes) if edit.replaces), default=None)
        source = None if last is not None else _source(name, own, shape, disk, merged)
        target = dtype if kind.is_floating_point else kind
        found.append(Piece(name, shape, target, _making(source, changes[last or 0 :], target)))
    return found


def _making(
    source: tuple[Path, str] | None, changes: Sequence[Edit], dtype: torch.dtype
) -> Callable[[], Tensor]:
    """source: file and name of the base's weight, None where the first change replaces it."""

    def make() -> Tensor:
        value = None if source is None else _read(*source)
        for change in changes:
            value = change.make(None if value is None else value.float())
        assert value is not None
        return value.to(dtype)

    return make


def _read(file: Path, name: str) -> Tensor:
    """Opened for each tensor: what was read of a file counts as memory for as long as the file is open."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        found: Tensor = opened.get_tensor(name).clone()
        return found


def _tied(model: PreTrainedModel) -> set[str]:
    """Names of weights that are others by another name, and are not written."""
    state, pairs = model.state_dict(), getattr(model, "all_tied_weights_keys", None) or {}
    return {
        other
        for other, first in pairs.items()
        if other in state and first in state and state[other].data_ptr() == state[first].data_ptr()
    }


def _written(model: PreTrainedModel) -> dict[str, tuple[str, tuple[int, ...], torch.dtype]]:
    """Name in the files -> (name in the model or "" where it is a part of a weight, shape, dtype)."""
    from transformers.core_model_loading import revert_weight_conversion as reverted

    left_out = _tied(model) | set(model._keys_to_ignore_on_save or ())
    state = {k: v.to("meta") for k, v in model.state_dict().items() if k not in left_out}
    whole = reverted(model, dict(state))
    if whole.keys() == state.keys():
        own = {name: name for name in state}
    else:
        alone = {name: list(reverted(model, {name: value})) for name, value in state.items()}
        own = {names[0]: name for name, names in alone.items() if len(names) == 1}
    return {name: (own.get(name, ""), tuple(value.shape), value.dtype) for name, value in whole.items()}


def _disk(config: Config) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Name of a weight -> the base's file that it is in, and its shape there."""
    folder = folder_of(config)
    named = getattr(load.settings(config), "transformers_weights", None)
    return {
        name: (file, shape)
        for file in files.weights(folder, named)
        for name, shape in files.header(file)[1].items()
    }


def count(config: Config) -> int:
    """Numbers in the base's files. Raises ModelError."""
    return sum(math.prod(shape) for _, shape in _disk(config).values())


def describe(merged: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """config.json and generation_config.json of what will be written."""
    merged.config.dtype = str(dtype).removeprefix("torch.")  # as transformers itself does
    merged.config.architectures = [type(merged).__name__]
    merged.config.save_pretrained(str(folder))
    if merged.generation_config is not None:
        merged.generation_config.save_pretrained(str(folder))


def folder_of(config: Config) -> Path:
    """The base's directory; of a hub's model the one in the cache, where loading has put it."""
    name = locate.model(str(config.model_name_or_path), config)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name, revision=config.model_revision, cache_dir=config.cache_dir, local_files_only=True
        )
    )


def _source(
    name: str, own: str, shape: tuple[int, ...], disk: Mapping[str, Any], model: PreTrainedModel
) -> tuple[Path, str]:
    """Where the base's value lies: under its name, or that of the matrix with which it was one."""
    called = {module: part for part, module in model.named_modules()}
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    inputs, outputs = (f"{called.get(end, '')}.weight" for end in ends)
    if name not in disk and own == outputs:
        name = inputs
    if name not in disk:
        raise Whole(f"the base's files have no {name}")
    if disk[name][1] != shape:
        raise Whole(f"{name} has another shape in the base's files")
    return disk[name][0], name


def write(pieces: Sequence[Piece], folder: Path, largest: int) -> None:
    """model.safetensors, or shards of at most `largest` bytes (a larger tensor is alone) and their index."""
    shards = list(_shards(pieces, largest))
    total = sum(piece.bytes for piece in pieces)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [files.WEIGHTS]
    told = _Told(total)
    for name, shard in zip(names, shards, strict=True):
        _file(folder / name, shard, told)
    if len(shards) > 1:
        where = {piece.name: name for name, shard in zip(names, shards, strict=True) for piece in shard}
        size = {"total_parameters": sum(math.prod(p.shape) for p in pieces), "total_size": total}
        atomic.write_json(folder / files.INDEX, {"metadata": size, "weight_map": where})


def _shards(pieces: Sequence[Piece], largest: int) -> Iterator[list[Piece]]:
    shard: list[Piece] = []
    for piece in pieces:
        if shard and sum(one.bytes for one in shard) + piece.bytes > largest:
            yield shard
            shard = []
        shard.append(piece)
    yield shard


def _file(path: Path, pieces: Sequence[Piece], told: _Told) -> None:
    # Wide numbers first, so that each begins at a multiple of its size; the header ends at one of 8.
    ordered = sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for piece in ordered:
        begin, end = end, end + piece.bytes
        header[piece.name] = {
            "dtype": KINDS[piece.dtype], "shape": list(piece.shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in ordered:
            value = piece.make().contiguous()
            if tuple(value.shape) != piece.shape:
                raise ExportError(
                    f"{piece.name}: has the shape {tuple(value.shape)}, planned was {piece.shape}"
                )
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)
            told.more(piece.bytes)


class _Told:
    """How far the writing is, every few seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.began = self.last = time.monotonic()

    def more(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last > _SILENT:
            self.last = now
            left = (now - self.began) / self.done * (self.total - self.done)
            say(f"merging: {self.done / self.total:.0%} of {space.shown(self.total)}, eta {left:.0f} s")
