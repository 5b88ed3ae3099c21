"""Lists of messages, as sharegpt and OpenAI files have them, -> Message values in a checked order."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from luthier.data.formats.fields import LONGEST_NAME, Fields, RowProblem, missing, parse_json
from luthier.data.sources import kind
from luthier.data.spec import TAG_ROLES
from luthier.types import Message, Role, ToolCall

WEIGHT_KEYS = ("weight", "loss", "train")  # OpenAI's fine-tuning files; others' names for the same
MOST = 100_000  # messages of a row, more than any model reads
THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def roles(tags: Mapping[str, str | None]) -> dict[str, tuple[str, Role]]:
    """Accepted role names -> (tag, role). OpenAI's "developer" is another name of "system"."""
    accepted = {str(tags[tag]): (tag, role) for tag, role in TAG_ROLES.items() if tags.get(tag)}
    if "system" in accepted:
        accepted.setdefault("developer", ("system_tag", "system"))
    return accepted


def read_messages(
    fields: Fields, messages: Any, where: str, tags: Mapping[str, str | None] | None = None
) -> list[Message]:
    """The messages of a list, each checked by itself (not their order). Raises RowProblem."""
    tags = fields.spec.tags if tags is None else tags
    if isinstance(messages, str) and messages.lstrip().startswith("["):
        messages = parse_json(messages, where)  # a cell of a table can hold a conversation only as text
    if not isinstance(messages, list):
        raise RowProblem(where, f"is {kind(messages)}, not a list of messages")
    if not messages:
        raise RowProblem(where, "empty: no messages")
    if len(messages) > MOST:
        raise RowProblem(
            where, f"{len(messages):,} messages; a row may have {MOST:,} -> make several rows of it"
        )
    accepted = roles(tags)
    return [
        _message(fields, message, f"{where}[{place}]", tags, accepted)
        for place, message in enumerate(messages)
    ]


def _message(
    fields: Fields,
    message: Any,
    where: str,
    tags: Mapping[str, str | None],
    accepted: Mapping[str, tuple[str, Role]],
) -> Message:
    if not isinstance(message, Mapping):
        raise RowProblem(where, f"is {kind(message)}, not a message")
    role_key, content_key = str(tags.get("role_tag")), str(tags.get("content_tag"))
    if role_key not in message:
        raise RowProblem(f"{where}.{role_key}", missing(role_key, message))
    name = message[role_key]
    tag, role = accepted.get(name, ("", "user")) if isinstance(name, str) else ("", "user")
    if not tag:
        raise RowProblem(f"{where}.{role_key}", _unknown_role(name, tags, accepted))
    calls = _tool_calls(message.get("tool_calls"), f"{where}.tool_calls") if role == "assistant" else ()
    place = f"{where}.{content_key}"
    if content_key not in message and not calls:
        raise RowProblem(place, missing(content_key, message))
    value = message.get(content_key)
    if tag == "function_tag" and not calls:
        content, calls = _function_call(value, place)
    else:
        content = _content(fields, value, place)
    if role == "assistant" and isinstance(message.get("reasoning_content"), str):
        content = f"<think>\n{message['reasoning_content'].strip()}\n</think>\n\n{content}"
    return Message(role, content, _weight(message, where, 1.0 if role == "assistant" else 0.0), calls)


def _unknown_role(name: Any, tags: Mapping[str, str | None], accepted: Mapping[str, tuple[str, Role]]) -> str:
    names = [key for key, (tag, _) in accepted.items() if tags.get(tag) == key]
    near = difflib.get_close_matches(str(name)[:LONGEST_NAME], names, 1, 0.6)
    unlisted = [tag for tag in TAG_ROLES if not tags.get(tag)]
    shown = json.dumps(name, ensure_ascii=False, default=str)[:LONGEST_NAME]
    return (
        f"unknown role {shown}; accepted: {', '.join(names)}"
        + (f'; did you mean "{near[0]}"?' if near else "")
        + (f'; "tags" of dataset_info.json leaves out {", ".join(unlisted)}' if unlisted else "")
    )


def _content(fields: Fields, value: Any, where: str) -> str:
    """A message's text; OpenAI's list of text parts is joined. Raises RowProblem."""
    if not isinstance(value, list):
        return fields.text(value, where)
    texts: list[str] = []
    for place, part in enumerate(value):
        if isinstance(part, str):
            texts.append(fields.text(part, f"{where}[{place}]"))
        elif isinstance(part, Mapping) and part.get("type", "text") == "text" and "text" in part:
            texts.append(fields.text(part["text"], f"{where}[{place}].text"))
        else:
            found = str(part.get("type")) if isinstance(part, Mapping) else ""
            media = next((word for word in ("image", "video", "audio") if word in found), None)
            raise RowProblem(
                f"{where}[{place}]", f"{media}s are not supported yet" if media else "is not a text part"
            )
    return "".join(texts)


def _weight(message: Mapping[str, Any], where: str, default: float) -> float:
    """How strongly the model learns to write this message: its own weight, else the default."""
    for key in WEIGHT_KEYS:
        value = message.get(key)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or not math.isfinite(value) or value < 0:
            raise RowProblem(f"{where}.{key}", f"is {kind(value)}, not true, false or a weight of 0 or more")
        return float(value)
    return default


def _function_call(value: Any, where: str) -> tuple[str, tuple[ToolCall, ...]]:
    """A sharegpt function_call: (what is thought before it, the calls). Raises RowProblem."""
    thought = ""
    if isinstance(value, str):
        before = THOUGHT.match(value)
        thought = before.group(0) if before else ""
        value = parse_json(value[len(thought) :], where)
    calls = _tool_calls(value if isinstance(value, list) else [value], where)
    if not calls:
        raise RowProblem(where, "empty: no function is called")
    return thought, calls


def _tool_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    """Calls as {"name", "arguments"} or OpenAI's {"function": {"name", "arguments"}}. Raises RowProblem."""
    if not value:
        return ()
    if not isinstance(value, list):
        raise RowProblem(where, f"is {kind(value)}, not a list of calls")
    return tuple(_tool_call(call, f"{where}[{place}]") for place, call in enumerate(value))


def _tool_call(call: Any, where: str) -> ToolCall:
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call, where = call["function"], f"{where}.function"
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise RowProblem(where, 'is not a call: {"name": ..., "arguments": ...}')
    arguments = call.get("arguments", {})
    if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
        arguments = parse_json(arguments, f"{where}.arguments")  # any other text is what the assistant wrote
    return ToolCall(call["name"], {} if arguments is None else arguments)


def check_order(fields: Fields, messages: list[Message], where: str, *, ends_with_answer: bool) -> None:
    """Raises RowProblem unless user (or tool) and assistant alternate, starting with the user.

    A system message may stand first; several tool messages may answer one assistant message.
    """
    tags = {role: fields.spec.tags.get(tag) for tag, role in TAG_ROLES.items() if tag != "function_tag"}
    shown = {role: str(tags[role] or role) for role in ("system", "user", "assistant", "tool")}
    offset = 1 if messages[0].role == "system" else 0
    turns = messages[offset:]
    if not turns:
        raise RowProblem(where, "empty: no messages beside the system message")
    if turns[0].role != "user":
        raise RowProblem(
            f"{where}[{offset}]",
            f'starts with "{shown[turns[0].role]}"; a conversation starts with "{shown["user"]}"',
        )
    for place in range(1, len(turns)):
        before, role = turns[place - 1].role, turns[place].role
        if role == "system" or (role == "assistant") == (before == "assistant"):
            if role == before == "tool":
                continue
            raise RowProblem(
                f"{where}[{place + offset}]",
                f'"{shown[role]}" after "{shown[before]}"; {shown["user"]} (or {shown["tool"]})'
                f" and {shown['assistant']} must alternate",
            )
    if ends_with_answer != (turns[-1].role == "assistant"):
        wanted = shown["assistant"] if ends_with_answer else f"{shown['user']} or {shown['tool']}"
        raise RowProblem(
            f"{where}[{len(messages) - 1}]",
            f'the last message is from "{shown[turns[-1].role]}", not from {wanted}',
        )
