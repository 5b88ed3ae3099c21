"""Ctrl-C and SIGTERM: the step in progress is finished and saved; a second signal stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from luthier.errors import LuthierError


class Stopped(LuthierError):
    """Training was stopped from outside after saving; exit code 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after saving; the same command continues from here"
        )
        self.exit_code = 128 + number


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Within the block, the first SIGINT or SIGTERM is only remembered; yields a function that tells which.

    Signals can be caught in the main thread alone; elsewhere nothing is remembered.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen[0] if seen else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
