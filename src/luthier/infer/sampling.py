"""From logits to the next token of each row."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from luthier.infer.engine import Generation


class Chooser:
    """Chooses the next tokens of a batch and remembers what repetition penalty and sampling need.

    Each row draws from a generator of its own, seeded by (seed, index of the prompt): the same prompt gets
    the same answer whatever the batch size, and when rows leave the batch the others are not disturbed.
    """

    def __init__(self, options: Generation, prompts: list[list[int]], indices: list[int]) -> None:
        self._options = options
        self._draws = [random.Random(f"{options.seed}:{index}") for index in indices]
        self._prompts = prompts
        self._seen: Tensor | None = None

    def next(self, logits: Tensor) -> list[int]:
        """logits [rows, vocabulary] -> one token per row."""
        logits = logits.float()
        options = self._options
        if options.repetition_penalty != 1.0:
            logits = self._penalise(logits)
        chosen = logits.argmax(-1) if options.greedy else self._sample(logits)
        if self._seen is not None:
            self._seen.scatter_(1, chosen[:, None], True)
        tokens: list[int] = chosen.tolist()
        return tokens

    def keep(self, rows: list[int]) -> None:
        """Forget the rows that are not listed."""
        self._draws = [self._draws[row] for row in rows]
        if self._seen is not None:
            self._seen = self._seen[rows]

    def _penalise(self, logits: Tensor) -> Tensor:
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            for row, prompt in enumerate(self._prompts):
                self._seen[row, torch.tensor(prompt, device=logits.device)] = True
        penalty = self._options.repetition_penalty
        return torch.where(
            self._seen,
            torch.where(logits < 0, logits * penalty, logits / penalty),
            logits,
        )

    def _sample(self, logits: Tensor) -> Tensor:
        """Inverse transform sampling over the tokens that top-k and top-p leave, most likely first."""
        options = self._options
        kept = min(options.top_k or logits.shape[-1], logits.shape[-1])
        values, tokens = (logits / options.temperature).topk(kept, dim=-1)
        total = values.softmax(-1).cumsum(-1)
        before = total.roll(1, -1)
        before[:, 0] = 0
        inside = (before < options.top_p).sum(-1, keepdim=True)
        mass = total.gather(-1, inside.clamp(min=1) - 1)
        uniform = torch.tensor([[draw.random()] for draw in self._draws], device=logits.device) * mass
        place = torch.searchsorted(total, uniform, right=True).minimum(inside.clamp(min=1) - 1)
        return tokens.gather(-1, place).squeeze(-1)
