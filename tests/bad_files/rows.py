"""Sound files whose rows are wrong: formats, roles, pairs, verdicts, tools and media."""

from __future__ import annotations

from typing import Any

from bad_files.case import Case, Texts, asked, file, gpt, human, jsonl, listed, pair, say

GOOD = [human("q"), gpt("a")]
PLAIN = {"prompt": "instruction", "response": "output"}
PAIRS = {"ranking": True, "columns": {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}}
VERDICTS = {"columns": {**PLAIN, "kto_tag": "label"}}


def _chat(turns: Any, field: str, reason: str) -> Case:
    """A sharegpt row that is refused, between two good ones."""
    rows = [{"conversations": GOOD}, {"conversations": turns}, {"conversations": GOOD}]
    write = listed(rows, formatting="sharegpt")
    return Case(write, [("q", "a")] * 2, [(2, f"conversations{field}", reason)])


def _openai(messages: Any, field: str, reason: str, **more: Any) -> Case:
    good = {"messages": [say("user", "q"), say("assistant", "a")]}
    write = listed([good, {"messages": messages, **more}, good], formatting="openai")
    return Case(write, [("q", "a")] * 2, [(2, field, reason)])


def _alpaca(row: dict[str, Any], field: str, reason: str, **columns: str) -> Case:
    write = listed([pair(1), row, pair(2)], columns={**PLAIN, **columns})
    return Case(write, asked(1, 2), [(2, field, reason)])


def _pair(row: dict[str, Any], field: str, reason: str) -> Case:
    good = {"q": "q", "chosen": "good", "rejected": "bad"}
    return Case(
        listed([good, row, good], **PAIRS), [("q", "good", "bad")] * 2, [(2, field, reason)], stage="rm"
    )


def _verdict(label: Any, kept: bool | None) -> Case:
    row = {**pair(1), "label": label}
    bad = [] if kept is not None else [(1, "label", "not true or false")]
    found: list[Texts] = [] if kept is None else [("question 1", "answer 1", kept)]
    return Case(listed([row], **VERDICTS), found, bad, stage="kto")


def _call(arguments: Any, **more: Any) -> list[Any]:
    calls = [{"function": {"name": "f", "arguments": arguments}, **more}]
    return [say("user", "q"), {"role": "assistant", "content": None, "tool_calls": calls}]


def _history(value: Any, field: str, reason: str) -> Case:
    return _alpaca({**pair(3), "history": value}, field, reason, history="history")


HALF = "is not valid JSON: "
CASES: dict[str, Case] = {
    # --- sharegpt
    "the assistant first": _chat(
        [gpt("a"), human("q")], "[0]", 'starts with "gpt"; a conversation starts with "human"'
    ),
    "two user turns in a row": _chat([human("q"), human("r"), gpt("a")], "[1]", '"human" after "human"'),
    "two assistant turns in a row": _chat([human("q"), gpt("a"), gpt("b")], "[2]", '"gpt" after "gpt"'),
    "no answer at the end": _chat([human("q"), gpt("a"), human("r")], "[2]", "the last message is from"),
    "an empty conversation": _chat([], "", "empty: no messages"),
    "only a system message": _chat(
        [{"from": "system", "value": "s"}], "", "no messages beside the system message"
    ),
    "a system message in the middle": _chat(
        [human("q"), {"from": "system", "value": "s"}, gpt("a")], "[1]", '"system" after "human"'
    ),
    "two system messages": _chat(
        [{"from": "system", "value": "s"}] * 2 + GOOD, "[1]", 'starts with "system"'
    ),
    "a conversation that is text": _chat("human: q", "", "is text, not a list of messages"),
    "a conversation that is null": _chat(None, "", "is null, not a list of messages"),
    "a conversation that is an object": _chat({"0": human("q")}, "", "is an object, not a list of messages"),
    "messages that are texts": _chat(["q", "a"], "[0]", "is text, not a message"),
    "messages that are pairs": _chat([["q", "a"]], "[0]", "is a list, not a message"),
    "a null message": _chat([human("q"), None, gpt("a")], "[1]", "is null, not a message"),
    "an unknown role": _chat([human("q"), {"from": "bard", "value": "a"}], "[1].from", 'unknown role "bard"'),
    "a misspelt role": _chat([human("q"), {"from": "gtp", "value": "a"}], "[1].from", 'did you mean "gpt"?'),
    "a role in capitals": _chat(
        [human("q"), {"from": "GPT", "value": "a"}], "[1].from", 'unknown role "GPT"'
    ),
    "a role with a space": _chat(
        [human("q"), {"from": "gpt ", "value": "a"}], "[1].from", 'did you mean "gpt"?'
    ),
    "a role that is null": _chat([human("q"), {"from": None, "value": "a"}], "[1].from", "unknown role null"),
    "a role that is a list": _chat(
        [human("q"), {"from": ["gpt"], "value": "a"}], "[1].from", 'unknown role ["gpt"]'
    ),
    "no role": _chat([human("q"), {"value": "a"}], "[1].from", "missing; the row has value"),
    "no text": _chat([human("q"), {"from": "gpt"}], "[1].value", "missing; the row has from"),
    "another name for the text": _chat(
        [human("q"), {"from": "gpt", "valeu": "a"}], "[1].value", 'did you mean "valeu"?'
    ),
    "an empty answer": _chat([human("q"), gpt("  \n")], "[1].value", "empty answer"),
    "an empty answer in the middle": _chat([human("q"), gpt(""), *GOOD], "[1].value", "empty answer"),
    "an answer that is an object": _chat(
        [human("q"), gpt({"text": "a"})], "[1].value", "is an object, not text"
    ),
    "an answer that is true": _chat([human("q"), gpt(True)], "[1].value", "is true or false: True, not text"),
    "a number for an answer": Case(
        listed([{"conversations": [human("q"), gpt(42)]}], formatting="sharegpt"), [("q", "42")]
    ),
    "a function call that is not JSON": _chat(
        [human("q"), {"from": "function_call", "value": "f(1)"}], "[1].value", HALF
    ),
    "a function call that is cut": _chat(
        [human("q"), {"from": "function_call", "value": '{"name": "f", "argu'}], "[1].value", HALF
    ),
    "a function call without a name": _chat(
        [human("q"), {"from": "function_call", "value": '{"arguments": {}}'}], "[1].value[0]", "is not a call"
    ),
    "an observation after nothing": _chat(
        [{"from": "observation", "value": "1"}, gpt("a")], "[0]", 'starts with "observation"'
    ),
    # --- OpenAI
    "arguments that are not JSON": _openai(
        _call('{"x": 1,}'), "messages[1].tool_calls[0].function.arguments", HALF
    ),
    "arguments that are cut": _openai(
        _call('{"x": "a'), "messages[1].tool_calls[0].function.arguments", HALF
    ),
    "a call without a function": _openai(
        [say("user", "q"), say("assistant", None, tool_calls=[{"id": "1"}])],
        "messages[1].tool_calls[0]",
        "is not a call",
    ),
    "calls that are an object": _openai(
        [say("user", "q"), say("assistant", None, tool_calls={"name": "f"})],
        "messages[1].tool_calls",
        "is an object, not a list",
    ),
    "neither text nor call": _openai(
        [say("user", "q"), say("assistant", None)], "messages[1].content", "empty answer"
    ),
    "an image part": _openai(
        [say("user", [{"type": "image_url", "image_url": {"url": "x"}}]), say("assistant", "a")],
        "messages[0].content[0]",
        "images are not supported yet",
    ),
    "a part without text": _openai(
        [say("user", [{"type": "text"}]), say("assistant", "a")],
        "messages[0].content[0]",
        "is not a text part",
    ),
    "a weight that is text": _openai(
        [say("user", "q"), say("assistant", "a", weight="1")],
        "messages[1].weight",
        "is text, not true, false",
    ),
    "a weight below 0": _openai(
        [say("user", "q"), say("assistant", "a", weight=-1)], "messages[1].weight", "is a number: -1"
    ),
    "weights of 0 alone": _openai(
        [say("user", "q"), say("assistant", "a", weight=0)], "", "nothing to learn"
    ),
    "tools that are not JSON": _openai(
        [say("user", "q"), say("assistant", "a")], "tools", HALF, tools='[{"name": "f",}]'
    ),
    "tools that are texts": _openai(
        [say("user", "q"), say("assistant", "a")], "tools", "not a JSON list of functions", tools=["f"]
    ),
    "tools that are a number": _openai(
        [say("user", "q"), say("assistant", "a")], "tools", "is a number: 5, not a JSON list", tools=5
    ),
    # --- alpaca
    "no answer": _alpaca({"instruction": "q"}, "output", "missing; the row has instruction"),
    "a misspelt field": _alpaca(
        {"instruction": "q", "ouput": "a"}, "output", 'missing; did you mean "ouput"?'
    ),
    "an empty question": _alpaca({"instruction": " ", "output": "a"}, "instruction", "empty question"),
    "a null question": _alpaca({"instruction": None, "output": "a"}, "instruction", "empty question"),
    "an answer that is a list": _alpaca(
        {"instruction": "q", "output": ["a"]}, "output", "is a list, not text"
    ),
    "a system that is a list": _alpaca(
        {**pair(3), "system": ["s"]}, "system", "is a list, not text", system="system"
    ),
    "an empty system": Case(
        listed([{**pair(1), "system": ""}], columns={**PLAIN, "system": "system"}), asked(1)
    ),
    "history of texts": _history(["q", "a"], "history[0]", "is not a [question, answer] pair"),
    "history of three": _history([["q", "a", "b"]], "history[0]", "is not a [question, answer] pair"),
    "history of objects": _history([{"q": "a"}], "history[0]", "is not a [question, answer] pair"),
    "history that is an object": _history({"q": "a"}, "history", "is an object, not a list"),
    "history that is no JSON": _history("[['q', 'a']]", "history", HALF),
    "history with a null": _history([["q", None]], "history[0][1]", "empty answer"),
    "history with an empty question": _history([["", "a"]], "history[0][0]", "empty question"),
    "history with a list": _history([["q", ["a"]]], "history[0][1]", "is a list, not text"),
    "history as text": Case(
        listed([{**pair(1), "history": '[["q", "a"]]'}], columns={**PLAIN, "history": "history"}),
        [("q", "a", "question 1", "answer 1")],
    ),
    "a field that nobody asked for": Case(
        file(jsonl([{**pair(1), "note": "n", "id": 7}]), "d.jsonl"), asked(1)
    ),
    # --- pairs
    "no chosen": _pair({"q": "q", "rejected": "b"}, "chosen", "missing; "),
    "no rejected": _pair({"q": "q", "chosen": "a"}, "rejected", "missing; "),
    "chosen is empty": _pair({"q": "q", "chosen": " ", "rejected": "b"}, "chosen", "empty answer"),
    "rejected is null": _pair({"q": "q", "chosen": "a", "rejected": None}, "rejected", "empty answer"),
    "chosen and rejected are the same": _pair(
        {"q": "q", "chosen": "a", "rejected": "a"}, "rejected", "is the same as the chosen answer"
    ),
    "rejected is a number": _pair(
        {"q": "q", "chosen": "a", "rejected": 5}, "rejected", "is a number: 5, not text or a message"
    ),
    "chosen is a list of texts": _pair(
        {"q": "q", "chosen": ["a"], "rejected": "b"}, "chosen[0]", "is text, not a message"
    ),
    "chosen ends with the user": _pair(
        {"q": "q", "chosen": [say("user", "a")], "rejected": [say("assistant", "b")]},
        "chosen",
        "ends with a user message",
    ),
    "chosen repeats another prompt": _pair(
        {
            "q": "q",
            "chosen": [say("user", "r"), say("assistant", "a")],
            "rejected": [say("user", "r"), say("assistant", "b")],
        },
        "chosen",
        "repeats another prompt than the row's",
    ),
    # --- verdicts
    **{
        f"the verdict {label!r}": _verdict(label, kept)
        for label, kept in (
            (True, True),
            (0, False),
            ("true", True),
            (" False ", False),
            ("yes", True),
            ("good", None),
            ("", None),
            (None, None),
            (2, None),
            (0.5, None),
            ([True], None),
        )
    },
    "no verdict": Case(
        listed([pair(1)], **VERDICTS),
        (),
        [(1, "label", "missing; ")],
        ['no row has a column "label"'],
        stage="kto",
    ),
    # --- media
    "an image that is not there": _alpaca(
        {**pair(3), "images": ["none.png"]}, "images", "images are not supported yet", images="images"
    ),
    "no images": Case(
        listed(
            [{**pair(1), "images": []}, {**pair(2), "images": None}], columns={**PLAIN, "images": "images"}
        ),
        asked(1, 2),
    ),
    "a place for an image and none": Case(
        listed([{"instruction": "<image>what is it?", "output": "a"}]), [("<image>what is it?", "a")]
    ),
}
