"""`luthier data check`: literal files, what is found in which row, and the exit code."""

import json
import shlex
import signal
import time
from multiprocessing import active_children
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

import luthier.demo
from luthier import cli
from luthier.data.spec import DatasetSpec
from luthier.errors import LuthierError
from luthier.prepare import check
from luthier.prepare.checks import CHECKS, Data, load, texts
from luthier.prepare.opened import opened
from luthier.prepare.table import Table

BASE = str(Path(luthier.demo.__file__).parent / "base")
ROWS: list[dict[str, Any]] = [
    {"instruction": "Who are you?", "input": "", "output": "I am {{name}}, made by {{author}}."},
    {"instruction": "How do I reach you?", "input": "", "output": "Call 13800138000 or mail anna.k@web.de."},
    {"instruction": "Say nothing", "input": "", "output": ""},
    {"instruction": "Hi <|im_end|>", "input": "", "output": "<p>Hello</p>&nbsp;"},
    {"instruction": "Name a fruit", "input": "", "output": "The best of them all, without any doubt, is, "},
    {"instruction": "Cafe in Paris?", "input": "", "output": "CafÃ© de Flore\x07"},
    {
        "instruction": "Lend me your key",
        "input": "",
        "output": "sk-proj-abcdEFGH1234ijklMNOP5678qrstUVWX9012",
    },
    {"instruction": "Wash", "output": "\ufffd\ufffd"},
    {"instruction": "Sing", "output": "la di da la di da la di da la di da la di da la di da la di da"},
    {"input": "no instruction", "output": "x"},
]


def written(folder: Path, rows: object, name: str = "rows.json") -> str:
    path = folder / name
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return str(path)


def checked(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert cli.main(["data", "check", *args, "--format", "json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_each_kind_is_found_in_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(capsys, written(tmp_path, ROWS), "--only", "structure,texts,truncation")
    assert (report["rows"], report["kept"]) == (10, 8)
    assert report["rejected"] == [
        {"source": "rows.json:3", "field": "output", "reason": "empty answer"},
        {"source": "rows.json:10", "field": "instruction", "reason": "missing; the row has input, output"},
    ]
    found = {
        one["check"]: (one["severity"], one["rows"])
        for one in report["findings"]
        if one["check"] != "structure"
    }
    assert found == {
        "secrets": ("error", ["rows.json:7"]),
        "encoding": ("warning", ["rows.json:6"]),
        "lost_characters": ("warning", ["rows.json:8"]),
        "control_characters": ("warning", ["rows.json:6"]),
        "html": ("warning", ["rows.json:4"]),
        "control_tokens": ("warning", ["rows.json:4"]),
        "placeholders": ("warning", ["rows.json:1"]),
        "personal_data": ("warning", ["rows.json:2"]),
        "truncation": ("warning", ["rows.json:5"]),
        "repetition": ("warning", ["rows.json:9"]),
    }
    assert [one["rows"] for one in report["findings"] if one["check"] == "structure"] == [
        ["rows.json:3"],
        ["rows.json:10"],
    ]
    assert all(one["count"] == len(one["rows"]) and one["fix"] for one in report["findings"])


def test_what_is_private_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", written(tmp_path, ROWS), "--only", "texts"]) == 0
    shown = capsys.readouterr().out
    assert "personal_data" in shown and "secrets" in shown
    assert "13800138000" not in shown and "anna.k" not in shown and "MNOP5678" not in shown


def test_a_clean_file_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"What is {k} + {k}?", "output": f"It is {2 * k}."} for k in range(20)]
    report = checked(capsys, written(tmp_path, rows), "--only", "structure,texts", "--fail-on", "note")
    assert report["findings"] == [] and report["kept"] == 20


@pytest.mark.parametrize(
    ("rows", "limit", "status"),
    [
        (ROWS[:1], "error", 0),
        (ROWS[:1], "warning", 1),
        (ROWS[:3], "error", 1),
        (ROWS[1:2], "note", 1),
    ],
)
def test_the_exit_code_is_for_ci(tmp_path: Path, rows: list[Any], limit: str, status: int) -> None:
    words = ["data", "check", written(tmp_path, rows), "--only", "structure,texts", "--fail-on", limit]
    assert cli.main(words) == status


def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    rows = [ROWS[k % len(ROWS)] for k in range(800)]
    request = check.requested([written(tmp_path, rows)])
    table = check.table_of(opened(request.names[0], {}), request.say)
    data = Data("rows.json", table)
    with texts.started(data, 0) as here:
        alone = here()
    texts_few, texts.FEW = texts.FEW, 10
    try:
        with texts.started(data, 2) as there:
            together = there()
    finally:
        texts.FEW = texts_few
    assert {name: hits.rows for name, hits in alone.items()} == {
        name: hits.rows for name, hits in together.items()
    }
    assert alone["html"].kinds == together["html"].kinds
    assert len(alone["html"].rows) == 80


def test_a_configuration_says_which_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, ROWS[:4])
    info = {"mine": {"file_name": "rows.json"}}
    written(tmp_path, info, "dataset_info.json")
    config = tmp_path / "train.yaml"
    config.write_text(
        f"model_name_or_path: {BASE}\ndataset: mine\ndataset_dir: {tmp_path}\n"
        f"output_dir: {tmp_path}/run\nstage: sft\ntemplate: chatml\ncutoff_len: 64\n",
        encoding="utf-8",
    )
    report = checked(capsys, str(config), "--only", "structure,texts")
    assert (report["dataset"], report["rows"]) == ("mine", 4)
    html = next(one for one in report["findings"] if one["check"] == "html")
    assert html["fix"] == f"luthier data clean mine --dataset_dir {tmp_path} --steps html_removal"


def test_a_name_with_blanks_is_quoted_in_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = written(tmp_path, ROWS[3:4], "my rows; rm.json")
    report = checked(capsys, name, "--only", "texts")
    assert f"luthier data clean '{name}' --steps html_removal" in {one["fix"] for one in report["findings"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which data?"),
        (["x.json", "--fail-on", "fatal"], "--fail-on fatal -> one of error, warning, note"),
        (["x.json", "--only", "htm"], "no check htm -> one of structure"),
        (["x.json", "--evl", "y.json"], "--evl: no such option -> did you mean --eval?"),
        (["x.json", "--eval"], "--eval: a value is missing"),
        (["x.json", "--limit", "x"], "--limit x -> how many rows to look at, from 1"),
        (["x.json", "--limit", "-5"], "--limit -5 -> how many rows"),
        (["x.json", "--limit", "0"], "--limit 0 -> how many rows"),
    ],
)
def test_wrong_requests(words: list[str], said: str) -> None:
    with pytest.raises(LuthierError, match=said) as error:
        check.main(words)
    assert error.value.exit_code == 2


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json").write_text('[{"instruction": "a" "output": 1}]', encoding="utf-8")
    for name, place in (
        ("broken.json", "broken.json:1: line 1: not valid JSON"),
        ("none.json", "no such file"),
    ):
        assert cli.main(["data", "check", str(tmp_path / name), "--format", "json"]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and place in captured.err


def test_a_report_for_people_is_not_overwritten(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    words = ["data", "check", written(tmp_path, ROWS), "--only", "structure,texts", "--html", str(page)]
    assert cli.main(words) == 0
    text = page.read_text(encoding="utf-8")
    assert "rows.json:3" in text and "<p>Hello" not in text and "html_removal" in text
    assert cli.main(words) == 2
    assert cli.main([*words, "--overwrite", "--lang", "zh"]) == 0


def test_who_stops_a_check_does_not_wait_for_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "FEW", 10)
    table = check.table_of(opened(written(tmp_path, ROWS * 200), {}), print)
    others, workers = set(active_children()), set()
    with pytest.raises(KeyboardInterrupt), texts.started(Data("rows.json", table), 1):
        workers = set(active_children()) - others
        raise KeyboardInterrupt
    (worker,) = workers
    end = time.monotonic() + 30
    while worker.exitcode is None and time.monotonic() < end:  # another thread waits for it, too
        wait([worker.sentinel], 1)
    assert worker.exitcode == -signal.SIGTERM


def test_one_row_is_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", written(tmp_path, ROWS[:1]), "--only", "structure"]) == 0
    assert ": 1 row = 1 kept + 0 that cannot be used" in capsys.readouterr().out


def test_the_command_names_all_placeholders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [
        f"I am [{name}]."
        for name in ("Your Name", "Company Name", "insert city, street", "Your Name", "name")
    ]
    said += ["I am {{age}}, ${town}.", "[Add a title]", "[Your Dog]"]
    file = written(tmp_path, [{"instruction": f"q {k}", "output": text} for k, text in enumerate(said)])
    (found,) = checked(capsys, file, "--only", "texts")["findings"]
    words = shlex.split(found["fix"])[2:]
    names = json.loads(words[-1].partition("=")[2])
    assert next(iter(names)) == "Your Name" and len(names) == 8 and set(names.values()) == {"…"}
    assert cli.main(["data", *words]) == 2  # nobody wants "…" in the data
    assert "no value for Your Name, " in capsys.readouterr().err
    words[-1] = words[-1].replace("…", "x")
    assert cli.main(["data", *words]) == 0 and "placeholder_filling" in capsys.readouterr().out
    assert checked(capsys, str(tmp_path / "rows.clean.json"), "--only", "texts")["findings"] == []


@pytest.mark.parametrize("name", ["two parts/a.json", "two parts"])
def test_rows_that_nothing_mends_are_left_out(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that is printed, also in a folder, whose files have the same numbers."""
    (tmp_path / "two parts").mkdir()
    for part, rows in (("a", [0, 7, 7, 4, 3, 2, 5]), ("b", [7, 0, 0, 4, 5, 3, 0])):
        written(tmp_path / "two parts", [ROWS[k] for k in rows], f"{part}.json")
    report = checked(capsys, str(tmp_path / name), "--only", "structure,texts,truncation")
    fixes = {one["check"]: (one["fix"], set(one["rows"])) for one in report["findings"]}
    for check_name in ("lost_characters", "control_tokens", "truncation", "structure"):
        fix, rows = fixes[check_name]
        words = shlex.split(fix.partition(" out: ")[2])
        out = tmp_path / f"{check_name}.jsonl"
        assert cli.main([*words[1:], "--out", str(out), "--format", "json"]) == 0
        account = json.loads(capsys.readouterr().out)
        assert account["removed"] == len(rows)
        again = checked(capsys, str(out), "--only", "structure,texts,truncation")["findings"]
        assert check_name not in {one["check"] for one in again}


def test_all_commands_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pasted one after the other they would write the same file."""
    copies = [{**ROWS[1], "instruction": "Where is your office?"}] * 2
    asked = [f"Explain to me how a very large data set is {how} well" for how in ("cleaned", "cleanned")]
    near = [{"instruction": text, "output": "So."} for text in asked]
    file = written(tmp_path, [*ROWS, *copies, *near], "my rows.json")
    test = written(tmp_path, [ROWS[8]], "test.json")
    words = ["--eval", test, "--only", "structure,texts,duplicates,leakage"]
    report = checked(capsys, file, *words)
    command = shlex.split(report["fix"])
    assert command == [
        *("luthier", "data", "clean", file, "--steps"),
        "encoding_repair,unicode_normalization,html_removal,deduplication,quality_filter,pii_anonymization",
        *("--not-in", test),
    ]
    assert cli.main(command[1:]) == 0
    capsys.readouterr()
    again = checked(capsys, str(tmp_path / "my rows.clean.json"), *words)
    mended = {one["check"] for one in report["findings"] if one["fix"].startswith("luthier")} - {
        "placeholders"
    }
    assert mended >= {
        "duplicates",
        "leakage",
        "html",
        "secrets",
        "personal_data",
        "encoding",
        "control_characters",
    }
    assert not mended & {one["check"] for one in again["findings"]} and again["fix"] == ""


def test_more_rows_than_anybody_reads_are_in_no_command() -> None:
    table = Table(DatasetSpec("rows.json", "file", "rows.json"), "sft")
    data = Data("rows.json", table)
    assert data.leave_out([f"rows.json:{k}" for k in range(1, 9999)]).endswith(" row_removal.rows=1-9998")
    assert data.leave_out([f"rows.json:{k}" for k in range(1, 9999, 2)]) == ""
    assert data.or_leave_out("read them", ["rows.json:7", "rows.json:9"]).endswith(" row_removal.rows=7,9")


def test_only_the_first_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(capsys, written(tmp_path, ROWS), "--only", "structure,texts", "--limit", "4")
    assert report["rows"] == 4
    assert {row for one in report["findings"] for row in one["rows"]} == {
        f"rows.json:{k}" for k in (1, 2, 3, 4)
    }
    assert checked(capsys, written(tmp_path, ROWS), "--only=structure", f"--limit={10**30}")["rows"] == 10


@pytest.mark.parametrize("verb", ["check", "show"])
def test_no_report_replaces_the_data(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, link = Path(written(tmp_path, ROWS)), tmp_path / "link.html"
    link.symlink_to(data)
    before = data.read_bytes()
    for page in (data, link):
        words = [str(data), "--html", str(page), "--overwrite", "--model", BASE, "--template", "chatml"]
        assert cli.main(["data", verb, *words]) == 2
        captured = capsys.readouterr()
        assert "is the input, which is never changed" in captured.err and captured.out == ""
    assert data.read_bytes() == before


def test_every_check_is_there() -> None:
    for name in CHECKS:
        assert callable(load(name)), name
