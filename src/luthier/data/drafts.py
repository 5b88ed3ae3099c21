"""Examples as weighted pieces of text: which turns are learnt, what the branches share, what is split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from luthier.data import jinja
from luthier.data.encode import Control, Encoder
from luthier.data.jinja import Plain
from luthier.data.shapes import Shapes, texts_of, unseamed
from luthier.data.template import Template
from luthier.data.turns import READ, Piece, RowProblem, Turns, broken, plain
from luthier.errors import TemplateError
from luthier.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OTHER = "choose a template that knows tools, such as qwen, llama3, glm4 or mistral"
_NEEDS = {
    "system": (
        "a system message",
        "choose a template with a place for it, or put that text into the user's message",
    ),
    "tool": ("a tool's answer", _OTHER),
    "tool_calls": ("tool calls", _OTHER),
    "tools": ("definitions of tools", _OTHER),
}


@dataclass(frozen=True)
class RenderOptions:
    """How examples become tokens; the configuration keys of the same names explain them.

    history: "as_trained" keeps earlier replies as the model wrote them; "as_template" gives each reply the
    prompt that the template writes, which splits conversations whose earlier turns it rewrites.
    """

    cutoff_len: int = 2048
    cutoff_policy: str = "cut_prompt"
    mask_history: bool = False
    train_on_prompt: bool = False
    enable_thinking: bool | None = True
    history: str = "as_trained"


@dataclass(slots=True)
class Draft:
    """One sequence, or several that begin alike: trunk + branches[k]. weights: by branch and written turn."""

    trunk: list[Piece]
    branches: list[list[Piece]]
    weights: Sequence[Sequence[float]]
    read_weight: float = 0.0

    @property
    def groups(self) -> list[list[Piece]]:
        return [self.trunk, *self.branches]

    def weight(self, piece: Piece, branch: int) -> float:
        return self.read_weight if piece.turn == READ else self.weights[branch][piece.turn]


class Drafter:
    """Cuts examples and prompts for one template, tokenizer and set of options; `counts`: what happened."""

    def __init__(
        self,
        template: Template,
        encoder: Encoder,
        options: RenderOptions,
        values: dict[str, str],
    ) -> None:
        tokenizer = encoder.tokenizer
        self.template, self.options = template, options
        self.counts: Counter[str] = Counter()
        special = special_tokens(tokenizer)
        self.turns = Turns(template, values, special, options.enable_thinking)
        self._controls = _controls(template, tokenizer, special)
        watched = jinja.watched(template.text)
        self._shapes = Shapes(self.turns.cut, watched, encoder.with_seams)
        self._prompts = Shapes(lambda m: self.turns.cut(m, prompt=True), watched, encoder.with_seams)
        self._checked: set[str] = set()
        opening, closing = template.thought or ("<think>", "</think>")
        self._thought = re.compile(
            f"{re.escape(opening.strip())}.*?{re.escape(closing.strip())}\\s*", re.DOTALL
        )
        self._drops_thoughts = (
            template.thought is not None and not template.ours and options.enable_thinking is False
        )

    # -- prompts ---------------------------------------------------------------------------------

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Piece]:
        """Pieces up to where the next reply starts. Raises RowProblem, TemplateError."""
        if self.options.history == "as_template" and any(m.role == "assistant" for m in messages):
            return self._prompt_exactly(messages, tools)
        return self._quick(self._prompts, messages, tools, self._prompt_exactly)

    def _prompt_exactly(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Piece]:
        self._require(messages, tools)
        whole, given = self._plain(messages), broken([dict(t) for t in tools], self._controls["tool"])
        pieces = self.turns.cut(whole, given, prompt=True)
        if self.options.history == "as_template":
            pieces = self._as_template(pieces, self.turns.header(whole, given, self.turns.thinking_ahead))
        self._verify(messages, whole, pieces)
        return pieces

    @staticmethod
    def _as_template(pieces: list[Piece], header: str) -> list[Piece]:
        """The prompt as the template writes it: in one piece when that is not how the turns were written."""
        return pieces if unseamed("".join(piece.text for piece in pieces)) == header else [Piece(header)]

    # -- examples --------------------------------------------------------------------------------

    def drafts(self, example: Example) -> list[Draft]:
        """Usually one. Raises RowProblem, or TemplateError when the template lacks what the data needs."""
        first = example.trunk[0] if example.trunk else example.branches[0][0] if example.branches else None
        if first is None:
            raise RowProblem("messages", "there is nothing to read and nothing to write")
        if first.role == "text":
            raise RowProblem("messages", "plain text is for stage pt; this is a conversation")
        if not example.branches:
            return [
                Draft(
                    self.prompt(example.trunk, example.tools), [], [self._weights(example.trunk)], self._read
                )
            ]
        if self.options.history == "as_template":
            return self._split(example)
        trunk, branches, weights = [Piece("")], [], []
        for branch in example.branches:
            messages = (*example.trunk, *branch)
            pieces = self._cut(messages, example.tools)
            at = _start(pieces, len(example.trunk), branch)
            trunk = pieces[:at]
            branches.append(pieces[at:])
            weights.append(self._weights(messages))
        return [Draft(trunk, branches, weights, self._read)]

    @property
    def _read(self) -> float:
        return 1.0 if self.options.train_on_prompt else 0.0

    def _cut(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Piece]:
        """Pieces of a whole conversation."""
        return self._quick(self._shapes, messages, tools, self._cut_exactly)

    def _quick(
        self,
        shapes: Shapes,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        exactly: Callable[[Sequence[Message], Sequence[Mapping[str, Any]]], list[Piece]],
    ) -> list[Piece]:
        """Fill a known shape where that is exact."""
        if not (tools or self._drops_thoughts):
            texts = texts_of(messages, self._controls)
            pieces = (
                None if texts is None else shapes.pieces(messages, texts, lambda: exactly(messages, tools))
            )
            if pieces is not None:
                return pieces
        return exactly(messages, tools)

    def _cut_exactly(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Piece]:
        self._require(messages, tools)
        whole = self._plain(messages)
        pieces = self.turns.cut(whole, broken([dict(t) for t in tools], self._controls["tool"]))
        self._verify(messages, whole, pieces)
        return pieces

    def _weights(self, messages: Sequence[Message]) -> list[float]:
        weights = [m.train if m.role == "assistant" else 0.0 for m in messages]
        if self.options.mask_history:
            last = max((k for k, m in enumerate(messages) if m.role == "assistant"), default=-1)
            weights = [w if k == last else 0.0 for k, w in enumerate(weights)]
        return weights

    def _split(self, example: Example) -> list[Draft]:
        """Each learnt reply behind the prompt that the template writes; one sequence if those agree."""
        if len(example.branches) > 1:
            return [self._pair(example)]
        messages = (*example.trunk, *example.branches[0])
        weights, pieces = self._weights(messages), self._cut(messages, example.tools)
        at = _start(pieces, len(example.trunk), example.branches[0])
        learnt = [k for k, m in enumerate(messages) if m.role == "assistant" and weights[k]]
        if learnt == [k for k, m in enumerate(messages) if m.role == "assistant"][:1] or not learnt:
            return [Draft(pieces[:at], [pieces[at:]], [weights], self._read)]
        alone = [self._reply(messages, k, example.tools) for k in learnt]
        seen = [unseamed(piece.text) for piece in pieces]
        if all([unseamed(p.text) for p in prompt] == seen[: len(prompt)] for prompt, _ in alone):
            return [Draft(pieces[:at], [pieces[at:]], [weights], self._read)]
        self.counts["split"] += 1
        return [
            Draft([p._replace(turn=READ) for p in prompt], [reply], [weights], self._read)
            for prompt, reply in alone
        ]

    def _pair(self, example: Example) -> Draft:
        """Alternative endings behind the template's own prompt; turns of the trunk are only read."""
        trunk, branches, weights = [Piece("")], [], []
        for branch in example.branches:
            messages = (*example.trunk, *branch)
            first = next((k for k, m in enumerate(branch) if m.role == "assistant"), 0) + len(example.trunk)
            trunk, _ = self._reply(messages, first, example.tools)
            pieces = self._cut(messages, example.tools)
            branches.append(pieces[next(k for k, p in enumerate(pieces) if p.turn == first) :])
            weights.append([0.0] * len(example.trunk) + self._weights(messages)[len(example.trunk) :])
        return Draft(trunk, branches, weights, self._read)

    def _reply(
        self, messages: Sequence[Message], turn: int, tools: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Piece], list[Piece]]:
        """The prompt of one reply, as the template writes it, and the reply with what follows it."""
        pieces = self._cut(messages[: turn + 1], tools)
        at = next(k for k, piece in enumerate(pieces) if piece.turn == turn)
        whole, given = (
            self._plain(messages[: turn + 1]),
            broken([dict(t) for t in tools], self._controls["tool"]),
        )
        header = self.turns.header(whole[:turn], given, self.turns.thinking_of(whole[turn]))
        return self._as_template(pieces[:at], header), pieces[at:]

    # -- messages --------------------------------------------------------------------------------

    def _plain(self, messages: Sequence[Message]) -> list[Plain]:
        found = []
        for message in messages:
            if self._drops_thoughts and message.role == "assistant":
                content = self._thought.sub("", message.content)
                self.counts["thoughts removed"] += content != message.content
                message = replace(message, content=content)
            found.append(plain(message, self.turns, self._controls[message.role]))
        return found

    def _verify(self, messages: Sequence[Message], whole: Sequence[Plain], pieces: Sequence[Piece]) -> None:
        """Nothing is left out silently: what is read must be there, and dropped reasoning is counted."""
        text = "".join(piece.text for piece in pieces)
        for message, seen in zip(messages, whole, strict=True):
            content = seen["content"].strip()
            if content in text:
                continue
            if message.role == "assistant":
                self.counts["replies changed by the template"] += 1
                kept = all(part.strip() in text for part in self._thought.split(content))
                if not kept and not seen.get("tool_calls"):
                    raise RowProblem(
                        "assistant", f"{self.template.called} leaves this reply out or rewrites it"
                    )
            elif message.role != "tool":
                raise RowProblem(
                    message.role, f"{self.template.called} leaves this {message.role} message out"
                )

    def _require(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
        """Raises TemplateError when the template has no place for a kind of message; asked once per kind."""
        needs: set[str] = {"tools"} if tools else set()
        for message in messages:
            if message.role in ("system", "tool"):
                needs.add(message.role)
            if message.tool_calls:
                needs.add("tool_calls")
        for need in sorted(needs - self._checked):
            reason = self.turns.lacks(need)
            if reason:
                what, instead = _NEEDS[need]
                called = self.template.called
                raise TemplateError(f"{called} cannot express {what}: {reason} -> {instead}")
            self._checked.add(need)

    def control(self, role: str) -> Control:
        return self._controls[role]


def _start(pieces: Sequence[Piece], trunk: int, branch: Sequence[Message]) -> int:
    """Which piece the branch begins with: its first reply, or the text before it when it begins otherwise."""
    at = next((k for k, piece in enumerate(pieces) if piece.turn >= trunk), len(pieces))
    if branch and branch[0].role != "assistant":
        return max(at - 1, 0)
    return at


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    added = tokenizer.added_tokens_decoder.values()
    return [*dict.fromkeys([*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)])]


def _controls(
    template: Template, tokenizer: PreTrainedTokenizerBase, special: Sequence[str]
) -> dict[str, Control]:
    """What may not be spelt in a message, by its role.

    Special tokens and endings nowhere; in what the model reads, also the added tokens that the template
    writes itself (<tool_response>, <think>). A reply may hold the words around its reasoning.
    """
    own = [str(token) for token in tokenizer.added_tokens_decoder.values() if str(token) in template.text]
    reading = Control([*special, *template.stops, *own])
    words = {word.strip() for word in template.thought or ()} | {"<think>", "</think>"}
    writing = Control([token for token in (*special, *template.stops) if token not in words])
    return {"assistant": writing, **dict.fromkeys(("system", "user", "tool", "text"), reading)}
