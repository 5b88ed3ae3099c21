"""Promise 3: how a step is cut into forward passes changes nothing but rounding."""

import numpy as np
import pytest
import torch

import tiny
from luthier.data import store
from luthier.data.plan import Plan
from luthier.errors import TrainError
from luthier.model import attention
from luthier.train.engine import Engine
from luthier.train.loop import Job, evaluate, steps
from luthier.train.stages import loss_of
from luthier.types import Rendered, Tokens

LIMIT = 1e-5


def corpus(folder, rows=24, seed=0):
    """Rows with a common prompt and answers of different lengths: averages of averages would differ."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(3, 399, 12).astype(np.int32)
    made = []
    for k in range(rows):
        answer = rng.integers(3, 399, rng.integers(1, 20)).astype(np.int32)
        trunk = Tokens(prompt, np.zeros(len(prompt), np.float32))
        made.append(
            Rendered(trunk, (Tokens(answer, np.ones(len(answer), np.float32)),), None, f"rows.json:{k + 1}")
        )
    written = store.write(folder, made, vocabulary=400)
    return store.Corpus((written,), np.stack([np.zeros(rows, np.int64), np.arange(rows)], axis=1))


def job(folder, budget=10**6, share=True, loss=None, per_step=8, max_steps=4):
    model = tiny.build("qwen3").train()
    attention.enable(model)
    rows = corpus(folder)
    engine = Engine(cpu=True)
    model, optimizer = engine.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    plan = Plan(units=len(rows), per_step=per_step, seed=5, max_steps=max_steps)
    return Job(
        engine,
        model,
        optimizer,
        lambda n: 1.0,
        loss or loss_of("sft"),
        plan,
        rows,
        budget,
        share=share,
        clip=1.0,
    )


def run(made):
    seen = list(steps(made))
    weights = torch.cat([p.detach().flatten() for p in made.model.parameters()])
    return seen, weights


@pytest.fixture
def whole(tmp_path):
    return run(job(tmp_path / "whole"))


@pytest.mark.parametrize("budget", [1, 20, 45, 100])
@pytest.mark.parametrize("share", [True, False])
def test_any_cut_gives_the_same_steps(tmp_path, whole, budget, share):
    seen, weights = run(job(tmp_path / "cut", budget, share))
    assert [s.trained for s in seen] == [s.trained for s in whole[0]]
    for a, b in zip(seen, whole[0], strict=True):
        assert a.loss == pytest.approx(b.loss, rel=LIMIT)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=LIMIT)
    assert float((weights - whole[1]).norm() / whole[1].norm()) <= LIMIT
    assert max(s.micro_batches for s in seen) > 1


def test_one_example_a_pass_when_the_budget_is_one(tmp_path):
    assert [s.micro_batches for s in run(job(tmp_path / "one", budget=1))[0]] == [8, 8, 8, 8]


def out_of_memory_above(limit):
    """The real loss on a machine where a pass of more than `limit` tokens does not fit."""
    real = loss_of("sft")

    def loss(model, batch, layout):
        if len(batch.ids) > limit:
            raise torch.OutOfMemoryError(f"cannot hold {len(batch.ids)} tokens")
        return real(model, batch, layout)

    return loss


def test_out_of_memory_splits_the_step_and_repeats_it(tmp_path, whole):
    made = job(tmp_path / "oom", loss=out_of_memory_above(60))
    seen, weights = run(made)
    assert float((weights - whole[1]).norm() / whole[1].norm()) <= LIMIT
    assert [s.loss for s in seen] == pytest.approx([s.loss for s in whole[0]], rel=LIMIT)
    assert made.budget <= 60
    assert made.notes == [
        f"step 1: out of memory; forward passes cut to {made.budget} tokens (before: 1000000), here and from "
        "now on, and repeated (2 x) with the same mathematics"
    ]


def test_an_example_that_does_not_fit_is_named_with_a_length_that_does(tmp_path):
    with pytest.raises(
        TrainError, match=r"a pass: rows\.json:\d+, 2\d tokens .*and it fits with cutoff_len: 1[0-5]$"
    ):
        run(job(tmp_path / "big", loss=out_of_memory_above(15)))


def test_an_example_of_which_nothing_fits_is_named(tmp_path):
    with pytest.raises(TrainError, match=r"does not fit with .*cutoff_len: 8 either"):
        run(job(tmp_path / "big", loss=out_of_memory_above(5)))


def test_an_evaluation_that_runs_out_of_memory_is_cut_smaller_too(tmp_path):
    whole, spared = job(tmp_path / "a"), job(tmp_path / "b", loss=out_of_memory_above(60))
    expected, found = (evaluate(made, made.corpus) for made in (whole, spared))
    assert found == pytest.approx(expected, rel=LIMIT)
    assert spared.budget <= 64 and spared.notes[0].startswith("evaluation: out of memory; forward passes cut")
    assert spared.model.training


def test_accumulation_equals_a_larger_batch(tmp_path):
    """8 x 1 and 2 x 4 plan the same steps, because a step is planned as a whole."""
    a, b = (Plan(units=24, per_step=bs * acc, seed=1) for bs, acc in ((8, 1), (2, 4)))
    assert [a.examples(s) for s in range(3)] == [b.examples(s) for s in range(3)]
    assert a.total_steps == 3
