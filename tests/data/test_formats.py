"""Rows -> Examples, format by format, and the reason for each row that cannot be one."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from luthier.data import formats
from luthier.data.spec import OPENAI_COLUMNS, OPENAI_TAGS, TAGS, DatasetSpec
from luthier.errors import DataError
from luthier.types import BadRow, Example, Message, Row, ToolCall

ALPACA = DatasetSpec("d", "file", "d.json", formatting="alpaca")
SHAREGPT = DatasetSpec("d", "file", "d.json", formatting="sharegpt")
OPENAI = DatasetSpec("d", "file", "d.json", formatting="openai", columns=OPENAI_COLUMNS, tags=OPENAI_TAGS)
TEXT = DatasetSpec("d", "file", "d.json", formatting="text", columns={"prompt": "text"})


def convert(spec, data, stage="sft", tally=None):
    return formats.to_example(Row(data, "d.json:1"), spec, stage, tally)


def reason(spec, data, stage="sft"):
    with pytest.raises(formats.RowProblem) as caught:
        convert(spec, data, stage)
    return caught.value.field, caught.value.reason


def with_columns(spec, **columns):
    return replace(spec, columns={**spec.columns, **columns})


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


# alpaca


def test_alpaca():
    assert convert(ALPACA, {"instruction": "add", "input": "1 2", "output": "3"}) == Example(
        trunk=(Message("user", "add\n1 2"),),
        branches=((Message("assistant", "3", 1.0),),),
        answer="3",
        source="d.json:1",
    )


@pytest.mark.parametrize("data", [{"input": ""}, {"input": None}, {}])
def test_alpaca_without_input(data):
    assert convert(ALPACA, {"instruction": "hi", "output": "ho", **data}).trunk == (Message("user", "hi"),)


def test_alpaca_with_history_and_system():
    spec = with_columns(ALPACA, history="history", system="system")
    row = {"instruction": "c", "output": "d", "history": [["a", "b"]], "system": "be kind"}
    assert convert(spec, row).trunk == (
        Message("system", "be kind"),
        Message("user", "a"),
        Message("assistant", "b", 1.0),
        Message("user", "c"),
    )
    assert convert(spec, {**row, "history": '[["a", "b"]]'}) == convert(spec, row)
    assert reason(spec, {**row, "history": [["a"]]}) == ("history[0]", "is not a [question, answer] pair")
    assert reason(spec, {**row, "history": 5})[0] == "history"


@pytest.mark.parametrize(
    "data, field, why",
    [
        ({"instructoin": "a", "output": "b"}, "instruction", 'missing; did you mean "instructoin"?'),
        ({"q": "a", "output": "b"}, "instruction", "missing; the row has q, output"),
        ({"instruction": "a"}, "output", "missing; the row has instruction"),
        ({"instruction": "a", "output": ""}, "output", "empty answer"),
        ({"instruction": "a", "output": " \n"}, "output", "empty answer"),
        ({"instruction": "a", "output": None}, "output", "empty answer"),
        ({"instruction": "a", "output": True}, "output", "is true or false: True, not text"),
        ({"instruction": "a", "output": float("nan")}, "output", "is a number: nan, not text"),
        ({"instruction": "a", "output": ["b"]}, "output", "is a list, not text"),
        ({"instruction": {"a": 1}, "output": "b"}, "instruction", "is an object, not text"),
        ({"instruction": "", "input": "", "output": "b"}, "instruction", "empty question"),
        ({"instruction": "a", "output": "\ud83d"}, "output", "holds half of a surrogate pair at character 0"),
    ],
)
def test_alpaca_reasons(data, field, why):
    assert reason(ALPACA, data) == (field, why)


def test_numbers_are_read_as_text_and_counted():
    tally = Counter()
    assert convert(ALPACA, {"instruction": "1+1", "output": 2}, tally=tally).answer == "2"
    assert tally == {"output: a number was read as text": 1}


def test_column_that_dataset_info_does_not_name():
    assert reason(with_columns(ALPACA, response=None), {"instruction": "a"}) == (
        "response",
        'no column is named for it -> add "response" to "columns" in dataset_info.json',
    )


def test_images_are_refused_only_when_there_are_some():
    spec = with_columns(ALPACA, images="images")
    row = {"instruction": "a", "output": "b", "images": []}
    assert convert(spec, row).answer == "b"
    assert reason(spec, {**row, "images": ["x.png"]}) == ("images", "images are not supported yet")


# sharegpt


def test_sharegpt_with_system_message_or_column():
    spec = with_columns(SHAREGPT, system="system")
    turns = [human("a"), gpt("b"), human("c"), gpt("d")]
    trunk = (Message("user", "a"), Message("assistant", "b", 1.0), Message("user", "c"))
    example = convert(spec, {"conversations": turns})
    assert (example.trunk, example.branches) == (trunk, ((Message("assistant", "d", 1.0),),))
    inside = [{"from": "system", "value": "S"}, *turns]
    assert convert(spec, {"conversations": inside, "system": "not this"}).trunk == (
        Message("system", "S"),
        *trunk,
    )
    assert convert(spec, {"conversations": turns, "system": "S"}).trunk == (Message("system", "S"), *trunk)


def test_sharegpt_tools():
    spec = with_columns(SHAREGPT, tools="tools")
    call = {"name": "add", "arguments": {"a": 1}}
    row = {
        "conversations": [
            human("1+1?"),
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": '{"sum": 2}'},
            gpt("2"),
        ],
        "tools": json.dumps([{"name": "add", "parameters": {}}]),
    }
    example = convert(spec, row)
    assert example.tools == ({"name": "add", "parameters": {}},)
    assert example.trunk == (
        Message("user", "1+1?"),
        Message("assistant", "", 1.0, (ToolCall("add", {"a": 1}),)),
        Message("tool", '{"sum": 2}'),
    )
    row["tools"] = "[{"
    assert reason(spec, row)[0] == "tools"


@pytest.mark.parametrize(
    "value, expected",
    [
        ('[{"name": "a", "arguments": {}}, {"name": "b", "arguments": "{\\"x\\": 1}"}]',
         ("", (ToolCall("a", {}), ToolCall("b", {"x": 1})))),
        ('<think>\nhm\n</think>\n{"name": "a", "arguments": "raw"}',
         ("<think>\nhm\n</think>\n", (ToolCall("a", "raw"),))),
        ({"name": "a", "arguments": None}, ("", (ToolCall("a", {}),))),
    ],
)  # fmt: skip
def test_function_calls(value, expected):
    row = {"conversations": [human("x"), {"from": "function_call", "value": value}]}
    (message,) = convert(SHAREGPT, row).branches[0]
    assert (message.content, message.tool_calls) == expected


@pytest.mark.parametrize("value", ["add(1)", '{"arguments": {}}', "[]", "5"])
def test_function_calls_that_are_none(value):
    row = {"conversations": [human("x"), {"from": "function_call", "value": value}]}
    assert reason(SHAREGPT, row)[0].startswith("conversations[1].value")


@pytest.mark.parametrize(
    "turns, field, why",
    [
        ([], "conversations", "empty: no messages"),
        ("hello", "conversations", "is text, not a list of messages"),
        (["hi"], "conversations[0]", "is text, not a message"),
        ([gpt("a")], "conversations[0]", 'starts with "gpt"; a conversation starts with "human"'),
        ([human("a"), human("b"), gpt("c")], "conversations[1]",
         '"human" after "human"; human (or observation) and gpt must alternate'),
        ([human("a"), gpt("b"), gpt("c")], "conversations[2]",
         '"gpt" after "gpt"; human (or observation) and gpt must alternate'),
        ([human("a")], "conversations[0]", 'the last message is from "human", not from gpt'),
        ([{"from": "system", "value": "s"}], "conversations", "empty: no messages beside the system message"),
        ([human("a"), gpt("")], "conversations[1].value", "empty answer"),
        ([human("a"), gpt(None)], "conversations[1].value", "empty answer"),
        ([human("a"), {"from": "bot", "value": "b"}], "conversations[1].from",
         'unknown role "bot"; accepted: system, human, gpt, observation, function_call'),
        ([human("a"), {"from": "gtp", "value": "b"}], "conversations[1].from",
         'unknown role "gtp"; accepted: system, human, gpt, observation, function_call; did you mean "gpt"?'),
        ([{"role": "user", "content": "a"}], "conversations[0].from", "missing; the row has role, content"),
        ([human("a"), {"from": "gpt", "valeu": "b"}], "conversations[1].value",
         'missing; did you mean "valeu"?'),
    ],
)  # fmt: skip
def test_sharegpt_reasons(turns, field, why):
    assert reason(SHAREGPT, {"conversations": turns}) == (field, why)


def test_role_that_tags_leave_out():
    spec = replace(SHAREGPT, tags={**TAGS, "observation_tag": None})
    row = {"conversations": [human("a"), gpt("b"), {"from": "observation", "value": "c"}, gpt("d")]}
    assert reason(spec, row) == (
        "conversations[2].from",
        'unknown role "observation"; accepted: system, human, gpt, function_call;'
        ' "tags" of dataset_info.json leaves out observation_tag',
    )


# OpenAI messages


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def test_openai_with_tool_calls_and_nothing_injected():
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    row = {
        "messages": [
            say("user", [{"type": "text", "text": "1"}, {"type": "text", "text": "+1?"}]),
            {"role": "assistant", "content": None, "tool_calls": [call, call]},
            say("tool", "2", tool_call_id="1"),
            say("tool", "2", tool_call_id="1"),
            say("assistant", "two"),
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    }
    example = convert(OPENAI, row)
    assert example.trunk == (
        Message("user", "1+1?"),
        Message("assistant", "", 1.0, (ToolCall("add", {"a": 1}), ToolCall("add", {"a": 1}))),
        Message("tool", "2"),
        Message("tool", "2"),
    )
    assert example.branches == ((Message("assistant", "two", 1.0),),)
    assert example.tools == ({"type": "function", "function": {"name": "add"}},)


def test_openai_developer_is_system():
    row = {"messages": [say("developer", "S"), say("user", "a"), say("assistant", "b")]}
    assert convert(OPENAI, row).trunk[0] == Message("system", "S")


def test_weights_of_messages():
    def trained(*weights):
        turns = [say("user", "a"), say("assistant", "b", **weights[0]), say("user", "c")]
        example = convert(OPENAI, {"messages": [*turns, say("assistant", "d", **weights[1])]})
        return example.trunk[1].train, example.branches[0][0].train

    assert trained({}, {}) == (1.0, 1.0)
    assert trained({"weight": 0}, {"weight": 1}) == (0.0, 1.0)
    assert trained({"loss": False}, {"train": True}) == (0.0, 1.0)
    assert trained({"weight": 0.5}, {"loss": None}) == (0.5, 1.0)
    row = {"messages": [say("user", "a"), say("assistant", "b", weight="high")]}
    assert reason(OPENAI, row)[0] == "messages[1].weight"
    row = {"messages": [say("user", "a"), say("assistant", "b", weight=0)]}
    assert reason(OPENAI, row) == ("", "nothing to learn: every message has weight 0")


def test_reasoning_content_is_kept():
    row = {"messages": [say("user", "a"), say("assistant", "b", reasoning_content="hm")]}
    assert convert(OPENAI, row).answer == "<think>\nhm\n</think>\n\nb"


def test_openai_image_parts_are_refused():
    row = {"messages": [say("user", [{"type": "image_url", "image_url": {}}]), say("assistant", "b")]}
    assert reason(OPENAI, row) == ("messages[0].content[0]", "images are not supported yet")


def test_messages_as_json_text_in_a_cell():
    row = {"messages": json.dumps([say("user", "a"), say("assistant", "b")])}
    assert convert(OPENAI, row).answer == "b"
    assert reason(OPENAI, {"messages": '[{"role"'})[0] == "messages"


# Pre-training, pairs, verdicts, prompts


def test_pretraining_text():
    expected = Example((), ((Message("text", "once", 1.0),),), source="d.json:1")
    assert convert(TEXT, {"text": "once"}, "pt") == expected
    assert convert(replace(TEXT, formatting="alpaca"), {"text": "once"}, "pt") == expected
    assert convert(SHAREGPT, {"conversations": [human("once"), gpt("x")]}, "pt") == expected
    assert reason(TEXT, {"text": " "}, "pt") == ("text", "empty text")


PAIRS = {"ranking": True}
PAIR_COLUMNS = {"chosen": "chosen", "rejected": "rejected"}


def test_alpaca_pairs():
    spec = replace(with_columns(ALPACA, **PAIR_COLUMNS), ranking=True)
    example = convert(spec, {"instruction": "a", "chosen": "good", "rejected": "bad"}, "rm")
    assert example.trunk == (Message("user", "a"),)
    assert example.branches == ((Message("assistant", "good", 1.0),), (Message("assistant", "bad", 1.0),))
    assert reason(spec, {"instruction": "a", "chosen": "x", "rejected": "x"}, "rm")[0] == "rejected"
    assert reason(spec, {"instruction": "a", "chosen": "x", "rejected": ""}, "rm") == (
        "rejected",
        "empty answer",
    )
    assert (
        reason(spec, {"instruction": "a", "chosen": "x", "reject": ""}, "rm")[1]
        == 'missing; did you mean "reject"?'
    )


def test_sharegpt_pairs_learn_only_the_endings():
    spec = replace(with_columns(SHAREGPT, **PAIR_COLUMNS), ranking=True)
    turns = [human("a"), gpt("b"), human("c")]
    example = convert(spec, {"conversations": turns, "chosen": gpt("good"), "rejected": gpt("bad")}, "rm")
    assert example.trunk == (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert [branch[0].content for branch in example.branches] == ["good", "bad"]
    row = {"conversations": turns[:2], "chosen": gpt("good"), "rejected": gpt("bad")}
    assert reason(spec, row, "rm")[1] == 'the last message is from "gpt", not from human or observation'
    row = {"conversations": turns, "chosen": human("good"), "rejected": gpt("bad")}
    assert reason(spec, row, "rm") == ("chosen", "ends with a user message, not with the assistant's")


def test_pairs_of_whole_conversations():
    spec = replace(with_columns(OPENAI, messages=None, **PAIR_COLUMNS), ranking=True)
    asked = [say("user", "a")]
    row = {"chosen": [*asked, say("assistant", "good")], "rejected": [*asked, say("assistant", "bad")]}
    example = convert(spec, row, "rm")
    assert example.trunk == (Message("user", "a"),)
    assert [branch[0].content for branch in example.branches] == ["good", "bad"]
    alpaca = replace(with_columns(ALPACA, prompt="prompt", **PAIR_COLUMNS), ranking=True)
    assert convert(alpaca, {"prompt": "a", **row}, "rm").branches == example.branches
    assert reason(alpaca, {"prompt": "z", **row}, "rm") == ("chosen", "repeats another prompt than the row's")


@pytest.mark.parametrize("label, verdict", [(True, True), (False, False), ("true", True), ("0", False)])
def test_kto(label, verdict):
    spec = with_columns(SHAREGPT, kto_tag="label")
    example = convert(spec, {"conversations": [human("a"), gpt("b")], "label": label}, "kto")
    assert (example.verdict, len(example.branches)) == (verdict, 1)
    assert example.trunk == (Message("user", "a"),)


def test_kto_reasons():
    spec = with_columns(ALPACA, kto_tag="label")
    assert reason(spec, {"instruction": "a", "output": "b"}, "kto")[0] == "label"
    row = {"instruction": "a", "output": "b", "label": "maybe"}
    assert reason(spec, row, "kto") == ("label", "is text, not true or false")


def test_prompt_only_stages_need_no_answer():
    with_answer = convert(ALPACA, {"instruction": "a", "output": "b"}, "predict")
    assert (with_answer.branches, with_answer.answer) == ((), "b")
    assert convert(ALPACA, {"instruction": "a"}, "ppo").answer is None
    assert convert(SHAREGPT, {"conversations": [human("a")]}, "predict").trunk == (Message("user", "a"),)


# What they share


def test_unknown_format():
    with pytest.raises(
        DataError, match='unknown format "llama" -> use one of alpaca, openai, sharegpt, text'
    ):
        convert(replace(ALPACA, formatting="llama"), {})


def test_rejected_rows_are_written_whole(tmp_path):
    bad = [
        BadRow("d.json:1", "output", "empty answer", {"output": "\ud83d 好"}),
        BadRow("d.json:2", "", "x", {1, 2}),
    ]
    assert formats.write_rejected(tmp_path / "rejected.jsonl", bad) == 2
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text("utf-8").splitlines()]
    assert [line["source"] for line in lines] == ["d.json:1", "d.json:2"]
    assert lines[0]["reason"] == "empty answer" and lines[0]["data"]["output"] == "\ud83d 好"
