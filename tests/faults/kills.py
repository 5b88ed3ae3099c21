"""SIGKILL at random moments, over and over, until the training has finished all the same."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tasks
from faults import outcome
from faults.bench import Bench, Done, Trial
from luthier.runs.hashing import sha256_tree
from luthier.runs.seal import verify

VARIANTS: dict[str, dict[str, Any]] = {
    "lora, dropout": {"lora_dropout": 0.2},
    "full, three kept": {"finetuning_type": "full", "save_total_limit": 3},
    "evaluation with answers, the best kept": {
        "val_size": 6, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "save_total_limit": 1,
        "load_best_model_at_end": True, "do_eval": True, "lora_dropout": 0.1, "predict_with_generate": True,
        "max_new_tokens": 2,
    },
    "packing, accumulation, every other step": {
        "packing": True, "cutoff_len": 128, "per_device_train_batch_size": 1, "save_steps": 2,
        "gradient_accumulation_steps": 2,
    },
    "stopped early": {
        "val_size": 6, "eval_strategy": "steps", "eval_steps": 1, "early_stopping_steps": 3,
        "learning_rate": 0.3, "lr_scheduler_type": "constant", "save_total_limit": 2,
    },
    "pre-training, streaming": {"stage": "pt", "cutoff_len": 32, "streaming": True, "max_steps": 20},
    "freeze, only the best saved": {
        "finetuning_type": "freeze", "freeze_trainable_layers": 1, "val_size": 6, "eval_strategy": "steps",
        "eval_steps": 1, "save_strategy": "best",
    },
}  # fmt: skip
CHAIN = 12
"""Kills of one training; then it is left to finish."""
INSIDE = 0.42
"""The part of the kills that shall fall into a save; at least 30 % must."""
_LINE = "@ "
TOKENS = "save ."
"""What a first process writes first."""


def announce() -> None:
    """Called in the process: say on stderr when it begins to write or remove a checkpoint, the result, …"""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.mkdir" and ".tmp-" in str(args[0]):
            os.write(2, f"{_LINE}save {os.path.basename(args[0])}\n".encode())
        elif event == "os.rename" and ".gone-" in str(args[1]):
            os.write(2, f"{_LINE}gone {os.path.basename(args[1])}\n".encode())

    sys.addaudithook(hook)


@dataclass(frozen=True)
class Clean:
    """The run that nobody disturbs. start, end: seconds until the first step and until all is done ·
    save: seconds of one save · states: step -> weights and report of its checkpoint."""

    run: Path
    settings: dict[str, Any]
    start: float
    end: float
    save: float
    steps: int
    states: dict[int, tuple[Any, Any]]


def kills(bench: Bench, count: int) -> Iterator[Trial]:
    """Every kill is a trial: what was acknowledged is still there, and the end is that of a clean run."""
    long = count > 100
    names = list(VARIANTS) if long else bench.random.sample(list(VARIANTS), 2)
    shop = bench.folder()
    cleans = {name: _clean(bench, shop, VARIANTS[name]) for name in names}
    trials, turn, real = list[Trial](), 0, max(2, count // 50)
    with ThreadPoolExecutor(2) as pool:
        while len(trials) < count - real:
            left = count - real - len(trials)
            sizes = [min(CHAIN, left)] if left <= CHAIN else [CHAIN, min(CHAIN, left - CHAIN)]
            jobs = []
            for size in sizes:
                name, turn = names[turn % len(names)], turn + 1
                jobs.append(pool.submit(_chain, bench, name, cleans[name], size, bench.random.random()))
            for job in jobs:
                trials += job.result()
    while len(trials) < count:
        name, turn = names[turn % len(names)], turn + 1
        size = min(5, count - len(trials))
        trials += _chain(bench, name, cleans[name], size, bench.random.random(), real=True)
    yield from trials
    inside = sum(trial.counts.get("inside a save", 0) for trial in trials)
    if inside < 0.3 * len(trials):
        yield Trial("kills inside a save", f"only {inside} of {len(trials)}")


def _clean(bench: Bench, shop: Path, changes: dict[str, Any]) -> Clean:
    folder = bench.folder()
    asked = {"num_train_epochs": 2.5, "save_steps": 1, **changes}
    settings = tasks.make(shop, **asked)
    bench.luthier(["version"])  # the first process waits until the server has imported everything
    began, start, saves, opened = time.perf_counter(), 0.0, [], 0.0
    whole = {**settings, "save_total_limit": None, "output_dir": str(folder / "clean")}
    child = bench.start(["train", *tasks.words(whole)], before=announce)
    for line in child.lines():
        now = time.perf_counter() - began
        if line.startswith("training from step"):
            start = now
        elif line.startswith(f"{_LINE}save .checkpoint"):
            opened = now
        elif "durable" in line:
            saves.append(now - opened)
    done = child.finish()
    assert done.code == 0, done.err
    run = folder / "clean"
    states = {int(p.name[11:]): (outcome.weights(p), outcome.state(p)) for p in run.glob("checkpoint-*")}
    save = sorted(saves)[len(saves) // 2]
    return Clean(run, settings, start, done.seconds, save, max(states), states)


@dataclass
class Chain:
    """A training that is killed again and again.

    acknowledged: all steps announced so far · tree: step -> sha256 of the files of its checkpoint, as first
    seen · inside: kills inside a save.
    """

    clean: Clean
    random: random.Random
    settings: dict[str, Any]
    run: Path
    acknowledged: list[int] = field(default_factory=list)
    tree: dict[int, dict[str, str]] = field(default_factory=dict)
    kills: int = 0
    inside: int = 0


def _chain(bench: Bench, name: str, clean: Clean, size: int, seed: float, real: bool = False) -> list[Trial]:
    """Kill one training `size` times, or until it is done; let it finish, and compare."""
    folder = bench.folder()
    settings = {
        **clean.settings, "output_dir": str(folder / "run"), "tokenized_path": str(folder / "tokens"),
    }  # fmt: skip
    chain = Chain(clean, random.Random(seed), settings, folder / "run")
    trials: list[Trial] = []
    problem = ""
    while len(trials) < size and not problem:
        what, done = _real(bench, chain) if real else _killed(bench, chain)
        if done.code != -9:
            problem = outcome.ended(done, 0) or outcome.differs(chain.run, clean.run)
            break
        where = _where(folder)
        chain.kills += 1
        chain.inside += where["inside a save"]
        problem = _kept(chain, done)
        trials.append(Trial(f"{name}: kill {len(trials) + 1}, {what}", problem, where))
    if not problem:
        last = bench.luthier(["train", *tasks.words(settings)])
        problem = outcome.ended(last, 0) or _kept(chain, last) or outcome.differs(chain.run, clean.run)
        problem = problem or outcome.left_over(folder)
    return [Trial(t.what, t.problem or (problem and f"in the end: {problem}"), t.counts) for t in trials]


def _killed(bench: Bench, chain: Chain) -> tuple[str, Done]:
    """Start the training and kill it: at any time of its life, or a moment after it has begun to write."""
    clean, draw = chain.clean, chain.random
    child = bench.start(["train", *tasks.words(chain.settings)], before=announce)
    target = _target(chain)
    if not target:
        done = max(chain.acknowledged, default=0) / clean.steps
        rest = (clean.end - clean.start) * (1 - done) * draw.choice((0.3, 0.3, 1))
        moment = draw.uniform(0, clean.start + rest)
        what = f"{moment * 1000:.0f} ms after the start"
        child.wait(moment)
    else:
        nth = 1 if target == TOKENS else draw.randint(1, 3)
        moment = draw.uniform(0, 1.1 * clean.save)
        what = f"{moment * 1000:.1f} ms into {target}"
        for line in child.lines():
            nth -= line.startswith(f"{_LINE}{target}")
            if nth == 0 or (line.startswith(f"{_LINE}save .result") and target != "gone"):
                child.wait(moment)
                break
    child.send(9)
    return what, child.finish()


def _target(chain: Chain) -> str:
    """What the next kill waits for; "" for nothing, so that it falls anywhere."""
    if not chain.kills and chain.random.random() < 0.5:
        return TOKENS
    if chain.random.random() < 0.1:
        return chain.random.choice(("gone", "save .result"))
    return "save .checkpoint" if chain.inside < INSIDE * (chain.kills + 1) else ""


def _real(bench: Bench, chain: Chain) -> tuple[str, Done]:
    """The same with `python -m luthier`: killed a moment after a checkpoint, or anywhere at all."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "luthier", "train", *tasks.words(chain.settings)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    err, nth = "", chain.random.randint(0, 3)
    if nth == 0:
        _moment(process, chain.random.uniform(0, 4))
    for line in process.stderr if nth else ():
        err += line
        nth -= "durable" in line
        if nth == 0:
            _moment(process, chain.random.uniform(0, 3 * chain.clean.save))
            break
    process.kill()
    err += process.communicate()[1]
    return "python -m luthier", Done(process.returncode, "", err, time.perf_counter() - began)


def _moment(process: subprocess.Popen[str], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _where(folder: Path) -> dict[str, int]:
    """Into what a kill fell, as seen from what it left."""
    names = [path.name for path in (*folder.glob("run/.*"), *folder.glob("tokens/.*"))]
    found = Counter({"inside a save": 0})
    for kind, what in (
        (".checkpoint-{}.tmp-", "inside a save"), (".checkpoint-{}.gone-", "inside a removal"),
        (".result", "inside the final writing"),
    ):  # fmt: skip
        start, _, end = kind.partition("{}")
        found[what] += any(name.startswith(start) and end in name for name in names)
    found["while tokenising"] += any(folder.glob("tokens/.*"))
    return dict(found)


def _kept(chain: Chain, done: Done) -> str:
    """What is wrong with the checkpoints that were acknowledged so far, and not rotated away."""
    went_on = outcome.continued(done.err)
    if went_on and went_on < max(chain.acknowledged, default=0):
        return f"went on from step {went_on}, though {max(chain.acknowledged)} was durable"
    chain.acknowledged += [s for s in outcome.acknowledged(done.err) if s not in chain.acknowledged]
    if strange := sorted({*chain.acknowledged} - {*chain.clean.states}):
        return f"steps {strange} were saved, which the clean run has not got"
    for step in _expected(chain):
        if not (chain.run / f"checkpoint-{step}").is_dir():
            return f"checkpoint-{step} was durable and is gone"
    for folder in chain.run.glob("checkpoint-*"):
        step = int(folder.name[11:])
        tree = sha256_tree(folder)
        if chain.tree.setdefault(step, tree) != tree:
            return f"{folder.name} has changed"
        if wrong := verify(folder):
            return f"{folder.name}: {'; '.join(wrong)}"
        if (outcome.weights(folder), outcome.state(folder)) != chain.clean.states[step]:
            return f"{folder.name} is not that of the clean run"
    return ""


def _expected(chain: Chain) -> list[int]:
    """The acknowledged checkpoints that no limit lets go: the best one, and all that have fewer than
    `save_total_limit` newer ones. A newer one counts when it is there, announced or not: a kill may fall
    between its arrival and the line that says so."""
    limit, steps = chain.settings.get("save_total_limit"), sorted(chain.acknowledged)
    if not steps or limit is None:
        return steps
    there = sorted(int(folder.name[11:]) for folder in chain.run.glob("checkpoint-*"))
    newest = max([*there, *steps])
    best = chain.clean.states[newest][1]["best_global_step"] if newest in chain.clean.states else None
    needed = [s for s in steps if sum(t > s or t == best for t in there if t != s) < limit]
    return [*needed, *([best] if best in steps else [])]
