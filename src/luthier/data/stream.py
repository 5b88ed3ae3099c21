"""Pre-training on data that is never wholly read: blocks are made while training goes on.

Blocks are numbered as they come out of the source and shuffled within windows of `buffer_size`, so block
u of a step is still a pure function of (source, seed, u). Resuming at step n reads the source again up to
there. When the source ends before `max_steps`, it begins again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, islice

import numpy as np

from luthier.config import Config
from luthier.data import blocks, prepare, registry
from luthier.data.ledger import Ledger
from luthier.data.plan import permutation
from luthier.data.render import Renderer
from luthier.errors import DataError
from luthier.types import BadRow, Example, Rendered


class Stream:
    """Reads like a corpus of `units` blocks, in the order in which a plan without shuffling asks for them."""

    def __init__(self, config: Config, renderer: Renderer, units: int) -> None:
        self._config, self._renderer, self._units = config, renderer, units
        self._specs = registry.specs(
            config.dataset or (), config.dataset_dir, stage=config.stage, hub=prepare.hub_of(config)
        )
        self.ledger = Ledger(", ".join(spec.name for spec in self._specs), notes=self._notes())
        self.rejected: list[BadRow] = []
        self._blocks = self._source()
        self.held_out = list(islice(self._blocks, int(config.val_size)))
        self._window: list[Rendered] = []
        self._number = -1

    def _notes(self) -> list[str]:
        return [note for spec in self._specs for note in spec.notes]

    def __len__(self) -> int:
        return self._units

    def __getitem__(self, unit: int) -> Rendered:
        """Block `unit`. Windows are read forwards only."""
        window, within = divmod(unit, self._config.buffer_size)
        if window < self._number:
            self._blocks, self._number = self._source(), -1
            self.ledger = Ledger(self.ledger.dataset, notes=self._notes())
            next(islice(self._blocks, len(self.held_out), len(self.held_out)), None)
        while self._number < window:
            self._window = list(islice(self._blocks, self._config.buffer_size))
            self._number += 1
            prepare.judge(self._config, self.ledger, self.rejected)
        order = permutation(len(self._window), self._config.seed, self._number)
        return self._window[int(order[within])]

    def _source(self) -> Iterator[Rendered]:
        """Blocks of the data sets, again and again."""
        for epoch in count():
            rows = prepare.rendered(self._rows(epoch), self._renderer, self.ledger, self.rejected)
            made = 0
            for block in blocks.chop(
                rows, self._config.cutoff_len, self._config.packing is not False, self.ledger
            ):
                made += 1
                self._account(block)
                yield block
            if not made:
                raise DataError(f"{self.ledger.dataset}: no row that could be trained on")

    def _account(self, block: Rendered) -> None:
        tokens = block.branches[0]
        trained = int(np.count_nonzero(tokens.mask[1:]))
        self.ledger.examples += 1
        self.ledger.trained += trained
        self.ledger.masked += len(tokens) - trained
        self.ledger.tokens_in += len(tokens)

    def _rows(self, epoch: int) -> Iterator[Example | BadRow]:
        """Rows of all data sets: one after another, in turns, or drawn with `interleave_probs`."""
        config = self._config
        readers = [prepare.examples(spec, config.stage, None, self.ledger) for spec in self._specs]
        if config.mix_strategy == "concat" or len(readers) == 1:
            yield from chain.from_iterable(readers)
            return
        rng = np.random.Generator(np.random.PCG64([config.seed, epoch]))
        chances = np.array(config.interleave_probs or [1.0] * len(readers), dtype=float)
        ended: set[int] = set()
        for turn in count():
            which = turn % len(readers)
            if config.interleave_probs:
                which = int(rng.choice(len(readers), p=chances / chances.sum()))
            row = next(readers[which], None)
            if row is not None:
                yield row
                continue
            ended.add(which)
            if config.mix_strategy == "interleave_under" or len(ended) == len(readers):
                return
            if config.mix_strategy == "interleave_over":
                readers[which] = prepare.examples(self._specs[which], config.stage, None, self.ledger)
