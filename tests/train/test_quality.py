"""What the model answers while it is trained: measured, kept, decisive, and no matter to the training."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_3_micro_batches import job
from test_4_resume_is_arithmetic import as_if_killed, reported, weights

import tasks
import tiny
from luthier.config import load
from luthier.data.render import Renderer
from luthier.errors import ConfigError
from luthier.runs import seal
from luthier.train import quality

EVALS = {"val_size": 0.3, "eval_strategy": "steps", "eval_steps": 2, "num_train_epochs": 2.0}
ANSWERS = {**EVALS, "predict_with_generate": True, "max_new_tokens": 3, "lora_dropout": 0.3}


def lines(run, name):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def evaluations(run):
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "eval_loss" in entry]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tasks.make(tmp_path_factory.mktemp("answers"), **ANSWERS)


@pytest.fixture(scope="module")
def answered(settings):
    return tasks.train(settings)


def test_the_metrics_of_the_task_stand_beside_the_loss_everywhere(answered):
    measured = {"eval_accuracy", "eval_macro_f1", "eval_outside_labels", "eval_rouge-1", "eval_bleu-4"}
    logged = [line for line in lines(answered, "trainer_log.jsonl") if "eval_loss" in line]
    assert [line["current_steps"] for line in logged] == [2, 4, 6, 8, 10, 12]
    assert all(measured < set(line) for line in logged)
    assert all(measured | {"eval_generate_runtime", "window_loss"} < set(e) for e in evaluations(answered))
    assert measured | {"eval_token_accuracy"} < set(json.loads((answered / "all_results.json").read_text()))
    # Three labels of which the model, which has learnt nothing, names none.
    assert [e["eval_outside_labels"] for e in evaluations(answered)] == [1.0] * 6


def test_fixed_rows_are_answered_again_and_again(answered):
    kept = lines(answered, "samples.jsonl")
    by_step = {line["step"]: [k for k in kept if k["step"] == line["step"]] for line in kept}
    assert list(by_step) == [2, 4, 6, 8, 10, 12]
    asked = {tuple((k["source"], k["input"], k["reference"]) for k in step) for step in by_step.values()}
    assert len(asked) == 1
    assert {reference for _, _, reference in asked.pop()} == set(tasks.LABELS)
    fields = {"step", "dataset", "source", "input", "reference", "answer", "crc32"}
    assert all(set(line) == fields for line in kept)


def test_training_is_the_same_with_and_without_answers(answered, settings, tmp_path):
    plain = tasks.train({**settings, "output_dir": str(tmp_path / "plain"), "predict_with_generate": False})
    assert weights(plain) == weights(answered)
    assert [e["eval_loss"] for e in evaluations(plain)] == [e["eval_loss"] for e in evaluations(answered)]
    assert not (plain / "samples.jsonl").exists()
    assert all(e["eval_accuracy"] == e["eval_token_accuracy"] for e in evaluations(plain))


@pytest.mark.parametrize("step", [4, 8])
def test_a_resumed_run_answers_what_an_uninterrupted_one_does(answered, settings, tmp_path, step):
    killed = tmp_path / "killed"
    as_if_killed(answered, killed, step)
    tasks.train({**settings, "output_dir": str(killed)})
    assert weights(killed) == weights(answered)
    assert reported(killed) == reported(answered)
    assert (killed / "samples.jsonl").read_bytes() == (answered / "samples.jsonl").read_bytes()


def test_a_line_that_was_written_half_is_written_anew(answered, settings, tmp_path):
    killed = tmp_path / "killed"
    as_if_killed(answered, killed, 4)
    whole = (killed / "samples.jsonl").read_bytes()
    (killed / "samples.jsonl").write_bytes(whole[: whole.index(b'"step": 6') + 20])
    tasks.train({**settings, "output_dir": str(killed)})
    assert (killed / "samples.jsonl").read_bytes() == whole


def test_generating_leaves_modes_and_random_numbers_as_they_were():
    model = tiny.build().train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with quality.undisturbed(model):
        model.eval()
        torch.rand(3)
    assert [module.training for module in model.modules()] == modes and not all(modes)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_the_best_is_kept_by_the_metric_that_was_named(settings, tmp_path):
    """The share outside the labels is better when it is smaller, which nobody had to say."""
    run = tasks.train(
        {
            **settings, "output_dir": str(tmp_path / "run"), "metric_for_best_model": "outside_labels",
            "load_best_model_at_end": True, "save_strategy": "best", "early_stopping_steps": 2,
            "num_train_epochs": 9.0,
        }
    )  # fmt: skip
    state = json.loads((run / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"], state["global_step"]) == (2, 1.0, 6)
    best = load_file(run / "checkpoint-2" / "adapter_model.safetensors")
    result = load_file(run / "adapter_model.safetensors")
    assert all(result[name].equal(best[name]) for name in best)
    # The best weights are measured once more, but their replies are told under their own step alone.
    assert [line["step"] for line in lines(run, "samples.jsonl")] == [2] * 3 + [4] * 3 + [6] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "'triple_f1' will not be measured -> one of accuracy, bleu-4, loss, macro_f1"),
        ({"predict_with_generate": False}, "accuracy, loss, perplexity, token_accuracy; the metrics"),
    ],
)  # fmt: skip
def test_a_measure_that_will_not_be_there_is_refused_before_training(settings, tmp_path, changes, message):
    place = tmp_path / "run"
    with pytest.raises(ConfigError, match="metric_for_best_model") as error:
        tasks.train({**settings, "output_dir": str(place), "metric_for_best_model": "triple_f1", **changes})
    assert message in str(error.value)
    assert not place.exists()


def test_several_sets_have_measures_of_their_own_and_their_mean(tmp_path):
    settings = tasks.make(
        tmp_path, **{**ANSWERS, "val_size": 0, "eval_on_each_dataset": True, "max_steps": 2},
        metric_for_best_model="accuracy", load_best_model_at_end=True, save_strategy="best",
        eval_generate_rows=7,
    )  # fmt: skip
    folder = tmp_path / "data"
    rows = tasks.rows(60)
    (folder / "a.json").write_text(json.dumps(rows[30:45]))
    (folder / "b.json").write_text(json.dumps(rows[45:50]))
    info = {name: {"file_name": f"{name}.json"} for name in ("intent", "a", "b")}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    run = tasks.train({**settings, "eval_dataset": "a,b"})
    (only,) = evaluations(run)
    for key in ("loss", "rouge-l", "token_accuracy", "accuracy"):
        assert only[f"eval_{key}"] == (only[f"eval_a_{key}"] + only[f"eval_b_{key}"]) / 2
    assert [line["dataset"] for line in lines(run, "samples.jsonl")] == ["a"] * 3 + ["b"] * 3


def test_replies_alone_need_no_metric(tmp_path):
    run = tasks.train(tasks.make(tmp_path, **EVALS, sample_replies=2, max_steps=2))
    assert [line["step"] for line in lines(run, "samples.jsonl")] == [2, 2]
    assert "eval_macro_f1" not in evaluations(run)[0]


def test_what_is_measured_is_what_luthier_predict_says(tmp_path):
    """The same rows, all of them, with the same decoding, answered by a model that has learnt something."""
    run = tasks.train(
        tasks.make(
            tmp_path, finetuning_type="full", val_size=0.5, eval_strategy="epoch", num_train_epochs=14.0,
            learning_rate=5e-3, lr_scheduler_type="constant", save_strategy="no", do_predict=True,
            predict_with_generate=True, eval_generate_rows=1000, sample_replies=0,
        )
    )  # fmt: skip
    measured = json.loads((run / "eval_results.json").read_text())
    predicted = json.loads((run / "predict_results.json").read_text())
    assert measured["eval_accuracy"] > 0 and len({e["eval_accuracy"] for e in evaluations(run)}) > 2
    for key in ("accuracy", "macro_f1", "outside_labels", "rouge-1", "rouge-2", "rouge-l", "bleu-4"):
        assert measured[f"eval_{key}"] == pytest.approx(predicted[f"predict_{key}"], abs=1e-6)
    assert not (run / "samples.jsonl").exists()


@pytest.mark.parametrize(
    "how",
    [
        {"gradient_checkpointing": True, "neftune_noise_alpha": 5.0},
        {"finetuning_type": "full", "prefix_sharing": False, "num_beams": 2},
    ],
    ids=["checkpointing, neftune", "full, beams"],
)
def test_no_way_of_training_is_disturbed(how, settings, tmp_path):
    short = {**settings, **how, "num_train_epochs": 1.0, "eval_on_start": True}
    runs = [
        tasks.train({**short, "output_dir": str(tmp_path / f"{asked}"), "predict_with_generate": asked})
        for asked in (True, False)
    ]
    assert weights(runs[0]) == weights(runs[1])


def test_an_evaluation_that_was_left_out_is_made_once(answered, settings, tmp_path):
    """A run stopped during its evaluation saves without it; its continuation makes it, and is killed before
    the next checkpoint. Whoever goes on then starts from a checkpoint that knows less than samples.jsonl."""
    killed = tmp_path / "killed"
    as_if_killed(answered, killed, 4)
    before, file = (killed / f"checkpoint-{step}" / "trainer_state.json" for step in (2, 4))
    state, earlier = json.loads(file.read_text()), json.loads(before.read_text())
    history = [entry for entry in state["log_history"] if not (entry["step"] == 4 and "eval_loss" in entry)]
    losses = [entry["loss"] for entry in history if entry["step"] in (3, 4)]
    judged = ("best_metric", "best_global_step", "evaluations_without_gain", "sample_lines")
    state |= {key: earlier[key] for key in judged}
    state |= {"log_history": history, "since_eval_sum": sum(losses), "since_eval_steps": 2}
    file.write_text(json.dumps(state))
    (file.parent / "manifest.json").unlink()
    seal.seal(file.parent, step=4)
    tasks.train({**settings, "output_dir": str(killed)})
    assert weights(killed) == weights(answered)
    assert reported(killed) == reported(answered)
    assert (killed / "samples.jsonl").read_bytes() == (answered / "samples.jsonl").read_bytes()


def test_a_run_that_is_asked_to_stop_does_not_wait_for_all_answers(settings, tmp_path):
    class Stop(Exception):
        pass

    heard = []

    def check():
        heard.append(1)
        if len(heard) == 2:
            raise Stop

    config = load({**settings, "do_eval": True}, "train", {})
    asked = quality.prepare(config, Renderer.of(config, tiny.tokenizer()), ["validation"], lambda line: None)
    made = job(tmp_path / "job")
    with pytest.raises(Stop):
        asked.replies("validation", made, check)
    assert len(heard) == 2 and all(module.training for module in made.model.modules())
