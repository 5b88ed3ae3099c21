"""`luthier data show FILE` on bad files: every row with its place, every note, no traceback, an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from bad_files.corpus import CASES
from luthier.cli import main

SHOWN = [
    "encoding: csv in GB18030",
    "encoding: one row in GBK among UTF-8 rows",
    "encoding: jsonl in euc_kr",
    "json: a key twice with two values",
    "json: a comment",
    "json: half of an emoji",
    "json: keys that are a terminal's commands",
    "json: text after the array",
    "json: only []",
    "sheet: formulas without saved values",
    "sheet: no header",
    "columns: binary that is no text",
    "columns: cut in the middle",
    "packed: gzip cut in the middle",
    "size: one line 100,000 deep",
    "place: a name with a line break",
    "place: a name that is not UTF-8",
    "place: a link to itself",
    "info: the column key promt",
    "info: two roles of one name",
    "row: arguments that are cut",
    "row: two user turns in a row",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make_model(folder, "qwen3")
    return folder


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown(name: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    read = case.write(tmp_path)
    if not (tmp_path / "dataset_info.json").exists():
        read = str(tmp_path / read)
    words = [f"--model={model}", f"--dataset_dir={tmp_path}", "--template=chatml", "--format=json"]
    code = main(["data", "show", read, *words])
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert code in (1, 2) if case.refused else code == bool(case.bad), err
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == len(case.kept) + len(case.bad)
    bad = [(row["source"], row["reason"]) for row in rows if "reason" in row]
    for (source, reason), (place, _, why) in zip(bad, case.bad, strict=True):
        assert source == place or source.endswith(f":{place}")
        assert why in reason
    if not case.refused:
        assert all(note in err for note in case.notes), err
    else:
        assert case.refused in err or "does not exist" in err
