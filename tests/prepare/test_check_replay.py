"""LLaMA-Factory's loader replayed: literal files, and what version 0.9.5 was seen to do with each of them."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import tiny
from luthier.config import check, read
from luthier.data.render import Renderer
from luthier.model import load
from luthier.prepare.check import table_of
from luthier.prepare.checks import Data
from luthier.prepare.checks.llamafactory import facts
from luthier.prepare.checks.replay import replay, shares
from luthier.prepare.opened import opened
from luthier.prepare.report import Finding

Rows = list[dict[str, Any]]
GOOD = {"instruction": "good", "input": "", "output": "fine"}
ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function", "system_tag": "system",
}  # fmt: skip
SHAREGPT = {"formatting": "sharegpt"}
OPENAI = {"formatting": "openai", "columns": {"messages": "messages", "tools": "tools"}, "tags": TAGS}
PAIRS = {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}}
KTO = {"columns": {**ALPACA, "kto_tag": "label"}}
SPAIRS = {
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
}


def row(**changes: Any) -> dict[str, Any]:
    return {"instruction": "q", "input": "", "output": "a", **changes}


def turns(*given: tuple[str, Any]) -> list[dict[str, Any]]:
    names = {"u": "human", "a": "gpt", "s": "system", "f": "function_call", "o": "observation"}
    return [{"from": names.get(role, role), "value": value} for role, value in given]


def chat(*given: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"conversations": turns(*given), **more}


def openai(*given: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": role, "content": content} for role, content in given],
        "tools": None,
        **more,
    }


def calling(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    made = openai(("user", "q"), ("assistant", None), ("tool", "t"), ("assistant", "a"))
    made["messages"][1]["tool_calls"] = [call]
    return made


def laid(folder: Path, text: str, entry: dict[str, Any] | None = None, name: str = "x.json") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    info = {"x": {"file_name": name, **(entry or {})}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def replayed(folder: Path, stage: str = "sft", name: str = "x") -> list[Finding]:
    source = opened(name, {"dataset_dir": str(folder), "stage": stage})
    return list(replay(Data(name, table_of(source, print))))


def of(folder: Path, stage: str = "sft") -> tuple[int | None, dict[str, list[str]]]:
    """(rows that are trained on, None when it does not start; rule -> the numbers of its rows)."""
    first, *others = replayed(folder, stage)
    kept = None if first.figures["stops"] else first.figures["kept"]
    return kept, {one.figures["rule"]: [s.rpartition(":")[2] for s in one.rows] for one in others}


def called(text: str) -> dict[str, Any]:
    return chat(("u", "q"), ("f", text), ("o", "o"), ("a", "a"))


def pair(chosen: Any, rejected: Any = None, *more: tuple[str, Any]) -> dict[str, Any]:
    return chat(("u", "q"), *more, chosen=chosen, rejected=rejected or BAD)


QUESTION, ANSWER, BAD = ("user", "q"), ("assistant", "a"), {"from": "gpt", "value": "r"}
PARTS = [{"type": "text", "text": "q"}]
LAST_TOOL = "last_tool_unread thinking_off"
HISTORY = {"columns": {**ALPACA, "history": "history"}}
SYSTEM = {"columns": {**ALPACA, "system": "system"}}
NUMBERS = {"answer_not_text": ["1", "2"], "null_answer": ["3"]}
DOUBLED = {"doubled_key": ["1"]}
MIXED = {"mixed_types": ["2"], "answer_not_text": ["2"]}
CASES: list[tuple[Rows, dict[str, Any], str, int | None, str]] = [
    ([GOOD, row()], {}, "sft", 2, ""),
    ([GOOD, row(output=None)], {}, "sft", 1, "null_answer"),
    ([row(output=5)], {}, "sft", 0, "answer_not_text"),
    ([row(output=True)], {}, "sft", 0, "answer_not_text"),
    ([GOOD, row(output=" \n")], {}, "sft", 2, "empty_answer"),
    ([GOOD, row(instruction=None)], {}, "sft", 2, "empty_question"),
    ([row(instruction=3)], {}, "sft", None, "question_not_text"),
    ([{"instruction": "q", "output": "a"}, GOOD], {}, "sft", 2, ""),
    ([GOOD, row(system="s"), row(system=None)], SYSTEM, "sft", 3, ""),
    ([row(system=1)], SYSTEM, "sft", None, "system_not_text"),
    ([row(history='[["a", "b"]]')], HISTORY, "sft", 1, "history_unread"),
    ([row(history=[["a"]])], HISTORY, "sft", None, "history_pair"),
    ([row(history=[["a", None]])], HISTORY, "sft", None, "null_turn"),
    ([row(images=["a.png"])], {"columns": {**ALPACA, "images": "images"}}, "sft", None, "media"),
    ([{"text": "a"}, {"text": None}], {"columns": {"prompt": "text"}}, "pt", 2, "empty_text"),
    # -- messages
    ([chat(("s", "s"), ("u", "q"), ("a", "a"))], SHAREGPT, "sft", 1, ""),
    ([chat(("s", None), ("u", "q"), ("a", "a"))], SHAREGPT, "sft", 1, ""),
    ([chat(("u", "q"), ("a", "a"), ("u", "q"))], SHAREGPT, "sft", 0, "ends_with_question"),
    ([chat(("u", "q"), ("u", "q"), ("a", "a"))], SHAREGPT, "sft", 0, "role_order"),
    ([chat(("u", "q"), ("a", "a"), ("s", "s"), ("u", "q"), ("a", "a"))], SHAREGPT, "sft", 0, "role_order"),
    ([chat(("user", "q"), ("a", "a"))], SHAREGPT, "sft", 0, "unknown_role"),
    ([chat(("s", "s"))], SHAREGPT, "sft", 0, "empty_conversation"),
    ([chat(("u", "q"), ("a", "a")), {"conversations": None}], SHAREGPT, "sft", None, "no_messages"),
    ([chat(("u", "q"), ("a", None))], SHAREGPT, "sft", None, "null_turn"),
    ([chat(("u", "q"), ("a", ""))], SHAREGPT, "sft", 1, "empty_answer"),
    ([called('{"name": "f", "arguments": {}}')], SHAREGPT, "sft", 1, ""),
    ([called("f(1)")], SHAREGPT, "sft", None, "call_not_json"),
    ([called('{"name": "f"}')], SHAREGPT, "sft", None, "call_not_json"),
    ([chat(("u", "q"))], SHAREGPT, "pt", None, "no_first_turn"),
    (
        [chat(("u", "q"), ("a", "a"), tools="f")],
        {**SHAREGPT, "columns": {"messages": "conversations", "tools": "tools"}},
        "sft", None, "tools",
    ),
    # -- OpenAI
    ([openai(("system", "detailed thinking on"), QUESTION, ANSWER)], OPENAI, "sft", 1, ""),
    ([openai(QUESTION, ANSWER)], OPENAI, "sft", 1, "thinking_off"),
    ([openai(("developer", "s"), QUESTION, ANSWER)], OPENAI, "sft", None, "unknown_role_stops"),
    ([openai(QUESTION, ANSWER, ("tool", "t"))], OPENAI, "sft", 1, LAST_TOOL),
    ([calling('{"a": 1}')], OPENAI, "sft", 1, "arguments_twice thinking_off"),
    ([calling({"a": 1}), calling({"a": 2})], OPENAI, "sft", 2, "thinking_off"),
    ([calling({"a": 1}), calling({"b": 2})], OPENAI, "sft", 2, "thinking_off arguments_filled"),
    ([openai(("user", PARTS), ("assistant", []))], OPENAI, "sft", None, "turn_not_text"),
    ([openai(QUESTION, ANSWER)], {"formatting": "openai"}, "sft", None, "missing_column"),
    # -- pairs and verdicts
    ([{"instruction": "q", "chosen": "c", "rejected": None}], PAIRS, "rm", 0, "pair_not_text"),
    ([{"instruction": "q", "chosen": "c", "rejected": "c"}], PAIRS, "rm", 1, "same_pair"),
    ([{"instruction": "q", "chosen": "c", "rejected": ""}], PAIRS, "rm", 1, "empty_answer"),
    ([pair(*turns(("a", "c")))], SPAIRS, "rm", 1, ""),
    ([pair(*turns(("u", "c")))], SPAIRS, "rm", 1, "pair_role"),
    ([pair(*turns(("x", "c")))], SPAIRS, "rm", None, "pair_role_unknown"),
    ([pair([BAD], [BAD])], SPAIRS, "rm", 0, "pair_not_text"),
    ([pair(BAD, BAD, ("a", "a"))], SPAIRS, "rm", 0, "ends_with_answer"),
    ([row(label=True), row(label=False)], KTO, "kto", 2, ""),
    ([row(label="true")], KTO, "kto", 0, "verdict_not_bool"),
    ([row(label=1)], KTO, "kto", 0, "verdict_not_bool"),
    ([row(label=True, output="")], KTO, "kto", 1, "empty_good_answer"),
    ([row(label=False, output=None)], KTO, "kto", None, "null_turn"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "entry", "stage", "kept", "rules"), CASES)
def test_each_rule_applies_where_it_should(
    tmp_path: Path, rows: Rows, entry: dict[str, Any], stage: str, kept: int | None, rules: str
) -> None:
    found = of(laid(tmp_path, json.dumps(rows), entry), stage)
    assert (found[0], sorted(found[1])) == (kept, sorted(rules.split()))


@pytest.mark.parametrize(
    ("name", "text", "kept", "rules"),
    [
        ("x.csv", "instruction,input,output\nq,,a\nq,x,NA\nq,x\n", 1, {"null_answer": ["2", "3"]}),
        ("x.csv", "instruction,input,output\nq,,1\nq,x,2\nq,x,NA\n", 0, NUMBERS),
        ("x.csv", "instruction,input,output\nq,,1\nq,x,two\n", 2, {}),
        ("x.csv", "instruction,input,output\nq,x,a\nq,x,a,b\n", None, {"ragged": ["2"]}),
        ("x.csv", "instruction,input,output\nq,x,a,b\n", 1, {"shifted": ["1"]}),
        ("x.csv", "instruction;input;output\nq;x;a\n", None, {"separator": []}),
        ("x.tsv", "instruction\tinput\toutput\nq\tx\ta\n", None, {"file_type": []}),
        ("x.jsonl", json.dumps(GOOD) + "\n" + json.dumps(row(output=5)), None, MIXED),
        ("x.jsonl", json.dumps(row(output="2024-01-01")), 0, {"answer_not_text": ["1"]}),
        ("x.json", json.dumps([row(output="2024-01-01")]), 1, {}),
        ("x.json", json.dumps([row(id=1), row(id="1")]), None, {"mixed_types": ["2"]}),
        ("x.json", "\ufeff" + json.dumps([GOOD]), None, {"byte_order_mark": []}),
        ("x.jsonl", "\ufeff" + json.dumps(GOOD), 1, {}),
        ("x.jsonl", json.dumps(GOOD) + "\n{bad\n", None, {"unreadable": ["2"]}),
        ("x.json", json.dumps([GOOD])[:-1] + ",]", None, {"loose_json": []}),
        ("x.json", '[{"instruction": "q", "input": "", "output": "", "output": "b"}]', 1, DOUBLED),
        ("x.json", '[{"instruction": "q", "input": "", "output": NaN}]', 0, {"null_answer": ["1"]}),
        ("x.json", json.dumps({"data": [GOOD]}), None, {"wrapped": []}),
        ("x.json", '[{"instruction": "q", "output": "a"}]', None, {"missing_column": []}),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, name: str, text: str, kept: int | None, rules: dict[str, list[str]]) -> None:
    assert of(laid(tmp_path, text, name=name)) == (kept, rules)


def test_another_encoding_keeps_it_from_starting(tmp_path: Path) -> None:
    text = json.dumps([row(output="你好，订单在路上。")], ensure_ascii=False)
    folder = laid(tmp_path, text)
    (folder / "x.json").write_bytes(text.encode("gb18030"))
    kept, rules = of(folder)
    assert kept is None and "encoding" in rules


def test_an_unlisted_file_comes_with_the_entry_that_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "alone.json"
    path.write_text(json.dumps([{"question": "q", "answer": "a"}]), encoding="utf-8")
    summary, one = replayed(tmp_path, name=str(path))
    assert one.figures["rule"] == "not_listed" and "would not start" in summary.what
    made = json.loads(one.fix.partition(": ")[2])
    (tmp_path / "dataset_info.json").write_text(json.dumps(made), encoding="utf-8")
    (summary,) = replayed(tmp_path, name="alone")
    assert "would train on 1 of 1 row;" in summary.what


def test_what_luthier_does_with_the_same_rows_is_said(tmp_path: Path) -> None:
    folder = laid(tmp_path, json.dumps([row(output=""), row(), row(output=None)]))
    summary, dropped, changed = replayed(folder)
    assert "would train on 2 of 3 rows; luthier trains on 1" in summary.what
    assert (dropped.severity, changed.severity) == ("warning", "warning")
    assert all("luthier names and leaves out them, too" in one.what for one in (dropped, changed))
    weighted = chat(("u", "q"), ("a", "a"), ("u", "q"), ("a", "a"))
    weighted["conversations"][1]["weight"] = 0
    (tmp_path / "x.json").write_text(json.dumps([weighted]), encoding="utf-8")
    laid(tmp_path, json.dumps([weighted]), SHAREGPT)
    assert replayed(tmp_path)[1].what.endswith("luthier learns each turn with its weight")


def test_every_rule_is_used_and_every_rule_that_is_used_is_told() -> None:
    checks = files("luthier.prepare.checks")
    code = "".join(
        checks.joinpath(name).read_text("utf-8") for name in ("llamafactory.py", "arrow.py", "replay.py")
    )
    rules = facts()[1]
    assert {name for name in rules if f'"{name}"' not in code} == set()
    told = set(re.findall(r'(?:_Over\(|yield |hit\()"(\w+)"', code))
    told |= set(re.findall(r'_stop_unless\([^\n]*"(\w+)"\)', code))
    assert told - {"pieces"} <= rules.keys() and len(told) > 30
    assert all(rule.what and rule.instead and rule.where for rule in rules.values())
    assert {rule.effect for rule in rules.values()} == {"stops", "drops", "changes"}


# -- the cutoff ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "room", "kept"),
    [
        (10, 10, 100, (10, 10)),
        (100, 10, 50, (40, 10)),  # the answer is short: the prompt gives
        (10, 100, 50, (10, 40)),  # the prompt is short: the answer gives
        (60, 40, 50, (30, 20)),  # both are long: in proportion
        (25, 30, 50, (23, 27)),
    ],
)
def test_a_prompt_and_an_answer_share_the_room(
    source: int, target: int, room: int, kept: tuple[int, int]
) -> None:
    assert shares(source, target, room) == kept


def cut(tmp_path: Path, rows: Rows, entry: dict[str, Any], stage: str, **keys: object) -> list[Finding]:
    folder, model = laid(tmp_path, json.dumps(rows), entry), tiny.make_model(tmp_path / "model")
    words = [f"--{k}={v}" for k, v in {"model_name_or_path": model, "cutoff_len": 64, **keys}.items()]
    config = check(read(words, {}), "data").replace(stage=stage)
    table = table_of(opened("x", {"dataset_dir": str(folder), "stage": stage}), print)
    renderer = Renderer.of(config, load.tokenizer(config))
    return list(replay(Data("x", table, config=config, renderer=renderer)))[1:]


def test_what_is_too_long_loses_its_ends(tmp_path: Path) -> None:
    rows = [
        chat(("u", "hello " * 80), ("a", "fine")),
        chat(("u", "hello"), ("a", "fine " * 80)),
        chat(("u", "hello"), ("a", "fine " * 80), ("u", "hello"), ("a", "fine")),
        chat(("u", "hello"), ("a", "fine <|im_end|> more")),
    ]
    found = {one.figures["rule"]: one for one in cut(tmp_path, rows, SHAREGPT, "sft")}
    assert {name: [*one.rows] for name, one in found.items()} == {
        "prompts_cut": ["x.json:1"],
        "answers_cut": ["x.json:2", "x.json:3"],
        "turns_cut": ["x.json:3"],
        "control_tokens": ["x.json:4"],
    }
    assert (
        "luthier takes from the middle of prompts first, and never the end of turn"
        in found["answers_cut"].what
    )
    last = {
        one.figures["rule"]: one for one in cut(tmp_path, rows[2:3], SHAREGPT, "sft", mask_history="true")
    }
    assert "answers_cut" in last and "turns_cut" not in last


def test_pairs_share_one_room(tmp_path: Path) -> None:
    (one,) = cut(tmp_path, [{"instruction": "hello", "chosen": "a", "rejected": "fine " * 90}], PAIRS, "rm")
    assert one.figures["rule"] == "answers_cut"


@pytest.mark.parametrize(("packing", "rule"), [("true", "blocks_cut"), ("false", "texts_cut")])
def test_pretraining_loses_what_fills_no_block(tmp_path: Path, packing: str, rule: str) -> None:
    rows = [{"text": "hello where " * 60}, {"text": "fine"}]
    (one,) = cut(tmp_path, rows, {"columns": {"prompt": "text"}}, "pt", packing=packing)
    assert one.figures["rule"] == rule
    assert one.count == 1 if packing == "false" else 0 < one.count < 64 and one.rows == ()
