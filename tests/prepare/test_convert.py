"""Conversions: what is read afterwards is what was read before, or rows are named and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.data import sources
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError, UsageError
from luthier.prepare import cli, entry, layouts, words, write
from luthier.prepare.convert import OPTIONS, carry_out, job_of, look
from luthier.prepare.opened import opened
from luthier.types import BadRow, Example, Message, Row, ToolCall

SHARED = Path(__file__).parents[3] / "shared" / "data" / "lf_demo"
KINDS = (".json", ".jsonl", ".csv", ".xlsx", ".parquet")
ODD = [
    "a",
    "你好",
    "=1+1",
    "- x",
    '{"a": 1}',
    "[1]",
    "NA",
    "007",
    "a\nb",
    " a",
    '[{"role": "user"}]',
    "\0",
    "😀",
]
TEXT = st.one_of(st.sampled_from(ODD), st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)).filter(
    lambda text: bool(text.strip()) and "\r\n" not in text  # which CSV does not keep, see test_write
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from([0.5, 1e300]), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)
OBJECT = st.dictionaries(st.sampled_from(["a", "名"]), JSON, max_size=2)
CALL = st.builds(ToolCall, TEXT, st.one_of(OBJECT, st.sampled_from(["raw", [1, 2], 5])))
THOUGHT = st.sampled_from(["", "", "<think>hm</think>\n", "text"])
WEIGHT = st.sampled_from([1.0, 1.0, 1.0, 0.0, 0.5])
ASSISTANT = st.one_of(
    st.builds(Message, st.just("assistant"), TEXT, WEIGHT),
    st.builds(Message, st.just("assistant"), TEXT, WEIGHT),
    st.builds(
        Message, st.just("assistant"), THOUGHT, WEIGHT, st.lists(CALL, min_size=1, max_size=2).map(tuple)
    ),
)
USER = st.builds(
    Message, st.just("user"), st.one_of(TEXT, TEXT, st.just("")), st.sampled_from([0.0, 0.0, 1.0])
)
TOOL = st.builds(Message, st.just("tool"), TEXT)


@st.composite
def conversations(draw: st.DrawFn, judged: bool) -> tuple[list[Message], tuple[Any, ...]]:
    """A trunk that ends with a question, and tools. judged: nothing in it is learnt."""
    turns = [draw(USER)]
    for _ in range(draw(st.integers(0, 2))):
        turns.append(draw(ASSISTANT))
        turns += draw(st.lists(TOOL, min_size=1, max_size=2)) if turns[-1].tool_calls else [draw(USER)]
    if draw(st.booleans()):
        turns.insert(0, Message("system", draw(TEXT)))
    tools = draw(st.lists(st.fixed_dictionaries({"name": TEXT, "parameters": OBJECT}), max_size=2))
    return [replace(turn, train=0.0) for turn in turns] if judged else turns, tuple(tools)


@st.composite
def examples(draw: st.DrawFn, kind: str) -> Example:
    if kind == "text":
        return Example((), ((Message("text", draw(TEXT), 1.0),),))
    trunk, tools = draw(conversations(kind != "answers"))
    ending = draw(ASSISTANT)
    if kind != "answers" or not any(turn.train for turn in (*trunk, ending)):
        ending = replace(ending, train=1.0)
    endings = [(ending,)]
    if kind == "pairs":
        other = draw(
            st.builds(Message, st.just("assistant"), TEXT, st.just(1.0)).filter(lambda m: m != ending)
        )
        endings.append((other,))
    verdict = draw(st.booleans()) if kind == "verdicts" else None
    return Example(tuple(trunk), tuple(endings), verdict, ending.content, tools)


def data_set(folder: Path, found: Sequence[Example], kind: str, to: str = "openai") -> None:
    """The Examples as the data set "source" in `folder`."""
    stage = {"pairs": "rm", "verdicts": "kto", "text": "pt"}.get(kind, "sft")
    spec = layouts.target("alpaca" if kind == "text" else to, layouts.kind_of(stage), "source.jsonl")
    with write.rows(folder / "source.jsonl") as writer:
        for example in found:
            writer.add(layouts.row(example, spec, stage))
    entry.register(folder, {"source": entry.entry(spec, "source.jsonl")}, overwrite=True)


def read(folder: Path, name: str) -> list[Example]:
    found = [meant for _, meant in opened(name, {"dataset_dir": str(folder)}).rows()]
    assert not [bad for bad in found if isinstance(bad, BadRow)]
    return [replace(example, source="") for example in found if isinstance(example, Example)]


def expressible(example: Example, to: str, form: str) -> bool:
    """What each format's documentation says that it has a place for."""
    said = [*example.trunk, *(turn for branch in example.branches for turn in branch)]
    beside = any(m.tool_calls and m.content == "text" for m in said)
    calls = any(m.tool_calls or m.role == "tool" for m in said)
    if form != "json" and len(example.branches) > 1:  # a column's value cannot be text here, an object there
        calls_made = example.branches[0][0].tool_calls
        if any(form == "cells" or not isinstance(call.arguments, dict | str) for call in calls_made):
            return False
    if to == "openai" or said[0].role == "text":
        return True
    if to == "sharegpt":
        return not beside
    judged = example.verdict is not None or len(example.branches) > 1
    usual = all(m.train == (m.role == "assistant" and not judged) for m in example.trunk) and all(
        m.train == 1 for branch in example.branches for m in branch
    )
    return usual and not calls and not any(m.role == "user" and not m.content for m in said)


@pytest.mark.parametrize(
    ("kind", "to"),
    [*((kind, to) for kind in ("answers", "pairs", "verdicts") for to in layouts.TO), ("text", "alpaca")],
)
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_format_in_every_format(tmp_path: Path, kind: str, to: str, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    found = data.draw(st.lists(examples(kind), min_size=1, max_size=4))
    ending = data.draw(st.sampled_from(KINDS))
    form = {".csv": "cells", ".xlsx": "cells", ".parquet": "columns"}.get(ending, "json")
    data_set(tmp_path, found, kind)
    assert read(tmp_path, "source") == found
    given = ["convert", "source", f"--dataset_dir={tmp_path}", "--to", to, "--register", "--overwrite"]
    fit = [example for example in found if expressible(example, to, form)]
    out = tmp_path / f"out{ending}"
    code = cli.main([*given, "--out", str(out)])
    assert (code, out.exists()) == ((0, True) if fit == found else (1, False))
    if not fit:
        return
    assert cli.main([*given, "--out", str(out), "--lossy"]) == 0
    assert read(tmp_path, "out") == fit
    rejected = tmp_path / "out.rejected.jsonl"
    assert (len(rejected.read_bytes().split(b"\n")) - 1 if rejected.exists() else 0) == len(found) - len(fit)
    back = ["convert", "out", given[2], "--to", "alpaca" if kind == "text" else "openai", "--register"]
    assert cli.main([*back, "--out", str(tmp_path / "back.jsonl")]) == 0
    assert read(tmp_path, "back") == fit


CALLS = [
    {"from": "human", "value": "2+2?"},
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 2}}'},
    {"from": "observation", "value": "4"},
    {"from": "gpt", "value": "It is 4."},
]
TOOLS = '[{"name": "add", "parameters": {"a": {"type": "integer"}}}]'


def put(folder: Path, rows: Sequence[Any], name: str = "in.jsonl") -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def convert(*words: str) -> int:
    return cli.main(["convert", *words])


def values(path: Path) -> list[Any]:
    return [row.data for row in sources.read(DatasetSpec("x", "file", str(path))) if isinstance(row, Row)]


def test_function_calls_in_openai_form(tmp_path: Path) -> None:
    path = put(tmp_path, [{"conversations": CALLS, "tools": TOOLS, "system": "Be brief."}])
    assert convert(path, "--to", "openai", "--out", str(tmp_path / "out.jsonl")) == 0
    call = {"name": "add", "arguments": '{"a": 2, "b": 2}'}
    assert values(tmp_path / "out.jsonl") == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "2+2?"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
                },
                {"role": "tool", "content": "4", "tool_call_id": "call_1"},
                {"role": "assistant", "content": "It is 4."},
            ],
            "tools": json.loads(TOOLS),
        }
    ]


def test_turns_in_alpaca_form(tmp_path: Path) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in turns]
    system = {"role": "system", "content": "s"}
    path = put(tmp_path, [{"messages": [system, *messages]}, {"messages": messages[2:]}])
    assert convert(path, "--to", "alpaca", "--out", str(tmp_path / "out.json"), "--register") == 0
    assert values(tmp_path / "out.json") == [
        {"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]},
        {"instruction": "c", "input": "", "output": "d", "system": "", "history": []},
    ]
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == {
        "out": {
            "file_name": "out.json",
            "columns": {
                "prompt": "instruction",
                "query": "input",
                "response": "output",
                "history": "history",
                "system": "system",
            },
        }
    }


def test_rows_without_a_place_stop_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"conversations": [CALLS[0], CALLS[3]], "tools": TOOLS}
    path = put(tmp_path, [plain, {"conversations": CALLS, "tools": TOOLS}, {"conversations": [CALLS[0]]}])
    out = tmp_path / "out.jsonl"
    assert convert(path, "--to", "alpaca", "--out", str(out)) == 1
    said = capsys.readouterr().out
    assert "3 rows = 1 that fit + 2 without a place in alpaca" in said
    assert "1: alpaca has no place for function calls -> --to sharegpt, or openai (in.jsonl:2)" in said
    assert not out.exists()
    assert convert(path, "--to", "alpaca", "--out", str(out), "--lossy", "--format=json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert (numbers["rows"], numbers["written"]) == (3, 1)
    assert [row["source"] for row in values(tmp_path / "out.rejected.jsonl")] == ["in.jsonl:2", "in.jsonl:3"]
    assert values(tmp_path / "out.rejected.jsonl")[0]["data"] == {"conversations": CALLS, "tools": TOOLS}


def test_other_columns_are_kept_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, [{"question": "q", "answer": "a", "id": 7, "text": "t"}])
    given = [path, "--to", "sharegpt", "--out", str(tmp_path / "out.jsonl"), "--overwrite"]
    assert convert(*given) == 0
    assert 'left out: column "id" in 1 row' in capsys.readouterr().out
    assert convert(*given, "--keep-columns") == 0
    said = capsys.readouterr().out
    assert 'column "text"' in said and 'column "id"' not in said
    assert list(values(tmp_path / "out.jsonl")[0]) == ["conversations", "id"]


def test_keys_of_messages_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": "user", "content": "q", "name": "Ann"}, {"role": "assistant", "content": "a"}]
    path = put(tmp_path, [{"messages": messages}])
    assert convert(path, "--to", "openai", "--out", str(tmp_path / "out.jsonl")) == 0
    assert 'left out: "name" of messages in 1 row\n' in capsys.readouterr().out


def test_only_the_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('问题,答案,n\nNA,007,1.10\n=1+1,"x\ny",\n', "gb18030")
    assert convert(str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.jsonl"), "--register") == 0
    rows = [{"问题": "NA", "答案": "007", "n": "1.10"}, {"问题": "=1+1", "答案": "x\ny", "n": ""}]
    assert values(tmp_path / "out.jsonl") == rows
    assert [example.answer for example in read(tmp_path, "out")] == ["007", "x\ny"]
    for kind in (".xlsx", ".parquet", ".csv.gz", ".json"):
        assert convert(str(tmp_path / "out.jsonl"), "--out", str(tmp_path / f"b{kind}")) == 0
        assert values(tmp_path / f"b{kind}") == rows


def test_a_format_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, [{"a": 1, "b": 2, "c": None}])
    assert convert(path, "--out", str(tmp_path / "out.csv")) == 0
    assert '1: "c": null is an empty cell' in capsys.readouterr().out
    with pytest.raises(DataError, match="cannot be told"):
        convert(path, "--to", "alpaca", "--out", str(tmp_path / "b.csv"))


def test_rows_that_a_table_would_lose_stop_it(tmp_path: Path) -> None:
    path = put(tmp_path, [{"q": "a", "a": "b"}, {"q": "", "a": None}])
    with pytest.raises(DataError, match="rows left out"):
        convert(path, "--out", str(tmp_path / "out.csv"))
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]
    assert convert(path, "--out", str(tmp_path / "out.csv"), "--lossy") == 0


def test_an_input_that_changes_meanwhile(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a"}
    path, out = put(tmp_path, [row]), tmp_path / "out.jsonl"
    job = job_of(words.parse([path, "--to", "openai", "--out", str(out)], OPTIONS, "convert"))
    looked = look(job)
    put(tmp_path, [row, row])
    with pytest.raises(DataError, match="changed while it was being read"):
        carry_out(job, looked)
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (["--to", "chatml", "--out", "x.json"], "one of alpaca, sharegpt, openai"),
        (["--to", "openai"], "to what"),
        (["--out", "x.pdf"], "not written"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path: Path, asked: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        convert(put(tmp_path, [{"question": "q", "answer": "a"}]), *asked)


def test_text_has_no_turns(tmp_path: Path) -> None:
    path = put(tmp_path, [{"text": "a"}])
    with pytest.raises(UsageError, match="--to alpaca"):
        convert(path, "--to", "openai", "--out", str(tmp_path / "out.json"))


def test_entries_of_others_stay(tmp_path: Path) -> None:
    path, info = put(tmp_path, [{"question": "q", "answer": "a"}]), tmp_path / "dataset_info.json"
    given = [path, "--to", "openai", "--out", str(tmp_path / "out.json"), "--register"]
    for text, error in (('{"a": {}, "a": {"b": 1}}', DataError), ('{"out": {"file_name": "x"}}', UsageError)):
        info.write_text(text)
        with pytest.raises(error):
            convert(*given)
        assert info.read_text() == text
        assert not (tmp_path / "out.json").exists()
    info.write_text('{"mine": {"file_name": "体.json", "columns": {"prompt": null}}}', "utf-8")
    assert convert(*given) == 0
    found = json.loads(info.read_text("utf-8"))
    assert list(found) == ["mine", "out"]
    assert found["mine"] == {"file_name": "体.json", "columns": {"prompt": None}}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the demo files are not here")
@pytest.mark.parametrize("name", ["identity", "dpo_zh_demo", "kto_en_demo", "glaive_toolcall_zh_demo"])
def test_demo_files_in_every_format(tmp_path: Path, name: str) -> None:
    found = [
        replace(e, source="")
        for _, e in opened(name, {"dataset_dir": str(SHARED)}).rows()
        if isinstance(e, Example)
    ]
    assert found
    for to in ("sharegpt", "openai") if "glaive" in name else layouts.TO:
        given = ["--to", to, "--out", str(tmp_path / f"{to}.jsonl"), "--register"]
        assert convert(name, f"--dataset_dir={SHARED}", *given) == 0
        assert read(tmp_path, to) == found
