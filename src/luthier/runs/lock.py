"""One writer per run directory.

An advisory lock of the operating system on `.luthier.lock`, which also says who holds it. The system
drops the lock when its process ends, however it ends, so a lock is never stale and nothing needs cleaning.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from luthier.errors import RunError

NAME = ".luthier.lock"
_FAR = 1 << 30  # Windows locks bytes against reading too: lock one far behind the text


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes to a run directory; `since` is local time in ISO 8601. pid 0: not known."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.host} since {self.since}"


class Lock:
    """A held lock. Use `Lock.acquire`; `release` may be called again without harm."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    @classmethod
    def acquire(cls, directory: str | Path) -> Lock:
        """Take the lock of `directory`. Raises RunError that names the holder when another process has it."""
        path = Path(directory, NAME)
        for attempt in range(3):
            if attempt:
                time.sleep(0.02)  # `holder` takes the lock for an instant to look at it
            descriptor = _lock(path)
            if descriptor is not None:
                break
        else:
            raise RunError(
                f"{directory}: in use by {_read(path)}; wait for it, stop it, or give another output_dir"
            )
        me = Holder(os.getpid(), socket.gethostname(), now())
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(asdict(me)).encode())
        return cls(path, descriptor)

    def release(self) -> None:
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if os.name == "nt":  # an open file cannot be deleted there
            os.close(descriptor)
            with contextlib.suppress(OSError):  # the next holder has opened it already
                self._path.unlink()
        else:
            try:
                with contextlib.suppress(OSError):  # the file may stay: it is the lock on it that counts
                    self._path.unlink()
            finally:
                os.close(descriptor)


def holder(directory: str | Path) -> Holder | None:
    """Who is writing to `directory` now; None when nobody is."""
    path = Path(directory, NAME)
    if not path.exists():
        return None
    try:
        descriptor = _lock(path, create=False)
    except FileNotFoundError:
        return None  # released just now
    if descriptor is None:
        return _read(path)
    os.close(descriptor)
    return None


def mark(descriptor: int) -> None:
    """Show other processes that the open file or folder is being written, until it is closed.

    Best effort: where the file system cannot lock, `marked` asks for the process instead.
    """
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def marked(path: Path, pid: int) -> bool:
    """Whether what a process `pid` began to write at `path` is still being written, perhaps elsewhere.

    The mark counts, wherever its process runs (another container has other process numbers); a process of
    this number on this machine counts too, for one that has made the file and not marked it yet.
    """
    if pid != os.getpid() and psutil.pid_exists(pid):
        return True
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _lock(path: Path, create: bool = True) -> int | None:
    """A descriptor that holds the lock, or None when another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o644)
        try:
            taken = _try(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise RunError(
                f"{path}: this file system cannot lock files ({error.strerror}); put output_dir elsewhere"
            ) from error
        if not taken:
            os.close(descriptor)
            return None
        if _same(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder deleted it between our opening and our locking it


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _try(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _read(path: Path) -> Holder:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return Holder(0, "", "")  # it is just being written


def now() -> str:
    return datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
