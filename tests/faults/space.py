"""Disks that are really full: file systems in memory, where from nothing to all but the last page fits.

A keeper process has a mount namespace of its own, so that nothing stays mounted when a test dies; the
processes under test enter it. It ends when this process does, because a pipe to it is closed then.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tasks
from faults.bench import Bench, Done, Trial, Unavailable
from faults.io import weights
from luthier.runs.seal import verify

PAGE = 4096
AMPLE = 64 << 20
KEEPER = """
import ctypes, os, sys
place, uid, gid = sys.argv[1], os.getuid(), os.getgid()
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args):
        sys.exit(name + ": " + os.strerror(ctypes.get_errno()))
def mount(kind, flags, options=None):
    target = b"/" if kind is None else place.encode()
    call("mount", b"none", target, kind, ctypes.c_ulong(flags), options)
NEWNS, NEWUSER, REMOUNT, PRIVATE = 0x20000, 0x10000000, 32, 16384 | (1 << 18)
if libc.unshare(NEWNS):  # not allowed here, but perhaps as the root of a user namespace
    call("unshare", NEWNS | NEWUSER)
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
    open("/proc/self/gid_map", "w").write(f"0 {gid} 1")
mount(None, PRIVATE)
mount(b"tmpfs", 0, b"size=" + sys.argv[2].encode())
print("ready", flush=True)
for line in sys.stdin:
    mount(b"tmpfs", REMOUNT, b"size=" + line.strip().encode())
    print("ready", flush=True)
"""


class Disk:
    """A file system of a given size at `place`, which only processes that enter it see."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.place = place
        command = [sys.executable, "-c", KEEPER, str(place), str(AMPLE)]
        pipe = subprocess.PIPE
        self._keeper = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._answer()

    def _answer(self) -> None:
        if self._keeper.stdout.readline() != "ready\n":
            raise Unavailable(f"no file system can be mounted here ({self._keeper.communicate()[1].strip()})")

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *unused: object) -> None:
        self._keeper.communicate()

    @property
    def pid(self) -> int:
        return self._keeper.pid

    @property
    def seen(self) -> Path:
        """The same place, for this process."""
        return Path(f"/proc/{self.pid}/root{self.place}")

    def resize(self, size: int) -> None:
        self._keeper.stdin.write(f"{size}\n")
        self._keeper.stdin.flush()
        self._answer()

    @property
    def used(self) -> int:
        found = os.statvfs(self.seen)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def empty(self) -> None:
        for folder, folders, names in os.walk(self.seen, topdown=False):
            for name in names:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                os.rmdir(os.path.join(folder, name))


def enter(pid: int, ballast: str = "", event: str = "", text: str = "", left: int = 0) -> None:
    """In the process under test: see the disk of the keeper `pid`.

    Just before the first `event` (an audit event's name) on a path with `text` in it, another program writes
    the file `ballast`, so large that `left` bytes stay free.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for kind in ("user", "mnt"):
        if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"):
            with open(f"/proc/{pid}/ns/{kind}") as file:
                if libc.setns(file.fileno(), 0):
                    raise OSError(ctypes.get_errno(), f"setns {kind}")

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name == event and text in str(args) and not os.path.exists(ballast):
            grow(ballast, left)

    if event:
        sys.addaudithook(hook)


def grow(ballast: str, left: int) -> None:
    found = os.statvfs(os.path.dirname(ballast))
    size = found.f_bavail * found.f_frsize - left
    with open(ballast, "xb") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)


@dataclass
class Scene:
    """A run of three steps with a checkpoint after each, of which one is kept, on a disk of its own.

    files: what it becomes when there is room · most: pages it takes at the most, save: one checkpoint,
    result: the final weights; in bytes.
    """

    bench: Bench
    disk: Disk
    words: list[str]
    files: dict[str, str]
    most: int
    save: int
    result: int

    @property
    def run(self) -> Path:
        return self.disk.seen / "run"

    @property
    def ballast(self) -> str:
        return str(self.disk.place / "ballast")

    def train(self, event: str = "", text: str = "", left: int = 0) -> Done:
        args = (self.disk.pid, self.ballast, event, text, left)
        return self.bench.luthier(self.words, before=enter, args=args)


def pages(folder: Path, pattern: str) -> int:
    """Bytes that files take on a file system in memory: whole pages."""
    sizes = (p.stat().st_size for p in folder.glob(pattern) if p.is_file())
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def scene(bench: Bench, disk: Disk) -> Scene:
    folder = disk.place.parent
    settings = tasks.make(
        folder, 12, save_steps=1, save_total_limit=1, use_cpu=True, output_dir=str(disk.place / "run")
    )
    made = Scene(bench, disk, ["train", *tasks.words(settings)], {}, 0, 0, 0)
    done = made.train()
    if done.code:
        raise AssertionError(f"the undisturbed run failed: {done.err}")
    made.files = weights(made.run)
    made.save = pages(made.run, "checkpoint-3/*")
    made.result = pages(made.run, "adapter*") + pages(made.run, "tokenizer*") + PAGE
    made.most = made.disk.used + made.save
    return made


def full(bench: Bench, count: int) -> Iterator[Trial]:
    """Disks that are too small, and disks that another program fills before a save or in the midst of one."""
    with Disk(bench.folder() / "disk") as disk:
        made = scene(bench, disk)
        cases = [*_small(made), *_filled(made)]
        step = max(1.0, len(cases) / count)
        for k in range(min(count, len(cases))):
            what, check = cases[int(k * step)]
            disk.resize(AMPLE)
            disk.empty()
            yield Trial(what, check() or _finished(made))


Case = tuple[str, Callable[[], str]]


def _small(made: Scene) -> Iterator[Case]:
    """Sizes that do not hold the run. It is refused before the first step and leaves nothing."""
    sizes = [PAGE, 3 * PAGE, 8 * PAGE, *(made.most * k // 4 // PAGE * PAGE for k in (1, 2, 3))]
    for size in (*sizes, made.most - PAGE, made.most):
        yield f"a disk of {size:,} bytes", lambda size=size: _refused(made, size)


def _refused(made: Scene, size: int) -> str:
    made.disk.resize(size)
    done = made.train()
    problem = _clean(done, ("need ", "the disk is full"))
    left = sorted(p.name for p in made.disk.seen.iterdir())
    if not problem and left:
        problem = f"it left {left}"
    if not problem and size > 16 * PAGE and "this run does not fit: need " not in done.err:
        problem = "not refused before the first step"
    return f"{problem}\n{done.err}" if problem else ""


def _filled(made: Scene) -> Iterator[Case]:
    """Another program leaves too little: seen before a save, or in the midst of one or of the result."""
    save, result = made.save, made.result
    moments = {
        "before the third save": (("os.rmdir", ".checkpoint-1.gone-"), 2, (2 * PAGE, save // 2, save - PAGE)),
        "in the midst of the second save": (
            ("os.mkdir", ".checkpoint-2.tmp-"),
            1,
            (0, PAGE, save // 4, save // 2, save * 3 // 4, save - PAGE),
        ),
        "in the midst of the final weights": (
            ("os.mkdir", ".result.tmp-"),
            3,
            (0, result // 2, result - PAGE),
        ),
    }
    for when, (event, kept, sizes) in moments.items():
        word = "need " if when.startswith("before") else "the disk is full"
        for left in sizes:
            yield (
                f"{left:,} bytes left {when}",
                lambda event=event, left=left, kept=kept, word=word: _stopped(
                    made, made.train(*event, left), kept, word
                ),
            )


def _stopped(made: Scene, done: Done, kept: int, word: str) -> str:
    """The run stops with an error; what it had acknowledged is there, checkpoint-`kept`; nothing else is."""
    problem = _clean(done, (word,))
    whole = {p.name: verify(p) for p in made.run.glob("*checkpoint-*")}
    said = [int(step) for step in re.findall(r"checkpoint (\d+) durable", done.err)]
    if not problem and (whole != {f"checkpoint-{kept}": []} or said != list(range(1, kept + 1))):
        problem = f"there are {whole}, said to be durable were {said}"
    os.unlink(made.disk.seen / "ballast")
    return f"{problem}\n{done.err}" if problem else ""


def _clean(done: Done, words: tuple[str, ...]) -> str:
    if done.code != 1 or "Traceback" in done.err:
        return f"exit code {done.code}, not a clean error"
    last = done.err.rstrip().splitlines()[-1]
    if not last.startswith("luthier train: ") or not any(word in last for word in words):
        return "the error does not say that there is no room"
    return ""


def _finished(made: Scene) -> str:
    """With room again, the same command ends with what an undisturbed run ends with."""
    made.disk.resize(AMPLE)
    done = made.train()
    if done.code:
        return f"with room again it ended with {done.code}: {done.err}"
    files = weights(made.run)
    different = sorted(k for k in files.keys() | made.files.keys() if files.get(k) != made.files.get(k))
    return f"with room again these differ: {different}" if different else ""
