"""Are two models the same? Next-token logits on real prompts, and weights to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from luthier.data import prepare, registry
from luthier.errors import DataError
from luthier.runs import Run
from luthier.runs.run import RESOLVED
from luthier.types import BadRow, Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from luthier.config import Config
    from luthier.data.render import Renderer

TOLERANCE = 1e-4
"""Largest difference of a float32 logit between the adapter model and the merged one (usual: 6e-6)."""
FROM_DATA, LENGTH, COMPARED = 6, 256, 64
"""Examples taken from the run's data, tokens of each that are read, last positions that are compared."""
QUESTIONS = (
    "Hello! Who are you?",
    "Write one sentence about the sea.",
    "12 + 30 = ?",
    "你好，请介绍一下你自己。",
)


@dataclass(frozen=True)
class Prompt:
    """Token ids to compare models on. source: "file:row" of the data, or "built-in"."""

    source: str
    ids: tuple[int, ...]


def prompts(config: Config, renderer: Renderer) -> tuple[list[Prompt], list[str]]:
    """Examples that the run was trained on, then built-in questions; and notes on what was not to be had."""
    notes: list[str] = []
    chosen: list[Prompt] = []
    if config.run is not None:
        try:
            chosen = list(_of_run(Path(config.run), renderer))
        except DataError as error:
            first = str(error).splitlines()[0]
            notes.append(
                f"the run's data cannot be read any more, so only built-in prompts are compared: {first}"
            )
    for text in QUESTIONS:
        ids = renderer.prompt([Message("user", text)])
        chosen.append(Prompt("built-in", tuple(int(i) for i in ids[-LENGTH:])))
    return chosen, notes


def _of_run(run: Path, renderer: Renderer) -> Iterable[Prompt]:
    resolved = Run.open(run).read_json(RESOLVED)
    names, stage = resolved.get("dataset") or [], resolved.get("stage") or "sft"
    for spec in registry.specs(names[:1], resolved.get("dataset_dir") or "data", stage=stage):
        rows = (row for row in prepare.examples(spec, stage, limit=4 * FROM_DATA) if isinstance(row, Example))
        for made in renderer.examples(list(islice(rows, FROM_DATA))):
            if isinstance(made, BadRow):
                continue  # training left it out as well
            last = made[-1]
            ids = np.concatenate([part.ids for part in (last.trunk, *last.branches[:1])])
            yield Prompt(last.source, tuple(ids[:LENGTH].tolist()))


@torch.inference_mode()
def logits(model: PreTrainedModel, asked: Sequence[Prompt]) -> list[torch.Tensor]:
    """By prompt, logits of its last positions: float32 [min(length, COMPARED), vocabulary] on the CPU."""
    device = model.get_input_embeddings().weight.device
    found = []
    for prompt in asked:
        ids = torch.tensor([prompt.ids], device=device)
        out = model(input_ids=ids, use_cache=False, logits_to_keep=min(COMPARED, ids.shape[1]))
        found.append(out.logits[0].float().cpu())
    return found


def differences(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> list[float]:
    """Largest absolute difference of a logit, by prompt; infinity where a number is not finite."""
    worst = [float((a - b).abs().max()) for a, b in zip(one, other, strict=True)]
    return [value if np.isfinite(value) else float("inf") for value in worst]


def divergence(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Mean Kullback-Leibler divergence of the next-token distributions, KL(one || other), in nats."""
    total, count = 0.0, 0
    for a, b in zip(one, other, strict=True):
        p, q = a.double().log_softmax(-1), b.double().log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
        count += p.shape[0]
    return total / count


def fingerprints(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, str]:
    """sha256 of every weight as it is in `dtype`, by name: two gigabytes of model compared in a few bytes."""
    return {
        name: hashlib.sha256(_bytes(tensor.to(dtype) if tensor.is_floating_point() else tensor)).hexdigest()
        for name, tensor in model.state_dict().items()
    }


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
