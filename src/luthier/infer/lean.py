"""The forward pass of Llama's descendants in as few operations as inference needs.

transformers' own pass repeats keys and values for every query head, builds a mask for each layer, normalises
in eight steps, and carries the whole prompt through a last layer of which one position is read. This one
calls the same modules (so adapters and quantized layers count) and leaves that out: on a CPU a fifth of the
time of a small model, on a GPU most of the launches of a decoding step.

Who may use it is decided by what a model is made of, and then by computing: a model whose logits differ from
its own forward pass is left to transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from luthier.infer import caches
from luthier.model.attention import BLOCKS

FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference of logits, relative to the largest logit; what is not listed has 8 bits or so."""
_CLOSE_IN_HALF = 0.05


def of(model: Any) -> Lean | None:
    """The lean pass of a model, or None where it would not be the model's own."""
    base = caches.base_model(model)
    if not _known(base):
        return None
    lean = Lean(base)
    return lean if _equal(base, lean) else None


class Lean:
    """The pass. It keeps no weights: what training changes, it sees."""

    def __init__(self, base: Any) -> None:
        self._inner, self._head = base.model, base.lm_head

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Any, last: bool = True) -> Tensor:
        """ids, positions [rows, n], mask [rows, columns of the cache with these n] -> logits [rows, V].

        With `last` false [rows, n, V]. `cache` (transformers') grows by the n columns.
        """
        return self.logits(self.hidden(ids, positions, visible(mask, ids.shape[1]), cache, last))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., width] -> [..., V]"""
        found: Tensor = self._head(hidden)
        return found

    def hidden(
        self, ids: Tensor, positions: Tensor, seen: Tensor | None, cache: Any, last: bool = True
    ) -> Tensor:
        """What the head reads: [rows, width] of the last position, or [rows, n, width] of all.

        seen: bool [rows or 1, n, columns], which columns each position attends to; None is all of them.
        """
        inner = self._inner
        device = inner.embed_tokens.weight.device
        x: Tensor = inner.embed_tokens(ids.to(device))
        turn = _turn(inner.rotary_emb, x, positions)
        bias = None if seen is None else _bias(seen.to(device), x.dtype)
        for index, layer in enumerate(inner.layers):
            tail = last and index == len(inner.layers) - 1
            x = _attend(layer, x, turn, bias, cache, tail)
            h = _norm(layer.post_attention_layernorm, x)
            mlp = layer.mlp
            gate = F.silu(mlp.gate_proj(h), inplace=True)
            x = mlp.down_proj(gate.mul_(mlp.up_proj(h))).add_(x)
        return _norm(inner.norm, x[:, 0] if last else x)


def visible(mask: Tensor, new: int) -> Tensor | None:
    """mask [rows, columns], 0 where there is padding -> bool [rows or 1, new, columns]; None shows all.

    The last `new` columns are the positions that look. A padded one sees itself, so that it stays finite.
    """
    whole = bool(mask.all())
    if whole and new == 1:
        return None
    before = torch.ones(new, mask.shape[1], dtype=torch.bool, device=mask.device).tril(mask.shape[1] - new)
    if whole:
        return before[None]
    itself = before & ~before.tril(mask.shape[1] - new - 1)
    return (before & mask.bool()[:, None]) | itself


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores: 0 where a column is seen. [rows or 1, n, columns]"""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def _attend(
    layer: Any, x: Tensor, turn: tuple[Tensor, Tensor], bias: Tensor | None, cache: Any, tail: bool
) -> Tensor:
    """x [rows, n, width] -> x plus attention, of the last position alone where `tail`.

    The query heads that share keys stand side by side as more queries of one head, so that neither keys nor
    values are repeated.
    """
    attention = layer.self_attn
    h = _norm(layer.input_layernorm, x)
    heads = (*h.shape[:2], -1, attention.head_dim)
    key = _turned(_normed(attention, "k_norm", attention.k_proj(h).view(heads)), turn)
    value = attention.v_proj(h).view(heads)
    keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), attention.layer_idx)
    if tail and h.shape[1] > 1:
        # In one piece: for a slice, a product would copy the weights for each row.
        h, x, turn = h[:, -1:].contiguous(), x[:, -1:], (turn[0][:, -1:], turn[1][:, -1:])
        bias = None if bias is None else bias[:, -1:]
    rows, n = h.shape[:2]
    query = _turned(
        _normed(attention, "q_norm", attention.q_proj(h).view(rows, n, -1, attention.head_dim)), turn
    )
    groups = query.shape[2] // keys.shape[1]
    query = query.view(rows, n, -1, groups, heads[-1]).permute(0, 2, 3, 1, 4).flatten(2, 3)
    if bias is not None:
        bias = bias[:, None] if n == 1 else bias.repeat(1, groups, 1)[:, None]
    found = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=attention.scaling)
    found = found.view(rows, -1, groups, n, heads[-1]).permute(0, 3, 1, 2, 4).reshape(rows, n, -1)
    added: Tensor = attention.o_proj(found).add_(x)
    return added


def _norm(norm: Any, x: Tensor) -> Tensor:
    """RMSNorm (Zhang and Sennrich 2019), in float32 at least.

    A GPU has one kernel for it; on a CPU torch takes it apart, and these parts take a third of the time.
    """
    if x.device.type != "cpu":
        return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    scale = length.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    found: Tensor = (x.to(wide) * scale).mul_(norm.weight.to(wide)).to(x.dtype)
    return found


def _normed(attention: Any, name: str, heads: Tensor) -> Tensor:
    """Qwen3 normalises each head."""
    norm = getattr(attention, name, None)
    return heads if norm is None else _norm(norm, heads)


def _turn(rotary: Any, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` [rows, n] -> [rows, n, 1, D], computed once for each position."""
    there, place = torch.unique(positions, return_inverse=True)
    cos, sin = rotary(x, there[None].to(x.device))
    place = place.to(x.device)
    return cos[0][place][:, :, None], sin[0][place][:, :, None]


def _turned(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions (Su et al. 2021), first half of a head against its second. heads [rows, n, H, D]"""
    cos, sin = turn
    half = heads.shape[-1] // 2
    a, b = heads[..., :half], heads[..., half:]
    out = heads * cos
    out[..., :half].addcmul_(b, sin[..., :half], value=-1)
    out[..., half:].addcmul_(a, sin[..., half:])
    return out


# --- who may use it


def _known(base: Any) -> bool:
    config = base.config
    if config.model_type not in FAMILIES or config.hidden_act != "silu":
        return False
    if config._attn_implementation not in ("sdpa", BLOCKS):
        return False
    if caches.windows(base) or len({p.device for p in base.parameters()}) != 1:
        return False
    if not all(map(_built, base.model.layers)) or not all(map(_plain, _passed_over(base))):
        return False
    # Where norms are kept in another precision than the rest, transformers' promotions count.
    return {p.dtype for name, p in base.named_parameters() if "norm" in name} == {
        base.model.embed_tokens.weight.dtype
    }


def _built(layer: Any) -> bool:
    """Whether a layer has the parts that are called here, and no others."""
    attention = {name for name, _ in layer.self_attn.named_children()} - {"q_norm", "k_norm"}
    parts = ({name for name, _ in layer.named_children()}, {name for name, _ in layer.mlp.named_children()})
    return attention == _ATTENTION and parts == (_LAYER, _MLP)


def _passed_over(base: Any) -> Iterator[nn.Module]:
    """The modules whose own forward is not called."""
    yield from (base, base.model, base.model.norm)
    for layer in base.model.layers:
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        yield from (layer, layer.self_attn, layer.mlp, *norms)


def _plain(module: nn.Module) -> bool:
    """Whether nothing was hung on a module that would be passed over with it."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


@torch.inference_mode()
def _equal(base: Any, lean: Lean) -> bool:
    """Whether both passes give the same logits: two rows, one of them padded, then one token more."""
    size, device = base.config.vocab_size, base.device
    ids = torch.arange(2, 20).view(2, 9).mul_(7).remainder_(size).to(device)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp_(min=0).to(device)
    want = base(input_ids=ids, attention_mask=mask.to(device), position_ids=positions).logits[:, -2:]
    cache = caches.new_cache(base)
    found = [
        lean(ids[:, :-1], positions[:, :-1], mask[:, :-1], cache),
        lean(ids[:, -1:], positions[:, -1:], mask, cache),
    ]
    close = _CLOSE.get(want.dtype, _CLOSE_IN_HALF) * want.abs().max()
    return bool((torch.stack(found, dim=1) - want).abs().max() <= close)
