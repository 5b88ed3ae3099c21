"""`luthier demo` in its small form: the whole path runs, and says what it found."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from luthier.demo import run
from luthier.errors import MissingPackage


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A finished small demo: its directory and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "luthier", "demo", "--small", "--out", str(out), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return out, done


def test_numbers_are_written_and_printed(small):
    out, done = small
    found = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == found
    assert found["eval_rows"] == 64
    assert found["base_accuracy"] == 0.0
    assert 0.0 <= found["tuned_accuracy"] <= 1.0
    assert found["merge_difference"] <= 1e-4
    assert found["run"] == str(out / "run")
    assert [question for question, _ in found["conversation"]] == list(run.TALK)


def test_each_step_is_a_command_that_a_user_could_type(small):
    _, done = small
    verbs = [line.split()[2] for line in done.stderr.splitlines() if line.startswith("$ luthier ")]
    assert verbs == ["check", "predict", "train", "predict", "export", "chat"]


def test_leaves_a_run_a_merged_model_and_a_configuration(small):
    out, _ = small
    assert {path.name for path in out.iterdir()} == set(run.PARTS)
    assert (out / "run" / "adapter_model.safetensors").stat().st_size > 0
    assert (out / "merged" / "model.safetensors").stat().st_size > 0


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A finished small demo with GGUF files."""
    pytest.importorskip("xllamacpp")
    out = tmp_path_factory.mktemp("shipped") / "out"
    command = [sys.executable, "-m", "luthier", "demo", "--small", "--export", "gguf", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return out, done


def test_ends_by_talking_to_a_proved_gguf_file(shipped):
    out, done = shipped
    found = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    parity = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    assert parity["ok"] is True and json.loads((out / "gguf/parity.json").read_text()) == parity
    told = found["gguf"]
    assert told["ok"] is True and told["folder"] == str(out / "gguf")
    file = told["files"]["f16"]
    assert file["file"] == "run-f16.gguf" and file["bytes"] == (out / "gguf/run-f16.gguf").stat().st_size
    assert file["prompts"] >= 64 and file["mean_kl"] <= 1e-4 and file["same_top"] >= 0.98
    assert [question for question, _ in found["conversation"]] == list(run.TALK)
    assert all(answer for _, answer in found["conversation"])
    steps = [line for line in done.stderr.splitlines() if line.startswith(("===", "$ luthier "))]
    assert steps[-4].startswith("=== 6/7") and steps[-3].endswith("--to gguf --quant f16")
    assert steps[-2].startswith("=== 7/7") and steps[-1].startswith(
        f"$ luthier chat {out / 'gguf/run-f16.gguf'}"
    )
    assert "| identity | 64 | 64 |" in (out / "gguf/README.md").read_text()


def test_what_is_missing_for_gguf_is_said_before_the_work(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else there(name)
    )
    with pytest.raises(MissingPackage, match=r'needs the package "xllamacpp": pip install "luthier\[gguf\]"'):
        run.main(["--export", "gguf", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_base_is_small_and_in_the_qwen3_architecture():
    assert sum(path.stat().st_size for path in run.BASE.iterdir()) <= 15_000_000
    config = json.loads((run.BASE / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize("name", ["thesis.txt", "data"])
def test_a_directory_with_other_files_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("years of work")
    command = [sys.executable, "-m", "luthier", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"it holds {name}" in done.stderr
    assert (tmp_path / name / "mine").read_text() == "years of work"


def test_an_unknown_option_is_a_wrong_request():
    done = subprocess.run(
        [sys.executable, "-m", "luthier", "demo", "--smal1"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--smal1" in done.stderr
