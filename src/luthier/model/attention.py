"""The one door from a batch to a model: tree masks for each attention backend, logits only where needed.

Two layouts, the first that the model can express (`luthier.train.probe` finds out by computing, not by name):

- `tree`: the row as it is. Small rows carry one boolean mask [T, T]; large ones go node by node
  through an attention function registered with transformers, so that no work is spent on pairs
  which the mask would hide.
- `padded`: one sequence a line, right-padded: for models that mix positions otherwise (state space,
  linear attention), where a tree has no meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

BLOCKS = "luthier_blocks"
DENSE_BELOW = 512
"""Rows shorter than this always take the dense mask: one kernel beats many small ones."""
WASTE = 4
"""Go node by node when the dense mask would compute more than this many times the visible pairs."""


class Row(Protocol):
    """What is read of a batch (`luthier.data.batch.Batch`, which describes the fields)."""

    @property
    def ids(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...
    @property
    def node(self) -> Tensor: ...
    @property
    def parent(self) -> Tensor: ...
    @property
    def bounds(self) -> Tensor: ...
    @property
    def rows(self) -> Tensor: ...
    @property
    def is_chain(self) -> bool: ...


@dataclass(frozen=True, eq=False)
class Tree:
    """What the node-by-node attention needs: sizes of the nodes, the path of each, positions [T]."""

    sizes: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    positions: Tensor

    @property
    def area(self) -> int:
        """Query-key pairs that node-by-node attention computes."""
        return sum(self.sizes[path[-1]] * sum(self.sizes[n] for n in path) for path in self.paths)


def tree_of(batch: Row) -> Tree:
    parent = batch.parent.tolist()
    paths: list[tuple[int, ...]] = []
    for node, above in enumerate(parent):
        paths.append((*paths[above], node) if above >= 0 else (node,))
    sizes = (batch.bounds[:, 1] - batch.bounds[:, 0]).tolist()
    return Tree(tuple(sizes), tuple(paths), batch.positions)


def blocks_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of each node to its path. query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D].

    Without a `tree` among the keyword arguments it is transformers' own sdpa attention.
    """
    tree: Tree | None = kwargs.pop("tree", None)
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    queries, keys, values, positions = (
        x.split(tree.sizes, dim=-2) for x in (query, key, value, tree.positions[:, None])
    )
    out = []
    for path in tree.paths:
        n = path[-1]
        k = torch.cat([keys[p] for p in path], dim=2) if len(path) > 1 else keys[n]
        v = torch.cat([values[p] for p in path], dim=2) if len(path) > 1 else values[n]
        mask = None
        if len(path) > 1 or window is not None:
            at = torch.cat([positions[p] for p in path])[:, 0]
            mask = _visible(positions[n], at[None], window)
        out.append(
            F.scaled_dot_product_attention(
                queries[n],
                k,
                v,
                attn_mask=mask,
                dropout_p=kwargs.get("dropout", 0.0),
                is_causal=mask is None,
                scale=kwargs.get("scaling"),
                enable_gqa=k.shape[1] != query.shape[1],
            )
        )
    return torch.cat(out, dim=2).transpose(1, 2).contiguous(), None


def _visible(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    """Causal by position along one path; a window hides what lies `window` or more behind."""
    distance = query - key
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def dense_mask(batch: Row, window: int | None = None) -> Tensor:
    """Boolean mask [1, 1, T, T]: True where the query (line) sees the key (column)."""
    parent = batch.parent.tolist()
    above = torch.eye(len(parent), dtype=torch.bool)
    for node, up in enumerate(parent):
        if up >= 0:
            above[node] |= above[up]
    node = batch.node
    on_path = above.to(node.device)[node[:, None], node[None, :]]
    return (on_path & _visible(batch.positions[:, None], batch.positions[None, :], window))[None, None]


def enable(model: nn.Module) -> None:
    """Route the model's attention through `blocks_attention`, where it would have used sdpa."""
    AttentionInterface.register(BLOCKS, blocks_attention)
    AttentionMaskInterface.register(BLOCKS, sdpa_mask)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(BLOCKS)


def forward(model: nn.Module, batch: Row, layout: str = "tree") -> Tensor:
    """Logits [U, V] at `batch.rows`.

    `model` may be wrapped (peft, data parallel); its configuration is read from `.config`.
    """
    if layout == "padded":
        return _padded(model, batch)
    # One plain sequence is what every model expects: no mask, no positions, its fastest kernels.
    tree = (
        {}
        if batch.is_chain
        else {"position_ids": batch.positions[None], **_mask_inputs(config_of(model), batch)}
    )
    return model(input_ids=batch.ids[None], use_cache=False, logits_to_keep=batch.rows, **tree).logits[0]


def config_of(model: nn.Module) -> Any:
    return getattr(model, "module", model).config


def _mask_inputs(config: Any, batch: Row) -> dict[str, Any]:
    length = batch.ids.shape[0]
    backend = config._attn_implementation
    if backend == BLOCKS and length >= DENSE_BELOW:
        tree = tree_of(batch)
        if length * length > WASTE * tree.area:
            # A prepared 4-D mask keeps transformers from building one; the attention function ignores it.
            return {
                "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch.ids.device),
                "tree": tree,
            }
    as_given = _additive if backend == "eager" else (lambda mask, like: mask)
    full = as_given(dense_mask(batch), model_dtype(config))
    window = getattr(config, "sliding_window", None)
    if window is None or int(batch.positions.max()) < window:
        return {"attention_mask": full}
    windowed = as_given(dense_mask(batch, window), model_dtype(config))
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if kinds == {"full_attention"}:
        return {"attention_mask": full}
    if kinds == {"sliding_attention"} and not getattr(config, "layer_types", None):
        return {"attention_mask": windowed}
    return {"attention_mask": {"full_attention": full, "sliding_attention": windowed}}


def model_dtype(config: Any) -> torch.dtype:
    return getattr(config, "dtype", None) or torch.float32


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def _padded(model: nn.Module, batch: Row) -> Tensor:
    """One sequence a line. Pads stand at the end, where a causal model cannot see them."""
    starts, ends = batch.bounds.unbind(1)
    if (batch.parent >= 0).any():
        raise ValueError("the padded layout needs a batch without shared prefixes")
    sizes = ends - starts
    lines, width = len(sizes), int(sizes.max())
    column = batch.positions
    line = batch.node
    ids = batch.ids.new_zeros(lines, width)
    ids[line, column] = batch.ids
    seen = torch.zeros(lines, width, dtype=torch.long, device=ids.device)
    seen[line, column] = 1
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
    return logits[line[batch.rows], column[batch.rows]]
