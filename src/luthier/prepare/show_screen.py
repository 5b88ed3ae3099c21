"""Rows of `luthier data show` on stdout: in colours on a terminal, with marks elsewhere, as JSON.

rich is imported by `coloured` and `Screen` only. Texts of strangers never become its markup, nor commands of
the terminal.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

from luthier.data import trace
from luthier.data.cutoff import Groups
from luthier.data.render import Renderer
from luthier.data.trace import Unit
from luthier.prepare.show_rows import FLAGS, Part, Seen, in_hex, visible
from luthier.types import BadRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MARKS = {"trained": ("[[", "]]"), "cut": ("[-", "-]"), "masked": ("", "")}
STYLES = {
    "trained": ("black on green", "black on bright_green"),
    "masked": ("", "dim"),
    "cut": ("strike black on red", "strike black on bright_red"),
}
"""kind -> styles that take turns, so that one sees where a token ends; colours that every terminal has."""
NARROW = 80
"""Columns below which two answers stand one below the other."""


def title(seen: Seen) -> str:
    """What is said of a row before it is shown: its verdict and flags."""
    verdict = [] if seen.verdict is None else [f"verdict: {str(seen.verdict).lower()}"]
    counts, told = seen.counts(), dict(FLAGS)
    told[trace.CUT] = f"cut: {counts['cut']} of {sum(counts.values())} tokens"
    if not counts["trained"]:
        told[trace.UNTRAINED] = "nothing in it is trained: training leaves it out"
    return "".join(f" ({remark})" for remark in [*verdict, *(told[flag] for flag in seen.flags)])


def bad(row: BadRow) -> str:
    """Where, which field, why."""
    return visible(f"{row.source}: {row.field + ': ' if row.field else ''}{row.reason}")


# -- JSON ---------------------------------------------------------------------------------------------


def as_dict(seen: Seen, renderer: Renderer, ids: bool) -> dict[str, Any]:
    """A row for programs; offsets count characters of its own text. Keys that say nothing are left out."""
    if isinstance(seen.row, BadRow):
        return {"source": seen.row.source, "field": seen.row.field, "reason": seen.row.reason}
    found: dict[str, Any] = {"source": seen.source, **_whole(seen.parts[-1], 0, renderer, ids)}
    if seen.verdict is not None:
        found["verdict"] = seen.verdict
    if len(seen.parts[-1]) > 2:
        found["rejected"] = _whole(seen.parts[-1], 1, renderer, ids)
    if seen.flags:
        found["flags"] = list(seen.flags)
    if len(seen.parts) > 1:
        found["parts"] = [_whole(groups, 0, renderer, ids) for groups in seen.parts]
    if seen.ends:
        found["block_ends"] = _characters(trace.units(renderer.encoder, seen.parts[0][1]), seen.ends)
    return found


def _whole(groups: Groups, branch: int, renderer: Renderer, ids: bool) -> dict[str, Any]:
    """text, and the [start, end] of what is trained and cut in it."""
    whole = [coded for group in (groups[0], *groups[branch + 1 : branch + 2]) for coded in group]
    text, spans = "", dict[str, list[list[int]]](trained=[], masked=[], cut=[])
    for kind, run in itertools.groupby(trace.texts(renderer.encoder, whole), lambda piece: piece[1]):
        piece = "".join(words for words, _ in run)
        if piece:
            spans[kind].append([len(text), len(text) + len(piece)])
        text += piece
    found: dict[str, Any] = {"text": text, "trained": spans["trained"]}
    if spans["cut"]:
        found["cut"] = spans["cut"]
    if ids:
        units = trace.units(renderer.encoder, whole)
        found["tokens"] = [{"text": unit.text, "ids": list(unit.ids), "kind": unit.kind} for unit in units]
    return found


def _characters(units: Sequence[Unit], ends: Sequence[int]) -> list[int]:
    """The characters behind which stand so many tokens."""
    tokens = list(itertools.accumulate(len(unit.ids) for unit in units))
    letters = list(itertools.accumulate(len(unit.text) for unit in units))
    return [next(b for a, b in zip(tokens, letters, strict=True) if a >= end) for end in ends]


# -- plain text ---------------------------------------------------------------------------------------


def plain(seen: Seen, renderer: Renderer, ids: bool) -> str:
    """A row with [[ ]] around what is trained and [- -] around what is cut."""
    if isinstance(seen.row, BadRow):
        return f"--- {bad(seen.row)}"
    lines = [f"--- {visible(seen.source)}{title(seen)}"]
    parts = seen.drawn(renderer)
    for k, part in enumerate(parts, 1):
        if len(parts) > 1:
            lines.append(f"--- part {k} of {len(parts)}")
        first, *other = part.branches or [[]]
        lines.append(_marked([*part.trunk, *first], ids))
        for branch in other:
            lines += ["--- rejected", _marked([*part.trunk, *branch], ids)]
    return "\n".join(lines)


def _marked(items: Iterable[Unit | str], ids: bool) -> str:
    found = ""
    for kind, run in itertools.groupby(items, lambda item: item.kind if isinstance(item, Unit) else ""):
        if not kind:
            found += "".join(f"<< {remark} >>" for remark in run)
            continue
        opening, closing = MARKS[kind]
        found += opening + "".join(_word(unit, ids) for unit in run if isinstance(unit, Unit)) + closing
    return found


def _word(unit: Unit, ids: bool) -> str:
    text = visible(unit.text)
    if not (ids and unit.ids):
        return text
    line, feed = _last_line(text.replace("\n", "↵\n"))
    return f"{line}⟨{in_hex(unit)}⟩{feed}"


def _last_line(text: str) -> tuple[str, str]:
    """A text without its last line feed, and that: the ids of a token stand on its own line."""
    return text.removesuffix("\n"), "\n" * text.endswith("\n")


# -- a terminal ---------------------------------------------------------------------------------------


def console(stream: IO[str] | None = None) -> Console:
    from rich.console import Console

    return Console(file=stream or sys.stdout, highlight=False, emoji=False, markup=False)


def coloured(screen: Console) -> bool:
    """Whether colours are wanted and can be shown (https://no-color.org)."""
    return screen.is_terminal and screen.color_system is not None and not os.environ.get("NO_COLOR")


class Screen:
    """Draws rows in colours. Its first row comes with a legend."""

    def __init__(self, screen: Console, ids: bool) -> None:
        self._console, self._ids, self._began = screen, ids, False

    def row(self, seen: Seen, renderer: Renderer) -> None:
        from rich.text import Text

        if not self._began:
            self._began = True
            self._legend()
        if isinstance(seen.row, BadRow):
            self._print(Text(bad(seen.row), "bold red"))
            return
        counts = seen.counts()
        sums = " + ".join(f"{count} {kind}" for kind, count in counts.items())
        head = Text.assemble((visible(seen.source), "bold"), f"  {sum(counts.values())} tokens = {sums}")
        head.append(title(seen), "bold red" if seen.flags else "bold")
        self._print(head)
        parts = seen.drawn(renderer)
        for k, part in enumerate(parts, 1):
            if len(parts) > 1:
                self._print(Text(f"part {k} of {len(parts)}", "italic"))
            self._part(part)
        self._print(Text())

    def _part(self, part: Part) -> None:
        from rich.table import Table

        if len(part.branches) < 2:
            self._print(self._text([*part.trunk, *itertools.chain(*part.branches)]))
            return
        self._print(self._text(part.trunk))
        answers = [(name, self._text(branch)) for name, branch in zip(PAIR, part.branches, strict=False)]
        if self._console.width < NARROW:
            for name, text in answers:
                self._console.print(name, style="bold")
                self._print(text)
            return
        grid = Table(expand=True, show_edge=False, padding=(0, 1))
        for name, _ in answers:
            grid.add_column(name, ratio=1, overflow="fold")
        grid.add_row(*(text for _, text in answers))
        self._console.print(grid)

    def _text(self, items: Iterable[Unit | str]) -> Text:
        from rich.text import Text

        found = Text()
        for k, item in enumerate(items):
            if isinstance(item, str):
                found.append(f" {item} ", "italic reverse")
                continue
            line, feed = _last_line(visible(item.text).replace("\n", "↵\n"))
            found.append(line, STYLES[item.kind][k % 2])
            if self._ids and item.ids:
                found.append(f"⟨{in_hex(item)}⟩", "cyan")
            found.append(feed)
        return found

    def _legend(self) -> None:
        from rich.text import Text

        found = Text()  # a style given here would be that of the whole line
        found.append("trained", STYLES["trained"][0])
        found.append("  masked: read, not learnt  ", STYLES["masked"][0])
        found.append("cut", STYLES["cut"][0])
        found.append(": removed by cutoff_len\n")
        self._print(found)

    def _print(self, text: Text) -> None:
        """Lines are left to the terminal, so that what is copied from it has no breaks of ours."""
        self._console.print(text, soft_wrap=True)


PAIR = ("chosen", "rejected")
