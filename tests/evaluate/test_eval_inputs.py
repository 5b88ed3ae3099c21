"""`luthier eval` on input of every kind, good and bad: its exit code, what it says, what it leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

import tasks
import tiny
from luthier import cli

CALL = {"name": "weather", "arguments": {"city": "Bern"}}
TOOL = {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base: a model that reads 512 tokens · run/: an adapter on it that learnt next to nothing."""
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tasks.train(tasks.make(folder, count=12, learning_rate=1e-12, max_steps=1, save_steps=50))
    return folder


@pytest.fixture(autouse=True)
def cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(place / "cache"))


class Command:
    """`luthier eval` in this process: exit code, output and errors, and report.json where there is one."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        options = ("--output_dir", str(folder / "out"), "--template", "chatml", "--max_new_tokens", "4")
        self.code = cli.main(["eval", *words, *options])
        self.out, self.err = capsys.readouterr()
        report = folder / "out" / "report.json"
        self.report: dict[str, Any] = json.loads(report.read_text("utf-8")) if report.exists() else {}
        self.notes = [
            one["en"] for detail in self.report.get("details", {}).values() for one in detail["notes"]
        ]


def answers(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out" / "answers.after.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def written(folder: Path, name: str, content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_worst_rows_stand_beside_their_nearest_training_rows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"退款": tasks.LABELS[0]}
    rows = [{**row, "output": other.get(row["output"], row["output"])} for row in tasks.rows(12)]
    rows[0]["output"] = tasks.LABELS[1]  # in training the same question has the first label
    rows.append({"instruction": "a", "output": "退款"})
    words = (str(place / "run"), "--dataset", written(tmp_path, "eval.json", rows), "--suite", "false")
    found = Command(tmp_path, capsys, *words, "--format", "json")
    assert found.code == 0 and json.loads(found.out) == found.report
    detail = found.report["details"]["eval"]
    worst = detail["worst"]
    assert len(worst) == len(detail["best"]) == 5
    assert all(0 < row["score"]["after"] < 1 and len(row["nearest"]) == 3 for row in worst)
    assert worst[0]["nearest"][0]["source"].startswith("intent.json:")
    assert any("1 labels (1 rows) never occurred in training: 退款" in note for note in found.notes)
    assert any(
        "answers after were cut after 4 tokens -> a larger max_new_tokens" in note for note in found.notes
    )
    bins = detail["calibration"]["after"]["bins"]
    assert sum(one["n"] for one in bins) == 13 and set(detail["calibration"]) == {"before", "after"}
    assert set(bins[0]) == {"low", "high", "confidence", "accuracy", "n"}
    assert set(detail["slices"]["class"]) == {*tasks.LABELS, "退款"}
    alone = detail["slices"]["class"]["退款"]
    assert alone["n"] == 1 and alone["low"] is alone["high"] is None


def test_texts_of_pretraining(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "The quick brown fox jumps over the lazy dog. "
    texts = [{"text": line * count} for count in (1, 2, 3, 80)] + [{"text": "你好，请问有什么可以帮您？"}]
    words = ("--dataset", written(tmp_path, "texts.json", texts), "--suite", "false")
    found = Command(tmp_path, capsys, str(place / "run"), *words)
    assert found.code == 0
    figure = found.report["tasks"]["texts"]["perplexity"]
    assert figure["n"] == 5 and figure["verdict"] == "no evidence" and 300 < figure["after"] < 500
    assert "1 of 5 texts are longer than the model reads: only their beginning is measured" in found.notes
    assert set(found.report["details"]["texts"]["slices"]) == {"length", "language"}
    plain = written(tmp_path, "lines.txt", (line.strip() + "\n") * 3)
    again = Command(tmp_path, capsys, str(place / "base"), "--dataset", plain)
    assert again.code == 0 and again.report["tasks"]["lines"]["perplexity"]["n"] == 3
    ids = tiny.tokenizer().encode(line.strip())
    tokens = [one["tokens"] for one in answers(tmp_path) if one["task"] == "lines"]
    assert tokens == [len(ids)] * 3  # all but the first, and the end of text


def conversation(*turns: tuple[str, Any]) -> dict[str, Any]:
    said = [
        {"from": role, "value": text if isinstance(text, str) else json.dumps(text)} for role, text in turns
    ]
    return {"conversations": said, "tools": json.dumps([TOOL])}


def test_each_call_of_a_tool_is_asked_where_it_is_made(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        conversation(
            *(
                ("human", "Weather?"),
                ("function_call", CALL),
                ("observation", "sun"),
                ("gpt", "It is sunny."),
            ),
            *(("human", "Now?"), ("function_call", CALL), ("observation", "rain"), ("gpt", "It rains.")),
        ),
        conversation(("human", "Who are you?"), ("gpt", "A bot.")),
    ]
    file = written(tmp_path, "tools.json", rows)
    found = Command(tmp_path, capsys, str(place / "base"), "--dataset", file)
    assert found.code == 0 and found.report["details"]["tools"]["kind"] == "calls"
    assert [(one["source"], one["reference"]) for one in answers(tmp_path)] == [
        ("tools.json:1, turn 2", json.dumps(CALL)),
        ("tools.json:1, turn 6", json.dumps(CALL)),
        ("tools.json:1", "It rains."),
        ("tools.json:2", "A bot."),
    ]
    assert set(found.report["details"]["tools"]["slices"]["class"]) == {"weather", "no call"}
    words = ("--dataset", file, "--template", "chatml", "--max_new_tokens", "2")
    assert (
        cli.main(["predict", str(place / "base"), *words, "--output_dir", str(tmp_path / "predicted")]) == 0
    )
    assert len((tmp_path / "predicted" / "generated_predictions.jsonl").read_text().splitlines()) == 2


def test_tolerance_and_schema(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(place / "base")
    numbers = written(
        tmp_path, "sums.json", [{"instruction": f"{k}+{k}?", "output": f"{2 * k}.5"} for k in range(8)]
    )
    found = Command(tmp_path, capsys, base, "--dataset", numbers, "--tolerance", "0.01")
    assert found.code == 0 and "an answer within 1 % of the right number counts as right" in found.notes
    assert found.report["details"]["sums"]["tolerance"] == 0.01
    orders = [{"instruction": f"{k} lamps", "output": json.dumps({"count": k or "none"})} for k in range(8)]
    records = written(tmp_path, "orders.json", orders)
    schema = written(tmp_path, "schema.json", {"properties": {"count": {"type": "integer"}}})
    found = Command(tmp_path, capsys, base, "--dataset", records, "--schema", schema)
    assert found.code == 0
    assert found.report["tasks"]["orders"]["given_schema_valid"]["after"] == 0
    assert found.report["details"]["orders"]["schema"]["kinds"] == {"no JSON": {"after": 8}}
    assert any(
        "1 of 8 right answers break the schema themselves; the first: orders.json:1" in n for n in found.notes
    )


def test_what_cannot_be_evaluated_is_said_before_the_first_answer(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, rows = str(place / "base"), tasks.rows(12)
    data = written(tmp_path, "rows.json", rows)
    empty, nothing = written(tmp_path, "empty.json", []), written(tmp_path, "none.json", [{"a": {"b": []}}])
    unanswered = written(tmp_path, "asked.json", [{"instruction": "a", "output": ""}] * 3)
    long = written(tmp_path, "long.json", [*rows, {"instruction": "word " * 600, "output": tasks.LABELS[0]}])
    cases = [
        (2, '--tolerance: is for the task "number" (rows: labels)', data, "--tolerance", "0.1"),
        (2, "--tolerance: 2 -> a part of the right number", data, "--tolerance", "2"),
        (2, "--schema: ", data, "--schema", str(tmp_path / "no.json")),
        (2, '"lable" is no kind of task -> "labels"?', data, "--task", "lable"),
        (1, "empty.json", empty),
        (1, "none.json", nothing),
        (1, "asked.json: ", unanswered),
        (1, "1 rows leave no room for an answer; the model reads 512 tokens:\n  long.json:13: ", long),
    ]
    for code, message, file, *words in cases:
        found = Command(tmp_path, capsys, base, "--dataset", file, *words)
        assert found.code == code, found.err
        assert (
            message in found.err and "Traceback" not in found.err and "fault of the program" not in found.err
        )
        assert found.report == {}
