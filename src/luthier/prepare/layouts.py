"""Example -> row, the way back from `luthier.data.formats`: alpaca, sharegpt, OpenAI messages, plain text.

A layout writes a row only if reading it gives the same Example again (its source aside). That is tried with
the reader itself, so no format's rule has to be known twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from luthier.data import formats
from luthier.data.formats import RowProblem
from luthier.data.spec import COLUMNS, OPENAI_TAGS, TAGS, DatasetSpec
from luthier.prepare.write import encode
from luthier.types import Example, Message, Row, ToolCall

Kind = Literal["answers", "pairs", "verdicts", "text"]
Form = Literal["json", "columns", "cells"]
"""What a file's values may be: anything · of one type in a column (Arrow) · text."""
Made = dict[str, Any]
RESERVED = frozenset({*COLUMNS, "instruction", "input", "output", "conversations", "text", "weight"})
"""Names of columns that mean something to a format: nothing else may be kept under them."""


class Inexpressible(Exception):
    """Why an Example has no place in a layout, and which one has a place for it."""


def kind_of(stage: str) -> Kind:
    """What rows of a stage hold."""
    kinds: dict[str, Kind] = {"rm": "pairs", "dpo": "pairs", "kto": "verdicts", "pt": "text"}
    return kinds.get(stage, "answers")


def target(to: str, kind: Kind, path: str, used: frozenset[str] | None = None) -> DatasetSpec:
    """How rows of a layout are read. used: optional columns that there are; None for all."""
    optional = {"system", "tools", "history"} if used is None else used
    columns: dict[str, str | None] = dict.fromkeys(COLUMNS)
    if kind == "text":
        return DatasetSpec(path, "file", path, formatting="text", columns=columns | {"prompt": "text"})
    if to == "alpaca":
        columns |= {"prompt": "instruction", "query": "input", "response": "output"}
    else:
        columns["messages"] = "messages" if to == "openai" else "conversations"
    known = {"alpaca": ("system", "tools", "history"), "sharegpt": ("system", "tools"), "openai": ("tools",)}
    columns |= {name: name for name in known[to] if name in optional}
    if kind == "pairs":
        columns |= {"response": None, "chosen": "chosen", "rejected": "rejected"}
    columns["kto_tag"] = "kto_tag" if kind == "verdicts" else None
    tags = dict(OPENAI_TAGS if to == "openai" else TAGS)
    return DatasetSpec(path, "file", path, formatting=to, ranking=kind == "pairs", columns=columns, tags=tags)


def row(example: Example, spec: DatasetSpec, stage: str, form: Form = "json", check: bool = True) -> Made:
    """The row of an Example in the layout of `spec` (`target`), for a file of such a form.

    check: read it back (twice the time). Raises Inexpressible when that gives another Example.
    """
    made = LAYOUTS[str(spec.formatting)](example, form)
    if form == "cells":
        made = {name: value if isinstance(value, str) else encode(value) for name, value in made.items()}
    if not check:
        return made
    try:
        back = formats.to_example(Row(made, example.source), spec, stage)
    except RowProblem as problem:
        raise Inexpressible(
            f"{spec.formatting} rows may not be so: {general(problem.field, problem.reason)}"
        ) from problem
    if back != example:
        raise Inexpressible(f"{spec.formatting} would be read with other {_differs(back, example)}")
    return made


def general(place: str, reason: str) -> str:
    """A reason without the place in a list, so that rows of one kind are counted together."""
    return f"{place.partition('[')[0]}: {reason}" if place else reason


def _differs(back: Example, example: Example) -> str:
    weights = [[m.train for m in turns] for turns in (back.trunk, *back.branches)]
    if weights != [[m.train for m in turns] for turns in (example.trunk, *example.branches)]:
        return "weights of its messages"
    names = {"trunk": "messages", "branches": "answers", "verdict": "verdict", "answer": "answer"}
    return next(
        (said for name, said in names.items() if getattr(back, name) != getattr(example, name)), "tools"
    )


def _text(example: Example, form: Form) -> Made:
    return {"text": example.branches[0][0].content}


def _alpaca(example: Example, form: Form) -> Made:
    turns = list(example.trunk)
    system = turns.pop(0).content if turns and turns[0].role == "system" else ""
    for turn in (*turns, *(turn for branch in example.branches for turn in branch)):
        if turn.role == "tool" or turn.tool_calls:
            raise Inexpressible("alpaca has no place for function calls -> --to sharegpt, or openai")
    asked, said = turns[0::2], turns[1::2]
    in_turn = all(t.role == "user" for t in asked) and all(t.role == "assistant" for t in said)
    if not in_turn or len(asked) != len(said) + 1:
        raise Inexpressible("alpaca has questions and answers in turn -> --to sharegpt, or openai")
    made: Made = {"instruction": asked[-1].content, "input": ""}
    if len(example.branches) > 1:
        if any(len(branch) > 1 for branch in example.branches):
            raise Inexpressible("alpaca has no place for endings of several messages -> --to openai")
        made |= {"chosen": example.branches[0][0].content, "rejected": example.branches[1][0].content}
    else:
        made["output"] = example.branches[0][0].content if example.branches else example.answer or ""
    made |= {"system": system} if system else {}
    pairs = [[question.content, answer.content] for question, answer in zip(asked, said, strict=False)]
    made |= {"history": pairs} if pairs else {}
    made |= {"tools": _json(example.tools)} if example.tools else {}
    return made | ({} if example.verdict is None else {"kto_tag": example.verdict})


def _sharegpt(example: Example, form: Form) -> Made:
    turns = list(example.trunk)
    made: Made = {}
    if turns and turns[0].role == "system" and not turns[0].train:
        made["system"] = turns.pop(0).content
    return _chat("conversations", example, turns, _sharegpt_turn, form) | made


def _openai(example: Example, form: Form) -> Made:
    made = _chat("messages", example, list(example.trunk), _openai_turn, form)
    if example.tools and form == "json":
        made["tools"] = [dict(tool) for tool in example.tools]
    return made


def _chat(
    column: str, example: Example, turns: list[Message], turn: Callable[[Message], Made], form: Form
) -> Made:
    """What sharegpt and OpenAI rows have in common. In pairs and verdicts only the ending is learnt, which
    goes without saying; elsewhere a message says so when it is not learnt as it would be by itself."""
    judged = len(example.branches) > 1 or example.verdict is not None

    def written(message: Message, said: bool) -> Made:
        usual = 1.0 if message.role == "assistant" else 0.0
        weight = int(message.train) if message.train == int(message.train) else message.train
        return turn(message) | ({"weight": weight} if said and message.train != usual else {})

    messages = [written(message, not judged) for message in turns]
    made: Made = {}
    if len(example.branches) > 1:
        for name, branch in zip(("chosen", "rejected"), example.branches, strict=True):
            made[name] = _ending(_numbered([written(message, True) for message in branch]), branch, form)
    else:
        ends = example.branches[0] if example.branches else ()
        if not ends and example.answer is not None:
            ends = (Message("assistant", example.answer, 1.0),)
        messages += [written(message, True) for message in ends]
    made = {column: _numbered(messages), **made}
    made |= {"tools": _json(example.tools)} if example.tools else {}
    return made | ({} if example.verdict is None else {"kto_tag": example.verdict})


def _ending(messages: list[Made], branch: Sequence[Message], form: Form) -> Any:
    """An ending as LLaMA-Factory has it, one message; where it is more, a list, if the file can hold both."""
    calls = branch[0].tool_calls
    odd = calls if form == "cells" else [one for one in calls if not isinstance(one.arguments, Mapping | str)]
    if form != "json" and (len(branch) > 1 or odd):
        raise Inexpressible("a column holds endings of one message (.csv, .xlsx: of text) -> write .jsonl")
    if form == "cells":
        return branch[0].content
    return messages[0] if len(messages) == 1 else messages


def _sharegpt_turn(message: Message) -> Made:
    if not message.tool_calls:
        names = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
        return {"from": names[message.role], "value": message.content}
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    value = message.content + _json(calls[0] if len(calls) == 1 else calls)
    if message.content.strip() and not message.content.lstrip().startswith("<think>"):
        raise Inexpressible("sharegpt has no place for text beside a function call -> --to openai")
    return {"from": "function_call", "value": value}


def _openai_turn(message: Message) -> Made:
    made: Made = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": "", "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.tool_calls
        ]
    return made


def _arguments(call: ToolCall) -> Any:
    """OpenAI's files have the arguments as JSON text; what is no object stays as it is."""
    return _json(call.arguments) if isinstance(call.arguments, Mapping) else call.arguments


def _numbered(messages: Sequence[Made]) -> list[Made]:
    """Each call with an id of its own, and each answer of a tool with its call's (OpenAI asks for it)."""
    made, waiting, count = [], list[str](), 0
    for message in messages:
        calls = []
        for call in message.get("tool_calls", ()):
            count += 1
            calls.append({**call, "id": f"call_{count}"})
        if calls:
            message, waiting = {**message, "tool_calls": calls}, [call["id"] for call in calls]
        elif message.get("role") == "tool" and waiting:
            message = {**message, "tool_call_id": waiting.pop(0)}
        made.append(message)
    return made


def _json(value: Any) -> str:
    return encode([dict(one) for one in value] if isinstance(value, tuple) else value)


LAYOUTS: dict[str, Callable[[Example, Form], Made]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "openai": _openai,
    "text": _text,
}
TO = ("alpaca", "sharegpt", "openai")
