import json
import os
from pathlib import Path

import pytest

from luthier.errors import RunError, UsageError
from luthier.runs import Run, cli


@pytest.fixture
def saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs below saves/, one complete and one that failed at step 4 of 10."""
    monkeypatch.chdir(tmp_path)
    with Run.create("saves/a") as run:
        run.write_marker(stage="sft", base="base")
        run.describe("learning_rate: 1e-4\n", {"learning_rate": 1e-4, "seed": 1}, {})
        run.append_log({"current_steps": 5, "total_steps": 5, "loss": 0.25, "percentage": 100.0})
        run.append_log({"current_steps": 5, "total_steps": 5, "eval_loss": 0.5})
        run.write_json("all_results.json", {"train_loss": 0.25})
        with run.checkpoint(5) as folder:
            (folder / "weights").write_text("w")
    with pytest.raises(ValueError, match="boom"), Run.create("saves/deep/b") as run:
        run.describe("learning_rate: 2e-4\n", {"learning_rate": 2e-4, "seed": 1}, {})
        run.append_log({"current_steps": 4, "total_steps": 10, "loss": 1.5})
        run.write_json("all_results.json", {"train_loss": 1.5})
        raise ValueError("boom")
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> object:
    cli.main([*args, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_list(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys)
    assert isinstance(found, list)
    shown = {s["path"]: (s["status"], s["step"], s["total"], s["loss"]) for s in found}
    assert shown == {
        "saves/a": ("complete", 5, 5, 0.25),
        os.path.join("saves", "deep", "b"): ("failed", 4, 10, 1.5),
    }
    assert cli.main(["saves/deep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "run status step loss method data metric time updated".split()
    assert lines[1].split()[:4] == ["saves/deep/b", "failed", "4/10", "1.5000"]


def test_a_damaged_run_does_not_hide_the_others(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saves / "saves" / "a" / "luthier.json").write_text("{")
    found = answer(capsys)
    assert isinstance(found, list)
    assert {s["status"] for s in found} == {"damaged", "failed"}


def test_show(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "show", "saves/a")
    assert isinstance(found, dict)
    assert found["status"] == "complete"
    assert found["results"] == {"train_loss": 0.25}
    assert found["checkpoints"] == {os.path.join("saves", "a", "checkpoint-5"): []}
    (saves / "saves/a/checkpoint-5/weights").write_text("x")
    assert cli.main(["show", "saves/a"]) == 1
    assert "checkpoint-5: weights is not what was written" in capsys.readouterr().out


def test_compare(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, "compare", "saves/a", "saves/deep/b")
    assert isinstance(told, dict)
    assert told["config"] == [
        {"key": "learning_rate", "kind": "changes the mathematics", "a": 1e-4, "b": 2e-4},
    ]
    assert told["results"] == [{"key": "train_loss", "a": 0.25, "b": 1.5}]
    assert told["curves"]["loss"] == {"a": [[5, None, 0.25]], "b": [[4, None, 1.5]]}
    assert (told["tasks"], told["rows"], told["apart"]) == ({}, {}, [])
    assert cli.main(["compare", "saves/a", "saves/a"]) == 0
    assert "configuration: no differences" in capsys.readouterr().out


def test_mistakes(saves: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such directory"):
        cli.main(["nowhere"])
    with pytest.raises(UsageError, match=r"1 runs -> two to 26 can be compared"):
        cli.main(["compare", "saves/a"])
    with pytest.raises(RunError, match=r"saves: not a run directory"):
        cli.main(["show", "saves"])
