"""`luthier data show`: what the model would read, token by token, and what of it it would learn to write."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.config import Config
from luthier.data.render import Renderer
from luthier.errors import DataError, UsageError
from luthier.prepare import show_page, show_screen, words
from luthier.prepare.opened import Opened, opened
from luthier.prepare.show_rows import BAD, FLAGS, Look, Seen, Selection
from luthier.prepare.words import Words
from luthier.runs import atomic
from luthier.types import BadRow, Example

if TYPE_CHECKING:
    from rich.console import Console

USAGE = f"""usage: luthier data show FILE|DATASET [ROW ...] --model DIR|RUN

Prints each row as the model would read it. On a terminal what it would learn to write is green and what
cutoff_len removes is red; elsewhere they stand in [[ ]] and [- -]. Training makes its tokens the same way.

  ROW                17, 3-7,12 or 40- by number, or by source: train.json:17
  --only FLAGS       rows that have one of: {", ".join(FLAGS)}
  --limit N          how many rows; all of them: --limit all (default: 10 on a terminal, 100 with --html)
  --ids              the number of every token, and its bytes where several make one character
  --html FILE        a page for a browser (--overwrite: also when FILE is there)
  --format json      one object a line: {{"source": "file:row", "text": "…", "trained": [[start, end], …]}}
  --template NAME    or any other key of the configuration: cutoff_len=512, mask_history=true, max_samples=10

In JSON, offsets count characters. "cut" has the ranges that cutoff_len removes, "flags" what --only asks for,
"rejected" the other answer of a pair, "verdict" that of a KTO row, "parts" the sequences of a row that
history: as_template splits, "block_ends" where blocks of pre-training end, "tokens" (with --ids) all tokens.
A row that cannot be used has "field" and "reason" instead. Exit code 1 when there is such a row."""

OPTIONS: dict[str, str | None] = {
    "only": None,
    "limit": None,
    "html": None,
    "ids": "true",
    "overwrite": "true",
}
SCREENFUL, PAGEFUL = 10, 100
CHUNK = 256
COUNTED = 100_000
"""How many rows behind the last one shown are counted."""


@dataclass
class Request:
    """Which rows, and how, and what became of them.

    limit: None for all · tally: the rows looked at, as "rows" and by flag · more: rows that were not shown
    for the limit · bad_behind: of those, without a filter, the bad ones.
    """

    words: Words
    config: Config
    rows: Selection
    only: tuple[str, ...]
    limit: int | None
    ids: bool
    as_json: bool
    tally: Counter[str] = field(default_factory=Counter)
    shown: int = 0
    more: int = 0
    bad_behind: int = 0

    def wants(self, seen: Seen) -> bool:
        return not self.only or any(flag in self.only for flag in seen.flags)

    @property
    def full(self) -> bool:
        return self.limit is not None and self.shown >= self.limit

    @property
    def over(self) -> bool:
        """Whether the rest need only be counted; a filter is told of all rows."""
        return self.full and not self.only


Draw = Callable[[Seen, Renderer], None]


def main(args: Sequence[str]) -> int:
    """Print rows as they would be trained on; 1 when a row cannot be used.

    Raises UsageError for words or a ROW that make no sense, DataError for a file that cannot be read at all.
    """
    from luthier.model import load

    screen = show_screen.console()
    request = _requested(args, screen.is_terminal)
    renderer = Renderer.of(request.config, load.tokenizer(request.config))
    _say(*request.config.notes, *renderer.notes)
    page: list[dict[str, object]] = []
    draw = _draw(request, screen, page)
    names = list(request.config.dataset or ())
    for name in names:
        _show(name, request, renderer, draw)
    if not request.over:
        request.rows.check(", ".join(names))
    closing = _closing(request)
    if "html" in request.words.options:
        _write(request, page, ", ".join(names), renderer, closing)
    if closing and (request.only or not request.as_json):
        print(closing, file=sys.stderr)
    return 1 if request.tally[BAD] or request.bad_behind else 0


def _requested(args: Sequence[str], on_terminal: bool) -> Request:
    """Raises UsageError."""
    found = words.parse(args, OPTIONS, "show")
    if not found.given:
        raise UsageError("data show: which data? -> luthier data show FILE|DATASET --model DIR")
    name, options = found.given[0], found.options
    from_file = Path(name).suffix in (".yaml", ".yml")
    config = found.config_of(name) if from_file else found.config(name)
    if from_file:
        found.keys.setdefault("stage", config.stage)
        if not config.dataset:
            raise UsageError(f"{name}: names no data -> add dataset: NAME")
    only = tuple(options["only"].split(",")) if "only" in options else ()
    strange = [flag for flag in only if flag not in FLAGS]
    if strange:
        raise UsageError(f"data show: --only {','.join(strange)} -> one or more of {', '.join(FLAGS)}")
    as_json, rows = config.format == "json", Selection.of(found.given[1:])
    if "html" in options:
        _check_place(Path(options["html"]), as_json, "overwrite" in options)
    limit = PAGEFUL if "html" in options else SCREENFUL if on_terminal and not as_json else None
    limit = _limit(options["limit"]) if "limit" in options else None if rows.items else limit
    return Request(found, config, rows, only, limit, options.get("ids", "false") == "true", as_json)


def _limit(word: str) -> int | None:
    if word == "all":
        return None
    if not word.isdecimal() or int(word) < 1:
        raise UsageError(f"data show: --limit {word} -> a number from 1, or all")
    return int(word)


def _check_place(path: Path, as_json: bool, overwrite: bool) -> None:
    if as_json:
        raise UsageError("data show: --html FILE and --format json are two forms -> one of them")
    if path.is_dir() or (path.exists() and not overwrite):
        raise UsageError(f"{path} is there already -> another name, or --overwrite for a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such directory -> make it first")


def _draw(request: Request, screen: Console, page: list[dict[str, object]]) -> Draw:
    """What becomes of each row."""
    if "html" in request.words.options:
        return lambda seen, renderer: page.append(show_page.row(seen, renderer))
    if request.as_json:
        return lambda seen, renderer: print(
            json.dumps(show_screen.as_dict(seen, renderer, request.ids), ensure_ascii=False)
        )
    if show_screen.coloured(screen):
        return show_screen.Screen(screen, request.ids).row
    return lambda seen, renderer: print(show_screen.plain(seen, renderer, request.ids))


def _show(name: str, request: Request, renderer: Renderer, draw: Draw) -> None:
    """Draw the rows of one data set, and count those behind the last one that is drawn."""
    config = request.config
    keys = {"dataset_dir": config.dataset_dir, **request.words.keys}
    source = opened(name, keys)
    if "html" in request.words.options:
        source.keep(Path(request.words.options["html"]))
    look = Look(renderer, config, source.stage)
    rows = _asked(source, look, request)
    while not request.over:
        room = CHUNK if request.limit is None or request.only else min(CHUNK, request.limit - request.shown)
        chunk, error = _chunk(rows, room)
        _say_of(source)
        for seen in look.at(chunk):
            _account(seen, request, renderer, draw)
        if error is not None:
            raise error
        if not chunk:
            return
    for row in islice(rows, COUNTED - request.more):
        request.more += 1
        request.bad_behind += isinstance(row, BadRow)
    _say_of(source)


def _chunk(rows: Iterator[Example | BadRow], size: int) -> tuple[list[Example | BadRow], DataError | None]:
    """Some rows, and the error that ended the reading where one did: what was read before it is shown."""
    found: list[Example | BadRow] = []
    try:
        for row in islice(rows, size):
            found.append(row)
    except DataError as error:
        return found, error
    return found, None


def _asked(source: Opened, look: Look, request: Request) -> Iterator[Example | BadRow]:
    """The rows of a data set that were asked for, in its order. Where documents are packed, those before
    them are looked at as well: they decide where blocks end."""
    one_file = source.spec.where == "file" and Path(source.spec.location).is_file()
    for _, row in source.rows(request.config.max_samples):
        if request.rows.takes(row.source):
            yield row
        elif look.packs:
            list(look.at([row]))
        if one_file and request.rows.done:
            return


def _account(seen: Seen, request: Request, renderer: Renderer, draw: Draw) -> None:
    request.tally.update(["rows", *seen.flags])
    if not request.wants(seen):
        return
    if request.full:
        request.more += 1
        return
    request.shown += 1
    draw(seen, renderer)


def _closing(request: Request) -> str:
    """How many of the rows looked at have what, and how to see those that are not shown."""
    tally = request.tally
    asked = request.only or [flag for flag in FLAGS if tally[flag]]
    told = [f"{tally[flag]:,} of {tally['rows']:,} rows: {flag}" for flag in asked]
    if request.more:
        least = "more than " if request.more >= COUNTED else ""
        bad = f" ({request.bad_behind:,} of them cannot be used)" if request.bad_behind else ""
        how = f"--limit all, a ROW such as 3-7, or --only {'|'.join(FLAGS)}"
        told.append(f"{least}{request.more:,} more not shown{bad}: {how}")
    return "\n".join(told)


def _write(
    request: Request, rows: list[dict[str, object]], name: str, renderer: Renderer, closing: str
) -> None:
    path, config = Path(request.words.options["html"]), request.config
    subtitle = (
        f"{config.model_name_or_path} · {renderer.template.called} · cutoff_len {config.cutoff_len} · "
        f"{len(rows)} rows"
    )
    atomic.write_text(path, show_page.page(name, subtitle, rows, closing))
    print(path)


def _say_of(source: Opened) -> None:
    """What was noted since the last time."""
    _say(*dict.fromkeys(source.ledger.notes))
    source.ledger.notes.clear()


def _say(*notes: str) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
