"""Where the model starts and stops writing: conversations cut into pieces that are read or written.

The template is asked, never parsed. The header of a turn is what the generation prompt and the rendering of
any reply have in common; a turn ends with its end-of-turn token; what lies between is the reply. A template
that rewrites earlier turns is rendered once per turn, and the turns are put together as they were written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from luthier.data.encode import BREAK, RESERVED, Control
from luthier.data.jinja import Plain, RenderProblem
from luthier.data.template import Template
from luthier.types import Message, ToolCall

PROBE = RESERVED[1]
"""Stands for a reply; a noncharacter, so no real text begins or ends with it."""
READ = -1
_TAG = re.compile(r"\s*(<[^<>\s]{1,64}>|\[[^\[\]\s]{1,64}\])")
Thinking = bool | None


class RowProblem(Exception):
    """One conversation cannot be rendered: which field, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason


class Piece(NamedTuple):
    """Text that is encoded by itself. turn: index of the message that the model writes here, or READ.

    end: how many characters at its end are the end of turn.
    """

    text: str
    turn: int = READ
    end: int = 0


def _common_start(a: str, b: str) -> str:
    return os.path.commonprefix([a, b])  # noqa: RUF071 (of characters is what is meant)


def _common_end(a: str, b: str) -> str:
    return _common_start(a[::-1], b[::-1])[::-1]


class Turns:
    """Cuts conversations for one template and one tokenizer's control tokens."""

    def __init__(
        self, template: Template, values: dict[str, str], special: Sequence[str], thinking: Thinking
    ) -> None:
        self.template, self.thinking = template, thinking
        self._values = values
        self._special = Control([*special, *template.stops])
        self._raw_arguments: bool | None = None
        tail = self._plain_tail()
        self.end = self._end_token(tail)
        self._closing = "" if tail.strip() or template.ours else values.get("eos_token", "")

    # -- rendering -------------------------------------------------------------------------------

    def render(
        self, messages: Sequence[Plain], tools: Sequence[Plain], prompt: bool, thinking: Thinking
    ) -> str:
        values: dict[str, Any] = dict(self._values)
        if thinking is not None:
            values["enable_thinking"] = thinking
        try:
            return self.template.render(messages, tools=tools, add_generation_prompt=prompt, **values)
        except RenderProblem as problem:
            raise RowProblem("messages", f"{self.template.called}: {problem}") from problem

    def header(self, messages: Sequence[Plain], tools: Sequence[Plain], thinking: Thinking) -> str:
        """All text up to where the model starts to write. The same for every reply."""
        probed = self.render([*messages, {"role": "assistant", "content": PROBE}], tools, False, thinking)
        if not messages:
            return probed[: max(probed.find(PROBE), 0)]
        asked = self.render(messages, tools, True, thinking)
        return _common_start(asked, probed)

    def thinking_of(self, message: Plain) -> Thinking:
        """`enable_thinking` for one turn: with null, a turn that reasons is asked to, and another is not."""
        if self.thinking is not None or self.template.thought is None or not self.template.ours:
            return self.thinking
        return any(word.strip() in message["content"] for word in self.template.thought)

    @property
    def thinking_ahead(self) -> Thinking:
        """`enable_thinking` for a reply that is still to be written."""
        if self.thinking is None and self.template.thought is not None and self.template.ours:
            return False
        return self.thinking

    # -- cutting ---------------------------------------------------------------------------------

    def cut(
        self, messages: Sequence[Plain], tools: Sequence[Plain] = (), prompt: bool = False
    ) -> list[Piece]:
        """A conversation as it was written, turn by turn; with `prompt`, up to where the next reply starts.

        Raises RowProblem.
        """
        turns = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            ahead = self.thinking_ahead
            text = (
                self.header(messages, tools, ahead) if prompt else self.render(messages, tools, False, ahead)
            )
            return [Piece(text)]
        head = self.header(messages[: turns[0]], tools, self.thinking_of(messages[turns[0]]))
        pieces = [Piece(head)]
        for turn, following in zip(turns, [*turns[1:], None], strict=True):
            thinking = self.thinking_of(messages[turn])
            other = [*messages]
            other[turn] = self._probe(messages[turn])
            whole = self.render(messages[: turn + 1], tools, False, thinking)
            tail = _common_end(whole, self.render(other[: turn + 1], tools, False, thinking))
            body = self._body(head, whole, tail)
            onward = self._onward(messages, tools, following, prompt)
            if onward is None and turn + 1 == len(messages):
                rest, end, closing = tail, self._end_of_turn(tail, tail), self._closing
            else:
                onward = onward or (lambda m: self.render(m, tools, False, self.thinking_ahead))
                head = onward(messages)
                rest, closing = _common_end(head, onward(other)), ""
                end = self._end_of_turn(_common_start(tail, rest), rest)
            written = body + rest[:end] + closing
            pieces.append(Piece(written, turn, end + len(closing)))
            if following is not None or prompt or rest[end:]:
                pieces.append(Piece(rest[end:]))
        return pieces

    def _onward(
        self, messages: Sequence[Plain], tools: Sequence[Plain], following: int | None, prompt: bool
    ) -> Callable[[Sequence[Plain]], str] | None:
        """How to render a conversation up to where the model writes next; None when it does not."""
        if following is not None:
            thinking = self.thinking_of(messages[following])
            return lambda m: self.header(m[:following], tools, thinking)
        if prompt:
            return lambda m: self.header(m, tools, self.thinking_ahead)
        return None

    def _body(self, head: str, whole: str, tail: str) -> str:
        """What the model writes in a turn, without its ending."""
        if not whole.startswith(head) or len(head) + len(tail) > len(whole):
            raise RowProblem(
                "messages",
                f"{self.template.called} writes this reply so that the prompt is not its beginning; "
                "training could not match what inference is fed",
            )
        return whole[len(head) : len(whole) - len(tail)]

    def _probe(self, message: Plain) -> Plain:
        if "tool_calls" not in message:
            return {**message, "content": PROBE}
        *calls, last = message["tool_calls"]
        arguments: Any = {PROBE: PROBE}
        if isinstance(last["function"]["arguments"], str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {
            **message,
            "tool_calls": [*calls, {**last, "function": {**last["function"], "arguments": arguments}}],
        }

    def _end_of_turn(self, shared: str, rest: str) -> int:
        """How much of the text behind a reply the model must write to end its turn."""
        if self.end and self.end in shared:
            return shared.index(self.end) + len(self.end)
        found = list(self._special.first.finditer(shared))
        if found:
            return found[-1].end()
        opening = self._special.first.match(rest)
        if opening and rest != shared:
            return opening.end()  # turns without an ending of their own: the next turn's opening ends them
        return len(shared.rstrip())

    def _plain_tail(self) -> str:
        """What stands behind a plain reply that ends a conversation."""
        question: list[Plain] = [{"role": "user", "content": "?"}]
        try:
            text = self.render(
                [*question, {"role": "assistant", "content": PROBE}], (), False, self.thinking_ahead
            )
        except RowProblem:
            return ""
        return text.rpartition(PROBE)[2]

    def _end_token(self, tail: str) -> str:
        """What ends a plain reply: a tag right behind it (a token or not), or the first control token."""
        tag = _TAG.match(tail)
        found = self._special.first.search(tail)
        if tag and (found is None or found.start() >= tag.start(1)):
            return found[0] if found and found.start() == tag.start(1) else tag[1]
        return found[0] if found else ""

    # -- what a template can express -------------------------------------------------------------

    def lacks(self, need: str) -> str:
        """Why the template cannot express "system", "tool" (answers), "tool_calls", "tools"; "" if it can."""
        word = PROBE + "x"
        asked: list[Plain] = [{"role": "user", "content": "?"}]
        if need == "system":
            return self._missing([{"role": "system", "content": word}, *asked], (), word)
        if need == "tool":
            call = self.call(ToolCall("f", {"a": 1}))
            return self._missing([*asked, call, {"role": "tool", "content": word}], (), word)
        if need == "tool_calls":
            return self._missing([*asked, self.call(ToolCall(word, {"a": 1}))], (), word)
        function = {"name": word, "description": "", "parameters": {"type": "object", "properties": {}}}
        return self._missing(asked, [{"type": "function", "function": function}], word)

    def _missing(self, messages: Sequence[Plain], tools: Sequence[Plain], word: str) -> str:
        try:
            text = self.render(messages, tools, messages[-1]["role"] != "assistant", self.thinking_ahead)
        except RowProblem as problem:
            return problem.reason
        return "" if word in text else "it is left out without a word"

    # -- messages as templates see them ----------------------------------------------------------

    def call(self, *calls: ToolCall) -> Plain:
        """An assistant turn that calls tools; arguments as the template wants them: object or JSON text."""
        if self._raw_arguments is None:
            self._raw_arguments = False
            self._raw_arguments = bool(self.lacks("tool_calls"))
        return {"role": "assistant", "content": "", "tool_calls": [self._one_call(c) for c in calls]}

    def _one_call(self, call: ToolCall) -> Plain:
        arguments = call.arguments
        if self._raw_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {"type": "function", "function": {"name": call.name, "arguments": arguments}}


def plain(message: Message, turns: Turns, control: Control) -> Plain:
    """A message as a template sees it; what spells a control token is broken. Raises RowProblem."""
    if any(mark in message.content for mark in RESERVED):
        raise RowProblem(message.role, "the text holds a Unicode noncharacter (U+FDD0 to U+FDD3); remove it")
    content = control.broken(message.content)
    if not message.tool_calls:
        return {"role": message.role, "content": content}
    calls = [ToolCall(call.name, broken(call.arguments, control)) for call in message.tool_calls]
    return {**turns.call(*calls), "content": content}


def broken(value: Any, control: Control) -> Any:
    """`Control.broken` for every text in a JSON value."""
    if isinstance(value, str):
        return control.broken(value)
    if isinstance(value, dict):
        return {key: broken(inner, control) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [broken(inner, control) for inner in value]
    return value


def shown(text: str) -> str:
    return re.sub(BREAK, "", text)
