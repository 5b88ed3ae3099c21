"""Every operation of a save meets every fault of a disk, one at a time, below Python and its libraries.

`iofault.c` watches the system's calls of the process and does the harm; nothing in the product knows of it.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks
from faults.bench import Bench, Done, Trial, Unavailable
from luthier.runs.hashing import sha256_tree
from luthier.runs.log import NAME as LOG
from luthier.runs.seal import MARKER, verify

SOURCE = Path(__file__).with_name("iofault.c")
WRITES = frozenset({"open", "write", "fsync", "rename", "link", "mkdir", "again", "truncate", "unlink"})
EVERY = WRITES | {"look"}
# name -> (number in iofault.c, the operations that it can happen to)
FAULTS: dict[str, tuple[int, frozenset[str]]] = {
    "ENOSPC": (1, WRITES),
    "EIO": (2, EVERY),
    "short write": (3, frozenset({"write"})),
    "short write, then ENOSPC": (4, frozenset({"write"})),
    "EINTR": (5, frozenset({"open", "write", "fsync"})),
    "kill before": (6, EVERY),
    "kill after": (7, EVERY),
    "ENOSPC from there on": (8, WRITES),
    "EIO from there on": (9, EVERY),
}
SURVIVED = {"short write", "EINTR"}
REASONS = ("the disk is full", "No space left on device", "Input/output error")
NEEDLESS = {("unlink", "run/.luthier.lock"), ("look", "run/.result.tmp"), ("unlink", "run/.result.tmp")}
"""What need not succeed: the lock is the system's, its file may stay; empty folders are cleared next time."""
FEW = 100
"""An experiment that is asked for fewer trials takes a sample of its cases."""
METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"finetuning_type": "full", "lora_target": None},
}


def library(bench: Bench) -> Path:
    """iofault.c, compiled once for each bench."""
    made = bench.place / "iofault.so"
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("no C compiler (cc)")
    if not made.exists():
        command = [compiler, "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"iofault.c cannot be compiled here: {done.stderr.strip()[-300:]}")
    return made


def arm(path: str, prefix: str, window: list[str], log: str, at: int, fault: int) -> None:
    """In the process under test: watch the calls below `prefix` from the first on window[0] to window[1]."""
    words = [text.encode() for text in (prefix, *window, log)]
    error = ctypes.CDLL(path).iofault_arm(*words, ctypes.c_long(at), fault)
    if error:
        raise OSError(error, "the system refuses to trap its calls (seccomp)")


@dataclass(frozen=True)
class Operation:
    """The k-th counted call (from 1) and what it was done to, with what differs from run to run left out."""

    k: int
    name: str
    path: str


@dataclass
class Scene:
    """Work that stands just before what is to be disturbed, and what it becomes if nothing disturbs it.

    place: what the run writes into · window: the operations of interest are those from the first on a path
    with its first text to the last before one with its second · last: the operation that makes a save
    durable; later ones tidy up, and a failure of theirs ends nothing · acknowledged: what is then said.
    """

    bench: Bench
    name: str
    words: list[str]
    place: Path
    window: tuple[str, str]
    files: dict[str, str]
    operations: list[Operation]
    last: int
    acknowledged: str

    def may_pass(self, operation: Operation, fault: str) -> bool:
        """Whether the run may go on as if nothing had happened."""
        needless = operation.name == "again" or (operation.name, operation.path) in NEEDLESS
        return fault in SURVIVED or needless or operation.k > self.last

    @property
    def run(self) -> Path:
        return self.place / "run"

    @property
    def before(self) -> Path:
        return self.place.with_name("before")

    def put_back(self) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self.before, self.place)

    def train(self, at: int = 0, fault: int = 0) -> tuple[Done, list[Operation]]:
        """Run the command with a fault at one operation; how it ended, and its operations."""
        lasting = fault in (FAULTS["ENOSPC from there on"][0], FAULTS["EIO from there on"][0])
        window = [self.window[0], "" if lasting else self.window[1]]
        log = self.place.with_name("operations")
        args = (str(library(self.bench)), str(self.place), window, str(log), at, fault)
        done = self.bench.luthier(self.words, before=arm, args=args)
        lines = log.read_text().splitlines()
        return done, [Operation(k, *self._plain(line).split(" ", 1)) for k, line in enumerate(lines, 1)]

    def _plain(self, line: str) -> str:
        line = re.sub(r"-\d+-[0-9a-f]{8}", "", line.replace(f"{self.place}/", ""))
        return re.sub(r"/\.tmp\w{6}$", "/.tmp", line)


def _scene(bench: Bench, name: str, window: tuple[str, str], rows: int, **keys: Any) -> Scene:
    folder = bench.folder()
    place = folder / "work"
    place.mkdir()
    keys |= {"output_dir": str(place / "run"), "tokenized_path": str(place / "tokens"), "use_cpu": True}
    settings = tasks.make(folder, rows, save_steps=1, save_total_limit=2, **keys)
    words = ["train", *tasks.words({k: v for k, v in settings.items() if v is not None})]
    made = Scene(bench, name, words, place, window, {}, [], 0, "checkpoint 3 durable")
    shutil.copytree(place, made.before)
    done, made.operations = made.train()
    if "refuses to trap" in done.err:
        raise Unavailable(done.err.rstrip().splitlines()[-1])
    if done.code or not made.operations:
        raise AssertionError(f"the undisturbed run failed: {done.err}")
    made.files = weights(made.run)
    made.put_back()
    return made


def third_save(bench: Bench, name: str) -> Scene:
    """A run of three steps with a checkpoint after each, killed before the first call of its third save.

    That save also lets go of the first checkpoint. What follows it, the final result, is not disturbed.
    """
    made = _scene(bench, name, (".checkpoint-3.tmp-", "/.result"), 12, **METHODS[name])
    made.train(1, FAULTS["kill before"][0])
    shutil.rmtree(made.before)
    shutil.copytree(made.place, made.before)
    made.last = max(o.k for o in made.operations if (o.name, o.path) == ("rename", "run/checkpoint-3")) + 2
    return made


def whole_run(bench: Bench) -> Scene:
    """A run of one step in an empty folder, from its lock to its last line; not its save."""
    made = _scene(bench, "whole run", ("", ""), 4)
    made.operations = [o for o in made.operations if "checkpoint-" not in o.path]
    made.last, made.acknowledged = made.operations[-1].k, "luthier train: done"
    return made


def weights(run: Path) -> dict[str, str]:
    """Every file of a run by name; the sha256 of those that hold tensors or the tokenizer."""
    return {
        k: v if k.endswith((".safetensors", "tokenizer.json")) else "" for k, v in sha256_tree(run).items()
    }


def saves(bench: Bench, count: int) -> Iterator[Trial]:
    """Every operation of a save, of LoRA and of full fine-tuning, meets every fault; then the command is
    repeated and must end with what the undisturbed run ended with. A sample when few are asked for."""
    yield from _trials([third_save(bench, name) for name in METHODS], count)


def elsewhere(bench: Bench, count: int) -> Iterator[Trial]:
    """The same for what a run writes beside its saves: lock, marker, token store, log, final result."""
    yield from _trials([whole_run(bench)], count)


def _trials(scenes: list[Scene], count: int) -> Iterator[Trial]:
    cases = [
        (made, operation, fault)
        for made in scenes
        for operation in made.operations
        for fault, (_, possible) in FAULTS.items()
        if operation.name in possible
    ]
    repeated: set[str] | None = None
    if count < FEW:
        cases = [cases[k * len(cases) // count] for k in range(count)]
        repeated = set()
    for made, operation, fault in cases:
        what = f"{fault}, {operation.name} {operation.path} ({operation.k}), {made.name}"
        yield Trial(what, disturbed(made, operation, fault, repeated), {fault: 1})


def disturbed(made: Scene, operation: Operation, fault: str, repeated: set[str] | None = None) -> str:
    """Disturb one operation, look, repeat the command, and look again. What is wrong, or "".

    repeated: what has been left by trials whose repetition was right; the same is not repeated again.
    """
    made.put_back()
    kept = {c.name: sha256_tree(c) for c in made.run.glob("checkpoint-*")}
    done, seen = made.train(operation.k, FAULTS[fault][0])
    if len(seen) < operation.k or seen[operation.k - 1] != operation:
        return f"the operation did not come again: {seen[-1:]}"
    problem = _ended(made, operation, fault, done) or _kept(made, kept, done)
    if problem:
        return f"{problem}\n{done.err}"
    left = _left(made)
    if repeated is not None and left in repeated:
        return ""
    again = made.bench.luthier(made.words)
    if again.code or "Traceback" in again.err:
        return f"the command repeated ended with {again.code}: {again.err}"
    problem = _different(made)
    if repeated is not None and not problem:
        repeated.add(left)
    return f"after the repetition {problem}" if problem else ""


def _left(made: Scene) -> str:
    """Everything there, but for times: the marker, and the log, from which later steps are taken away."""
    tree = {k: v for k, v in sha256_tree(made.place).items() if not k.endswith((MARKER, LOG))}
    return "\n".join(sorted(made._plain(f"{name} {digest}") for name, digest in tree.items()))


def _different(made: Scene) -> str:
    files = weights(made.run) if made.run.is_dir() else {}
    different = sorted(k for k in files.keys() | made.files.keys() if files.get(k) != made.files.get(k))
    return f"these differ: {different}" if different else ""


def _ended(made: Scene, operation: Operation, fault: str, done: Done) -> str:
    """Whether the process ended as it should have."""
    if fault.startswith("kill"):
        return "" if done.code == -9 else f"exit code {done.code}, expected -9"
    if "Traceback" in done.err:
        return "a traceback"
    if fault in SURVIVED and done.code:
        return f"exit code {done.code}: this is no failure"
    if done.code == 0:
        said = "note: a checkpoint beyond save_total_limit cannot be removed now" in done.err
        return "" if said or made.may_pass(operation, fault) else "a failed operation was passed over"
    if made.acknowledged in done.err and operation.k <= made.last:
        return f"{made.acknowledged!r} was said in spite of a failed operation"
    shown = "luthier train: " in done.err and str(made.place) in done.err
    if done.code != 1 or not shown or not any(reason in done.err for reason in REASONS):
        return f"exit code {done.code}; the error does not name path and reason"
    return ""


def _kept(made: Scene, kept: dict[str, dict[str, str]], done: Done) -> str:
    """Whether every older checkpoint is what it was, and a newer one whole or absent.

    The first of three may go once the third is there, whole.
    """
    found = {folder.name: verify(folder) for folder in made.run.glob("checkpoint-*")}
    broken = {name: problems for name, problems in found.items() if problems}
    if broken:
        return f"not whole: {broken}"
    for step in re.findall(r"checkpoint (\d+) durable", done.err):
        if f"checkpoint-{step}" not in found:
            return f"checkpoint-{step} was called durable and is not there"
    for name, files in kept.items():
        if name not in found and (name != "checkpoint-1" or "checkpoint-3" not in found):
            return f"{name} is gone"
        if name in found and sha256_tree(made.run / name) != files:
            return f"{name} is no longer what it was"
    return ""
