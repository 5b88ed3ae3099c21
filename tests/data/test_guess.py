"""Which format rows have, told from their columns; and what of them will stay unread."""

import json
from dataclasses import replace

import pytest

from luthier.data import formats
from luthier.data.spec import COLUMNS, TAGS, DatasetSpec
from luthier.errors import DataError
from luthier.types import Row

ALPACA = DatasetSpec("d", "file", "d.json", formatting="alpaca")
PAIR_COLUMNS = {"chosen": "chosen", "rejected": "rejected"}
SHAREGPT = DatasetSpec("d", "file", "d.json", formatting="sharegpt")


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def say(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "row, formatting, columns",
    [
        ({"instruction": "a", "input": "b", "output": "c"}, "alpaca",
         {"prompt": "instruction", "query": "input", "response": "output"}),
        ({"question": "a", "answer": "b", "id": 5}, "alpaca", {"prompt": "question", "response": "answer"}),
        ({"问题": "a", "答案": "b"}, "alpaca", {"prompt": "问题", "response": "答案"}),
        ({"Prompt": "a", "Response": "b", "system": "c"}, "alpaca",
         {"prompt": "Prompt", "response": "Response", "system": "system"}),
        ({"sentence": "a", "category": "b"}, "alpaca", {"prompt": "sentence", "response": "category"}),
        ({"conversations": [human("a"), gpt("b")], "tools": "[]"}, "sharegpt",
         {"messages": "conversations", "tools": "tools"}),
        ({"messages": [say("user", "a"), say("assistant", "b")]}, "openai", {"messages": "messages"}),
        ({"messages": json.dumps([say("user", "a"), say("assistant", "b")])},
         "openai", {"messages": "messages"}),
        ({"dialog": [say("user", "a"), say("assistant", "b")]}, "openai", {"messages": "dialog"}),
        ({"text": "a", "label": "b"}, "alpaca", {"prompt": "text", "response": "label"}),
        ({"title": "a", "文本": "b", "意图": "c"}, "alpaca", {"prompt": "文本", "response": "意图"}),
        ({"text": "a", "label": True}, "text", {"prompt": "text"}),
        ({"text": "a"}, "text", {"prompt": "text"}),
        ({"body": "a"}, "text", {"prompt": "body"}),
        ({"text": "a", "url": "b", "date": "c"}, "text", {"prompt": "text"}),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "alpaca", {"prompt": "prompt", **PAIR_COLUMNS}),
        ({"prompt": [say("user", "a")], "chosen": [say("assistant", "b")],
          "rejected": [say("assistant", "c")]},
         "openai", {"messages": "prompt", **PAIR_COLUMNS}),
        ({"chosen": [say("user", "a")], "rejected": [say("user", "a")]}, "openai", PAIR_COLUMNS),
        ({"prompt": "a", "completion": "b", "label": True}, "alpaca",
         {"prompt": "prompt", "response": "completion", "kto_tag": "label"}),
    ],
)  # fmt: skip
def test_guess(row, formatting, columns):
    found, names, _, why = formats.guess([row])
    assert found == formatting
    assert {key: name for key, name in names.items() if name} == columns
    assert why


def test_guess_reads_role_names_from_the_rows():
    rows = [{"messages": [say("human", "a"), say("bot", "b")]}]
    _, _, tags, _ = formats.guess(rows)
    assert (tags["role_tag"], tags["user_tag"], tags["assistant_tag"]) == ("role", "human", "bot")


def test_guess_gives_up_with_advice():
    with pytest.raises(DataError, match=r"cannot be told from their columns \(a, b, c\) -> name them"):
        formats.guess([{"a": "x", "b": "y", "c": "z"}])


def settle(spec, *rows, stage=None):
    return formats.settle(spec, [Row(row, f"d.json:{n}") for n, row in enumerate(rows, 1)], stage)


def test_settle_says_what_it_recognised():
    spec = settle(replace(ALPACA, formatting=None), {"prompt": "a", "chosen": "b", "rejected": "c"})
    assert (spec.formatting, spec.ranking) == ("alpaca", True)
    assert spec.notes == (
        'd: read as alpaca preference pairs: "prompt" (question) and "chosen" and "rejected" (answer)',
    )


def test_settle_says_what_stays_unread():
    row = {"instruction": "a", "output": "b", "system": "c", "history": [["d", "e"]]}
    assert [note.split(" of the rows")[0] for note in settle(ALPACA, row).notes] == [
        'd: the column "history"',
        'd: the column "system"',
    ]
    spec = replace(
        ALPACA, columns={**dict.fromkeys(COLUMNS), "prompt": "instrution"}, listed=frozenset({"columns"})
    )
    notes = settle(spec, row).notes
    assert any('no row has a column "instrution"' in n and 'did you mean "instruction"?' in n for n in notes)
    spec = replace(SHAREGPT, tags={**TAGS, "observation_tag": None})
    (note,) = settle(spec, {"conversations": [human("a"), {"from": "observation", "value": "x"}]}).notes
    assert note.endswith(
        'leaves out observation_tag: such rows are rejected -> add "observation_tag": "observation"'
    )
    assert settle(ALPACA, {"instruction": "a", "output": "b"}, stage="pt").notes == (
        'd: pre-training reads "instruction" and not the answer "output"',
    )
