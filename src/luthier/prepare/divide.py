"""`luthier data split`: parts for training and evaluation that have each class in proportion, and share no
near-duplicates."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.data import sources
from luthier.data.sources import places
from luthier.data.spec import INFO
from luthier.errors import DataError, UsageError
from luthier.prepare import entry, shares, strata, words, write
from luthier.prepare.opened import Opened, opened
from luthier.prepare.report import some
from luthier.prepare.span import excerpt
from luthier.prepare.split import Split, split
from luthier.prepare.strata import Strata
from luthier.runs import atomic, hashing
from luthier.types import BadRow

USAGE = """usage: luthier data split FILE|DATASET [--parts train=0.9,eval=0.1] [--out DIR]

Writes NAME.train.EXT, NAME.eval.EXT and so on: every row that can be used is in one of them, as it stands in
the input. NAME.split.json tells which row went where; NAME.rejected.jsonl has the rows that cannot be used,
with the reason. The input is not changed.

  --parts P       shares (train=0.8,eval=0.1,test=0.1) or rows (train,eval=500: the part without a number
                  gets the rest)
  --by B          each part has every class in proportion: label (the answers), a column's name, or none;
                  auto (default) takes the labels where answers are few short texts, or KTO verdicts
  --group G       rows that stay together: near-duplicates (auto, default), rows with the same value in a
                  column (a document, a user), or none
  --seed N        another split of the same kind (default 42); the same seed gives the same split
  --register      add the parts to DIR/dataset_info.json; where there is none it is made anyway
  --overwrite     replace the files of an earlier split
  --format json   the account for programs · --dataset_dir D  where dataset_info.json is

A column that is itself called label, none or auto is given as column:NAME."""

OPTIONS: dict[str, str | None] = {
    "parts": None,
    "by": None,
    "group": None,
    "out": None,
    "register": "true",
    "overwrite": "true",
}
SHOWN = 20
"""Groups of the ledger, and rows of each, that are listed."""


@dataclass
class Plan:
    """What is to be written. files: part -> path · ledger: the account, fit for JSON · unchanged: raise
    DataError when a file of the source is not as it was."""

    source: Opened
    made: Split
    files: dict[str, Path]
    ledger: dict[str, Any]
    overwrite: bool = False
    notes: list[str] = field(default_factory=list)
    unchanged: list[Callable[[], None]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return next(iter(self.files.values())).parent

    def beside(self, ending: str) -> Path:
        """NAME.ENDING in the folder of the parts."""
        return self.folder / f"{entry.stem(self.source.spec)}.{ending}"

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """What dataset_info.json says of the parts."""
        spec, name = self.source.spec, entry.stem(self.source.spec)
        return {f"{name}_{part}": entry.entry(spec, path.name) for part, path in self.files.items()}


def main(args: list[str]) -> int:
    """`luthier data split …`. Raises UsageError and DataError before anything is written."""
    found = words.parse(args, OPTIONS, "split")
    if len(found.given) != 1:
        raise UsageError(
            "data split: which data? -> luthier data split FILE|DATASET --parts train=0.9,eval=0.1"
        )
    plan = planned(found)
    listed = plan.folder / INFO
    add = "register" in found.options or not listed.exists()
    if add:
        entry.check(plan.folder, plan.entries, plan.overwrite)
    carry_out(plan)
    if add:
        entry.register(plan.folder, plan.entries, plan.overwrite)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    if found.keys.get("format") == "json":
        files = {part: str(path) for part, path in plan.files.items()}
        print(json.dumps({**plan.ledger, "files": files, INFO: plan.entries}, ensure_ascii=False))
        return 0
    print("\n".join(told(plan)))
    print(f"{listed}: entries added" if add else f"for {listed}:\n{entry.snippet(plan.entries)}")
    return 0


def planned(found: words.Words) -> Plan:
    """Read the rows and decide where each goes; nothing is written."""
    options = found.options
    numbers = shares.parsed(options.get("parts", "train=0.9,eval=0.1"))
    seed = _seed(found.keys.get("seed", "42"))
    source = opened(found.given[0], found.keys)
    files, like = _files(source, numbers, options.get("out")), _input(source)
    plan = Plan(source, Split({}, 0.0), files, {}, "overwrite" in options, source.ledger.notes)
    for path in (*files.values(), plan.beside("split.json"), plan.beside("rejected.jsonl")):
        write.check(path, like, plan.overwrite)
    plan.unchanged = [places.unchanged(path) for path in sources.files(source.spec)]
    rows = strata.look(source, options.get("by", strata.AUTO), options.get("group", strata.AUTO))
    asked = shares.of(numbers, len(rows.table))
    plan.made = split(asked, rows.classes, rows.groups, seed)
    empty = [part for part, positions in plan.made.parts.items() if not positions]
    if empty:
        raise DataError(
            f"{source.spec.name}: no row would be in {', '.join(empty)}, for there are only"
            f" {some(len(rows.table))} in {some(len(set(rows.groups)), 'group')} -> ask for fewer parts, for"
            " larger ones, or --group none"
        )
    plan.ledger = _ledger(rows, plan.made, asked, seed)
    return plan


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--seed {text} -> a whole number") from None


def _files(source: Opened, parts: Iterable[str], out: str | None) -> dict[str, Path]:
    """Part -> path, in the input's own format."""
    first = sources.files(source.spec)[0]
    kind = write.written_kind(sources.extension(first))
    packed = ".gz" if first.name.lower().endswith(".gz") and kind in write.PACKED else ""
    folder, name = Path(out) if out is not None else entry.beside(source.spec), entry.stem(source.spec)
    return {part: folder / f"{name}.{part}{kind}{packed}" for part in parts}


def _input(source: Opened) -> Path | None:
    return Path(source.spec.location) if source.spec.where == "file" else None


def _ledger(rows: Strata, made: Split, asked: Mapping[str, float], seed: int) -> dict[str, Any]:
    table, together = rows.table, rows.together()
    sources_of = [[table.sources[i] for i in group[:SHOWN]] for group in together[:SHOWN]]
    return {
        "dataset": table.spec.name,
        "files": {},
        "seed": seed,
        "rows": table.rows,
        "rejected": len(table.bad),
        "parts": {p: {"asked": round(asked[p], 6), "rows": len(i)} for p, i in made.parts.items()},
        "by": rows.by,
        "classes": _counts(rows.classes, made) if rows.by else {},
        "deviation": _deviation(rows.classes, made, asked) if rows.by else {},
        "group": rows.group,
        "groups": {"count": len(together), "rows": sum(map(len, together)), "largest": sources_of},
    }


def _counts(classes: Sequence[Hashable], made: Split) -> dict[str, dict[str, int]]:
    """Class -> part -> rows, the most frequent class first; rows without a value are under "" ."""
    order = [c for c, _ in Counter(classes).most_common()]
    parts = {part: Counter(classes[i] for i in positions) for part, positions in made.parts.items()}
    return {str("" if c is None else c): {part: parts[part][c] for part in parts} for c in order}


def _deviation(classes: Sequence[Hashable], made: Split, asked: Mapping[str, float]) -> dict[str, Any]:
    """Where a class's share differs most from the one asked for, in rows: a share says little of a class of
    five."""
    counts = _counts(classes, made)
    gaps = [
        (abs(n - asked[part] * sum(parts.values())), name, part)
        for name, parts in counts.items()
        for part, n in parts.items()
    ]
    rows, name, part = max(gaps)
    missing = {p: [c for c in counts if not counts[c][p]] for p in made.parts}
    return {
        "class": name,
        "part": part,
        "rows": round(rows, 2),
        "has": counts[name][part],
        "of": sum(counts[name].values()),
        "asked": asked[part],
        "largest_share": round(made.deviation, 4),
        "without_rows": {p: names for p, names in missing.items() if names},
    }


def carry_out(plan: Plan) -> None:
    """Write the parts, the rejected rows and, last, the ledger. Raises DataError when an input changes
    meanwhile, with nothing written."""
    source, like = plan.source, _input(plan.source)
    paths = sources.files(source.spec)
    with ExitStack() as stack:

        def writer(path: Path) -> write.Writer:
            return stack.enter_context(write.rows(path, like, plan.overwrite))

        writers = {part: writer(path) for part, path in plan.files.items()}
        rejected = writer(plan.beside("rejected.jsonl")) if plan.ledger["rejected"] else None
        went = _copy(source, plan.made, writers, rejected)
        for check_again in plan.unchanged:
            check_again()
    for part, one in writers.items():
        plan.notes += [
            f"{plan.files[part].name}: {what} ({n:,})" for what, n in (one.lost + one.warned).items()
        ]
    plan.ledger["files"] = {str(path): hashing.sha256_file(path) for path in paths}
    plan.ledger["lost"] = {part: dict(one.lost) for part, one in writers.items()}
    if rejected is None and plan.overwrite and plan.beside("rejected.jsonl").exists():
        atomic.discard(plan.beside("rejected.jsonl"))  # of the split that this one replaces
    atomic.write_json(plan.beside("split.json"), {**plan.ledger, "went": went})


def _copy(
    source: Opened, made: Split, writers: Mapping[str, write.Writer], rejected: write.Writer | None
) -> dict[str, dict[str, str]]:
    """Every row to its part. Returns part (or "rejected") -> file -> its rows' numbers, as ranges."""
    part_of = {i: part for part, positions in made.parts.items() for i in positions}
    went: dict[str, dict[str, list[int]]] = {part: {} for part in writers}
    good = 0
    for row, meant in source.rows():
        part = "rejected"
        if isinstance(row, BadRow) or isinstance(meant, BadRow):
            bad = meant if isinstance(meant, BadRow) else row
            if rejected is None or not isinstance(bad, BadRow):
                raise _changed(source)
            rejected.add({"source": bad.source, "field": bad.field, "reason": bad.reason, "data": bad.data})
        else:
            part = part_of.pop(good, "")
            if not part:
                raise _changed(source)
            writers[part].add(row.data)
            good += 1
        file, _, number = row.source.rpartition(":")
        went.setdefault(part, {}).setdefault(file, []).append(int(number))
    if part_of:
        raise _changed(source)
    return {part: {file: ranges(n) for file, n in files.items()} for part, files in went.items()}


def _changed(source: Opened) -> DataError:
    return DataError(f"{source.spec.name}: changed while it was split -> split it again; nothing was written")


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, short: "1-3, 7"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def told(plan: Plan) -> list[str]:
    """The account in words."""
    ledger = plan.ledger
    sizes = [f"{part['rows']:,} {name}" for name, part in ledger["parts"].items()]
    sizes.append(f"{ledger['rejected']:,} rejected")
    lines = [f"{plan.source.spec.name}: {some(ledger['rows'])} = {' + '.join(sizes)}"]
    lines += _told_classes(ledger) if ledger["by"] else ["  without regard to classes"]
    groups = ledger["groups"]
    if groups["count"]:
        together = f"{some(groups['rows'])} in {some(groups['count'], 'group')} stay together"
        lines.append(f"  {ledger['group']}: {together}, the largest of {len(groups['largest'][0]):,}")
    elif ledger["group"]:
        lines.append(f"  {ledger['group']}: none")
    lines += [f"  {part}: {path}" for part, path in plan.files.items()]
    if ledger["rejected"]:
        lines.append(f"  rejected, with reasons: {plan.beside('rejected.jsonl')}")
    return [*lines, f"  which row went where: {plan.beside('split.json')}"]


def _told_classes(ledger: Mapping[str, Any]) -> list[str]:
    far, count = ledger["deviation"], len(ledger["classes"])
    head = f"  by {ledger['by']}, {count:,} classes: "
    if far["rows"] <= 1:
        lines = [head + "each has its share in each part, to the row"]
    else:
        has = f'"{excerpt(far["class"])}" with {far["has"]:,} of {some(far["of"])} in {far["part"]}'
        lines = [head + f"farthest from its share is {has}, {far['rows']:.1f} rows off"]
    for part, names in far["without_rows"].items():
        listed = ", ".join(f'"{excerpt(name)}"' for name in names[:5]) + (" …" if len(names) > 5 else "")
        lines.append(
            f"  no row in {part} of {len(names):,} of them: {listed} (too few rows, or groups too large)"
        )
    return lines
