"""Promise 4: a run that is killed at any instant resumes bit for bit, on one CPU process."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from luthier.runs.hashing import sha256_file

VARIANTS = {
    "lora, dropout": {"lora_dropout": 0.3},
    "lora+, dora, rslora": {"loraplus_lr_ratio": 8.0, "use_dora": True, "use_rslora": True},
    "pissa": {"pissa_init": True, "pissa_iter": 4},
    "full, accumulation, mid-epoch": {
        "finetuning_type": "full",
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2.5,
    },
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "packing": {"packing": True, "cutoff_len": 128, "per_device_train_batch_size": 1},
    "no sharing, small passes": {"prefix_sharing": False, "micro_batch_tokens": 60},
    "neftune, wsd": {
        "neftune_noise_alpha": 5.0,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": 3},
    },
    "evaluation": {"val_size": 0.2, "eval_strategy": "steps", "eval_steps": 2},
    "sgd": {"optim": "sgd"},
    "pre-training": {"stage": "pt", "cutoff_len": 16, "max_steps": 8},
}


def weights(run: Path) -> dict[str, str]:
    return {f.name: sha256_file(f) for f in sorted(run.glob("*.safetensors"))}


def reported(run: Path) -> list[dict]:
    """The history without what a clock decides."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    clocks = ("runtime", "per_second")
    return [{k: v for k, v in entry.items() if not k.endswith(clocks)} for entry in history]


def as_if_killed(run: Path, copy: Path, step: int) -> None:
    """The run directory as a kill just after checkpoint-`step` would have left it."""
    shutil.copytree(run, copy)
    for entry in copy.iterdir():
        later = entry.name.startswith("checkpoint-") and int(entry.name.split("-")[1]) > step
        final = entry.suffix in (".safetensors", ".png") or entry.name.endswith("_results.json")
        if later:
            shutil.rmtree(entry)
        elif final or entry.name == "trainer_state.json":
            entry.unlink()


@pytest.mark.parametrize("name", VARIANTS)
def test_resumed_equals_uninterrupted(name, tmp_path):
    settings = tasks.make(tmp_path, **VARIANTS[name])
    whole = tasks.train(settings)
    steps = [int(p.name.split("-")[1]) for p in whole.glob("checkpoint-*")]
    assert len(steps) >= 3
    for step in sorted(steps)[:-1:2]:
        killed = tmp_path / f"killed-{step}"
        as_if_killed(whole, killed, step)
        tasks.train({**settings, "output_dir": str(killed)})
        assert weights(killed) == weights(whole)
        assert reported(killed) == reported(whole)
        lines = [json.loads(line) for line in (killed / "trainer_log.jsonl").read_text().splitlines()]
        assert [r["current_steps"] for r in lines] == sorted(r["current_steps"] for r in lines)


def typed(settings: dict) -> tuple[list[str], dict[str, str]]:
    """The configuration as a command line, and the environment for it."""
    words = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]
    return [sys.executable, "-m", "luthier", "train", *words], {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_killed_process_resumes(tmp_path):
    """SIGKILL, at the moment when the third of sixteen checkpoints is announced."""
    settings = tasks.make(tmp_path, lora_dropout=0.1, num_train_epochs=4.0)
    whole = tasks.train(settings)
    settings["output_dir"] = str(tmp_path / "killed")
    command, env = typed(settings)
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    seen = 0
    for line in process.stderr:
        seen += "durable" in line
        if seen == 3:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "continuing from" in again.stderr
    assert weights(tmp_path / "killed") == weights(whole)
    assert reported(tmp_path / "killed") == reported(whole)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_saves_and_the_same_command_continues(tmp_path, number, code):
    settings = tasks.make(tmp_path, save_steps=1000, num_train_epochs=12.0)
    whole = tasks.train(settings)
    settings["output_dir"] = str(tmp_path / "stopped")
    command, env = typed(settings)
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("training from step 0"):
            process.send_signal(number)
            break
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == code, rest
    assert "the same command continues from here" in rest
    assert subprocess.run(command, env=env, capture_output=True, timeout=120).returncode == 0
    assert weights(tmp_path / "stopped") == weights(whole)


def test_a_changed_setting_is_named_and_must_be_confirmed(tmp_path):
    from luthier.errors import RunError

    settings = tasks.make(tmp_path)
    whole = tasks.train(settings)
    killed = tmp_path / "killed"
    as_if_killed(whole, killed, 2)
    before = {p.name: p.read_bytes() for p in killed.iterdir() if p.is_file()}
    changed = {**settings, "output_dir": str(killed), "learning_rate": 1e-3, "logging_steps": 2}
    with pytest.raises(RunError, match=r"learning_rate: 0.002 -> 0.001 \(changes the mathematics\)"):
        tasks.train(changed)
    after = {p.name: p.read_bytes() for p in killed.iterdir() if p.is_file()}
    assert {k: v for k, v in after.items() if not k.startswith(".")} == {
        k: v for k, v in before.items() if not k.startswith(".")
    }
    with pytest.raises(RunError, match=r"lora_rank: 8 -> 4 \(impossible\)"):
        tasks.train({**changed, "learning_rate": 2e-3, "lora_rank": 4, "confirm_changes": True})
    tasks.train({**changed, "confirm_changes": True})
    assert (killed / "adapter_model.safetensors").is_file()


def test_changed_data_is_named(tmp_path):
    from luthier.errors import RunError

    settings = tasks.make(tmp_path)
    killed = tmp_path / "killed"
    as_if_killed(tasks.train(settings), killed, 2)
    data = tmp_path / "data" / "intent.json"
    data.write_text(data.read_text().replace("物流查询", "投诉建议"))
    with pytest.raises(RunError, match=r"data\.intent\.json"):
        tasks.train({**settings, "output_dir": str(killed)})
