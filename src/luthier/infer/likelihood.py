"""How likely continuations are after a prompt: closed labels as one tree, others one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from luthier.infer.caches import State
from luthier.infer.lean import Lean

Forward = Callable[[State, Tensor, Tensor, bool], Tensor]
"""(state, ids [rows, n], positions [rows, n], last) -> logits, as `HFEngine._forward`."""
LOGITS = 1 << 22
"""Logits made at a time when a tree is read: 16 MB, which a processor's cache still holds."""

READ = 4096
"""Tokens of trees read in one pass, about: their masks and activations are not counted as a row's memory."""


@dataclass(frozen=True, slots=True)
class Trie:
    """Continuations of one prompt as a tree of the tokens that the model has to read.

    tokens[k] is read after those of its `parents` (-1 is the prompt); a parent comes before its children.
    paths: for each continuation its tokens, each with the node after which it comes (-1 the prompt). The last
    token of a continuation is only looked up.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, continuations: Sequence[Sequence[int]]) -> Trie:
        nodes: dict[tuple[int, int], int] = {}
        paths = []
        for ids in continuations:
            at, path = -1, []
            for place, token in enumerate(ids):
                path.append((at, token))
                if place < len(ids) - 1:
                    at = nodes.setdefault((at, token), len(nodes))
            paths.append(tuple(path))
        return cls(tuple(token for _, token in nodes), tuple(up for up, _ in nodes), tuple(paths))

    @property
    def depth(self) -> int:
        """Tokens of the longest continuation."""
        return max(map(len, self.paths), default=0)

    def levels(self) -> list[int]:
        """For each node the number of nodes above it."""
        found: list[int] = []
        for up in self.parents:
            found.append(0 if up < 0 else found[up] + 1)
        return found

    def above(self) -> Tensor:
        """bool [nodes, nodes]: which nodes each one sees, itself included."""
        seen = torch.eye(len(self.parents), dtype=torch.bool)
        for node, up in enumerate(self.parents):
            if up >= 0:
                seen[node] |= seen[up]
        return seen


def as_trees(model: Lean, state: State, first: Tensor, tries: list[Trie]) -> list[list[float]]:
    """Log-likelihoods of the continuations of each row, all of them in one pass over the rows' trees.

    state: after the prompts; its cache is used up · first: logits after them [rows, V].
    """
    width = max(len(trie.tokens) for trie in tries)
    # Each logit that is looked up: where it stands among the 1 + width distributions of its row.
    edges = [sorted({edge for path in trie.paths for edge in path}) for trie in tries]
    found = [_looked_up(first[:, None], [[edge for edge in row if edge[0] < 0] for row in edges])]
    if width:
        hidden = _read(model, state, tries, width)
        size = max(1, LOGITS // (width * first.shape[-1]))
        inner = [[edge for edge in row if edge[0] >= 0] for row in edges]
        chunks = [
            _looked_up(model.logits(hidden[at : at + size]), inner[at : at + size])
            for at in range(0, len(tries), size)
        ]
        found.append([one for chunk in chunks for one in chunk])
    values = [
        {edge: value for part in parts for edge, value in part.items()} for parts in zip(*found, strict=True)
    ]
    return [
        [sum((values[k][edge] for edge in path), 0.0) for path in trie.paths] for k, trie in enumerate(tries)
    ]


def _read(model: Lean, state: State, tries: list[Trie], width: int) -> Tensor:
    """Hidden states after each node. [rows, width, ...]; what is beyond a row's nodes means nothing."""
    rows = len(tries)
    known: dict[Trie, tuple[Tensor, Tensor, Tensor]] = {}
    for trie in tries:
        if trie not in known:
            ids, levels = torch.zeros(width, dtype=torch.long), torch.zeros(width, dtype=torch.long)
            seen = torch.eye(width, dtype=torch.bool)
            n = len(trie.tokens)
            ids[:n], levels[:n] = torch.tensor(trie.tokens), torch.tensor(trie.levels())
            seen[:n, :n] = trie.above()
            known[trie] = ids, levels, seen
    ids, levels, tree = (torch.stack([known[trie][part] for trie in tries]) for part in range(3))
    prompt = state.mask.bool()[:, None].expand(rows, width, -1)
    seen = torch.cat([prompt, tree], dim=-1)
    return model.hidden(ids, state.lengths[:, None] + levels, seen, state.cache, last=False)


def _looked_up(logits: Tensor, edges: list[list[tuple[int, int]]]) -> list[dict[tuple[int, int], float]]:
    """log P of each edge (place or -1, token) of each row. logits [rows, places, V]"""
    logits = logits.float()
    row = [k for k, one in enumerate(edges) for _ in one]
    place = [max(at, 0) for one in edges for at, _ in one]
    token = [token for one in edges for _, token in one]
    total = logits.logsumexp(-1)
    values = iter((logits[row, place, token] - total[row, place]).tolist())
    return [{edge: next(values) for edge in one} for one in edges]


def one_by_one(
    forward: Forward, state: State, first: Tensor, continuations: list[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """The same for a model that reads no trees: a copy of its row for each continuation."""
    owner = [row for row, options in enumerate(continuations) for _ in options]
    texts = [list(ids) for options in continuations for ids in options]
    width = max(map(len, texts), default=0)
    totals = torch.zeros(len(texts))
    if width:
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
        real = torch.arange(width) < torch.tensor([[len(text)] for text in texts])
        logits = first[torch.tensor(owner, device=first.device)][:, None]
        if width > 1:
            state = state.select(owner)
            state.mask = torch.cat([state.mask, real[:, :-1].long()], dim=-1)
            positions = state.lengths[:, None] + torch.arange(width - 1)
            logits = torch.cat([logits, forward(state, ids[:, :-1], positions, False)], dim=1)
        chosen = logits.float().log_softmax(-1).gather(-1, ids.to(logits.device)[..., None]).squeeze(-1)
        totals = torch.where(real, chosen.cpu(), 0.0).sum(-1)
    ends = iter(totals.tolist())
    return [[next(ends) for _ in options] for options in continuations]


def whole(model: Any, prompt: list[int], continuations: Sequence[Sequence[int]]) -> list[float]:
    """The same without a cache: prompt and continuation together, padded on the right."""
    texts = [prompt + list(ids) for ids in continuations]
    width = max(map(len, texts), default=0)
    if not texts:
        return []
    device = model.device
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=device)
    lengths = torch.tensor([[len(text)] for text in texts], device=device)
    mask = torch.arange(width, device=device) < lengths
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, len(prompt) - 1 : -1]
    chosen = logits.float().log_softmax(-1).gather(-1, ids[:, len(prompt) :, None]).squeeze(-1)
    totals: list[float] = torch.where(mask[:, len(prompt) :], chosen, 0.0).sum(-1).tolist()
    return totals
