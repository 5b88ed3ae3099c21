"""`luthier data clean`: a cleaned copy of a data set, a ledger of all that was changed, and its undoing."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.data import sources
from luthier.errors import DataError, UsageError
from luthier.prepare import account, entry, journal, numbered, pipeline, progress, recipe, words, write
from luthier.prepare.opened import Opened, opened
from luthier.prepare.pipeline import Account, Call, Event, Work
from luthier.prepare.steps import STEPS
from luthier.prepare.words import Words
from luthier.runs import atomic, hashing
from luthier.types import BadRow

_LISTED = "\n".join(f"  {name:22}{'*' if row.on else ' '} {row.what}" for name, row in STEPS.items())
USAGE = f"""usage: luthier data clean FILE|DATASET [--out FILE] [--steps A,B] [STEP.OPTION=VALUE ...]
       luthier data clean --undo OUT [--out FILE] [--steps A,B] [--rows 17,20-30]

Writes a cleaned copy and, beside it, a ledger of every row removed or changed, from which it can be undone.
The ledger holds what was removed, private data too: only its owner may read it. No input is ever changed.

  --out FILE            where to; else NAME.clean.EXT beside the input; its extension is its kind (.csv, ...)
  --steps A,B           the steps, in this order; "usual" stands for those with * below, the default
  --skip A,B            leave steps out      --pipeline FILE  steps and options from YAML
  STEP.OPTION=VALUE     an option of a step: quality_filter.shortest=10 (also --set STEP.OPTION=VALUE)
  --roles user,...      whose texts: system, user, assistant, tool, text, other (unread columns), or all
  --not-in FILE         drop rows that are, or nearly, in another data set (leakage)
  --dry-run             counts and a few changes, nothing written
  --ledger none         no ledger, and so no undo      --overwrite   replace FILE if it is there
  --format json         for programs      --dataset_dir D   where dataset_info.json is
  --explain STEP        what a step does, its pitfall and its options

{_LISTED}"""
OPTIONS: dict[str, str | None] = {
    "out": None,
    "steps": None,
    "skip": None,
    "pipeline": None,
    "roles": None,
    "not-in": None,
    "rows": None,
    "ledger": None,
    "explain": None,
    "dry-run": "true",
    "overwrite": "true",
    "undo": "true",
}
_FOR_UNDO = {"undo", "out", "steps", "rows", "overwrite"}
_SETTING = re.compile(r"[\w-]+\.\w+=.*", re.DOTALL)
LONG = 8 << 20
"""Bytes from which the rows are counted first, so that the end can be estimated."""


@dataclass
class Result:
    """What a cleaning did.

    output, ledger: None when they are not written · rows: read, written · changed: of the rows written ·
    unreadable: rows that could be neither cleaned nor written, since they are no objects · unwritten: rows
    that the output's kind of file has no place for · unusable: why rows of the output cannot be trained on ·
    others: columns that training does not read · lost: what the output's kind of file could not keep ·
    entry: what dataset_info.json must say of the output, where the input has an entry there.
    """

    source: str
    output: str | None
    ledger: str | None
    calls: Sequence[Call]
    accounts: list[Account]
    rows: list[int] = field(default_factory=lambda: [0, 0])
    changed: int = 0
    unreadable: list[str] = field(default_factory=list)
    unwritten: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    unusable_rows: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    lost: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    entry: str = ""


def main(args: Sequence[str]) -> int:
    """`luthier data clean …`. Raises UsageError for unknown words, DataError for what cannot be read."""
    found = words.parse([word.removeprefix("--set=") for word in args if word != "--set"], OPTIONS, "clean")
    options = found.options
    if "explain" in options:
        print(recipe.described(options["explain"].replace("-", "_")))
        return 0
    settings = [word for word in found.given if _SETTING.fullmatch(word) and not os.path.exists(word)]
    names = [word for word in found.given if word not in settings]
    if len(names) != 1:
        which = "which data?" if not names else f"one data set at a time, not {' '.join(names)}"
        raise UsageError(f"data clean: {which} -> luthier data clean FILE|DATASET")
    if "undo" in options:
        return _undo(Path(names[0]), found, settings)
    if "rows" in options:
        raise UsageError("data clean: --rows is for --undo -> leave it out")
    if options.get("ledger", "none") != "none":
        raise UsageError(f"data clean: --ledger {options['ledger']} -> --ledger none, or leave it out")
    calls = recipe.calls(options, settings)
    source = opened(names[0], found.keys)
    out = None if "dry-run" in options else target(source, options)
    result = cleaned(source, calls, out, "ledger" not in options, found)
    as_json = found.keys.get("format") == "json"
    print(json.dumps(account.as_dict(result), ensure_ascii=False) if as_json else account.shown(result))
    return 0


def target(source: Opened, options: dict[str, str]) -> Path:
    """Where the cleaned rows go. Raises UsageError for the input itself and for what exists already."""
    spec = source.spec
    like = Path(spec.location) if spec.where == "file" else None
    out = Path(options["out"]) if "out" in options else _beside(like, spec.name)
    overwrite = "overwrite" in options
    write.check(out, like, overwrite)
    ledger = journal.of(out)
    source.keep(out, ledger)
    if ledger.exists() and not overwrite:
        raise UsageError(f"{ledger}: exists already -> give another --out, or --overwrite to replace both")
    return out


def _beside(like: Path | None, name: str) -> Path:
    """NAME.clean.EXT beside a file; JSON lines for a folder, a hub's data set, and plain text, whose lines
    could not hold a text with line breaks."""
    if like is None or like.is_dir():
        folder = Path() if like is None else like.parent
        return folder / f"{(like.name if like else name).replace('/', '-')}.clean.jsonl"
    packed = ".gz" if like.name.lower().endswith(".gz") else ""
    kind = sources.extension(like)
    stem = like.name[: len(like.name) - len(kind) - len(packed)]
    return like.with_name(f"{stem}.clean{'.jsonl' if kind == '.txt' else write.written_kind(kind)}{packed}")


def cleaned(source: Opened, calls: Sequence[Call], out: Path | None, ledger: bool, found: Words) -> Result:
    """Clean `source` by `calls` into `out` (None: nothing is written) and its ledger; both appear at the end.

    Raises DataError when no row is left.
    """
    result = Result(
        source.spec.name,
        None if out is None else str(out),
        str(journal.of(out)) if out is not None and ledger else None,
        calls,
        [Account() for _ in calls],
    )
    if out is not None and source.spec.listed:
        result.entry = entry.snippet({entry.bare(out): entry.entry(source.spec, out.name)})
    total = _count(source)
    with progress.watched() as over, ExitStack() as stack:

        def other(name: str) -> Opened:
            found_other = opened(name, found.keys)
            files, others = (
                sorted(map(os.path.realpath, sources.files(one.spec))) for one in (source, found_other)
            )
            if files == others:
                raise UsageError(
                    f"data clean: --not-in {name} is the data set itself -> name another one,"
                    f" or divide this one: luthier data split {name}"
                )
            return found_other

        def rows(one: Opened) -> pipeline.Rows:
            mine = one is source
            what = "comparing rows" if mine else f"reading {one.spec.name}"
            return over(one.rows(), what, total if mine else None)

        gone = pipeline.decisions(source, calls, other, rows)
        work = _worked(over(source.rows(), "cleaning", total), source, calls, gone, result)
        if out is None:
            for _ in work:
                pass
        else:
            _write(work, out, result, stack, _mode(source))
    result.notes += dict.fromkeys(source.ledger.notes)
    return result


def _count(source: Opened) -> int | None:
    """Rows of a long data set; None for a short one, where nobody waits."""
    if sum(os.path.getsize(path) for path in sources.files(source.spec)) < LONG:
        return None
    return sum(1 for _ in sources.read(source.spec))


def _mode(source: Opened) -> int | None:
    """The permissions of a single input: a copy of what only one may read is for that one, too."""
    files = sources.files(source.spec)
    return os.stat(files[0]).st_mode & 0o777 if len(files) == 1 else None


def _worked(
    rows: pipeline.Rows,
    source: Opened,
    calls: Sequence[Call],
    gone: dict[int, dict[str, str]],
    result: Result,
) -> Iterator[tuple[str, dict[str, Any] | None, list[Event]]]:
    """(source, cleaned row or None, what was done to it) for each row; `result` takes it all in."""
    for row, meant in rows:
        result.rows[0] += 1
        if isinstance(row, BadRow):
            result.unreadable.append(row.source)
            reason = f"{row.field}: {row.reason}" if row.field else row.reason
            raw = row.data if pipeline.fits_json(row.data) else None
            yield row.source, None, [Event(pipeline.UNREADABLE, reason=reason, row=[raw], removed=True)]
            continue
        work = Work.of(row, meant, source)
        result.others.update(str(leaf.path[0]) for leaf in work.leaves if leaf.role == "other" and leaf.text)
        events = pipeline.run(work, calls, gone, result.accounts)
        if events and events[-1].removed:
            yield row.source, None, events
            continue
        result.rows[1] += 1
        result.changed += any(event.changes for event in events)
        if isinstance(bad := work.example, BadRow):
            result.unusable[re.sub(r"\d+", "N", f"{bad.field}: {bad.reason}")] += 1
            result.unusable_rows += [bad.source][: 5 - len(result.unusable_rows)]
        yield row.source, row.data, events


def _write(
    work: Iterator[tuple[str, dict[str, Any] | None, list[Event]]],
    out: Path,
    result: Result,
    stack: ExitStack,
    mode: int | None,
) -> None:
    """Write rows and ledger beside their places and move both there at the end, the ledger first: a cleaned
    file without it could not be undone."""
    with atomic.explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic.recover(out.parent, only=out.name)
        folder = stack.enter_context(atomic.scratch(out))
    stack.enter_context(atomic.explained(out, only_disk=True))
    ledger, new = folder / "ledger", folder / out.name
    with journal.Journal(ledger if result.ledger else None) as book:
        with write.rows(new) as writer:
            for number, (source, data, events) in enumerate(work, 1):
                place = None
                if data is not None:
                    writer.add(data)
                    place = _place(writer, data, events, result)
                book.write(source, number, place, events)
            if not writer.count:
                raise DataError(account.nothing_left(result))
        result.lost = writer.lost + writer.warned
        book.close(account.as_dict(result) | {"sha256": hashing.sha256_file(new)})
    if mode is not None:
        new.chmod(mode)
    if result.ledger:
        atomic.settle(ledger, Path(result.ledger))
    else:
        atomic.remove(journal.of(out))  # of what stood here before: it fits no longer
    atomic.settle(new, out)


def _place(writer: write.Writer, data: dict[str, Any], events: list[Event], result: Result) -> int | None:
    """The number of the row just written; None when the kind of file has no place for it (a table for a row
    without text), which then counts as removed."""
    if writer.count == result.rows[1]:
        return writer.count
    result.rows[1] -= 1
    result.unwritten += 1
    events.append(Event("writing", reason="a table has no place for it", row=data, removed=True))
    return None


def _undo(output: Path, found: Words, settings: list[str]) -> int:
    """Write the rows of `output` with its cleaning undone; 1 when a part of it could not be."""
    strange = sorted(found.options.keys() - _FOR_UNDO) + settings
    if strange:
        raise UsageError(f"data clean --undo: does not go with {', '.join(strange)} -> leave it out")
    book = journal.account(output)
    wanted = journal.Wanted(_steps(found, book), _row_ranges(found.options.get("rows", "")))
    packed = ".gz" if output.name.lower().endswith(".gz") else ""
    kind = sources.extension(output)
    stem = output.name[: len(output.name) - len(kind) - len(packed)]
    out = Path(found.options.get("out") or output.with_name(f"{stem}.undone{kind}{packed}"))
    done = journal.Undone(0, 0, [], [])
    with write.rows(out, output, "overwrite" in found.options) as writer, progress.watched() as over:
        for row in over(journal.undo(output, book["rows"][0], wanted, done), "undoing", book["rows"][0]):
            writer.add(row)
    out.chmod(os.stat(output).st_mode & 0o777)
    as_json = found.keys.get("format") == "json"
    said = (
        json.dumps(account.undone_as_dict(out, writer, done))
        if as_json
        else account.undone(out, writer, done)
    )
    print(said)
    return 1 if done.kept or done.lost else 0


def _steps(found: Words, book: dict[str, Any]) -> tuple[str, ...]:
    names = [name.strip().replace("-", "_") for name in found.options.get("steps", "").split(",") if name]
    ran = [one["step"] for one in book["steps"]]
    strange = [name for name in names if name not in ran]
    if strange:
        raise UsageError(
            f"data clean --undo: {', '.join(strange)}: was not among the steps -> {', '.join(ran)}"
        )
    return tuple(names)


def _row_ranges(text: str) -> numbered.Rows:
    """The rows of --rows. Raises UsageError."""
    try:
        return numbered.parsed(text)
    except ValueError as error:
        raise UsageError(f"data clean --undo: --rows {error} -> --rows 17,20-30 or train.json:17") from error
