"""Examples to tokens, cut exactly where the model starts and stops writing.

Each piece is encoded by itself, as inference will feed it: the prompt that `Renderer.prompt` gives is, token
for token, the beginning of what training saw.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from luthier.data import template as templates
from luthier.data.cutoff import Coded, Groups, TooLong, fit
from luthier.data.drafts import Draft, Drafter, RenderOptions
from luthier.data.encode import BREAK, RESERVED, SEAM, Encoder, Ids
from luthier.data.jinja_guards import today
from luthier.data.template import Template
from luthier.data.turns import READ, Piece, RowProblem
from luthier.errors import DataError, TemplateError
from luthier.runs import hashing
from luthier.types import BadRow, Example, Message, Rendered, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from luthier.config import Config

__all__ = ["CUTOFF", "RenderOptions", "Renderer"]

VERSION = 2
"""Raise when the same inputs would give other tokens."""
CUTOFF = "cutoff_len"
"""`BadRow.field` of rows that were dropped for their length (cutoff_policy: drop)."""
_EMPTY = Tokens(np.zeros(0, np.int32), np.zeros(0, np.float32))
_SHOWN = 10
Made = TypeVar("Made")


class Renderer:
    """Renders with one template, one tokenizer and one set of options.

    notes: what the user should know. counts: rows "split", "replies changed by the template",
    "thoughts removed".
    Raises TemplateError when the template cannot render even a question.
    """

    def __init__(
        self, template: Template, tokenizer: PreTrainedTokenizerBase, options: RenderOptions | None = None
    ) -> None:
        self.template, self.tokenizer = template, tokenizer
        self.options = options or RenderOptions()
        named = {
            k: str(v) for k, v in tokenizer.special_tokens_map.items() if not isinstance(v, (list, tuple))
        }
        self._values = {"bos_token": "", "eos_token": "", **named}
        self._encoder = Encoder(tokenizer)
        self._drafter = Drafter(template, self._encoder, self.options, self._values)
        self.notes: list[str] = self._check()

    @classmethod
    def of(cls, config: Config, tokenizer: PreTrainedTokenizerBase) -> Renderer:
        """The renderer that a configuration asks for; the tokenizer is made ready for the template."""
        chosen = templates.load(
            config.template,
            tokenizer,
            default_system=config.default_system,
            enable_thinking=config.enable_thinking,
            history=config.history,
            required=config.stage != "pt",
        )
        notes = templates.prepare_tokenizer(chosen, tokenizer, add=config.resize_vocab)
        options = RenderOptions(
            config.cutoff_len,
            config.cutoff_policy,
            config.mask_history,
            config.train_on_prompt,
            config.enable_thinking,
            config.history,
        )
        renderer = cls(chosen, tokenizer, options)
        renderer.notes[:0] = notes
        return renderer

    def _check(self) -> list[str]:
        """Try the template on a question and its answer."""
        user, reply = Message("user", "?"), Message("assistant", "!")
        notes = []
        try:
            self._drafter.prompt([user])
            turns = self._drafter.turns
            asked = turns.render([{"role": "user", "content": "?"}], (), True, turns.thinking_ahead)
            header = turns.header([{"role": "user", "content": "?"}], (), turns.thinking_ahead)
            history = [{"role": m.role, "content": m.content} for m in (user, reply, user)]
            kept = turns.header(history, (), turns.thinking_ahead)
            written = "".join(p.text for p in turns.cut(history, prompt=True))
        except RowProblem as problem:
            raise TemplateError(
                f"{problem.reason}; it cannot even render a question and its answer"
            ) from problem
        if asked != header:
            notes.append(
                f"{self.template.called} ends its prompt with {asked[len(header) :]!r}, which its own "
                "replies do not begin with; prompts leave it out, as in training"
            )
        if kept != written:
            how = (
                "are kept as the model wrote them"
                if self.options.history == "as_trained"
                else "are rewritten"
            )
            notes.append(
                f"{self.template.called} rewrites earlier replies; they {how} "
                f"(history: {self.options.history})"
            )
        if "strftime_now" in self.template.text:
            notes.append(
                f"{self.template.called} can write today's date: such prompts differ from day to day"
            )
        return notes

    # -- what others ask --------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder:
        return self._encoder

    @property
    def counts(self) -> Counter[str]:
        return self._drafter.counts

    @property
    def vocabulary(self) -> int:
        return len(self.tokenizer)

    @property
    def stop_ids(self) -> set[int]:
        """Tokens that end a reply."""
        known = self.tokenizer.get_vocab()
        ends = {self._drafter.turns.end, *self.template.stops, self._values["eos_token"]}
        return {known[end] for end in ends if end in known}

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Endings that the vocabulary has no token for: generation has to watch for the text."""
        known = self.tokenizer.get_vocab()
        ends = dict.fromkeys(end for end in (self._drafter.turns.end, *self.template.stops) if end)
        return tuple(end for end in ends if end not in known)

    def fingerprint(self) -> str:
        """Hash of everything here that decides over tokens."""
        backend = self._encoder.backend_text() or json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        day = today().isoformat() if "strftime_now" in self.template.text else ""
        parts = [
            VERSION,
            self.template.text,
            self._values,
            asdict(self.options),
            hashing.sha256_text(backend),
            day,
        ]
        return hashing.sha256_json(parts)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Tokens that inference feeds so that the model writes the next reply.

        Raises TemplateError when the template cannot express the conversation.
        """
        pieces = self._prompt(messages, tools)
        ids, _ = self._encoder.encode([(piece.text, k == 0) for k, piece in enumerate(pieces)])
        return [int(i) for i in ids]

    def prompt_text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The text of `prompt`, as the template writes it. Raises TemplateError."""
        pieces = self._prompt(messages, tools)
        return "".join(piece.text.replace(BREAK, "").replace(SEAM, "") for piece in pieces)

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Piece]:
        try:
            return list(self._drafter.prompt(messages, tools))
        except RowProblem as problem:
            raise TemplateError(problem.reason) from problem

    def show(self, example: Example) -> tuple[str, list[tuple[int, int]]]:
        """The whole text of an example (its first branch) and the character ranges that are learnt.

        Raises TemplateError when the template cannot express it.
        """
        if _is_text(example):
            return self._show_text(example)
        try:
            draft = self._drafter.drafts(example)[-1]
        except RowProblem as problem:
            raise TemplateError(f"{example.source}: {problem.reason}".removeprefix(": ")) from problem
        text, spans = "", list[tuple[int, int]]()
        for piece in [*draft.trunk, *(draft.branches[0] if draft.branches else [])]:
            start, text = len(text), text + piece.text.replace(BREAK, "").replace(SEAM, "")
            if draft.weight(piece, 0) and len(text) > start:
                if spans and spans[-1][1] == start:
                    start = spans.pop()[0]
                spans.append((start, len(text)))
        return text, spans

    def examples(self, examples: Sequence[Example]) -> list[list[Rendered] | BadRow]:
        """Render many examples at once. One gives one Rendered, or several with history: as_template.

        BadRow where the template refuses the conversation, or (field CUTOFF) where `cutoff_policy` is drop.
        Raises TemplateError when the template cannot express a kind of message that the data has, DataError
        when `cutoff_policy` is error and rows are too long.
        """
        result = self._each(examples, self._one)
        self._stop_if_too_long(result)
        return result

    def pieces(self, examples: Sequence[Example]) -> list[list[Groups] | BadRow]:
        """What `examples` gives, piece by piece, each with what the cutoff took out of it: for looking at."""
        return self._each(examples, self._groups)

    def _each(
        self, examples: Sequence[Example], make: Callable[[Example, Draft, _Chunk, int, list[int]], Made]
    ) -> list[list[Made] | BadRow]:
        """Drafts of all examples, encoded at once, then one Made of each draft."""
        drafts: list[list[Draft] | BadRow] = []
        wanted: list[tuple[str, bool]] = []
        weights: list[float] = []
        for example in examples:
            try:
                group = [self._document(example)] if _is_text(example) else self._drafter.drafts(example)
            except RowProblem as problem:
                drafts.append(BadRow(example.source, problem.field, problem.reason))
                continue
            except TemplateError as error:
                raise TemplateError(f"{example.source}: {error}".removeprefix(": ")) from error
            drafts.append(group)
            for draft in group:
                _flatten(draft, wanted, weights)
        ids, starts = self._encoder.encode(wanted)
        mask = np.repeat(np.array(weights, np.float32), np.diff(starts))
        chunk = _Chunk(ids, mask, starts.tolist(), wanted)
        result: list[list[Made] | BadRow] = []
        for example, found in zip(examples, drafts, strict=True):
            result.append(found if isinstance(found, BadRow) else self._made(example, found, chunk, make))
        return result

    # -- tokens -----------------------------------------------------------------------------------

    def _made(
        self,
        example: Example,
        drafts: Sequence[Draft],
        chunk: _Chunk,
        make: Callable[[Example, Draft, _Chunk, int, list[int]], Made],
    ) -> list[Made] | BadRow:
        result: list[Made] = []
        problem = None
        for draft in drafts:
            first = chunk.at
            bounds = [chunk.starts[first]]
            for group in draft.groups:
                chunk.at += len(group)
                bounds.append(chunk.starts[chunk.at])
            try:
                result.append(make(example, draft, chunk, first, bounds))
            except RowProblem as found:
                problem = BadRow(example.source, found.field, found.reason)
        return problem or result

    def _one(self, example: Example, draft: Draft, chunk: _Chunk, first: int, bounds: list[int]) -> Rendered:
        if (not draft.trunk and _is_text(example)) or _longest(bounds) > self.options.cutoff_len:
            groups = self._groups(example, draft, chunk, first, bounds)
            shortened = [_tokens([(c.ids, c.weight) for c in group]) for group in groups]
            cut = sum(len(ids) for group in groups for c in group for _, ids in c.gone)
            return Rendered(shortened[0], tuple(shortened[1:]), example.verdict, example.source, cut)
        ids, mask = chunk.ids, chunk.mask
        parts = [Tokens(ids[a:b], mask[a:b]) for a, b in itertools.pairwise(bounds)]
        return Rendered(parts[0], tuple(parts[1:]), example.verdict, example.source)

    def _groups(self, example: Example, draft: Draft, chunk: _Chunk, first: int, bounds: list[int]) -> Groups:
        """The pieces of a draft in tokens, shortened where they are too long. Raises RowProblem (CUTOFF)."""
        if not draft.trunk and _is_text(example):
            text = Coded(draft.branches[0][0], True, chunk.ids[bounds[0] : bounds[-1]], 1.0)
            begin, end = self._text_ends
            return [[], [*begin, text, *end]]
        length, limit = _longest(bounds), self.options.cutoff_len
        if length > limit and self.options.cutoff_policy != "cut_prompt":
            raise RowProblem(CUTOFF, f"{length} tokens, more than cutoff_len = {limit}")
        texts = self._shortenable(example) if length > limit else []
        groups: Groups = []
        for b, group in enumerate(draft.groups):
            groups.append([])
            for piece in group:
                ids = chunk.ids[chunk.starts[first] : chunk.starts[first + 1]]
                weight = draft.weight(piece, max(b - 1, 0))
                groups[-1].append(Coded(piece, chunk.wanted[first][1], ids, weight, texts))
                first += 1
        if length > limit:
            try:
                fit(self._encoder, groups[0], groups[1:], limit)
            except (TooLong, ValueError) as error:
                raise RowProblem(CUTOFF, f"{length} tokens: {error}") from error
        return groups

    def _shortenable(self, example: Example) -> list[str]:
        """Texts of users and tools as they stand in the pieces."""
        messages = [
            m for part in (example.trunk, *example.branches) for m in part if m.role in ("user", "tool")
        ]
        return [self._drafter.control(m.role).broken(m.content) for m in messages if m.content.strip()]

    def _stop_if_too_long(self, result: Sequence[list[Rendered] | BadRow]) -> None:
        if self.options.cutoff_policy != "error":
            return
        long = [row for row in result if isinstance(row, BadRow) and row.field == CUTOFF]
        if long:
            shown = "\n".join(f"  {row.source}: {row.reason}" for row in long[:_SHOWN])
            more = f"\n  … and {len(long) - _SHOWN} more" if len(long) > _SHOWN else ""
            raise DataError(
                f"rows are too long and cutoff_policy is error:\n{shown}{more}\n"
                "Raise cutoff_len, or cutoff_policy: cut_prompt"
            )

    # -- plain text (stage pt) ----------------------------------------------------------------------

    def _document(self, example: Example) -> Draft:
        text = _text_of(example)
        if any(mark in text for mark in RESERVED):
            raise RowProblem("text", "the text holds a Unicode noncharacter (U+FDD0 to U+FDD3); remove it")
        return Draft([], [[Piece(self._drafter.control("text").broken(text), 0)]], [[1.0]])

    @cached_property
    def _text_ends(self) -> tuple[list[Coded], list[Coded]]:
        """What stands around a document, which is all learnt but for its beginning: beginning of text where
        the tokenizer writes one, and end of text."""
        tokenizer = self.tokenizer
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        begins = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
        vocabulary = tokenizer.get_vocab()
        if self.template.name == "llama3" and "<|end_of_text|>" in vocabulary:
            eos = vocabulary["<|end_of_text|>"]  # its eos ends turns, not documents

        def coded(token: int, turn: int, weight: float) -> Coded:
            text = str(tokenizer.decode([token]))
            return Coded(Piece(text, turn, len(text)), False, np.array([token], np.int32), weight)

        return [coded(bos, READ, 0.0)] if begins else [], [coded(eos, 0, 1.0)] if eos is not None else []

    def _show_text(self, example: Example) -> tuple[str, list[tuple[int, int]]]:
        first, last = ("".join(c.piece.text for c in coded) for coded in self._text_ends)
        text = _text_of(example)
        return first + text + last, [(len(first), len(first + text + last))]


def _is_text(example: Example) -> bool:
    messages = example.branches[0] if example.branches else example.trunk
    return len(messages) == 1 and messages[0].role == "text"


def _text_of(example: Example) -> str:
    return (example.branches[0] if example.branches else example.trunk)[0].content


@dataclass(slots=True)
class _Chunk:
    """The pieces of many examples in tokens. at: the first piece that is not yet part of a Rendered."""

    ids: Ids
    mask: npt.NDArray[np.float32]
    starts: list[int]
    wanted: list[tuple[str, bool]]
    at: int = 0


def _flatten(draft: Draft, wanted: list[tuple[str, bool]], weights: list[float]) -> None:
    """All pieces of a draft, each with whether it begins a sequence, and its weight."""
    for b, group in enumerate(draft.groups):
        begins = b == 0 or not draft.trunk
        for piece in group:
            wanted.append((piece.text, begins))
            begins = False
            weights.append(draft.weight(piece, b - 1 if b else 0))


def _longest(bounds: Sequence[int]) -> int:
    """Tokens of the trunk and the longest branch."""
    return bounds[1] - bounds[0] + max((b - a for a, b in itertools.pairwise(bounds[1:])), default=0)


def _tokens(pieces: Sequence[tuple[Ids, float]]) -> Tokens:
    if not pieces:
        return _EMPTY
    weights = np.array([weight for _, weight in pieces], np.float32)
    mask = np.repeat(weights, np.array([len(ids) for ids, _ in pieces]))
    return Tokens(np.concatenate([ids for ids, _ in pieces]), mask)
