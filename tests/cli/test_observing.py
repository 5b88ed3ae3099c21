"""When is evaluated, which weights are the result, and what experiment trackers are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from desk import Luthier
from luthier.config import load
from luthier.train.run import train

TRAIN = ["train", "model_name_or_path=base", "dataset=rows.json", "output_dir=run", "template=chatml"]
STEPS = ["per_device_train_batch_size=2", "num_train_epochs=2", "val_size=4", "logging_steps=1"]  # 4 an epoch


def evaluations(run: Path) -> list[int]:
    lines = (run / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["current_steps"] for line in map(json.loads, lines) if "eval_loss" in line]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["eval_strategy=steps", "eval_steps=2"], [2, 4, 6, 8]),
        (["eval_strategy=steps", "eval_steps=2", "eval_delay=5"], [6, 8]),
        (["eval_strategy=epoch", "eval_delay=2"], [8]),
        (["eval_strategy=steps", "eval_steps=4", "eval_delay=5", "eval_on_start=true"], [0, 8]),
    ],
)
def test_no_evaluation_before_its_delay(
    luthier: Luthier, desk: Path, words: list[str], steps: list[int]
) -> None:
    assert luthier(*TRAIN, *STEPS, *words).code == 0
    assert evaluations(desk / "run") == steps


def test_the_best_weights_are_the_result(luthier: Luthier, desk: Path) -> None:
    """Loss falls here, so that the best by the wrong measure is the first one."""
    words = ["eval_strategy=steps", "eval_steps=2", "save_steps=2", "load_best_model_at_end=true"]
    code, _, err = luthier(*TRAIN, *STEPS, *words, "learning_rate=1e-2", "greater_is_better=true")
    assert code == 0
    state = json.loads((desk / "run" / "trainer_state.json").read_bytes())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert "the best weights are those of step 2; they are the result" in err
    name = "adapter_model.safetensors"
    assert (desk / "run" / name).read_bytes() == (desk / "run" / "checkpoint-2" / name).read_bytes()
    measured = json.loads((desk / "run" / "eval_results.json").read_bytes())["eval_loss"]
    assert measured == pytest.approx(losses[0], rel=1e-6)


TRACKER = """\
import json, pathlib
def init(**given):
    pathlib.Path("told.json").write_text(json.dumps(given))
    return Run()
config = {}
class Run:
    def log(self, values, **more):
        with open("logged.jsonl", "a") as file:
            file.write(json.dumps(sorted(values)) + chr(10))
    def finish(self):
        pathlib.Path("finished").touch()
"""


def test_trackers_are_told_the_run_and_its_name(desk: Path, tmp_path: Path) -> None:
    """A package of that name which writes down what it is told stands in for the real one."""
    site = tmp_path / "site"
    (site / "trackio-9.dist-info").mkdir(parents=True)
    (site / "trackio-9.dist-info" / "METADATA").write_text("Name: trackio\nVersion: 9\n")
    (site / "trackio.py").write_text(TRACKER)
    words = [*TRAIN, "max_steps=2", "logging_steps=1", "report_to=trackio", "project=shop", "run_name=night"]
    env = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "luthier", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    told = json.loads((desk / "told.json").read_text())
    assert told == {"project": "shop", "name": "night"}
    assert (desk / "logged.jsonl").read_text().count('"loss"') == 2
    assert (desk / "finished").exists()


def test_a_tracker_that_is_not_installed_is_a_note(luthier: Luthier, desk: Path) -> None:
    code, _, err = luthier(*TRAIN, "max_steps=1", "report_to=swanlab")
    assert code == 0
    assert 'swanlab is not installed: pip install "luthier[swanlab]"' in err


def test_one_process_may_train_in_different_number_formats(desk: Path) -> None:
    for name, dtype in (("a", {}), ("b", {"bf16": True}), ("c", {})):
        request = {"model_name_or_path": "base", "dataset": "rows.json", "output_dir": name, "max_steps": 1}
        assert train(load({**request, "template": "chatml", **dtype}, "train", {})).status == "complete"
    weights = [(desk / name / "adapter_model.safetensors").read_bytes() for name in "ac"]
    assert weights[0] == weights[1]
