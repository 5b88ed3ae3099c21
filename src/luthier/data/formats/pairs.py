"""Preference pairs: the two endings (chosen, rejected) of a row, as texts, messages or lists of messages."""

from __future__ import annotations

from typing import Any

from luthier.data.formats.fields import Fields, RowProblem
from luthier.data.formats.messages import check_order, read_messages
from luthier.data.sources import kind
from luthier.data.spec import OPENAI_TAGS
from luthier.types import Message


def endings(fields: Fields, trunk: list[Message]) -> tuple[list[tuple[Message, ...]], list[Message]]:
    """(chosen, rejected) and the trunk they follow; endings that repeat the prompt are cut to what follows.

    Raises RowProblem when an ending is missing, empty, not the assistant's, or both are the same.
    """
    chosen, rejected = _ending(fields, "chosen"), _ending(fields, "rejected")
    if chosen[0].role != "assistant" or rejected[0].role != "assistant":
        trunk, chosen, rejected = _whole_conversations(fields, trunk, chosen, rejected)
    if chosen == rejected:
        raise RowProblem(str(fields.name("rejected")), "is the same as the chosen answer: nothing to prefer")
    return [tuple(chosen), tuple(rejected)], trunk


def _ending(fields: Fields, key: str) -> list[Message]:
    value, name = fields.need(key), str(fields.name(key))
    if isinstance(value, str):
        messages = [Message("assistant", fields.text(value, name), 1.0)]
    elif isinstance(value, dict | list) and value:
        found = value if isinstance(value, list) else [value]
        messages = read_messages(fields, found, name, _tags(fields, found))
    else:
        raise RowProblem(name, "empty answer" if not value else f"is {kind(value)}, not text or a message")
    last = messages[-1]
    if last.role != "assistant":
        raise RowProblem(name, f"ends with a {last.role} message, not with the assistant's")
    if not last.content.strip() and not last.tool_calls:
        raise RowProblem(name, "empty answer")
    return messages


def _tags(fields: Fields, messages: list[Any]) -> dict[str, str | None]:
    """Role names of endings; beside an alpaca prompt, where tags mean nothing, told by the messages' keys."""
    first = messages[0]
    plain = fields.spec.formatting == "alpaca" and isinstance(first, dict) and "role" in first
    return dict(OPENAI_TAGS if plain else fields.spec.tags)


def _whole_conversations(
    fields: Fields, trunk: list[Message], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Endings that are whole conversations: their common beginning is the trunk."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prefix = chosen[:shared]
    if trunk and [m for m in prefix if m.role != "system"] != [m for m in trunk if m.role != "system"]:
        raise RowProblem(str(fields.name("chosen")), "repeats another prompt than the row's")
    if not prefix or chosen[shared].role != "assistant" or rejected[shared].role != "assistant":
        raise RowProblem(str(fields.name("rejected")), "does not answer the same prompt as the chosen one")
    trunk = prefix if len(prefix) > len(trunk) else trunk  # it may bring the system message
    check_order(fields, trunk, str(fields.name("chosen")), ends_with_answer=False)
    return trunk, chosen[shared:], rejected[shared:]
