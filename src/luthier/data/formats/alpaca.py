"""alpaca rows: instruction, input, output, with history, system and tools where the data set names them."""

from __future__ import annotations

from typing import Any

from luthier.data.formats.fields import (
    PROMPT_ONLY,
    Fields,
    RowProblem,
    finish,
    parse_json,
    prompt_only,
    text_example,
)
from luthier.data.formats.pairs import endings
from luthier.data.sources import kind
from luthier.types import Example, Message


def convert(fields: Fields) -> Example:
    """An alpaca row. Its question is prompt and query, joined by a newline, whichever are not empty."""
    fields.refuse_media()
    name = str(fields.name("prompt"))
    parts = [fields.text(fields.need("prompt"), name), fields.column_text("query")]
    question = "\n".join(part for part in parts if part)
    if fields.stage == "pt":
        return text_example(question, name, fields.source)
    if not question.strip():
        raise RowProblem(name, "empty question")
    system = fields.column_text("system")
    trunk = [Message("system", system)] if system else []
    trunk += [*_history(fields), Message("user", question)]
    if fields.spec.ranking:
        branches, prefix = endings(fields, trunk)
        return finish(fields, prefix, branches)
    if fields.stage in PROMPT_ONLY and not fields.get("response"):
        return prompt_only(fields, trunk)
    return finish(fields, trunk, [(Message("assistant", _answer(fields), 1.0),)])


def _answer(fields: Fields) -> str:
    value, name = fields.need("response"), str(fields.name("response"))
    text = fields.text(value, name)
    if not text.strip():
        raise RowProblem(name, "empty answer")
    return text


def _history(fields: Fields) -> list[Message]:
    """Earlier turns, [[question, answer], ...]. They are learnt too, unless the run masks history."""
    value, name = fields.get("history"), str(fields.name("history"))
    if isinstance(value, str):
        value = parse_json(value, name) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise RowProblem(name, f"is {kind(value)}, not a list of [question, answer] pairs")
    messages: list[Message] = []
    for place, pair in enumerate(value):
        question, answer = _pair(pair, f"{name}[{place}]")
        texts = [fields.text(text, f"{name}[{place}][{k}]") for k, text in enumerate((question, answer))]
        for k, what in enumerate(("empty question", "empty answer")):
            if not texts[k].strip():
                raise RowProblem(f"{name}[{place}][{k}]", what)
        messages += [Message("user", texts[0]), Message("assistant", texts[1], 1.0)]
    return messages


def _pair(pair: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise RowProblem(where, "is not a [question, answer] pair")
    return pair[0], pair[1]
