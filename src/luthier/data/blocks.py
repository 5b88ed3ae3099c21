"""Pre-training text to blocks of `cutoff_len` tokens: every token of every document is in at most one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from luthier.data.ledger import Ledger
from luthier.types import Rendered, Tokens


def chop(documents: Iterable[Rendered], size: int, packing: bool, ledger: Ledger) -> Iterator[Rendered]:
    """Blocks of at most `size` tokens (see `_blocks`), less those in which there is nothing to predict.

    A single token has nothing before it; where one is left over it is counted as cut.
    """
    for block in _blocks(documents, size, packing, ledger):
        tokens = block.branches[0]
        if len(tokens) > 1:
            yield block
        else:
            ledger.cut += len(tokens)
            ledger.cut_rows += 1


def _blocks(documents: Iterable[Rendered], size: int, packing: bool, ledger: Ledger) -> Iterator[Rendered]:
    """Cut documents into blocks of at most `size` tokens.

    With packing, documents follow one another in one stream that is cut every `size` tokens (the last
    block may be shorter); without, each document is cut by itself. A document that ends up in more than
    one block counts as split.
    """
    if not packing:
        for document in documents:
            tokens = document.branches[0]
            ledger.split_rows += len(tokens) > size
            for start in range(0, len(tokens), size):
                yield _block(
                    tokens.ids[start : start + size], tokens.mask[start : start + size], document.source
                )
        return
    ids: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    held, source = 0, ""
    for document in documents:
        tokens = document.branches[0]
        source = source or document.source
        ledger.split_rows += held + len(tokens) > size
        ids.append(tokens.ids)
        masks.append(tokens.mask)
        held += len(tokens)
        if held < size:
            continue
        stream, weights = np.concatenate(ids), np.concatenate(masks)
        whole = held - held % size
        for start in range(0, whole, size):
            yield _block(stream[start : start + size], weights[start : start + size], source)
            source = document.source
        ids, masks, held = [stream[whole:]], [weights[whole:]], held - whole
        source = document.source if held else ""
    if held:
        yield _block(np.concatenate(ids), np.concatenate(masks), source)


def _block(ids: np.ndarray, mask: np.ndarray, source: str) -> Rendered:
    empty = Tokens(np.zeros(0, np.int32), np.zeros(0, np.float32))
    return Rendered(empty, (Tokens(ids, mask),), None, source)
