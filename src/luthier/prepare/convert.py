"""`luthier data convert`: another format or kind of file. What has no place there is said, and not lost."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from luthier.data import registry, sources
from luthier.data.formats.messages import WEIGHT_KEYS
from luthier.data.sources import extension, places
from luthier.data.spec import INFO, DatasetSpec
from luthier.errors import DataError, UsageError
from luthier.prepare import entry, layouts, words, write
from luthier.prepare.layouts import Form, Inexpressible, Made
from luthier.prepare.opened import Opened, opened
from luthier.prepare.report import some
from luthier.types import BadRow, Row

USAGE = """usage: luthier data convert FILE|DATASET [--to alpaca|sharegpt|openai] --out FILE.EXT

Writes the data set in another format, into a file of the kind that EXT says: .json .jsonl .csv .tsv .xlsx
.parquet .arrow .txt, the texts also as .gz. Without --to only the kind of file changes, and rows stay as
they are. Every row is read again before it is written: it must mean the same. If some cannot, they are
listed and nothing is written.

  --lossy          write the others; those without a place go to NAME.rejected.jsonl with the reason
  --keep-columns   keep columns that training does not read (an id, a source)
  --register       add the file to dataset_info.json beside it
  --overwrite      replace FILE.EXT
  --format json    the account for programs · --dataset_dir D  where dataset_info.json is"""

OPTIONS: dict[str, str | None] = {
    "to": None,
    "out": None,
    "lossy": "true",
    "keep-columns": "true",
    "register": "true",
    "overwrite": "true",
}
FORMS: dict[str, Form] = {
    **dict.fromkeys((".csv", ".tsv", ".xlsx"), "cells"),
    **dict.fromkeys((".parquet", ".arrow", ".feather"), "columns"),
}
OPTIONAL = {"system": "", "tools": "", "history": []}
"""Columns that a row may lack, and what says nothing in them: all rows have them if one has."""
MESSAGES = ("messages", "conversations", "chosen", "rejected")
NAMED = 3
"""Rows of one reason that are named."""


@dataclass
class Account:
    """What became of the rows: rows = written + without a place.

    refused: reason -> rows · at: their places, from 0 · left: columns that the new file does not have ·
    lost, warned: of the writer · used: optional columns that are in use · keys: of messages · unchanged:
    raise DataError when a file is not as it was.
    """

    rows: int = 0
    refused: dict[str, list[str]] = field(default_factory=dict)
    at: set[int] = field(default_factory=set)
    left: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)
    keys: dict[str, None] = field(default_factory=dict)
    unchanged: list[Callable[[], None]] = field(default_factory=list)
    done: bool = False

    @property
    def without_place(self) -> int:
        return sum(map(len, self.refused.values()))

    @property
    def fit(self) -> int:
        return self.rows - self.without_place


@dataclass
class Job:
    """What to convert. to: "" when only the kind of file changes · source: the data set, where its format can
    be told."""

    spec: DatasetSpec
    source: Opened | None
    to: str
    out: Path
    flags: frozenset[str]
    notes: list[str]

    @cached_property
    def form(self) -> Form:
        return FORMS.get(extension(self.out), "json")

    @property
    def rejected(self) -> Path:
        return self.out.with_name(f"{entry.bare(self.out)}.rejected.jsonl")

    @property
    def like(self) -> Path | None:
        return Path(self.spec.location) if self.spec.where == "file" else None

    def rows(self, account: Account, looked: Account | None = None) -> Iterator[Made | BadRow]:
        """The rows of the new file, and in their place BadRows for those that it cannot hold. With `looked`,
        which knows them, the others need not be read back."""
        for made in self._raw() if not self.to else self._made(account, looked):
            yield made
            account.rows += 1

    def _raw(self) -> Iterator[Made | BadRow]:
        for row in sources.read(self.spec, self.notes):
            yield row.data if isinstance(row, Row) else row

    def _made(self, account: Account, looked: Account | None) -> Iterator[Made | BadRow]:
        assert self.source is not None
        stage = self.source.stage
        spec = layouts.target(self.to, layouts.kind_of(stage), str(self.out))
        for row, meant in self.source.rows():
            if isinstance(meant, BadRow):
                yield meant
                continue
            data = row.data if isinstance(row, Row) else {}
            try:
                check = looked is None or account.rows in looked.at
                made = layouts.row(meant, spec, stage, self.form, check)
            except Inexpressible as why:
                yield BadRow(meant.source, "", str(why), data)
                continue
            yield made | self._others(data, account)

    def _others(self, data: Mapping[str, Any], account: Account) -> Made:
        """Columns that training does not read, to be kept; or counted."""
        assert self.source is not None
        spec = self.source.spec
        read = {name for name in spec.columns.values() if name}
        kept = {}
        for name, value in data.items():
            if name in read or value in (None, "", []):
                continue
            if "keep-columns" in self.flags and name not in layouts.RESERVED:
                kept[name] = value
            else:
                account.left[f'column "{name}"'] += 1
        columns = (spec.columns.get(key) for key in ("messages", "chosen", "rejected"))
        tags = (spec.tags.get("role_tag"), spec.tags.get("content_tag"))
        known = {*tags, *WEIGHT_KEYS, "tool_calls", "tool_call_id", "reasoning_content"}
        strange = {key for message in _messages(data, columns) for key in message if key not in known}
        account.left.update(f'"{key}" of messages' for key in strange)
        return kept

    def entry(self, account: Account) -> dict[str, dict[str, Any]]:
        """The new file's entry of dataset_info.json; {} where its format cannot be told."""
        if self.source is None:
            return {}
        spec = self.source.spec
        if self.to:
            kind = layouts.kind_of(self.source.stage)
            spec = layouts.target(self.to, kind, str(self.out), frozenset(account.used))
        return {entry.bare(self.out): entry.entry(spec, self.out.name)}


def main(args: list[str]) -> int:
    """`luthier data convert …`. Exit code 1 when rows have no place and --lossy is not given: then nothing
    is written. Raises UsageError and DataError."""
    found = words.parse(args, OPTIONS, "convert")
    job = job_of(found)
    account = look(job)
    if not account.rows:
        raise DataError(f"{job.spec.name}: holds no rows -> nothing to convert")
    if not account.without_place or ("lossy" in job.flags and account.fit):
        carry_out(job, account)
    entries = job.entry(account)
    if account.done and entries and "register" in job.flags:
        entry.register(job.out.parent, entries, "overwrite" in job.flags)
    for note in job.notes:
        print(f"note: {note}", file=sys.stderr)
    if found.keys.get("format") == "json":
        print(json.dumps(_numbers(job, account, entries), ensure_ascii=False))
    else:
        print("\n".join(told(job, account, entries)))
    return 0 if account.done else 1


def job_of(found: words.Words) -> Job:
    """The request. Raises UsageError before anything is read."""
    to, flags = found.options.get("to", ""), frozenset(found.options) - {"to", "out"}
    if len(found.given) != 1 or "out" not in found.options:
        raise UsageError(
            "data convert: from what, to what? -> luthier data convert FILE|DATASET --out FILE.jsonl"
        )
    if to and to not in layouts.TO:
        raise UsageError(
            f"--to {to} -> one of {', '.join(layouts.TO)} (the kind of file is --out's extension)"
        )
    name, out = found.given[0], Path(found.options["out"])
    hub = {"cache_dir": found.keys.get("cache_dir")}
    spec = registry.specs([name], found.keys.get("dataset_dir", "data"), hub=hub, look=False)[0]
    job = Job(spec, None, to, out, flags, [])
    for path in (out, job.rejected):
        write.check(path, job.like, "overwrite" in flags)
    try:
        job.source = opened(name, found.keys)
        job.notes = job.source.ledger.notes
    except DataError as error:
        if to:
            raise
        job.notes.append(f"no entry for {INFO}: {error}")
    if job.source and to in ("sharegpt", "openai") and layouts.kind_of(job.source.stage) == "text":
        raise UsageError(
            f'--to {to}: text for pre-training has no turns -> --to alpaca, which writes {{"text"}}'
        )
    entries = job.entry(Account())
    if entries and "register" in flags:
        entry.check(out.parent, {name: {} for name in entries}, "overwrite" in flags)
    return job


def look(job: Job) -> Account:
    """Which rows have no place in the new file, and what the others need there; nothing is written."""
    account = Account(unchanged=[places.unchanged(path) for path in sources.files(job.spec)])
    for made in job.rows(account):
        if isinstance(made, BadRow):
            reason = layouts.general(made.field, made.reason)
            account.refused.setdefault(reason, []).append(made.source)
            account.at.add(account.rows)
        elif job.to:
            account.used.update(name for name in OPTIONAL if name in made)
            _look_at_messages(made, account)
    return account


def _messages(data: Mapping[str, Any], columns: Iterable[str | None] = MESSAGES) -> Iterator[Made]:
    """All messages of a row that are objects, those of endings included."""
    for name in columns:
        value = data.get(name) if name else None
        for message in value if isinstance(value, list) else [value]:
            if isinstance(message, dict):
                yield message


def _look_at_messages(made: Made, account: Account) -> None:
    for message in _messages(made):
        account.keys.update(dict.fromkeys(message))
        if "weight" in message:
            account.warned["messages with a weight, which LLaMA-Factory does not read"] += 1
    if isinstance(made.get("chosen"), list):
        account.warned["endings of several messages, of which LLaMA-Factory reads one"] += 1


def carry_out(job: Job, looked: Account) -> None:
    """Write the file, and the rows without a place beside it. Raises DataError when the input has changed,
    or when a table has no place for rows that are otherwise sound and they may not be lost."""
    lossy, overwrite = "lossy" in job.flags, "overwrite" in job.flags
    with ExitStack() as stack:
        out = stack.enter_context(write.rows(job.out, job.like, overwrite))
        rejected = None
        if looked.without_place:
            rejected = stack.enter_context(write.rows(job.rejected, job.like, overwrite))
        again = Account()
        for made in job.rows(again, looked):
            if not isinstance(made, BadRow):
                out.add(uniform(made, job, looked) if job.to else made)
            elif rejected is not None:
                bad = {"source": made.source, "field": made.field, "reason": made.reason, "data": made.data}
                rejected.add(bad)
        left_out = out.lost[write.LEFT_OUT]
        for check_again in looked.unchanged:
            check_again()
        if (again.rows, out.count + left_out) != (looked.rows, looked.fit):
            raise DataError(f"{job.spec.name}: changed while it was read -> convert it again")
        if left_out and not lossy:
            raise DataError(
                f"{job.out}: {left_out:,} {write.LEFT_OUT} -> write .jsonl, or --lossy; nothing was written"
            )
    looked.lost, looked.done = +out.lost, True
    looked.warned += out.warned


def uniform(made: Made, job: Job, looked: Account) -> Made:
    """The row with all columns that other rows have; in Arrow, whose lists are of one type, messages with all
    keys of other messages."""
    blank = {name: value for name, value in OPTIONAL.items() if name in looked.used}
    if job.form == "cells":
        blank = dict.fromkeys(blank, "")
    elif job.to == "openai" and job.form == "json" and "tools" in blank:
        blank["tools"] = []
    made = {**made, **{name: value for name, value in blank.items() if name not in made}}
    if job.form == "columns":
        for message in _messages(made):
            for key in looked.keys:
                message.setdefault(key, None)
            if message.get("weight") is not None:
                message["weight"] = float(message["weight"])
    return made


def _numbers(job: Job, account: Account, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dataset": job.spec.name,
        "to": job.to or None,
        "out": str(job.out) if account.done else None,
        "rows": account.rows,
        "written": account.fit - account.lost[write.LEFT_OUT] if account.done else 0,
        "without_place": account.refused,
        "columns_left": dict(account.left),
        "lost": dict(account.lost),
        "warned": dict(account.warned),
        INFO: entries,
    }


def _keep(what: str) -> str:
    return " -> --keep-columns" if what.startswith("column") else ""


def told(job: Job, account: Account, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The account in words."""
    head = (
        f"{job.spec.name}: {some(account.rows)} = {account.fit:,} {'written' if account.done else 'that fit'}"
    )
    where = f"in {job.to or 'the file'}"
    lines = [f"{head} + {account.without_place:,} without a place {where}"]
    for reason, rows in sorted(account.refused.items(), key=lambda item: -len(item[1])):
        named = ", ".join(rows[:NAMED]) + (", …" if len(rows) > NAMED else "")
        lines.append(f"  {len(rows):,}: {reason} ({named})")
    lines += [f"  left out: {what} in {some(n)}{_keep(what)}" for what, n in account.left.items()]
    if not account.done:
        fix = f"--lossy writes the other {account.fit:,}" if account.fit else "choose another format"
        return [*lines, f"nothing was written -> mend the rows, or {fix}"]
    lines += [f"  {n:,}: {what}" for what, n in (account.lost + account.warned).items()]
    lines.append(f"  {job.out}" + (f"; the others: {job.rejected}" if account.without_place else ""))
    if not entries:
        return lines
    listed = job.out.parent / INFO
    if "register" in job.flags:
        return [*lines, f"{listed}: entry added"]
    return [*lines, f"for {listed} (--register adds it):", entry.snippet(entries)]
