"""Promise 3, over processes: two ranks give the weights of one, also when one of them meets a fault."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_3_micro_batches import job, out_of_memory_above
from test_3_not_finite import poisoned, row_of, steep

import tasks
import tiny
from luthier.config import load
from luthier.data.render import Renderer
from luthier.errors import TrainError
from luthier.train import quality
from luthier.train.loop import Job, evaluate, steps
from luthier.train.stages import loss_of

PER_STEP, STEPS = 23, 3


FAULTS = {
    "plain": lambda row: loss_of("sft"),
    "memory": lambda row: out_of_memory_above(60),
    "loss": poisoned,
    "gradient": steep,
    "nothing fits": lambda row: out_of_memory_above(5),
}
"""The loss that the last rank computes; the others compute the real one. row: of its first step."""


def weights_of(made: Job) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.model.named_parameters()}


def work(folder: Path, rank: int, world: int) -> None:
    """One rank: every fault in turn, and what came of it as JSON and safetensors."""
    found = {}
    for name, fault in FAULTS.items():
        made = job(folder / f"{name}-{world}-{rank}", per_step=PER_STEP, max_steps=STEPS)
        object.__setattr__(made.plan, "world", made.engine.world)
        if rank == world - 1:
            made.loss = fault(row_of(made, 0, 5, rank))
        try:
            losses = [step.loss for step in steps(made)]
            found[name] = {"losses": losses, "evaluation": evaluate(made, made.corpus)["loss"]}
        except TrainError as error:
            found[name] = {"error": str(error)}
        found[name]["notes"] = made.notes
        save_file(weights_of(made), str(folder / f"{name}-{world}-{rank}.safetensors"))
    found["row"] = row_of(made, 0, 5, rank)
    found["replies"] = replies(folder, rank, world)
    (folder / f"{world}-{rank}.json").write_text(json.dumps(found))


def replies(folder: Path, rank: int, world: int) -> dict:
    """What is answered to rows of an evaluation set, and what is said when the last rank has no memory."""
    settings = tasks.make(folder / "task", val_size=7, do_eval=True, predict_with_generate=True)
    config = load(settings, "train", {})
    renderer = Renderer.of(config, tiny.tokenizer())
    asked = quality.prepare(config, renderer, ["validation"], lambda line: None)
    made = job(folder / f"replies-{world}-{rank}")
    said, _ = asked.replies("validation", made, lambda: None)
    if rank == world - 1:
        made.model.forward = no_memory
    try:
        asked.replies("validation", made, lambda: None)
    except TrainError as error:
        return {"said": [reply.text for reply in said], "error": str(error)}
    raise AssertionError("memory that is not there was found")


def no_memory(*args, **kwargs):
    raise torch.OutOfMemoryError("no room for keys and values")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(folder: Path, world: int) -> list[dict]:
    here = Path(__file__).parent
    paths = [here, here.parent]
    processes, port = [], free_port()
    for rank in range(world):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        env["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        if world > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        command = [sys.executable, "-m", "test_3_ranks", str(folder), str(rank), str(world)]
        processes.append(subprocess.Popen(command, env=env))
    try:
        assert [p.wait(timeout=180) for p in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()
    return [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    tasks.make(folder / "task")
    return folder


@pytest.fixture(scope="module")
def one(folder):
    return launch(folder, 1)[0]


@pytest.fixture(scope="module")
def two(folder):
    return launch(folder, 2)


def apart(folder: Path, a: str, b: str) -> float:
    """Relative distance of the worst tensor."""
    first, second = (load_file(folder / f"{name}.safetensors") for name in (a, b))
    return max(float((first[k] - second[k]).norm() / first[k].norm()) for k in first)


@pytest.mark.parametrize("name", ["plain", "memory"])
def test_two_ranks_equal_one(folder, one, two, name):
    """24 rows in steps of 23 leave one for the epoch's last step, in which the second rank is idle."""
    assert len(one["plain"]["losses"]) == STEPS
    for rank in two:
        assert rank[name]["losses"] == pytest.approx(one["plain"]["losses"], rel=1e-5)
        assert rank[name]["evaluation"] == pytest.approx(one["plain"]["evaluation"], rel=1e-5)
    assert apart(folder, "plain-1-0", f"{name}-2-0") <= 1e-5
    assert apart(folder, f"{name}-2-0", f"{name}-2-1") == 0


def test_memory_that_runs_out_on_one_rank_is_that_ranks_own_business(two):
    first, second = (rank["memory"]["notes"] for rank in two)
    assert first == []
    assert second[0].startswith("step 1: out of memory on rank 1; forward passes cut to")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("loss", "rank 1: step 1: the loss is nan; stopped before the update: no weight was changed, nothing "
         "saved. It comes from {row} alone."),
        ("gradient", "step 1: the gradient norm is nan; stopped before the update: no weight "
         "was changed, nothing saved. It comes from {row} alone."),
        ("nothing fits", "rank 1: step 1: out of memory with one example a pass: rows.json:"),
    ],
)  # fmt: skip
def test_a_fault_of_one_rank_stops_all_with_the_same_words(folder, two, name, message):
    save_file(weights_of(job(folder / "untouched")), str(folder / "untouched.safetensors"))
    for rank, found in enumerate(two):
        assert found[name]["error"] == two[0][name]["error"]
        assert found[name]["error"].startswith(message.format(row=two[1]["row"]))
        assert apart(folder, "untouched", f"{name}-2-{rank}") == 0


def test_rows_are_answered_by_ranks_in_turn(one, two):
    assert len(one["replies"]["said"]) == 7 and len(set(one["replies"]["said"])) > 1
    assert [rank["replies"]["said"] for rank in two] == [one["replies"]["said"]] * 2
    for rank in two:
        assert rank["replies"]["error"].startswith("rank 1: out of memory while answering rows of the evalua")


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
