"""Free space: an estimate is never below what is written; errors say what is needed and what there is."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tasks
from luthier.config import load, resolve
from luthier.errors import RunError
from luthier.model import machine as machines
from luthier.runs import Run, space
from luthier.train import footprint, observe
from luthier.train.engine import Engine
from luthier.train.loop import steps
from luthier.train.screen import Screen
from luthier.train.setup import session, setup

MB = 1_000_000
FORMS = {
    "lora": {},
    "lora and an embedding": {"additional_target": ["embed_tokens"]},
    "dora": {"use_dora": True},
    "pissa": {"pissa_init": True},
    "pissa and an embedding": {"pissa_init": True, "additional_target": ["embed_tokens"]},
    "full": {"finetuning_type": "full"},
    "full in bfloat16": {"finetuning_type": "full", "pure_bf16": True},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "without moments": {"save_only_model": True},
    "sgd": {"optim": "sgd"},
    "adagrad": {"optim": "adagrad"},
    "rmsprop": {"optim": "rmsprop"},
    "adafactor": {"optim": "adafactor", "finetuning_type": "full"},
    "a long log": {"num_train_epochs": 20.0, "save_steps": 30},
}


@contextmanager
def started(settings: dict) -> Iterator[observe.Session]:
    """A run that is about to do its first step."""
    machine = machines.detect()
    config = resolve(load({**settings, "use_cpu": True}, "train", {}), machine)
    engine = Engine("no", True)
    with Screen(False) as screen, Run.create(config.output_dir) as run:
        at_work, _ = session(setup(config, machine, run, screen, engine), engine)
        screen.start(at_work.total, 0)
        yield at_work


def bytes_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("form", FORMS)
def test_an_estimate_is_never_below_what_is_written(form, tmp_path):
    settings = tasks.make(tmp_path, 12, **{"save_steps": 1, **FORMS[form]})
    if "finetuning_type" in settings and settings["finetuning_type"] != "lora":
        del settings["lora_target"]
    with started(settings) as at_work:
        course, run = footprint.course(at_work), at_work.run
        for step in steps(at_work.job):
            there = run.checkpoints()
            guess = at_work.estimate().bytes
            observe.observe(at_work, step)
            for folder in run.checkpoints()[len(there) :]:
                real = bytes_of(folder)
                for size in (guess, course.save.bytes):
                    assert real <= size <= 1.5 * real + MB
                assert real - (folder / observe.STATE).stat().st_size <= at_work.size
        assert course.saves == len(run.checkpoints())
        with run.result() as folder:
            at_work.save_weights(folder)
            assert bytes_of(folder) <= course.save.result <= 1.5 * bytes_of(folder) + MB
    assert bytes_of(run.path) <= course.bytes <= 1.5 * bytes_of(run.path) + course.saves * MB


def test_how_a_run_adds_up():
    save = space.Save(weights=10 * MB, moments=20 * MB, beside=0)
    assert 30 * MB < save.bytes < 31 * MB
    assert 10 * MB < save.result < 11 * MB
    cases = {  # (saves to come, there now, save_total_limit, an evaluation) -> (at once, at the end)
        (8, 0, 0, False): (8, 8),
        (3, 5, 0, False): (3, 3),
        (8, 0, 2, False): (3, 2),
        (2, 0, 2, False): (2, 2),
        (4, 2, 2, False): (1, 0),
        (4, 5, 2, False): (1, 0),
        (8, 0, 1, False): (2, 1),
        (8, 0, 1, True): (3, 2),
        (0, 3, 2, False): (0, 0),
    }
    for (saves, there, limit, evaluated), (most, left) in cases.items():
        course = space.Course(save, saves, there, limit, evaluated)
        assert (course.most, course.left) == (most, left)
        assert course.bytes == max(most * save.bytes, left * save.bytes + save.result)


def test_what_it_says():
    course = space.Course(space.Save(10 * MB, 20 * MB, 0), 8, 0, 2)
    assert str(course) == (
        "3 x 30.4 MB for checkpoints (save_total_limit: 2; a new one is durable before the oldest goes), "
        "10.2 MB for the final weights"
    )
    assert "5 x 30.4 MB for checkpoints beside the 3 there now (no save_total_limit)" in str(
        space.Course(space.Save(10 * MB, 20 * MB, 0), 5, 3, 0)
    )


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 MB"), (52_000, "0.052 MB"), (1_234_567, "1.23 MB"), (987_654_321, "988 MB"),
                        (5_300_000_000, "5.3 GB"), (2 * 10**12, "2 TB")]
)  # fmt: skip
def test_sizes(size, shown):
    assert space.shown(size) == shown


def test_too_little_is_named(tmp_path):
    space.require(1, tmp_path, "x", "y")
    inside = tmp_path / "not" / "yet"
    have = space.free(inside)
    assert have == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.01)
    with pytest.raises(RunError, match=r"^output_dir: need 1e\+03 TB, have .* on .*\(\w+\): free some$"):
        space.require(10**15, inside, "output_dir", "free some")


def test_a_run_that_cannot_fit_is_not_begun(tmp_path):
    """A billion checkpoints of 150 kB."""
    settings = tasks.make(tmp_path, max_steps=10**9, save_steps=1)
    with pytest.raises(RunError, match=r"output_dir: this run does not fit: need .* have .*: 1000000000 x "):
        tasks.train(settings)
    assert not (tmp_path / "run").exists()
