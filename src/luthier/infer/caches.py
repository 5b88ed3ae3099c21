"""Keys and values between forward passes: lent to many rows, reordered, measured; and who has them."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

MAX_ROWS = 128
CPU_BYTES = 2 << 30
"""Memory for keys, values and logits where the device does not say how much of it is free."""


@dataclass(frozen=True)
class Start:
    """Keys and values of the `shared` first tokens of every prompt, for one row; never written to."""

    cache: Any
    shared: int


@dataclass
class State:
    """A batch between two passes. mask [rows, columns of the cache], lengths [rows] in real tokens."""

    cache: Any
    mask: Tensor
    lengths: Tensor

    def select(self, rows: list[int]) -> State:
        """The rows listed, in that order; a row may be taken several times."""
        index = torch.tensor(rows)
        self.cache.reorder_cache(index)
        return State(self.cache, self.mask[index], self.lengths[index])


class Roomy(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values with room for more behind them, so that a step writes one column.

    transformers' own layer copies everything at each step, which over an answer of n tokens is n^2 work.
    """

    _room: tuple[Tensor, Tensor] | None = None
    keys: Any
    values: Any

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [rows, heads, n, size]; returns all keys and values (views of the room)."""
        used = self.get_seq_length()
        end = used + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._room is None or end > self._room[0].shape[-2]:
            columns = end + max(16, end // 4)
            self._room = _empty(key_states, columns), _empty(value_states, columns)
            if used:
                self._room[0][..., :used, :] = self.keys
                self._room[1][..., :used, :] = self.values
        self._room[0][..., used:end, :] = key_states
        self._room[1][..., used:end, :] = value_states
        self.keys, self.values = (room[..., :end, :] for room in self._room)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        """Keep these rows, with their room."""
        if self._room is None:
            super().reorder_cache(beam_idx)
            return
        used = self.get_seq_length()
        index = beam_idx.to(self._room[0].device)
        self._room = self._room[0].index_select(0, index), self._room[1].index_select(0, index)
        self.keys, self.values = (room[..., :used, :] for room in self._room)


def _empty(like: Tensor, columns: int) -> Tensor:
    return like.new_empty((*like.shape[:-2], columns, like.shape[-1]))


def lend(cache: Any, rows: int) -> Any:
    """A cache of `rows` rows that begins with this one's keys and values, without copying them.

    A lent layer has no room of its own yet, so it grows into new tensors and what was lent stays as it is.
    """
    lent = copy.copy(cache)
    lent.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in lent.layers:
        if isinstance(layer, Roomy):
            layer._room = None
        if layer.keys is not None:
            layer.keys = layer.keys.expand(rows, *layer.keys.shape[1:])
            layer.values = layer.values.expand(rows, *layer.values.shape[1:])
    return lent


def base_model(model: Any) -> Any:
    """The transformers model inside a PEFT model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def new_cache(model: Any) -> Any:
    """An empty cache with the kinds of layers that the model asks for."""
    cache = DynamicCache(config=base_model(model).config)
    cache.layers = [_roomy(layer) for layer in cache.layers]
    return cache


def _roomy(layer: Any) -> Any:
    return Roomy() if type(layer) is DynamicLayer else layer  # type: ignore[no-untyped-call]


def windows(model: Any) -> list[int]:
    """Widths of the model's sliding windows, in tokens; [] where every layer sees everything."""
    layers = new_cache(model).layers
    return [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]


def expressible(model: Any) -> bool:
    """Whether our own loop can express the model: plain or sliding attention, positions as input."""
    adapters = getattr(model, "peft_config", {})
    if any(getattr(config, "is_prompt_learning", False) for config in adapters.values()):
        return False
    parameters = inspect.signature(base_model(model).forward).parameters
    if not {"position_ids", "past_key_values", "attention_mask"} <= set(parameters):
        return False
    return all(type(layer) in (Roomy, DynamicSlidingWindowLayer) for layer in new_cache(model).layers)


def context_length(model: Any) -> int:
    """Tokens that the model can read; without a limit of its own, as many as anyone will feed."""
    config = base_model(model).config.get_text_config(decoder=True)
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def rows_in_memory(model: Any, tokens: int) -> int:
    """Rows of that many tokens whose keys, values and logits fit into half of the free memory."""
    base = base_model(model)
    config = base.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row = 2 * config.num_hidden_layers * heads * size * base.dtype.itemsize * tokens + 8 * config.vocab_size
    free = torch.cuda.mem_get_info(base.device)[0] // 2 if base.device.type == "cuda" else CPU_BYTES
    # Where the room is used up, everything is copied into more: half of the memory holds the new one.
    return int(max(1, min(MAX_ROWS, free // (2 * row))))
