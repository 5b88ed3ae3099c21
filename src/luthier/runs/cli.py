"""`luthier runs`: list, show and compare runs (`resume`, `reproduce` train: see train/run, train/again)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from luthier.errors import UsageError
from luthier.runs import listing, told
from luthier.runs.run import Run

USAGE = """\
luthier runs [DIR] [WORD ...]           runs below DIR (saves) in whose line all words occur
    --sort updated|loss|metric          the newest, the lowest loss, or the best metric of its data set first
luthier runs show RUN                   what a run is made of, its checkpoints, evaluations, samples and sizes
luthier runs compare A B [C ...]        what differs, and evidence which is better on the same rows
    --rows N                            rows won and lost that are shown, each (5)
    --html FILE [--words zh]            the comparison as a page; --overwrite replaces one that is there
luthier runs reproduce RUN [--out DIR]  train it again into RUN-again: equal, or where does it differ?
    --dry-run                           only say whether what it read is unchanged, and the command
    --anyway                            although what it read has changed
luthier runs resume RUN [key=value ...] continue it from its newest whole checkpoint, as it was started
Each but resume takes --format json."""

Answer = tuple[Any, list[str], int]
_SAVES = "saves"


def main(args: Sequence[str]) -> int:
    """Answer `luthier runs ARGS`; returns the exit code. Raises LuthierError about what cannot be read."""
    if args and args[0] in ("--help", "-h"):
        print(USAGE)
        return 0
    verb = args[0] if args and args[0] in _VERBS else "list"
    rest = list(args[1:] if args and args[0] in _VERBS else args)
    request = _parser(verb).parse_args(rest)
    result, lines, code = _VERBS[verb](request)
    print(json.dumps(result, ensure_ascii=False, indent=2) if request.format == "json" else "\n".join(lines))
    return code


def _list(request: argparse.Namespace) -> Answer:
    words = list(request.words)
    root = Path(words.pop(0) if words and Path(words[0]).is_dir() else _SAVES)
    if not root.is_dir():
        raise UsageError(
            f"{words[0] if words else root}: no such directory; luthier runs DIR lists the runs below DIR"
        )
    every = [listing.summary(folder) for folder in listing.find(root)]
    found = listing.ordered([one for one in every if listing.matches(one, words)], request.sort)
    if words and every and not found:
        raise UsageError(f"{' '.join(words)}: no such directory, and no run below {root} has it in its line")
    lines = told.runs(found) if found else [f"no runs below {root}"]
    return [asdict(one) for one in found], lines, 0


def _show(request: argparse.Namespace) -> Answer:
    from luthier.runs import detail

    result = detail.detail(Run.open(request.run))
    return result, detail.lines(result, told.can_braille()), 1 if result["problems"] else 0


def _compare(request: argparse.Namespace) -> Answer:
    from luthier.runs.beside import beside

    page = Path(request.html) if request.html else None
    if page and (page.is_dir() or (page.exists() and not request.overwrite)):
        raise UsageError(f"{page} is there already -> another name, or --overwrite for a file")
    if page and not page.parent.is_dir():
        raise UsageError(f"{page.parent}: no such directory -> make it first, or another name")
    if request.rows < 0:
        raise UsageError(f"--rows {request.rows} -> 0 or more")
    result = beside([Run.open(path) for path in request.paths], request.rows)
    if page:
        from luthier.runs import atomic
        from luthier.runs.page import page as drawn
        from luthier.streams import say

        atomic.write_text(page, drawn(result, request.words))
        say(f"written: {page}")
    return result, told.lines(result, told.can_braille()), 0


_VERBS = {"list": _list, "show": _show, "compare": _compare}


class Parser(argparse.ArgumentParser):
    """Raises UsageError with the usage of all of `luthier runs`."""

    def __init__(self, verb: str) -> None:
        super().__init__(prog=f"luthier runs {verb}", usage=USAGE, add_help=True, allow_abbrev=False)
        self.add_argument("--format", choices=("text", "json"), default="text")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{USAGE}")


def _parser(verb: str) -> Parser:
    parser = Parser(verb)
    if verb == "list":
        parser.add_argument("words", nargs="*")
        parser.add_argument("--sort", choices=listing.SORTS, default="updated")
    elif verb == "show":
        parser.add_argument("run")
    else:
        parser.add_argument("paths", nargs="+", metavar="RUN")
        parser.add_argument("--rows", type=int, default=5)
        parser.add_argument("--html")
        parser.add_argument("--words", "--lang", choices=("en", "zh"), default="en")
        parser.add_argument("--overwrite", action="store_true")
    return parser
