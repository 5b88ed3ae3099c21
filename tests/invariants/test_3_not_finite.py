"""Losses, gradients and weights that are no numbers stop the run in that step, by name."""

import numpy as np
import pytest
import torch
from test_3_micro_batches import job

from luthier.errors import TrainError
from luthier.train.loop import evaluate, steps
from luthier.train.stages import loss_of


def poisoned(row):
    """The real loss, not a number whenever the row of that name is in the pass."""
    real = loss_of("sft")

    def loss(model, batch, layout):
        total, metrics = real(model, batch, layout)
        return (total * float("nan") if row in batch.sources else total), metrics

    return loss


def steep(row):
    """The real loss, to which a row of that name adds a root of zero: a finite value, an infinite slope."""
    real = loss_of("sft")

    def loss(model, batch, layout):
        total, metrics = real(model, batch, layout)
        return (total + 0 * (total - total.detach()).sqrt() if row in batch.sources else total), metrics

    return loss


def row_of(made, step, place, rank=0):
    return f"rows.json:{made.plan.examples(step, rank)[place] + 1}"


def stops(made, message):
    """The job stops with that message before the update of its first step."""
    before = [p.detach().clone() for p in made.model.parameters()]
    with pytest.raises(TrainError, match=message):
        list(steps(made))
    return all(torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))


@pytest.mark.parametrize(("fault", "what"), [(poisoned, "loss"), (steep, "gradient norm")])
@pytest.mark.parametrize("budget", [1, 10**6])
def test_what_is_not_finite_stops_before_the_update_and_names_the_row(tmp_path, fault, what, budget):
    made = job(tmp_path / "nan", budget)
    made.loss = fault(row := row_of(made, 0, 3))
    assert stops(made, rf"step 1: the {what} is nan; .*It comes from {row} alone\.")


def test_a_loss_that_no_row_explains_names_the_rows_of_its_pass(tmp_path):
    """Two rows together: each alone is innocent."""
    real, made = loss_of("sft"), job(tmp_path / "nan", per_step=2)
    rows = {row_of(made, 0, k) for k in range(2)}

    def loss(model, batch, layout):
        total, metrics = real(model, batch, layout)
        return (total * float("inf") if rows <= set(batch.sources) else total), metrics

    made.loss = loss
    first, second = (r"rows\.json:\d+",) * 2
    assert stops(made, rf"the loss is inf; .*No row gives it alone; rows of the pass: {first}, {second}\.")


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    made = job(tmp_path / "start")
    with torch.no_grad():
        made.model.lm_head.weight[7, 3] = float("inf")  # token 7 is in no row: no loss would tell
    with pytest.raises(TrainError, match=r"before step 1: weights that are not finite: lm_head\.weight;"):
        list(steps(made))


def test_an_update_that_leaves_the_numbers_stops_before_its_step_is_told(tmp_path):
    made = job(tmp_path / "update")
    made.optimizer.param_groups[0]["lr"] = 3e38
    made.clip = 0.0
    made.model.lm_head.weight.register_hook(lambda grad: grad * 1e3)
    with pytest.raises(TrainError, match=r"step 1, after the update: weights that are not finite: .*lm_head"):
        next(steps(made))


def test_an_evaluation_whose_loss_is_not_finite_names_the_row(tmp_path):
    made = job(tmp_path / "nan", loss=poisoned("rows.json:9"))
    with pytest.raises(
        TrainError, match=r"evaluation: the loss is nan; stopped\. It comes from rows\.json:9 a"
    ):
        evaluate(made, made.corpus)


def scaled(made, scale):
    """The job in fp16's way: a real gradient scaler, which multiplies the loss by `scale` at first."""
    accelerator = made.engine._accelerator
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    accelerator._optimizers.clear()
    made.optimizer = accelerator.prepare_optimizer(made.optimizer.optimizer)
    return made


def test_fp16_may_skip_updates_until_its_scale_is_spent(tmp_path):
    """Gradients that are too large at first cost some updates; ones that always are end the run."""
    made = scaled(job(tmp_path / "some", max_steps=12), 2.0**24)
    made.model.lm_head.weight.register_hook(lambda g: g.half().float())
    before, skipped = made.model.lm_head.weight.detach().clone(), []
    for step in steps(made):
        same = torch.equal(before, made.model.lm_head.weight)
        assert same == (not np.isfinite(step.grad_norm))
        skipped += [f"step {step.index}: gradients beyond fp16's range; update skipped, scale lowered"] * same
        before = made.model.lm_head.weight.detach().clone()
    assert 0 < len(skipped) < 12 and made.notes == skipped

    made = scaled(job(tmp_path / "all", max_steps=30), 2.0**4)
    made.model.lm_head.weight.register_hook(lambda g: g * float("inf"))
    seen = []
    with pytest.raises(TrainError, match="the gradient norm is"):
        for step in steps(made):
            seen.append(step.index)
    assert seen == [1, 2, 3, 4]
