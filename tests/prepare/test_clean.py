"""`luthier data clean`: what it writes, what it refuses, and that all of it can be undone."""

from __future__ import annotations

import csv
import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import ConfigError, DataError, UsageError
from luthier.prepare import cli

ALPACA = [
    {"id": 1, "instruction": "<p>Call 13800138000</p>", "input": "", "output": "ｏｋ then", "by": "a@b.cn"},
    {"id": 2, "instruction": "Same question as below?", "input": "", "output": "same"},
    {"id": 3, "instruction": "Same question as below?", "input": "", "output": "same"},
    {"id": 4, "instruction": "No answer", "input": "", "output": " "},
    {"id": 5, "instruction": ["a list"], "input": "", "output": "mail me@example-mail.cn"},
    {"id": 6, "instruction": "Number", "input": "", "output": 1.10},
]


def rows_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def ledger_of(path: Path) -> list[dict[str, Any]]:
    lines = path.with_name(path.name + ".ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def clean(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `luthier data clean …` and returns what it printed."""

    def run(*args: object, status: int = 0) -> str:
        assert cli.main(["clean", *map(str, args)]) == status
        return capsys.readouterr().out

    return run


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ALPACA), encoding="utf-8")
    return path


def test_usual_steps_and_back(alpaca: Path, clean: Callable[..., str]) -> None:
    before = alpaca.read_bytes()
    said = clean(alpaca)
    new = alpaca.with_name("a.clean.json")
    assert rows_of(new) == [
        {**ALPACA[0], "instruction": "Call [PHONE]", "output": "ok then"},
        ALPACA[1],
        {**ALPACA[4], "output": "mail [EMAIL]"},
        ALPACA[5],
    ]
    assert "a.json: 6 rows -> 4 (2 removed, 2 of those left changed)" in said
    assert "left as they are: by -> --roles all" in said and "a.json:5 -> mend them" in said
    assert "13800138000" not in said and "private data" in said and "--undo" in said
    clean("--undo", new)
    assert rows_of(alpaca.with_name("a.clean.undone.json")) == ALPACA
    assert alpaca.read_bytes() == before


def test_ledger(alpaca: Path, clean: Callable[..., str]) -> None:
    clean(alpaca, "--out", alpaca.with_name("b.jsonl"))
    new = alpaca.with_name("b.jsonl")
    *lines, last = ledger_of(new)
    assert lines[0] == {
        "source": "a.json:1",
        "in": 1,
        "out": 1,
        "step": "unicode_normalization",
        "path": ["output"],
        "changes": [{"kind": "width", "start": 0, "end": 2, "before": "ｏｋ", "after": "ok"}],
    }
    removed = {line["source"]: line for line in lines if line["out"] is None}
    assert removed["a.json:3"]["row"] == ALPACA[2] and removed["a.json:3"]["reason"] == "copy of a.json:2"
    assert removed["a.json:4"]["step"] == "missing_text"
    assert last["rows"] == [6, 4] and {step["step"] for step in last["steps"]} >= {"deduplication"}
    assert stat.S_IMODE(new.with_name("b.jsonl.ledger.jsonl").stat().st_mode) == 0o600


def test_undo_in_parts(alpaca: Path, clean: Callable[..., str]) -> None:
    clean(alpaca)
    new, out = alpaca.with_name("a.clean.json"), alpaca.with_name("u.json")
    clean("--undo", new, "--steps", "deduplication", "--out", out)
    assert [row["id"] for row in rows_of(out)] == [1, 2, 3, 5, 6]
    said = clean(
        "--undo", new, "--steps", "html_removal,unicode_normalization", "--out", out, "--overwrite", status=1
    )
    assert "a.json:1 instruction: html_removal stays" in said  # the number was masked in what it had changed
    assert rows_of(out)[0] == {**ALPACA[0], "instruction": "Call [PHONE]"}
    clean("--undo", new, "--rows", "4-5", "--out", out, "--overwrite")
    assert rows_of(out)[2:] == ALPACA[3:] and "[PHONE]" in rows_of(out)[0]["instruction"]
    with pytest.raises(UsageError, match="lowercasing"):
        clean("--undo", new, "--steps", "lowercasing")
    with pytest.raises(UsageError, match="four"):
        clean("--undo", new, "--rows", "four")


def test_what_a_later_step_touched_is_not_undone(tmp_path: Path, clean: Callable[..., str]) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "Ｃall ｍe at １3800138000 ｎow"}, {"text": "ＴＥＸＴ here"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    clean(path, "--steps", "unicode_normalization,pii_anonymization")
    new = tmp_path / "a.clean.jsonl"
    said = clean("--undo", new, "--steps", "unicode_normalization", status=1)
    assert "a.jsonl:1 text: unicode_normalization stays" in said
    back = [json.loads(line) for line in (tmp_path / "a.clean.undone.jsonl").read_text().splitlines()]
    assert back == [{"text": "Call me at [PHONE] now"}, rows[1]]


def test_undo_refuses_what_was_edited(alpaca: Path, clean: Callable[..., str]) -> None:
    clean(alpaca)
    new = alpaca.with_name("a.clean.json")
    new.write_text(new.read_text().replace("same", "other"), encoding="utf-8")
    with pytest.raises(DataError, match="has changed since"):
        clean("--undo", new)
    new.with_name(new.name + ".ledger.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="damaged"):
        clean("--undo", new)
    with pytest.raises(DataError, match="no such ledger"):
        clean("--undo", alpaca)


# -- files


def test_refuses_inputs_and_existing_files(alpaca: Path, clean: Callable[..., str]) -> None:
    link = alpaca.with_name("link.json")
    link.symlink_to(alpaca)
    for out in (alpaca, link):
        with pytest.raises(UsageError, match="input, which is never changed"):
            clean(alpaca, "--out", out, "--overwrite")
    clean(alpaca)
    with pytest.raises(UsageError, match="exists already"):
        clean(alpaca)
    clean(alpaca, "--overwrite", "--ledger", "none")
    assert not alpaca.with_name("a.clean.json.ledger.jsonl").exists()


def test_dry_run_writes_nothing(alpaca: Path, clean: Callable[..., str]) -> None:
    said = clean(alpaca, "--dry-run")
    assert "'ｏｋ' -> 'ok'" in said and "phone: 1*** -> [PHONE]" in said and "copy of a.json:2" in said
    assert [path.name for path in alpaca.parent.iterdir()] == ["a.json"]


def test_nothing_half_written(alpaca: Path, clean: Callable[..., str]) -> None:
    """Every row goes: there is nothing to write, and so neither file appears."""
    with pytest.raises(DataError, match="every one of 6 rows would be removed"):
        clean(alpaca, "quality_filter.shortest=1000", "--steps", "structure,quality_filter", "--roles=all")
    assert [path.name for path in alpaca.parent.iterdir()] == ["a.json"]


def test_interrupted(alpaca: Path, clean: Callable[..., str]) -> None:
    """An interrupt in the middle of the rows leaves nothing behind."""
    module = alpaca.with_name("stops.py")
    module.write_text(
        "def now(text):\n    if 'below' in text:\n        raise KeyboardInterrupt\n    return {}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(alpaca.parent)
        with pytest.raises(KeyboardInterrupt):
            clean(alpaca, "--steps", "content_filter", "content_filter.classifier=stops:now")
    assert {path.suffix for path in alpaca.parent.iterdir() if path.is_file()} == {".json", ".py"}


def test_tables_hold_conversations_as_text(tmp_path: Path, clean: Callable[..., str]) -> None:
    path = tmp_path / "chat.csv"
    talk = [{"role": "user", "content": "<b>1.50</b>  ok"}, {"role": "assistant", "content": "ｏｋ"}]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["messages", "note"])
        writer.writerow([json.dumps(talk, separators=(",", ":")), "<i>as it is</i>"])
    clean(path)
    new = tmp_path / "chat.clean.csv"
    (row,) = csv.DictReader(new.open(newline="", encoding="utf-8-sig"))
    assert [turn["content"] for turn in json.loads(row["messages"])] == ["1.50  ok", "ok"]
    assert row["note"] == "<i>as it is</i>"
    clean("--undo", new)
    undone = tmp_path / "chat.clean.undone.csv"
    old, back = (list(csv.reader(each.open(newline="", encoding="utf-8-sig"))) for each in (path, undone))
    assert back == old


def test_half_a_surrogate_pair_in_a_cell(tmp_path: Path, clean: Callable[..., str]) -> None:
    """In JSON it is an escape; as a character a table could not hold it, and nothing could be undone."""
    path = tmp_path / "chat.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["instruction", "output", "history"], ["q", "a", '[["\\ud800 x", "AB"]]']])
    clean(path, "--steps", "lowercasing")
    clean("--undo", tmp_path / "chat.clean.csv")
    (row,) = csv.DictReader((tmp_path / "chat.clean.undone.csv").open(newline="", encoding="utf-8-sig"))
    assert row["history"] == '[["\\ud800 x", "AB"]]'


def test_packed_lines_and_unreadable_rows(tmp_path: Path, clean: Callable[..., str]) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "\\uff21"}\n{broken\n{"text": "b"}\n'))
    report = json.loads(clean(path, "--format", "json"))
    assert report["rows"] == [3, 2] and report["unreadable"] == ["a.jsonl.gz:2"]
    new = tmp_path / "a.clean.jsonl.gz"
    assert gzip.decompress(new.read_bytes()).splitlines() == [b'{"text": "A"}', b'{"text": "b"}']
    removed = next(line for line in ledger_of(new) if line["step"] == "unreadable")
    assert removed["out"] is None and removed["raw"] == ["{broken"] and "line 2" in removed["reason"]
    assert "could not be read; only the original file has them: a.jsonl.gz:2" in clean(
        "--undo", new, status=1
    )
    assert json.loads(clean("--undo", new, "--overwrite", "--format", "json", status=1)) == {
        "output": str(tmp_path / "a.clean.undone.jsonl.gz"),
        "rows": 2,
        "texts_put_back": 1,
        "rows_brought_back": 0,
        "kept": [],
        "unreadable": ["a.jsonl.gz:2"],
        "lost": {},
    }


def test_a_table_has_no_place_for_nothing(tmp_path: Path, clean: Callable[..., str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text\n<br>\nx\n", encoding="utf-8")
    said = json.loads(clean(path, "--steps", "html_removal", "--format", "json"))
    assert (said["rows"], said["unwritten"], said["removed"]) == ([2, 1], 1, 1)
    clean("--undo", tmp_path / "t.clean.csv")
    undone = (tmp_path / "t.clean.undone.csv").read_text(encoding="utf-8-sig")
    assert undone.split() == ["text", "<br>", "x"]


def test_who_may_read_the_input_may_read_the_copy(alpaca: Path, clean: Callable[..., str]) -> None:
    alpaca.chmod(0o600)
    clean(alpaca)
    new = alpaca.with_name("a.clean.json")
    clean("--undo", new)
    for path in (new, alpaca.with_name("a.clean.undone.json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pairs_verdicts_and_tool_calls(tmp_path: Path, clean: Callable[..., str]) -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "<p>Weather?</p>"},
            {"from": "function_call", "value": '{"name": "get", "arguments": {"at": "<p>x</p>"}}'},
            {"from": "observation", "value": "<p>rain</p>"},
        ],
        "chosen": {"from": "gpt", "value": "<p>Rain.</p>"},
        "rejected": {"from": "gpt", "value": "<p>Sunshine today.</p>"},
        "tools": "[]",
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    clean(path, "quality_filter.longest=8")  # not asked of what is worse, or read
    (new,) = rows_of(tmp_path / "p.clean.json")
    assert [turn["value"] for turn in new["conversations"]] == [
        "Weather?",
        row["conversations"][1]["value"],
        "rain",
    ]
    assert (new["chosen"]["value"], new["rejected"]["value"]) == ("Rain.", "Sunshine today.")


def test_the_account_names_the_entry(tmp_path: Path, clean: Callable[..., str]) -> None:
    info = {"mine": {"file_name": "m.json", "columns": {"prompt": "q", "response": "a"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "m.json").write_text(json.dumps([{"q": "x", "a": "ｙ"}]))
    said = json.loads(clean("mine", "--dataset_dir", tmp_path, "--format", "json"))
    assert said["output"] == str(tmp_path / "m.clean.json")
    entry = {"m.clean": {"file_name": "m.clean.json", "columns": {"prompt": "q", "response": "a"}}}
    assert json.loads("{" + said["entry"] + "}") == entry
    assert rows_of(tmp_path / "m.clean.json") == [{"q": "x", "a": "y"}]


def test_not_in(tmp_path: Path, clean: Callable[..., str]) -> None:
    train, test = tmp_path / "train.json", tmp_path / "test.json"
    question = "How does gradient checkpointing save memory when a long sequence is trained?"
    rows = [{"instruction": question, "output": "a"}, {"instruction": "Something else?", "output": "b"}]
    train.write_text(json.dumps(rows))
    test.write_text(json.dumps([{"instruction": question.replace("does", "dose"), "output": "z"}]))
    clean(train, "--not-in", test)
    assert rows_of(tmp_path / "train.clean.json") == rows[1:]


def test_not_in_compares_what_is_cleaned_alike(tmp_path: Path, clean: Callable[..., str]) -> None:
    train, test = tmp_path / "train.json", tmp_path / "test.json"
    rows = [
        {"instruction": "<p>Where is my order?</p>", "output": "a"},
        {"instruction": "Why?", "output": "b"},
    ]
    train.write_text(json.dumps(rows))
    test.write_text(json.dumps(rows[:1]))
    clean(train, "--not-in", test)
    assert rows_of(tmp_path / "train.clean.json") == rows[1:]


# -- requests


def test_pipeline_file(alpaca: Path, clean: Callable[..., str]) -> None:
    recipe = alpaca.with_name("clean.yaml")
    recipe.write_text(
        "steps:\n- missing_text\n- quality_filter: {shortest: 3, roles: [assistant]}\n"
        "- deduplication: {near: false}\n"
    )
    clean(alpaca, "--pipeline", recipe, "quality_filter.shortest=7")
    assert [row["id"] for row in rows_of(alpaca.with_name("a.clean.json"))] == [1, 5, 6]


def test_all_problems_at_once(alpaca: Path, clean: Callable[..., str]) -> None:
    recipe = alpaca.with_name("clean.yaml")
    recipe.write_text(
        "steps:\n- html\n- quality_filter: {min_chars: 3, longest: many, detector: 'os:system'}\n"
        "- pii_anonymization: {mode: hide}\n- 7\nrole: [user]\nroles: [users]\n"
    )
    with pytest.raises(ConfigError) as error:
        clean(alpaca, "--pipeline", recipe, "--skip", "spelling", "lowercasing.keep=US")
    text = str(error.value)
    for part in (
        "step 1: no cleaning step 'html'",
        "min_chars: no such option",
        "longest: 'many' is not a whole number",
        "a file may not name a function to run",
        "step 4: is no step",
        "role: no such key -> did you mean roles?",
        "no role 'users' -> did you mean user?",
        "--skip: 'spelling' is not among the steps",
        "lowercasing is not among the steps",
    ):
        assert part in text
    with pytest.raises(ConfigError, match="no mode 'hide' -> mask or fake"):
        clean(alpaca, "pii_anonymization.mode=hide")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--steps", "html-remove"], "did you mean html_removal"),
        (["deduplication.reviewed=checked"], "no row has a column 'checked'"),
        (["--rows", "1"], "--rows is for --undo"),
        (["--steps=row_removal"], "row_removal: which rows\\? -> row_removal.rows=17,20-30"),
        (["--steps=row_removal", "row_removal.rows=17,x"], "row_removal: x names no rows"),
        (["--ledger", "x.jsonl"], "--ledger none"),
        (["other.json"], "one data set at a time"),
        (["--not-in", "a.json"], "a.json is the data set itself"),
        (["--setp=html_removal"], "no such option"),
        (["content_filter.classifier=nowhere:f", "--steps=content_filter"], "cannot be imported"),
    ],
)
def test_wrong_requests(
    alpaca: Path,
    clean: Callable[..., str],
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(alpaca.parent)
    with pytest.raises(UsageError, match=says):
        clean(alpaca, *words)
    assert [path.name for path in alpaca.parent.iterdir()] == ["a.json"]


def test_help_and_explain(clean: Callable[..., str]) -> None:
    from luthier.prepare.steps import STEPS

    text = clean("--help")
    assert all(f"  {name} " in text and row.what in text for name, row in STEPS.items())
    assert all(len(line) <= 110 for line in text.splitlines())
    for name in STEPS:
        assert "Pitfall" in clean("--explain", name)
    assert "quality_filter.shortest=1   (a whole number)" in clean("--explain", "quality_filter")
