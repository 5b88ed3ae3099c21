"""From rendered examples to one padding-free row laid out as a prefix tree.

Causal attention gives a prefix the same hidden states in every sequence that starts with it, so the
row holds each shared prefix once. `node` says to which piece of the tree a token belongs, `parent`
which piece that one continues; a token sees its own piece causally and its ancestors wholly, and
positions count from the root. One sequence alone is the ordinary causal case; sequences that share
nothing are the ordinary packed case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from luthier.types import Rendered

Ints = npt.NDArray[np.int64]

MIN_SHARED = 8
"""Prefixes shorter than this are repeated: a tree of crumbs costs more than it saves."""


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """One whole sequence: trunk + a branch. `example` numbers its example within the step."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.float32]
    example: int
    branch: int
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one forward pass reads. T tokens, K tree nodes, M targets, U <= M distinct positions.

    ids, positions, node: int64 [T]. parent: int64 [K], -1 for a root; bounds: int64 [K, 2], the slice
    of the row that a node occupies. rows: int64 [U], row positions whose logits are needed; pick:
    int64 [M] into `rows`; targets: int64 [M]; weight: float32 [M]; owner: int64 [M], the sequence a
    target belongs to. sequences: for each, (example, branch); paths: its nodes from the root;
    sources: "file:row" of each.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    node: torch.Tensor
    parent: torch.Tensor
    bounds: torch.Tensor
    rows: torch.Tensor
    pick: torch.Tensor
    targets: torch.Tensor
    weight: torch.Tensor
    owner: torch.Tensor
    sequences: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]
    unshared: int
    count: float

    @property
    def is_chain(self) -> bool:
        """True when the row is one plain causal sequence and needs no mask."""
        return self.parent.numel() == 1

    def to(self, device: torch.device | str) -> Batch:
        tensors = (f.name for f in fields(self) if torch.is_tensor(getattr(self, f.name)))
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def sequences(rendered: Rendered, example: int) -> list[Flat]:
    """The whole sequences of an example, one for each branch."""
    trunk = rendered.trunk
    out = []
    for k, branch in enumerate(rendered.branches):
        ids = np.concatenate([trunk.ids, branch.ids]) if len(trunk) else branch.ids
        mask = np.concatenate([trunk.mask, branch.mask]) if len(trunk) else branch.mask
        out.append(Flat(ids, mask, example, k, rendered.source))
    return out


def shared_prefix(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    """Number of leading tokens that a and b have in common."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n


def cut(examples: Iterable[list[Flat]], budget: int, share: bool) -> list[list[Flat]]:
    """Cut a step's examples into as few forward passes of at most `budget` tokens as order allows.

    Branches of an example stay together. With `share`, examples are sorted by their tokens first, so
    that common prefixes meet in one pass and are counted once. An example that is larger than the
    budget gets a pass of its own; whether it fits is then the machine's to say.
    """
    groups = list(examples)
    if share:
        groups.sort(key=lambda group: group[0].ids.astype(">i4").tobytes())
    passes: list[list[Flat]] = []
    used, last = 0, None
    for group in groups:
        cost = _cost(group, last if passes else None, share)
        if not passes or used + cost > budget:
            passes.append([])
            used, cost = 0, _cost(group, None, share)
        passes[-1].extend(group)
        used += cost
        last = group[-1]
    return passes


def _cost(group: list[Flat], before: Flat | None, share: bool) -> int:
    total = 0
    for sequence in group:
        shared = shared_prefix(before.ids, sequence.ids) if share and before is not None else 0
        total += len(sequence.ids) - (shared if shared >= MIN_SHARED else 0)
        before = sequence
    return total


@dataclass(slots=True)
class _Node:
    parent: int
    start: int
    end: int
    sequence: int


def _tree(seqs: Sequence[Flat], share: bool) -> tuple[list[_Node], list[int]]:
    """Radix tree over sequences in sorted order; returns nodes and, for each sequence, its last node.

    The stack is the path of the sequence before; the next one leaves it at their common prefix,
    splitting a node where that lies inside it.
    """
    nodes: list[_Node] = []
    leaves: list[int] = []
    path: list[int] = []
    for k, sequence in enumerate(seqs):
        shared = shared_prefix(seqs[k - 1].ids, sequence.ids) if share and k else 0
        popped = -1
        while path and nodes[path[-1]].end > shared:
            popped = path.pop()
        base = nodes[path[-1]].end if path else 0
        if shared - base < MIN_SHARED:
            shared = base
        elif popped >= 0:
            old = nodes[popped]
            nodes.append(_Node(old.parent, old.start, shared, old.sequence))
            old.parent, old.start = len(nodes) - 1, shared
            path.append(len(nodes) - 1)
        if len(sequence.ids) > shared:
            nodes.append(_Node(path[-1] if path else -1, shared, len(sequence.ids), k))
            path.append(len(nodes) - 1)
        leaves.append(path[-1])
    return nodes, leaves


def _preorder(nodes: list[_Node]) -> list[int]:
    children: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        children.setdefault(node.parent, []).append(i)
    for siblings in children.values():
        siblings.sort(key=lambda i: nodes[i].sequence)
    order, stack = [], list(reversed(children.get(-1, [])))
    while stack:
        i = stack.pop()
        order.append(i)
        stack.extend(reversed(children.get(i, [])))
    return order


def build(seqs: Sequence[Flat], share: bool = True) -> Batch:
    """Lay sequences out as one row. Raises ValueError when there is none, or one is empty."""
    if not seqs or any(len(s.ids) == 0 for s in seqs):
        raise ValueError("a batch needs at least one sequence, and no empty ones")
    if share:
        seqs = sorted(seqs, key=lambda s: s.ids.astype(">i4").tobytes())
    nodes, leaves = _tree(seqs, share)
    order = _preorder(nodes)
    number = {old: new for new, old in enumerate(order)}
    sizes = np.array([nodes[i].end - nodes[i].start for i in order], np.int64)
    ends = np.cumsum(sizes)
    bounds = np.stack([ends - sizes, ends], axis=1)
    paths = []
    for leaf in leaves:
        path = []
        while leaf >= 0:
            path.append(number[leaf])
            leaf = nodes[leaf].parent
        paths.append(tuple(reversed(path)))
    return _fill(seqs, [nodes[i] for i in order], bounds, paths, number)


def _fill(
    seqs: Sequence[Flat],
    nodes: list[_Node],
    bounds: Ints,
    paths: list[tuple[int, ...]],
    number: dict[int, int],
) -> Batch:
    """Tokens, positions and targets of a tree whose layout is known."""
    ids = np.concatenate([seqs[n.sequence].ids[n.start : n.end] for n in nodes]).astype(np.int64)
    positions = np.concatenate([np.arange(n.start, n.end) for n in nodes])
    node = np.repeat(np.arange(len(nodes)), bounds[:, 1] - bounds[:, 0])
    at, targets, weight, owner = [], [], [], []
    for k, (sequence, path) in enumerate(zip(seqs, paths, strict=True)):
        row = np.concatenate([np.arange(*bounds[n]) for n in path])
        learnt = np.flatnonzero(sequence.mask[1:]) + 1
        at.append(row[learnt - 1])
        targets.append(sequence.ids[learnt])
        weight.append(sequence.mask[learnt])
        owner.append(np.full(len(learnt), k))
    rows, pick = np.unique(np.concatenate(at).astype(np.int64), return_inverse=True)
    weights = np.concatenate(weight).astype(np.float32)
    parent = np.array([number[n.parent] if n.parent >= 0 else -1 for n in nodes], np.int64)
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        node=torch.from_numpy(node),
        parent=torch.from_numpy(parent),
        bounds=torch.from_numpy(bounds),
        rows=torch.from_numpy(rows),
        pick=torch.from_numpy(pick.astype(np.int64)),
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        weight=torch.from_numpy(weights),
        owner=torch.from_numpy(np.concatenate(owner).astype(np.int64)),
        sequences=tuple((s.example, s.branch) for s in seqs),
        paths=tuple(paths),
        sources=tuple(s.source for s in seqs),
        unshared=sum(len(s.ids) for s in seqs),
        count=float(weights.sum(dtype=np.float64)),
    )
