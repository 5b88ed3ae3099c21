"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal).

Before and after training they end the work at once. While it trains, the first is only remembered: the step
in progress is finished and saved; a second one stops at once. What was ignored when the process began, as
under nohup, stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# A shell whose terminal closes passes SIGHUP on and the system sends it once more: nobody insists with it.
_PASSED_ON = {getattr(signal, "SIGHUP", None)}
# A launcher of several processes passes on what the terminal has sent to all of them already (seconds).
_LAUNCHER = 3.0

# The signals that came, in order. An exception that a handler raises is lost when it happens to hit a
# finalizer; remembering the signal too stops such a run before its first step.
_came: list[int] = []


class Stopped(KeyboardInterrupt):
    """Stopped from outside; exit code 128 + the signal's number.

    A KeyboardInterrupt, so that nobody mistakes it for a failure of what was being done.
    """

    def __init__(self, number: int, when: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{when}")
        self.exit_code = 128 + number


@contextmanager
def raised() -> Iterator[None]:
    """Within the block, a signal raises Stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        _came.append(number)
        raise Stopped(number)

    try:
        with _handled(stop):
            yield
    finally:
        _came.clear()


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Within the block, the first signal is only remembered; yields a function that tells which, or 0.

    Raises Stopped for one whose exception was lost.
    """
    if _came:
        raise Stopped(_came[0])
    grace = _LAUNCHER if "LOCAL_RANK" in os.environ else 0.0
    first = time.monotonic()

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not _came:
            _came.append(number)
            first = time.monotonic()
            _answer(number)
        elif number not in _PASSED_ON and time.monotonic() - first >= grace:
            raise Stopped(number, " at once; the same command continues from the newest checkpoint")

    with _handled(remember):
        yield lambda: _came[0] if _came else 0


def agreed(total: Callable[[float], float], mine: int) -> int:
    """The signal that any rank has seen, the same answer on every rank: all of them stop after the same step.

    total: sums a number over all ranks · mine: what this rank has seen, 0 for nothing.
    """
    if total(float(mine > 0)) == 0:
        return 0
    return next(number for number in NUMBERS if total(float(mine == number)) > 0)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Signals can be caught in the main thread alone; elsewhere nothing is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None: handled by something that is not Python, which could not be put back
    caught = [n for n in NUMBERS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in caught}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _answer(number: int) -> None:
    name = signal.Signals(number).name
    text = f"\n{name}: the step in progress is finished and saved; a second signal stops at once\n"
    with contextlib.suppress(OSError):  # nobody is left to read it
        os.write(2, text.encode())
