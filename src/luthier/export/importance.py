"""How much each input of each weight matters, measured on the user's own prompts and answers.

The importance of an input is the mean of its squares over all tokens read (llama.cpp's "imatrix"): rounding
is then finest where it changes most of what the layer computes on such texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from luthier.gguf import architectures
from luthier.gguf.tensors import places

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Importance = dict[str, npt.NDArray[np.float32]]


@torch.inference_mode()
def collect(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Importance:
    """Name of a tensor in GGUF -> mean square of each input, float32 [columns].

    texts: tokens that the model reads, each alone. Experts of a mixture are not looked at, because their
    inputs differ by token; kinds that need an importance matrix cannot be made of them.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    with _watched(model, sums, counts):
        for ids in texts:
            if len(ids):
                model(
                    input_ids=torch.tensor([list(ids)], device=model.device),
                    use_cache=False,
                    logits_to_keep=1,
                )
    config = model.config.get_text_config()
    named = places(config, architectures.of(config))
    found = {}
    for module, total in sums.items():
        name = named(f"{module}.weight")
        if name is not None:
            found[name] = (total / max(counts[module], 1)).float().cpu().numpy()
    if config.tie_word_embeddings and "output.weight" in found:
        found["token_embd.weight"] = found["output.weight"]
    return found


@contextmanager
def _watched(model: nn.Module, sums: dict[str, Tensor], counts: dict[str, int]) -> Iterator[None]:
    """Sum the squares of what every linear layer reads, for as long as the body runs."""

    def hook(name: str) -> object:
        def watch(_: nn.Module, inputs: tuple[Tensor, ...], __: object) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            sums[name] = (
                sums.get(name, torch.zeros(rows.shape[1], dtype=torch.float64)) + rows.square().sum(0).cpu()
            )
            counts[name] = counts.get(name, 0) + rows.shape[0]

        return watch

    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    handles = [part.register_forward_hook(hook(name)) for name, part in linear]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
