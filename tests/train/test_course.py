"""What a series of evaluations says: literal series, and what noise alone may not say."""

import json
import random

import numpy as np
import pytest

import tasks
from luthier.train.course import Evaluation, improving, joined, measures, overfitting


def series(losses, trained):
    return [Evaluation(10 * (i + 1), *pair) for i, pair in enumerate(zip(losses, trained, strict=True))]


FALLING = [1.0, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05]
TURNS = {
    "four epochs, the last two worse": ([0.9, 0.5, 0.6, 0.75], 20),
    "one evaluation above the best is too little": ([0.9, 0.6, 0.5, 0.75], None),
    "above, but coming down again": ([0.9, 0.5, 0.75, 0.6], None),
    "within the noise of its own course": ([0.60, 0.55, 0.59, 0.54, 0.60, 0.55, 0.58, 0.59, 0.60], None),
    "a slow turn, told from many": ([0.80, 0.70, 0.64, 0.60, 0.58, 0.59, 0.605, 0.62, 0.635, 0.65], 50),
    "falls to the end": ([1.0, 0.9, 0.8, 0.7, 0.6], None),
    "flat": ([0.5] * 10, None),
}


@pytest.mark.parametrize("name", TURNS)
def test_when_a_run_over_fits(name):
    losses, step = TURNS[name]
    low = overfitting(series(losses, FALLING[: len(losses)]))
    assert (low and low.step) == step


def test_a_loss_that_rises_on_both_sides_is_no_over_fitting():
    assert overfitting(series([0.9, 0.5, 0.6, 0.75], [0.9, 0.5, 0.6, 0.75])) is None


def test_what_was_not_trained_does_not_over_fit():
    assert overfitting(series([0.5, 0.6, 0.75, 0.9], [None, 0.5, 0.4, 0.3])) is None


@pytest.mark.parametrize(("noise", "count", "allowed"), [(0.005, 20, 0), (0.01, 20, 15), (0.02, 7, 30)])
def test_noise_is_not_taken_for_over_fitting(noise, count, allowed):
    """1,000 runs whose losses stand still but for normal noise, told of it after each evaluation."""
    draws = np.random.default_rng(0)
    warned = 0
    for _ in range(1000):
        losses = (1 + noise * draws.standard_normal(count)).tolist()
        trained = (1 + 0.05 * draws.standard_normal(count)).tolist()
        found = series(losses, trained)
        warned += any(overfitting(found[:k]) for k in range(3, count + 1))
    assert warned <= allowed


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.9, 0.7, 0.6], True),
        ([-0.60, -0.70, -0.78], True),  # an accuracy, its sign turned
        ([0.0, -0.02, -0.04], True),
        ([0.9, 0.7], False),
        ([0.9, 0.6, 0.7], False),
        ([0.5, 0.495, 0.49], False),
        ([1.0, 0.8, 0.7, 0.65, 0.62, 0.61, 0.604, 0.602, 0.601, 0.6005, 0.6002, 0.6001], False),
        ([1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55], True),
    ],
)
def test_whether_a_run_was_still_improving(values, said):
    assert improving(values) is said


def test_measures_of_several_sets():
    known = measures(["a", "b"], None)
    assert known["eval_a_loss"] is known["eval_loss"] is known["eval_b_perplexity"] is False
    assert known["eval_accuracy"] is known["eval_a_token_accuracy"] is True
    assert "eval_perplexity" not in known, "a mean of perplexities is none"
    out = joined({"eval_a_loss": 1.0, "eval_b_loss": 2.0, "eval_a_accuracy": 0.5}, ["a", "b"], known)
    assert out == {"eval_a_loss": 1.0, "eval_b_loss": 2.0, "eval_a_accuracy": 0.5, "eval_loss": 1.5}


@pytest.fixture(scope="module")
def over_fitted(tmp_path_factory):
    """A few rows with answers at random, which can only be learnt by heart."""
    folder = tmp_path_factory.mktemp("course")
    settings = tasks.make(
        folder, finetuning_type="full", val_size=0.5, eval_strategy="steps", eval_steps=6, save_steps=6,
        num_train_epochs=30.0, learning_rate=1e-2, lr_scheduler_type="constant",
    )  # fmt: skip
    draws = random.Random(0)
    rows = [{**row, "output": "".join(draws.choices("abcd", k=6))} for row in tasks.rows(16)]
    (folder / "data" / "intent.json").write_text(json.dumps(rows))
    return tasks.train(settings), settings


def test_the_warning_is_given_once_and_kept(over_fitted, tmp_path):
    from test_4_resume_is_arithmetic import as_if_killed, reported

    run, settings = over_fitted
    results = json.loads((run / "all_results.json").read_text())
    logged = [json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines()]
    (warning,) = [line for line in logged if "warning" in line]
    since = results["overfitting_from_step"]
    assert warning["overfitting_from_step"] == since < warning["current_steps"]
    assert f"over-fitting since step {since}: eval loss rose from" in warning["warning"]
    assert "-> load_best_model_at_end: true, about" in warning["warning"]
    assert "more data" in warning["warning"]
    assert "still_improving_at_end" not in results
    killed = tmp_path / "killed"
    as_if_killed(run, killed, warning["current_steps"])
    tasks.train({**settings, "output_dir": str(killed)})
    assert reported(killed) == reported(run)
    assert json.loads((killed / "all_results.json").read_text())["overfitting_from_step"] == since


def test_a_run_that_ends_too_soon_is_told(tmp_path, capsys):
    settings = tasks.make(
        tmp_path, finetuning_type="full", val_size=6, eval_strategy="steps", eval_steps=2, save_strategy="no",
        learning_rate=3e-3, lr_scheduler_type="constant", warmup_ratio=0.0,
    )  # fmt: skip
    run = tasks.train(settings)
    assert json.loads((run / "all_results.json").read_text())["still_improving_at_end"] is True
    assert "eval_loss was still improving at the end: more epochs" in capsys.readouterr().err
