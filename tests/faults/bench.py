"""What the fault experiments stand on: `luthier` processes that start at once, and what became of them."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
_END = None


class Unavailable(Exception):
    """This machine does not offer what the experiment needs: it is reported as skipped, not as passed."""


@dataclass(frozen=True)
class Trial:
    """One case of an experiment. problem: what went wrong, "" when nothing did · counts: summed and shown."""

    what: str
    problem: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """How a process ended: exit code (negative: the signal that killed it), what it printed, wall seconds."""

    code: int
    out: str
    err: str
    seconds: float


class Child:
    """A `luthier` process at work."""

    def __init__(self, pid: int, report: int, err: int, out: Path) -> None:
        self.pid = pid
        self._report, self._out = report, out
        self._began = time.perf_counter()
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._seen: list[str] = []
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(err,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with open(descriptor, encoding="utf-8", errors="replace", newline="\n") as stream:
            for line in stream:
                self._seen.append(line)
                self._queue.put(line)
        self._queue.put(_END)
        self._closed.set()

    def wait(self, seconds: float) -> bool:
        """Let it work for a while; True when it has ended (or at least closed its standard error)."""
        return self._closed.wait(seconds)

    def lines(self) -> Iterator[str]:
        """Lines of standard error as they come, until it is closed."""
        while (line := self._queue.get(timeout=300)) is not _END:
            yield line

    def send(self, number: int) -> None:
        """Send a signal; one that comes after the end is nothing."""
        if self._report >= 0:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def finish(self, timeout: float = 300) -> Done:
        """Wait for the end. A process that does not end in time is killed and a TimeoutError raised."""
        timer = threading.Timer(timeout, self.send, (signal.SIGKILL,))
        timer.start()
        with open(self._report, "rb") as stream:
            code = int(stream.read() or b"-255")
        self._report = -1
        late = not timer.is_alive()
        timer.cancel()
        self._reader.join()
        seconds = time.perf_counter() - self._began
        done = Done(code, self._out.read_text("utf-8", "replace"), "".join(self._seen), seconds)
        self._out.unlink()
        if late and code == -signal.SIGKILL:
            raise TimeoutError(f"did not end within {timeout} s:\n{done.err[-2000:]}")
        return done


class Bench:
    """A place to work, a seeded `random`, and processes.

    preload: a shared library that the processes are started with (LD_PRELOAD).
    """

    def __init__(self, place: Path, seed: int = 0, preload: Path | None = None) -> None:
        if not hasattr(os, "pidfd_open") or sys.platform != "linux":
            raise Unavailable("processes are forked and watched as only Linux offers it")
        self.place, self.seed = place, seed
        self.random = random.Random(seed)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = map(str, (TESTS, TESTS / "reference", TESTS / "invariants"))
        path = os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": path,
            "LUTHIER_CACHE": str(place / "cache"),
            "XDG_CACHE_HOME": str(place / "home-cache"),
        }
        if preload is not None:
            env["LD_PRELOAD"] = str(preload)
        command = [sys.executable, "-m", "faults.zygote", str(theirs.fileno())]
        self._server = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        theirs.close()
        self._socket = ours
        self._lock = threading.Lock()

    def close(self) -> None:
        self._socket.close()
        self._server.wait(timeout=60)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def folder(self) -> Path:
        """A fresh empty folder."""
        return Path(tempfile.mkdtemp(dir=self.place))

    def start(
        self,
        words: Sequence[str],
        cwd: str | Path | None = None,
        env: Mapping[str, str | None] | None = None,
        before: Callable[..., object] | str = "",
        args: Sequence[Any] = (),
    ) -> Child:
        """Start `luthier WORDS`. before(*args): a module's function that the process calls first."""
        called = before if isinstance(before, str) else f"{before.__module__}:{before.__qualname__}"
        request = {
            "words": list(words),
            "cwd": str(cwd) if cwd else None,
            "env": dict(env or {}),
            "before": called,
            "args": list(args),
        }
        handle, out = tempfile.mkstemp(dir=self.place, prefix="stdout-")
        err, err_in = os.pipe()
        report, report_in = os.pipe()
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [handle, err_in, report_in])
            for descriptor in (handle, err_in, report_in):
                os.close(descriptor)
            pid = int(self._socket.recv(64))
        return Child(pid, report, err, Path(out))

    def luthier(
        self,
        words: Sequence[str],
        cwd: str | Path | None = None,
        env: Mapping[str, str | None] | None = None,
        before: Callable[..., object] | str = "",
        args: Sequence[Any] = (),
    ) -> Done:
        """Run `luthier WORDS` to its end."""
        return self.start(words, cwd, env, before, args).finish()
