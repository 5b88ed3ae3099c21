"""How long rows are for a model: at most so many tokens, for next to nothing, and exactly, where it matters.

A tokenizer of bytes never makes more tokens than its text has bytes, so a row that is short enough in bytes
is short enough in tokens. Of a large data set only the few rows beyond that, and a sample, are tokenised.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from luthier.data.ledger import Ledger
from luthier.data.render import Renderer, RenderOptions
from luthier.data.turns import RowProblem
from luthier.errors import TemplateError
from luthier.prepare.opened import Opened
from luthier.prepare.table import Table
from luthier.types import BadRow, Example, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 512
UNLIMITED = 1 << 60
SPACE = "\u2581"
"""What SentencePiece writes for a space: three bytes, and one token where the vocabulary has it."""
_SPLITS = {"Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "CharDelimiterSplit"}
T = TypeVar("T")


def rows_of(table: Table) -> Iterator[tuple[Row | BadRow, Example | BadRow]]:
    """The rows of a table once more, from their file; a table keeps texts alone."""
    source = Opened(table.spec, table.stage, Ledger(table.spec.name))
    return source.rows(table.rows)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The items, `size` at a time."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def is_text(example: Example) -> bool:
    """Whether it is text to go on with, not a conversation."""
    messages = example.branches[0] if example.branches else example.trunk
    return messages[0].role == "text"


def with_options(renderer: Renderer, options: RenderOptions) -> Renderer:
    """Another renderer of the same template and tokenizer."""
    return Renderer(renderer.template, renderer.tokenizer, options)


class Ruler:
    """Measures rows with a renderer's template and tokenizer, as if there were no cutoff.

    limit: the renderer's cutoff · whole: the renderer without it · cut: the renderer with it, which drops
    rows where the configuration would stop · bounded: whether tokens <= bytes holds; where it does not,
    `at_most` is always UNLIMITED, so that every row is tokenised.
    """

    def __init__(self, renderer: Renderer) -> None:
        options, drop = renderer.options, renderer.options.cutoff_policy == "error"
        self.whole = with_options(renderer, replace(options, cutoff_len=UNLIMITED))
        self.cut = with_options(renderer, replace(options, cutoff_policy="drop")) if drop else renderer
        self.limit = renderer.options.cutoff_len
        self.bounded, self._composes = bounded(renderer.tokenizer)

    def at_most(self, example: Example) -> tuple[int, bool]:
        """(No more tokens than this in its longest sequence, whether there is anything that is learnt).

        Raises Refused when the template cannot express the row.
        """
        if not example.branches:
            texts, learnt = [self._shown(example)[0]], True
        else:
            shown = [self._shown(replace(example, branches=(branch,))) for branch in example.branches]
            texts, learnt = [text for text, _ in shown], any(spans for _, spans in shown)
        split = self.whole.options.history == "as_template" and len(example.trunk) > 2
        if not self.bounded or split:  # a row that is split is longer than the last of its parts
            return UNLIMITED, learnt
        return max(map(self._bytes, texts)) + 1, learnt  # 1: the space that some put before a text

    def _shown(self, example: Example) -> tuple[str, list[tuple[int, int]]]:
        try:
            return self.whole.show(example)
        except TemplateError as error:
            raise Refused(example.source, str(error), isinstance(error.__cause__, RowProblem)) from error

    def _bytes(self, text: str) -> int:
        if text.isascii():
            return len(text)
        if self._composes and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)  # a few characters grow to three times their bytes
        return len(text.encode())


class Refused(Exception):
    """The template cannot express a row. alone: training leaves this row out; else it does not start."""

    def __init__(self, source: str, reason: str, alone: bool) -> None:
        super().__init__(reason)
        self.source, self.alone = source, alone
        self.reason = reason.removeprefix(f"{source}: ")


def bounded(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """(Whether a text never has more tokens than bytes, whether that is of the text in NFC).

    Every model of the `tokenizers` library gives a symbol of its input at most one token (a byte, where it
    falls back to bytes), so all depends on the steps before it: they may split the text and put one space
    before it, but not write it longer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False, False
    described: dict[str, Any] = json.loads(backend.to_str())
    spaces = SPACE in tokenizer.get_vocab()
    normal = _steps(described["normalizer"], "normalizers")
    before = _steps(described["pre_tokenizer"], "pretokenizers")
    holds = all(_keeps_length(step, spaces) for step in normal)
    holds = holds and all(_only_splits(step, spaces, alone=len(before) == 1) for step in before)
    return holds, any(step["type"] == "NFC" for step in normal)


def _steps(described: Mapping[str, Any] | None, inner: str) -> Sequence[Mapping[str, Any]]:
    if described is None:
        return ()
    if described["type"] != "Sequence":
        return (described,)
    return [step for part in described[inner] for step in _steps(part, inner)]


def _keeps_length(step: Mapping[str, Any], spaces: bool) -> bool:
    if step["type"] == "Replace":
        return spaces and step["pattern"] == {"String": " "} and step["content"] == SPACE
    return step["type"] == "NFC" or (step["type"] == "Prepend" and spaces and step["prepend"] == SPACE)


def _only_splits(step: Mapping[str, Any], spaces: bool, alone: bool) -> bool:
    if step["type"] == "ByteLevel":
        return alone or not step["add_prefix_space"]
    return step["type"] in _SPLITS or (step["type"] == "Metaspace" and alone and spaces)
