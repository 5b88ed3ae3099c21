"""What a person sees while a run works: one moving line on a terminal, one line per log entry elsewhere.

Everything goes to stderr; stdout is for results. A terminal that has gone away, a pipe without a reader and a
log file on a full disk are no reason to end a run: what cannot be printed is not printed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from luthier.redact import redact
from luthier.streams import Lasting


def tell(text: str) -> None:
    """Print the result of a run to stdout; a reader that has gone away does not undo the run."""
    try:
        print(text, flush=True)
    except OSError:
        let_go(sys.stdout)


def let_go(stream: TextIO) -> None:
    """Lead what a stream still holds into nothing, so that it does not fail once more when Python ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


class Screen:
    """A progress bar with loss, learning rate and trained tokens per second."""

    def __init__(self, bar: bool | None = None) -> None:
        stream = cast(IO[str], Lasting(sys.stderr))
        self._console = Console(file=stream, highlight=False, emoji=False, soft_wrap=True)
        self._wanted = self._console.is_terminal if bar is None else bar
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began, self._tokens, self._printed = 0.0, 0.0, 0.0

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, line: str) -> None:
        (self._bar.console if self._bar else self._console).print(redact(line), markup=False)

    def start(self, total: int, done: int) -> None:
        self._began, self._tokens = time.perf_counter(), 0.0
        self._total, self._done = total, done
        if not self._wanted:
            return
        columns = (
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # what the numbers leave of the width
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            TextColumn("eta"),
            TimeRemainingColumn(table_column=Column(min_width=7)),
        )
        self._bar = Progress(*columns, console=self._console, transient=False, expand=True)
        self._task = self._bar.add_task("training", total=total, completed=done, shown="")
        self._bar.start()

    def draw(self, values: Mapping[str, Any]) -> None:
        """Show a step: its index, loss, learning rate and trained tokens."""
        now = time.perf_counter()
        self._tokens += values["tokens"]
        speed = self._tokens / max(now - self._began, 1e-9)
        shown = f"loss {values['loss']:.4f}  lr {values['lr']:.2e}  {speed:,.0f} trained tok/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=values["step"], shown=shown)
        elif now - self._printed > 10 or values["step"] == self._total:
            self._printed = now
            left = (now - self._began) / max(values["step"] - self._done, 1) * (self._total - values["step"])
            self.say(f"step {values['step']}/{self._total}  {shown}  eta {int(left)} s")
