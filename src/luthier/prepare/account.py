"""The account of a cleaning or an undoing, for people and for programs. Private parts are masked in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.prepare import leaves, pii
from luthier.prepare.journal import Undone
from luthier.prepare.pipeline import Account, Event
from luthier.prepare.report import some
from luthier.prepare.span import Change, excerpt
from luthier.prepare.write import Writer
from luthier.streams import legible

if TYPE_CHECKING:
    from luthier.prepare.clean import Result

MOST = 4
"""Kinds or reasons named for each step."""


def as_dict(result: Result) -> dict[str, Any]:
    """For JSON. It holds counts and no texts."""
    steps = [
        {"step": call.step, "options": _plain(call.options), "roles": sorted(call.roles), **one.as_dict()}
        for call, one in zip(result.calls, result.accounts, strict=True)
    ]
    return {
        "input": result.source,
        "output": result.output,
        "ledger": result.ledger,
        "rows": result.rows,
        "removed": result.rows[0] - result.rows[1],
        "changed": result.changed,
        "unreadable": result.unreadable,
        "unwritten": result.unwritten,
        "unusable": dict(result.unusable),
        "steps": steps,
        "lost": dict(result.lost),
        "notes": result.notes,
        "entry": result.entry,
    }


def _plain(options: Any) -> dict[str, Any]:
    """Options fit for JSON; the key of fake values is a secret."""
    shown = {}
    for name, value in options.items():
        plain = isinstance(value, str | int | float | dict | tuple)
        shown[name] = "…" if name == "key" else value if plain else str(value)
    return shown


def shown(result: Result) -> str:
    """The account on a terminal."""
    before, after = result.rows
    lines = [f"note: {note}" for note in result.notes]
    lines.append(
        f"{result.source}: {some(before)} -> {after:,}"
        f" ({before - after:,} removed, {result.changed:,} of those left changed)"
    )
    width = max((len(call.step) for call in result.calls), default=0)
    for call, one in zip(result.calls, result.accounts, strict=True):
        lines.append(f"  {call.step:<{width}}  {_counts(one)}")
        if result.output is None:
            lines += [f"    {_sample(source, event)}" for source, event in one.samples]
    lines += _left(result)
    if result.output is None:
        return "\n".join([*lines, "dry run: nothing was written"])
    lines.append(f"written: {result.output}")
    if result.entry:
        lines.append(f"for dataset_info.json:\n{result.entry}")
    if result.ledger:
        lines.append(
            f"ledger:  {result.ledger} (it holds the private data that was removed; only you can read it)"
        )
        lines.append(f"undo:    luthier data clean --undo {result.output}")
    return "\n".join(lines)


def _counts(one: Account) -> str:
    """Rows and characters before and after a step, and what was changed or removed, by kind."""
    rows, signs = one.rows, one.characters
    parts = [f"rows {rows[0]:,} -> {rows[1]:,}" if rows[0] != rows[1] else f"rows {rows[0]:,}"]
    parts.append(
        f"characters {signs[0]:,} -> {signs[1]:,}" if signs[0] != signs[1] else "nothing changed in length"
    )
    if one.changed_texts:
        parts.append(
            f"{some(one.changed_texts, 'text')} in {some(one.changed_rows)} changed: {_most(one.kinds)}"
        )
    if one.reasons:
        parts.append(f"removed: {_most(one.reasons)}")
    if one.suggested:
        parts.append(f"only reported: {_most(one.suggested)}")
    untouched = len(parts) == 2 and rows[0] == rows[1] and signs[0] == signs[1]
    return f"{parts[0]}, nothing to do" if untouched else "; ".join(parts)


def _most(counts: Counter[str]) -> str:
    shown = [f"{legible(name)} {count:,}" for name, count in counts.most_common(MOST)]
    more = counts.total() - sum(count for _, count in counts.most_common(MOST))
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _left(result: Result) -> list[str]:
    """What was not done, so that nobody thinks it was."""
    lines = []
    if result.unreadable:
        count, first = len(result.unreadable), result.unreadable[0]
        lines.append(f"  {some(count)} could not be read and so not be written: {first} ...")
    if result.unwritten:
        lines.append(f"  {some(result.unwritten)} without any text left out: a table has no place for them")
    if result.unusable:
        count = result.unusable.total()
        lines.append(f"  {some(count)} kept though training cannot use them ({_most(result.unusable)})")
        lines.append(
            f"    {', '.join(result.unusable_rows)} -> mend them, or drop them by --steps usual,structure"
        )
    if result.others and any(
        call.step == "pii_anonymization" and "other" not in call.roles for call in result.calls
    ):
        names = ", ".join(sorted(result.others)[:8])
        lines.append(f"  columns that training does not read were left as they are: {names} -> --roles all")
    return lines + [f"  {what}: {count:,}" for what, count in result.lost.items()]


def _sample(source: str, event: Event) -> str:
    where = f"{source} {leaves.shown(event.path)}".rstrip()
    if event.removed:
        return f"{where}: removed: {legible(event.reason)}"
    if event.changes:
        return f"{where}: " + ", ".join(_change(change) for change in event.changes[:3])
    return f"{where}: reported: " + ", ".join(f"{span.kind} {span.shown}" for span in event.suggested[:3])


def _change(change: Change) -> str:
    if change.kind in pii.KINDS:
        return f"{change.kind}: {change.before[:1]}*** -> {excerpt(change.after)}"
    before, after = (excerpt(pii.mask(text)[0]) for text in (change.before, change.after))
    return f"{change.kind}: {legible(before)!r} -> {legible(after)!r}"


def nothing_left(result: Result) -> str:
    """Why there is no row to write."""
    reasons = sum((one.reasons for one in result.accounts), Counter[str]())
    why = f"every one of {some(result.rows[0])} would be removed"
    return f"{result.source}: {why}: {_most(reasons)} -> leave out a step, or set its options"


def undone_as_dict(out: Path, writer: Writer, done: Undone) -> dict[str, Any]:
    """The account of an undoing, for JSON. kept: what could not be undone · unreadable: rows that only the
    original file has."""
    return {
        "output": str(out),
        "rows": writer.count,
        "texts_put_back": done.changes,
        "rows_brought_back": done.rows,
        "kept": [{"source": source, "step": step, "path": path} for source, step, path in done.kept],
        "unreadable": done.lost,
        "lost": dict(writer.lost + writer.warned),
    }


def undone(out: Path, writer: Writer, done: Undone) -> str:
    """The account of an undoing."""
    lines = [
        f"{out}: {some(writer.count)}; {some(done.changes, 'text')} put back, {some(done.rows)} brought back"
    ]
    for source, step, path in done.kept[:20]:
        lines.append(
            f"  {source} {path}: {step} stays: a later step changed the same place -> undo that, too"
        )
    if len(done.kept) > 20:
        lines.append(f"  and {len(done.kept) - 20:,} more")
    if done.lost:
        count, first = len(done.lost), done.lost[0]
        lines.append(f"  {some(count)} could not be read; only the original file has them: {first} ...")
    lost = writer.lost + writer.warned
    return "\n".join(lines + [f"  {what}: {count:,}" for what, count in lost.items()])
