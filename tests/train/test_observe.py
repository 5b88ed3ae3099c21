"""What happens after a step: logs, evaluation, best weights, early stopping, checkpoints."""

import json

import pytest
from safetensors.torch import load_file

import tasks
from luthier.train import observe


def history(run):
    return json.loads((run / "trainer_state.json").read_text())


def checkpoints(run):
    return sorted(int(p.name.split("-")[1]) for p in run.glob("checkpoint-*"))


def test_the_log_has_the_names_that_readers_of_llama_factory_expect(tmp_path):
    run = tasks.train(tasks.make(tmp_path, logging_steps=3, save_strategy="no"))
    lines = [json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines()]
    assert [line["current_steps"] for line in lines] == [3, 6, 8]
    assert set(lines[0]) >= {
        "current_steps", "total_steps", "loss", "lr", "epoch", "percentage", "elapsed_time", "remaining_time"
    }  # fmt: skip
    assert lines[-1]["percentage"] == 100.0 and lines[-1]["epoch"] == 1.0
    results = json.loads((run / "all_results.json").read_text())
    assert results["train_loss"] == pytest.approx(
        (lines[0]["loss"] * 3 + lines[1]["loss"] * 3 + lines[2]["loss"] * 2) / 8
    )
    assert {"epoch", "total_flos", "train_runtime", "train_samples_per_second"} <= set(results)


def test_the_limit_keeps_the_newest_and_the_best(tmp_path):
    settings = tasks.make(
        tmp_path, save_steps=1, save_total_limit=2, val_size=6, eval_strategy="steps", eval_steps=1,
        num_train_epochs=2.0, learning_rate=5e-2, lr_scheduler_type="constant",
    )  # fmt: skip
    run = tasks.train(settings)
    state = history(run)
    best = min((e for e in state["log_history"] if "eval_loss" in e), key=lambda e: e["eval_loss"])
    assert state["best_global_step"] == best["step"]
    assert checkpoints(run) == sorted({best["step"], state["global_step"]} | set(checkpoints(run)))
    assert len(checkpoints(run)) <= 3 and best["step"] in checkpoints(run)


def test_the_best_weights_are_the_result(tmp_path):
    settings = tasks.make(
        tmp_path, save_steps=1, val_size=6, eval_strategy="steps", eval_steps=1, num_train_epochs=2.0,
        learning_rate=0.5, lr_scheduler_type="constant", load_best_model_at_end=True, do_eval=True,
    )  # fmt: skip
    run = tasks.train(settings)
    best = history(run)["best_global_step"]
    assert best < history(run)["global_step"]
    a = load_file(run / "adapter_model.safetensors")
    b = load_file(run / f"checkpoint-{best}" / "adapter_model.safetensors")
    assert all(a[name].equal(b[name]) for name in a)
    measured = json.loads((run / "eval_results.json").read_text())["eval_loss"]
    assert measured == pytest.approx(history(run)["best_metric"], rel=1e-6)


def test_the_best_is_saved_also_between_two_regular_checkpoints(tmp_path, capsys):
    settings = tasks.make(
        tmp_path, save_steps=4, val_size=6, eval_strategy="steps", eval_steps=1, num_train_epochs=2.0,
        greater_is_better=True, load_best_model_at_end=True,
    )  # fmt: skip
    run = tasks.train(settings)
    assert history(run)["best_global_step"] == 1 and checkpoints(run) == [1, 4, 8, 12]
    best = (run / "checkpoint-1" / "adapter_model.safetensors").read_bytes()
    assert (run / "adapter_model.safetensors").read_bytes() == best
    (run / "checkpoint-1" / "adapter_model.safetensors").write_bytes(best[:-4] + b"\xff" * 4)
    tasks.train(settings)
    assert "the result has the weights of the last step: the best ones" in capsys.readouterr().err
    assert (run / "adapter_model.safetensors").read_bytes() != best


def test_early_stopping(tmp_path):
    settings = tasks.make(
        tmp_path, save_steps=1, val_size=6, eval_strategy="steps", eval_steps=1, num_train_epochs=9.0,
        learning_rate=0.5, lr_scheduler_type="constant", early_stopping_steps=2,
        load_best_model_at_end=True,
    )  # fmt: skip
    run = tasks.train(settings)
    state = history(run)
    assert state["global_step"] == state["best_global_step"] + 2 < state["max_steps"]


def test_gradient_checkpointing_changes_nothing(tmp_path):
    plain = tasks.train(tasks.make(tmp_path, save_strategy="no", output_dir=str(tmp_path / "a")))
    spared = tasks.train(
        tasks.make(tmp_path, save_strategy="no", output_dir=str(tmp_path / "b"), gradient_checkpointing=True)
    )
    a, b = (load_file(run / "adapter_model.safetensors") for run in (plain, spared))
    assert all(a[name].allclose(b[name], rtol=1e-4, atol=1e-6) for name in a)


def test_epochs_are_an_interval_too(tmp_path):
    run = tasks.train(tasks.make(tmp_path, save_strategy="epoch", num_train_epochs=3.0))
    assert checkpoints(run) == [8, 16, 24]


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00:00"), (61, "0:01:01"), (36_000, "10:00:00")])
def test_clock(seconds, shown):
    assert observe.clock(seconds) == shown


def test_checkpoints_without_optimizer_state_say_how_to_go_on(tmp_path):
    from test_4_resume_is_arithmetic import as_if_killed

    from luthier.errors import RunError

    settings = tasks.make(tmp_path, save_only_model=True)
    killed = tmp_path / "killed"
    as_if_killed(tasks.train(settings), killed, 2)
    with pytest.raises(RunError, match="adapter_name_or_path"):
        tasks.train({**settings, "output_dir": str(killed)})


def test_nothing_but_the_run_is_left_in_the_directory(tmp_path):
    run = tasks.train(tasks.make(tmp_path, save_strategy="no"))
    assert sorted(p.name for p in run.iterdir() if not p.name.startswith(".luthier")) == [
        "adapter_config.json", "adapter_model.safetensors", "all_results.json", "chat_template.jinja",
        "checksums.json", "config.resolved.json", "config.yaml", "ledger.json", "luthier.json",
        "manifest.json", "template.jinja", "tokenizer.json", "tokenizer_config.json", "train_results.json",
        "trainer_log.jsonl", "trainer_state.json",
    ]  # fmt: skip
