"""Length in tokens for the model at hand: what `cutoff_len` would cut, and what sharing and packing save."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from luthier.config import Config
from luthier.data import blocks, plan
from luthier.data.ledger import Ledger
from luthier.data.render import Renderer
from luthier.data.turns import READ
from luthier.prepare.checks import Data
from luthier.prepare.checks.tokens import CHUNK, Refused, Ruler, chunks, is_text, rows_of
from luthier.prepare.report import Finding, Severity, some
from luthier.prepare.table import Table
from luthier.types import BadRow, Example, Rendered

SAMPLE, FEWEST, CHARACTERS = 20_000, 1_000, 20_000_000
"""Rows that percentiles are made of: each is then known to within half a percent of the rows. Fewer, down to
FEWEST, where rows are so long that they would have more CHARACTERS than a quarter of a minute's work."""
PLANNED = 2_000
"""Rows whose steps are planned to see what sharing saves."""
SHARE_OF_ROWS = 0.99
MULTIPLE = 64
SAMPLES, BARS = 5, 40
PERCENTILES = (50, 90, 95, 99)
_NUMBER = re.compile(r"\d+")
Ints = npt.NDArray[np.int64]


@dataclass
class Measured:
    """What a pass over the rows found.

    sizes: for each sampled row its longest sequence, what is read and what is learnt, in tokens
    (int64 [n, 3]) · long: rows beyond the cutoff -> tokens · cut: (source, tokens of the prompt that would
    go, tokens of answers) · dropped: rows beyond the cutoff that would be left out · unlearnt: rows without
    anything to learn · refused: rows that the template cannot express · kept: sampled rows as training
    would get them.
    """

    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    long: dict[str, int] = field(default_factory=dict)
    cut: list[tuple[str, int, int]] = field(default_factory=list)
    dropped: list[BadRow] = field(default_factory=list)
    unlearnt: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    kept: list[Rendered] = field(default_factory=list)


def lengths(data: Data) -> Iterator[Finding]:
    """Findings about length; those about rows are exact, percentiles of large data come from a sample.

    Raises ValueError without a model.
    """
    if data.config is None or data.renderer is None:
        raise ValueError("lengths in tokens need the model's tokenizer")
    found = measure(data, data.renderer, data.config.seed)
    yield from _refusals(found.refused)
    if found.sizes:
        limit = _suggested(found, len(data.table))
        yield _overview(data, found, limit)
        yield from _beyond(data, found, limit)
    if found.unlearnt:
        yield Finding(
            "unlearnt",
            "warning",
            f"{some(len(found.unlearnt))} keep nothing to learn: the weight of every turn is 0",
            rows=found.unlearnt,
            fix="give one of the assistant's turns a weight, set mask_history=false, or leave the rows out",
        )
    if found.kept:
        yield from _savings(data.config, data.table.stage, found.kept)


# -- measuring -------------------------------------------------------------------------------------


def measure(data: Data, renderer: Renderer, seed: int) -> Measured:
    """Look at every row; tokenise a sample and what may be longer than the cutoff."""
    ruler, found, sample = Ruler(renderer), Measured(), _sample(data.table)
    order = np.random.default_rng(seed).permutation(len(data.table))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))  # position of a row -> its place in a random order
    good = (meant for _, meant in rows_of(data.table) if isinstance(meant, Example))
    for number, chunk in enumerate(chunks(good)):
        ranked = zip(rank[number * CHUNK :].tolist(), chunk, strict=False)
        wanted = [
            (at < sample, at < PLANNED, row) for at, row in ranked if _needed(ruler, row, at < sample, found)
        ]
        _tokenise(ruler, renderer, wanted, found)
    return found


def _sample(table: Table) -> int:
    """How many rows are tokenised for percentiles."""
    characters = sum(map(len, table.inputs)) + sum(map(len, table.answers))
    return min(SAMPLE, max(FEWEST, CHARACTERS * len(table) // max(characters, 1)))


def _needed(ruler: Ruler, example: Example, sampled: bool, found: Measured) -> bool:
    """Whether a row has to be tokenised."""
    try:
        most, learnt = ruler.at_most(example)
    except Refused as refusal:
        found.refused.append(refusal)
        return False
    if not learnt:
        found.unlearnt.append(example.source)
    return learnt and (sampled or (most > ruler.limit and not is_text(example)))


def _tokenise(
    ruler: Ruler, renderer: Renderer, wanted: Sequence[tuple[bool, bool, Example]], found: Measured
) -> None:
    """Take in rows, each with whether it is one of the sample, and one of those that are planned."""
    made = ruler.whole.examples([example for _, _, example in wanted])
    for (sampled, planned, example), parts in zip(wanted, made, strict=True):
        if isinstance(parts, BadRow):
            found.refused.append(Refused(parts.source, parts.reason, alone=True))
            continue
        size = size_of(parts)
        if sampled:
            found.sizes.append(size)
        if size[0] > ruler.limit and not is_text(example):  # a long text becomes several blocks
            found.long[example.source] = size[0]
            _cut(renderer, example, found)
            (parts,) = ruler.cut.examples([example]) if planned else (parts,)
        if planned and not isinstance(parts, BadRow):
            found.kept += parts


def size_of(parts: Sequence[Rendered]) -> tuple[int, int, int]:
    """Tokens of a row's longest sequence (what the cutoff looks at), those only read, those learnt."""
    longest = read = learnt = 0
    for part in parts:
        trained = int(np.count_nonzero(part.trunk.mask))
        branch = max(part.branches, key=len, default=None)
        length = len(part.trunk) + (0 if branch is None else len(branch))
        trained += 0 if branch is None else int(np.count_nonzero(branch.mask))
        longest, read, learnt = max(longest, length), read + length - trained, learnt + trained
    return longest, read, learnt


def _cut(renderer: Renderer, example: Example, found: Measured) -> None:
    """What the configuration's cutoff does to a row that is too long."""
    (made,) = renderer.pieces([example])
    if isinstance(made, BadRow):
        found.dropped.append(made)
        return
    gone = Counter[bool]()
    for piece in (piece for groups in made for group in groups for piece in group):
        gone[piece.piece.turn == READ] += sum(len(ids) for _, ids in piece.gone)
    found.cut.append((example.source, gone[True], gone[False]))


# -- telling ---------------------------------------------------------------------------------------


def _overview(data: Data, found: Measured, suggested: int) -> Finding:
    sizes = np.array(found.sizes, np.int64)
    columns = dict(zip(("row", "prompt", "answer"), sizes.T, strict=True))
    told = {name: percentiles(values) for name, values in columns.items()}
    share = float(sizes[:, 2].sum() / max(int(sizes[:, 1:].sum()), 1))
    edges = np.histogram_bin_edges(columns["row"], BARS)
    row, sampled = told["row"], _sample(data.table) < len(data.table)
    longest = max([row["max"], *found.long.values()])
    what = (
        f"a row has {row['p50']:,} tokens in the median, 95 % have up to {row['p95']:,}, the longest "
        f"{longest:,}; {share:.0%} of them are learnt"
    )
    if sampled:
        what += f" (from {len(sizes):,} rows drawn at random; what is said of single rows is exact)"
    figures = {
        **told,
        "trained_share": round(share, 4),
        "sample": len(sizes),
        "longest": longest,
        "suggested_cutoff_len": suggested,
        "cutoff": data.config.cutoff_len if data.config else None,
        "histogram": {
            "edges": [round(float(edge), 1) for edge in edges],
            "counts": np.histogram(columns["row"], edges)[0].tolist(),
        },
    }
    return Finding("lengths", "note", what, count=len(data.table), figures=figures)


def percentiles(values: Ints) -> dict[str, int]:
    """p50, p90, p95, p99 and max: values that are there (inverted distribution function)."""
    found = np.percentile(values, PERCENTILES, method="inverted_cdf")
    named = {f"p{p}": int(value) for p, value in zip(PERCENTILES, found, strict=True)}
    return {**named, "max": int(values.max())}


def _suggested(found: Measured, rows: int) -> int:
    """The smallest multiple of 64 that leaves 99 % of the rows whole.

    Where more than 1 % are too long, all of these are known exactly, and so is the value.
    """
    beyond = sorted(found.long.values(), reverse=True)
    spared = int(rows * (1 - SHARE_OF_ROWS))
    if len(beyond) > spared:
        return _rounded(beyond[spared])
    return _rounded(percentiles(np.array([size for size, _, _ in found.sizes], np.int64))["p99"])


def _rounded(tokens: int) -> int:
    return -(-tokens // MULTIPLE) * MULTIPLE


def _beyond(data: Data, found: Measured, suggested: int) -> Iterator[Finding]:
    """Rows that are longer than the cutoff, by what would happen to them."""
    if data.config is None or not found.long:
        return
    limit = data.config.cutoff_len
    all_of_them = _rounded(max(found.long.values()))
    fix = f"cutoff_len={suggested if suggested > limit else all_of_them}"
    reads = getattr(data.renderer and data.renderer.tokenizer, "model_max_length", 0)
    if 0 < reads < all_of_them:
        fix += f" (the tokenizer says that its model reads {reads:,})"
    prompts = [(source, gone) for source, gone, answer in found.cut if not answer]
    if prompts:
        yield Finding(
            "cutoff",
            "note",
            f"{some(len(prompts))} of more than {limit:,} tokens would lose {sum(n for _, n in prompts):,} "
            "in the middle of their prompts; their answers stay whole",
            rows=[source for source, _ in prompts],
            fix=fix,
            samples=[f"{source}: {found.long[source]:,} tokens" for source, _ in prompts[:SAMPLES]],
        )
    answers = [one for one in found.cut if one[2]]
    if answers:
        yield Finding(
            "cutoff",
            "warning",
            f"{some(len(answers))} of more than {limit:,} tokens would lose "
            f"{sum(n for _, _, n in answers):,} of their answers and "
            f"{sum(n for _, n, _ in answers):,} of their prompts",
            rows=[source for source, _, _ in answers],
            fix=fix,
            samples=[f"{source}: {found.long[source]:,} tokens" for source, _, _ in answers[:SAMPLES]],
        )
    if found.dropped:
        stops = data.config.cutoff_policy == "error"
        then = "stop the training" if stops else "be left out whole"
        yield Finding(
            "cutoff",
            "error" if stops else "warning",
            f"{some(len(found.dropped))} of more than {limit:,} tokens would {then}",
            rows=[bad.source for bad in found.dropped],
            fix=fix if data.config.cutoff_policy == "cut_prompt" else f"{fix}, or cutoff_policy=cut_prompt",
            samples=[f"{bad.source}: {bad.reason}" for bad in found.dropped[:SAMPLES]],
        )


def _refusals(refused: Sequence[Refused]) -> Iterator[Finding]:
    """One finding for each reason; what is the same but for its numbers is one reason."""
    groups: dict[tuple[bool, str], list[Refused]] = {}
    for one in refused:
        groups.setdefault((one.alone, _NUMBER.sub("N", one.reason)), []).append(one)
    for (alone, _), same in groups.items():
        then = "training leaves them out" if alone else "training would not start"
        severity: Severity = "warning" if alone else "error"
        yield Finding(
            "template",
            severity,
            f"{some(len(same))} cannot be written with this chat template, and {then}: {same[0].reason}",
            rows=[one.source for one in same],
            fix="choose another template, or change these rows",
        )


# -- saving ----------------------------------------------------------------------------------------


def _savings(config: Config, stage: str, kept: Sequence[Rendered]) -> Iterator[Finding]:
    """Tokens computed for the same steps: in padded batches, without padding, and with shared prefixes."""
    if stage == "pt":
        kept = list(blocks.chop(kept, config.cutoff_len, False, Ledger("")))
    counted = computed(config, [one for one in kept if one.branches])
    if not counted["padded"]:
        return
    share = {name: 1 - count / counted["padded"] for name, count in counted.items()}
    batch = config.per_device_train_batch_size
    shared = share["prefix_shared"] - share["packed"]
    what = (
        f"training computes {share['prefix_shared']:.0%} fewer tokens than padded batches of {batch} would: "
        f"{share['packed']:.0%} are padding, {shared:.0%} are prefixes that "
        f"rows of a step have in common (from the steps of {some(len(kept))})"
    )
    yield Finding("savings", "note", what, count=len(kept), figures={**counted, "batch_size": batch})


def computed(config: Config, kept: Sequence[Rendered]) -> dict[str, int]:
    """How many tokens one epoch over these rows computes in each way, from the plan and batches of training.

    padded: every sequence of a batch as long as the longest · packed: one after the other, without padding ·
    prefix_shared: a prefix that several have is computed once, where the model allows it.
    """
    from luthier.data.batch import build, cut, sequences
    from luthier.model import machine
    from luthier.train import memory

    groups = [sequences(one, place) for place, one in enumerate(kept)]
    size = config.per_device_train_batch_size
    steps = plan.Plan(
        len(groups),
        size * config.gradient_accumulation_steps,
        config.seed,
        shuffle=not config.disable_shuffling,
    )
    largest = memory.LARGEST.get(machine.detect().device, memory.DEFAULT_LARGEST)
    budget = config.micro_batch_tokens or largest
    counted = dict.fromkeys(("padded", "packed", "prefix_shared"), 0)
    for step in range(steps.steps_per_epoch if groups else 0):
        examples = [groups[place] for place in steps.examples(step)]
        for first in range(0, len(examples), size):
            sizes = [len(flat.ids) for group in examples[first : first + size] for flat in group]
            counted["padded"] += max(sizes) * len(sizes)
            counted["packed"] += sum(sizes)
        if config.prefix_sharing:
            passes = cut(examples, budget, share=True)
            counted["prefix_shared"] += sum(len(build(flats, share=True).ids) for flats in passes)
    return counted if config.prefix_sharing else {**counted, "prefix_shared": counted["packed"]}
