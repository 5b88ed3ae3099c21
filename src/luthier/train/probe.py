"""Which layout a model can express, found by computing: names of model families say too little."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from luthier.data.batch import Flat, build
from luthier.model.attention import config_of, forward

SHARED = 12
"""Tokens of the prefix that the two probing sequences share; more than `batch.MIN_SHARED`."""


@torch.no_grad()
def layout_of(model: nn.Module) -> str:
    """Find the layout that a model can express, by comparing a tiny tree with separate sequences.

    Returns "tree" or "padded". Two sequences share a prefix; if the logits of the tree differ from
    those of the sequences alone by more than rounding, the model mixes positions in a way of its own.
    """
    training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        rng = torch.Generator().manual_seed(0)
        size = min(int(config_of(model).get_text_config().vocab_size), 1000)
        trunk, a, b = (torch.randint(0, size, (n,), generator=rng).numpy() for n in (SHARED, 9, 5))
        flats = [_flat(trunk, tail, k) for k, tail in enumerate((a, b))]
        together = forward(model, build(flats).to(device))
        alone = torch.cat(
            [forward(model, build([flat]).to(device)) for flat in sorted(flats, key=_first_tail)]
        )
        scale = alone.float().std().clamp_min(1e-6)
        worst = (together.float() - alone.float()).abs().max() / scale
        limit = 1e-3 if together.dtype == torch.float32 else 0.2
        return "tree" if bool(worst < limit) else "padded"
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return "padded"
    finally:
        model.train(training)


def _first_tail(flat: Flat) -> int:
    return int(flat.ids[SHARED])


def _flat(trunk: np.ndarray, tail: np.ndarray, k: int) -> Flat:
    ids = np.concatenate([trunk, tail]).astype(np.int32)
    mask = np.zeros(len(ids), np.float32)
    mask[len(trunk) + 1 :] = 1.0
    return Flat(ids, mask, k, 0, "probe")
