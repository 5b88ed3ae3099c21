"""Promise 3, over processes: two ranks give the weights of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]) / "invariants")]
import test_3_micro_batches as t
from luthier.train.loop import steps
from safetensors.torch import save_file

made = t.job(Path(sys.argv[2]) / f"store{sys.argv[3]}", per_step=23, max_steps=3)
plan = made.plan
object.__setattr__(plan, "world", made.engine.world)
losses = [s.loss for s in steps(made)]
if made.engine.is_main:
    weights = {n: p.detach().clone() for n, p in made.engine.unwrap(made.model).named_parameters()}
    save_file(weights, str(Path(sys.argv[2]) / f"world{made.engine.world}.safetensors"))
    print("losses", *losses)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(tmp_path: Path, world: int) -> list[float]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    tests = str(Path(__file__).parent.parent)
    processes, port = [], free_port()
    for rank in range(world):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if world > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        command = [sys.executable, str(script), tests, str(tmp_path), f"{world}-{rank}"]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    out = [p.communicate(timeout=120)[0] for p in processes]
    assert [p.returncode for p in processes] == [0] * world
    line = next(line for line in out[0].splitlines() if line.startswith("losses"))
    return [float(x) for x in line.split()[1:]]


def test_two_ranks_equal_one(tmp_path):
    """24 rows in steps of 23 leave one for the epoch's last step, in which the second rank is idle."""
    one, two = launch(tmp_path, 1), launch(tmp_path, 2)
    assert len(one) == 3
    for a, b in zip(one, two, strict=True):
        assert abs(a - b) <= 1e-5 * a
    first, second = (load_file(tmp_path / f"world{w}.safetensors") for w in (1, 2))
    worst = max(float((first[k] - second[k]).norm() / first[k].norm()) for k in first)
    assert worst <= 1e-5
