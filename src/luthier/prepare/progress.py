"""How far a long reading is: a bar with an estimate on a terminal, a line now and then elsewhere (stderr)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol, TypeVar, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from luthier.streams import Lasting

T = TypeVar("T")


class Over(Protocol):
    """over(items, label, total): the items, while it is shown how many have passed."""

    def __call__(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]: ...


EVERY, PATIENCE = 256, 10.0
"""Items between two looks at the clock; seconds between two lines where there is no terminal."""


@contextmanager
def watched() -> Iterator[Over]:
    """Yields an `Over`, whose total is None when it is not known; then no end is estimated."""
    stream = Lasting(sys.stderr)
    if not stream.isatty():
        yield _lines
        return
    console = Console(file=cast(IO[str], stream), highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:

        def over(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
            task = bar.add_task(label, total=total)
            for count, item in enumerate(items, 1):
                yield item
                if count % EVERY == 0:
                    bar.update(task, completed=count)
            bar.remove_task(task)

        yield over


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    began = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if count % EVERY or (now := time.monotonic()) - last < PATIENCE:
            continue
        last = now
        left = f" of {total:,}, {(total - count) * (now - began) / count:.0f} s left" if total else ""
        print(f"{label}: {count:,} rows{left}", file=Lasting(sys.stderr), flush=True)
