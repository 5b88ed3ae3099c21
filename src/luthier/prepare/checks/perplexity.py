"""Which answers a model finds least likely: wrong ones, foreign ones and broken ones stand out.

The perplexity of an answer is exp of the mean negative log-likelihood of its tokens (those that training
learns), given all that stands before them; see Jelinek et al., 1977.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import ModelError
from luthier.prepare.checks import Data
from luthier.prepare.checks.tokens import Ruler, chunks, rows_of
from luthier.prepare.report import Finding, some
from luthier.types import BadRow, Example, Rendered

if TYPE_CHECKING:
    import torch

    from luthier.config import Config
    from luthier.data.batch import Flat
    from luthier.data.render import Renderer

WINDOW = 256
"""Rows that are rendered, and share prefixes, at a time."""
DEVIATIONS = 5
"""A row stands out when its log-perplexity is more than so many MADs above the median (Leys et al., 2013)."""
LEAST = 0.02
"""Nats: a spread below this is none; in labels that a model knows well, every row would stand out."""
SHOWN, SAMPLES, BARS = 50, 5, 40


@dataclass
class Judge:
    """A model that is ready, and how much it computes at a time. budget: tokens, halved when memory runs out.

    left_out: rows that do not fit into memory by themselves.
    """

    model: Any
    layout: str
    device: torch.device
    budget: int
    share: bool
    left_out: list[str] = field(default_factory=list)


def perplexity(data: Data) -> Iterator[Finding]:
    """The rows that stand out, and the perplexity of all answers.

    Raises ModelError when the model cannot be loaded, ValueError without one.
    """
    if data.config is None or data.renderer is None:
        raise ValueError("perplexity needs a model")
    judge = loaded(data.config, data.renderer)
    sources: list[str] = []
    sums: list[tuple[float, float]] = []
    for done, (source, nll, count) in enumerate(scores(data, data.renderer, judge), 1):
        sources.append(source)
        sums.append((nll, count))
        if done % 1000 == 0:
            data.say(f"perplexity of {done:,} of {some(len(data.table))}")
    if sources:
        yield from findings(data.config, sources, np.array(sums))
    if judge.left_out:
        yield Finding(
            "perplexity",
            "note",
            f"{some(len(judge.left_out))} did not fit into memory, and were left out",
            rows=judge.left_out,
            fix="cutoff_len=" + str(data.config.cutoff_len // 2),
        )


def loaded(config: Config, renderer: Renderer) -> Judge:
    """The model of a configuration, with its adapters, on this machine's device. Raises ModelError."""
    from luthier.model import attention, load, machine, methods
    from luthier.train import memory
    from luthier.train.probe import layout_of

    here = machine.detect()
    dtype = load.dtype(config, training=False)
    base = load.model(config, dtype, training=False, tokenizer=renderer.tokenizer)
    model = methods.prepare(base, config, training=False)
    if not getattr(base, "is_quantized", False):
        model.to(machine.device())  # type: ignore[arg-type]
    attention.enable(model)
    layout = layout_of(model)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    budget = memory.tokens_per_pass(model.config, here, weights, 0, checkpointing=True)
    share = config.prefix_sharing and layout == "tree"
    return Judge(model, layout, machine.device(), config.micro_batch_tokens or budget, share)


def scores(data: Data, renderer: Renderer, judge: Judge) -> Iterator[tuple[str, float, float]]:
    """(source, summed negative log-likelihood in nats, number of tokens) of each row's answer.

    Of a pair it is the chosen answer; answers with a verdict against them are left out.
    """
    from luthier.data.batch import sequences

    ruler = Ruler(renderer)
    good = (meant for _, meant in rows_of(data.table) if isinstance(meant, Example))
    for window in chunks((example for example in good if example.verdict is not False), WINDOW):
        rendered = [parts for parts in ruler.cut.examples(window) if not isinstance(parts, BadRow)]
        whole = [part for parts in rendered for part in parts if _is_learnt(part)]
        groups = [sequences(part, place)[:1] for place, part in enumerate(whole)]
        found = _judged(judge, groups)
        totals: dict[str, tuple[float, float]] = {}
        for place, part in enumerate(whole):
            nll, count = found.get(place, (0.0, 0.0))
            before = totals.get(part.source, (0.0, 0.0))  # a row may have been split
            totals[part.source] = before[0] + nll, before[1] + count
        yield from ((source, nll, count) for source, (nll, count) in totals.items() if count)


def _is_learnt(part: Rendered) -> bool:
    """Whether there is a token to predict: the first of a sequence has nothing before it."""
    if not part.branches:
        return False
    mask = np.concatenate([part.trunk.mask, part.branches[0].mask])
    return bool(mask[1:].any())


def _judged(judge: Judge, groups: Sequence[list[Flat]]) -> dict[int, tuple[float, float]]:
    """example -> (summed nll, number of tokens); passes are cut smaller when memory runs out."""
    from luthier.data.batch import cut
    from luthier.train import memory

    found: dict[int, tuple[float, float]] = {}
    waiting = cut(groups, judge.budget, judge.share)
    while waiting:
        flats = waiting.pop()
        try:
            found |= memory.watched(lambda flats=flats: _pass(judge, flats), flats)  # type: ignore[misc]
        except memory.Shortage as shortage:
            if len(flats) == 1:
                judge.left_out.append(flats[0].source)
                continue
            judge.budget = memory.smaller(judge.budget, [shortage.flats])
            waiting += cut([[flat] for flat in flats], judge.budget, judge.share)
    return found


def _pass(judge: Judge, flats: list[Flat]) -> dict[int, tuple[float, float]]:
    """One forward pass. Raises ModelError when the model gives something that is no number."""
    import torch

    from luthier.data.batch import build
    from luthier.model.attention import forward
    from luthier.train.losses import target_nll

    batch = build(flats, judge.share).to(judge.device)
    with torch.inference_mode():
        nll = target_nll(forward(judge.model, batch, judge.layout), batch.pick, batch.targets)
        weighted = torch.stack([nll * (batch.weight > 0), (batch.weight > 0).float()], dim=1)
        sums = torch.zeros(len(batch.sequences), 2, device=judge.device).index_add(0, batch.owner, weighted)
    values = sums.tolist()
    for (total, _), source in zip(values, batch.sources, strict=True):
        if not math.isfinite(total):
            raise ModelError(f"{source}: the model's prediction is not a number; its weights may be damaged")
    return {example: (v[0], v[1]) for (example, _), v in zip(batch.sequences, values, strict=True)}


def findings(config: Config, sources: Sequence[str], sums: np.ndarray) -> Iterator[Finding]:
    means = sums[:, 0] / sums[:, 1]
    middle = float(np.median(means))
    spread = float(np.median(np.abs(means - middle)))
    limit = middle + DEVIATIONS * max(spread, LEAST)
    over_all = math.exp(min(sums[:, 0].sum() / sums[:, 1].sum(), 700.0))
    order = np.argsort(-means, kind="stable")
    edges = np.histogram_bin_edges(means, BARS)
    highest = [(sources[k], round(_exp(means[k]), 2), int(sums[k, 1])) for k in order[:SHOWN].tolist()]
    yield Finding(
        "perplexity",
        "note",
        f"perplexity of the answers under {config.model_name_or_path}: {over_all:,.1f} over all tokens, "
        f"{_exp(middle):,.1f} in the median row",
        count=len(sources),
        figures={
            "perplexity": round(over_all, 3),
            "median": round(_exp(middle), 3),
            "mad_nats": round(spread, 4),
            "limit": round(_exp(limit), 3),
            "highest": highest,
            "nats_per_token": {
                "edges": [round(float(edge), 6) for edge in edges],
                "counts": np.histogram(means, edges)[0].tolist(),
            },
        },
    )
    beyond = np.flatnonzero(means > limit)
    if len(beyond):
        yield Finding(
            "perplexity",
            "warning",
            f"{some(len(beyond))} with answers that the model finds far less likely than the others "
            f"(perplexity above {_exp(limit):,.1f})",
            rows=[sources[k] for k in beyond.tolist()],
            fix="look at them: wrong answers, another language and broken text stand out so",
            samples=[f"{source}: perplexity {value:,.1f}" for source, value, _ in highest[:SAMPLES]],
        )


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))
