"""The loader of another trainer, replayed: which rows LLaMA-Factory would stop at, leave out or change.

Nothing of it is run or imported; its rules are in llamafactory.yaml. What luthier does with the same rows is
said beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.data import sources
from luthier.data.encode import Control
from luthier.data.render import Renderer
from luthier.data.turns import READ
from luthier.prepare.checks import Data
from luthier.prepare.checks.arrow import Columns, entry, is_listed, shape_of, trouble
from luthier.prepare.checks.llamafactory import Loader, Rule, facts
from luthier.prepare.checks.tokens import Refused, Ruler, chunks, is_text, rows_of
from luthier.prepare.report import Finding, Severity, some
from luthier.prepare.steps import texts
from luthier.types import BadRow, Example, Row

SEVERITY: dict[str, Severity] = {"stops": "error", "drops": "warning", "changes": "warning"}
VERB = {"stops": "stops at", "drops": "leaves out", "changes": "changes"}
BATCH = 1000
"""Rows that LLaMA-Factory tokenises, and in pre-training joins, at a time (preprocessing_batch_size)."""


@dataclass
class Replayed:
    """hits: rule -> sources of rows · lost: rule -> tokens · rejected: sources that luthier leaves out ·
    out: rows that LLaMA-Factory leaves out or stops at · notes: rule -> what else is to be said."""

    hits: dict[str, list[str]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    out: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)

    def hit(self, rule: str, source: str, lost: int = 0) -> None:
        self.hits.setdefault(rule, []).append(source)
        self.lost[rule] = self.lost.get(rule, 0) + lost
        if facts()[1][rule].effect != "changes":
            self.out.add(source)


def replay(data: Data) -> Iterator[Finding]:
    """One finding for the whole, then one for each rule that applies, the gravest first."""
    found = Replayed()
    columns = _columns(data, found)
    whole = [*_of_the_files(data, columns, found)]
    if "missing_column" not in whole:  # else no row gets that far
        _rows(data, columns, found)
    if data.renderer is not None:
        _tokens(data, data.renderer, found)
    version, rules = facts()
    yield _summary(data, version, whole, found)
    for name in whole:
        rule = rules[name]
        what = f"LLaMA-Factory does not start: {rule.what}{_more(found, name)}"
        yield Finding(
            "replay", "error", what, count=1, fix=_fix(rule, found, name), figures=_cited(name, rule)
        )
    order = list(SEVERITY)
    for name, rows in sorted(found.hits.items(), key=lambda item: order.index(rules[item[0]].effect)):
        yield _finding(name, rules[name], rows, found)


# -- looking ---------------------------------------------------------------------------------------


def _columns(data: Data, found: Replayed) -> Columns:
    """A first pass: what the columns are, and which rows cannot be read at all."""
    spec = data.table.spec
    columns = Columns(shape_of(sources.files(spec)))
    for given, meant in rows_of(data.table):
        row = _restored(given, columns)
        if isinstance(meant, BadRow):
            found.rejected.add(meant.source)
        if row is not given and columns.shape == "list":
            found.hit("doubled_key", row.source)
        if isinstance(row, Row):
            columns.take(row.data, row.source)
    for source in dict.fromkeys(source for rows in columns.mixed.values() for source in rows):
        found.hit("mixed_types", source)
    if columns.mixed:
        found.notes["mixed_types"] = f" ({', '.join(path.replace('[]', '') for path in columns.mixed)})"
    return columns


def _of_the_files(data: Data, columns: Columns, found: Replayed) -> Iterator[str]:
    """Rules about the files and their description."""
    spec = data.table.spec
    loader = Loader.of(spec, data.table.stage, is_listed(spec))
    if not is_listed(spec):
        found.notes["not_listed"] = entry(spec, columns)
        yield "not_listed"
    elif loader.formatting not in ("alpaca", "sharegpt", "openai") or spec.formatting == "text":
        yield "formatting"
    yield from trouble(spec, [*columns.names])
    missing = [name for name in loader.needed() if columns.names and name not in columns.names]
    keys = columns.keys.get(f"{loader.columns.get('messages')}[]")
    if loader.formatting != "alpaca" and keys is not None:
        missing += [
            str(loader.tags.get(tag))
            for tag in ("role_tag", "content_tag")
            if loader.tags.get(tag) not in keys
        ]
    if missing and is_listed(spec):
        found.notes["missing_column"] = f": {', '.join(missing)}"
        yield "missing_column"


def _rows(data: Data, columns: Columns, found: Replayed) -> None:
    """A second pass: what becomes of each row."""
    spec = data.table.spec
    loader = Loader.of(spec, data.table.stage, is_listed(spec))
    filled = columns.filled(f"{loader.columns.get('messages')}[].tool_calls[].function.arguments")
    for given, _ in rows_of(data.table):
        row = _restored(given, columns)
        if isinstance(row, BadRow):
            _unread(row, columns, found)
            continue
        for rule in loader.fate(columns.as_read(row.data)):
            found.hit(rule, row.source)
        if filled and loader.formatting == "openai" and _has_objects(loader.get(row.data, "messages")):
            found.hit("arguments_filled", row.source)


def _unread(bad: BadRow, columns: Columns, found: Replayed) -> None:
    """A row that luthier's reader gave up on."""
    too_many = columns.shape == "cells" and isinstance(bad.data, list) and len(bad.data) > len(columns.names)
    first = bad.source.endswith(":1")  # then the reader takes the first column for names of rows
    found.hit("unreadable" if not too_many else "shifted" if first else "ragged", bad.source)


def _restored(row: Row | BadRow, columns: Columns) -> Row | BadRow:
    """A row that LLaMA-Factory reads and luthier refuses: of a key that is there twice the last one counts,
    and cells that are missing are null."""
    if isinstance(row, Row):
        return row
    if columns.shape == "list" and isinstance(row.data, dict):
        return Row(row.data, row.source)
    if columns.shape == "cells" and isinstance(row.data, list) and len(row.data) < len(columns.names):
        return Row(dict(zip(columns.names, row.data, strict=False)), row.source)
    return row


def _has_objects(messages: Any) -> bool:
    """Whether a call among OpenAI's messages has arguments that are an object."""
    if not isinstance(messages, list):
        return False
    calls = [call for one in messages if isinstance(one, Mapping) for call in one.get("tool_calls") or ()]
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)]
    return any(isinstance(one, Mapping) and isinstance(one.get("arguments"), Mapping) for one in functions)


# -- tokens ----------------------------------------------------------------------------------------


def _tokens(data: Data, renderer: Renderer, found: Replayed) -> None:
    """What the cutoff and the tokenizer do to rows that are kept."""
    special = [str(token) for token in renderer.tokenizer.added_tokens_decoder.values() if token.special]
    control, ruler = Control(special), Ruler(renderer)
    kept = (meant for _, meant in rows_of(data.table) if isinstance(meant, Example))
    kept = (example for example in kept if example.source not in found.out)
    for batch in chunks(kept, BATCH):
        for example in batch:
            if any(control.first.search(text) for _, _, text in texts(example)):
                found.hit("control_tokens", example.source)
        if data.table.stage == "pt":
            _blocks(data, ruler, batch, found)
            continue
        long = [example for example in batch if _may_be_long(ruler, example)]
        for example, made in zip(long, ruler.whole.pieces(long), strict=True):
            if not isinstance(made, BadRow):
                _cut(
                    example,
                    [[*groups[0], *branch] for groups in made[-1:] for branch in groups[1:]],
                    data,
                    found,
                )


def _may_be_long(ruler: Ruler, example: Example) -> bool:
    try:
        return ruler.at_most(example)[0] > ruler.limit
    except Refused:
        return False


def _cut(example: Example, sequences: Sequence[Sequence[Any]], data: Data, found: Replayed) -> None:
    """processor/*.py: each question with its answer gets a share of the room that is left."""
    limit = data.config.cutoff_len if data.config else 0
    alone = [_turns(pieces) for pieces in sequences]
    if not alone or not alone[0]:
        return
    if data.table.stage != "sft":  # one turn: all before the last answer, and the longer of two answers
        prompt = sum(a + b for a, b in alone[0]) - alone[0][-1][1]
        alone = [[(prompt, max(turns[-1][1] for turns in alone))]]
    first = data.config is not None and data.config.mask_history
    turns, left = alone[0][::-1] if first else alone[0], limit
    gone = {"prompts_cut": 0, "answers_cut": 0, "turns_cut": 0}
    for source, target in turns:
        if left <= 0:
            gone["turns_cut"] += source + target
            continue
        kept_source, kept_target = shares(source, target, left)
        gone["prompts_cut"] += source - kept_source
        gone["answers_cut"] += target - kept_target
        left -= kept_source + kept_target
    for rule, lost in gone.items():
        if lost:
            found.hit(rule, example.source, lost)


def _turns(pieces: Sequence[Any]) -> list[tuple[int, int]]:
    """(tokens that are read, tokens that are written) of each turn."""
    turns, read = list[tuple[int, int]](), 0
    for coded in pieces:
        if coded.piece.turn == READ:
            read += len(coded.ids)
        else:
            turns.append((read, len(coded.ids)))
            read = 0
    return turns


def shares(source: int, target: int, room: int) -> tuple[int, int]:
    """How many tokens of a prompt and an answer are kept of `room` (processor_utils.py: infer_seqlen).

    An answer shorter than half the room stays whole; else a prompt shorter than half does; else each gives
    in proportion. What is too much is taken from the end.
    """
    if target * 2 < room:
        most = room
    elif source * 2 < room:
        most = room - source
    else:
        most = int(room * (target / (source + target)))
    kept = min(most, target)
    return min(max(room - kept, 0), source), kept


def _blocks(data: Data, ruler: Ruler, batch: Sequence[Example], found: Replayed) -> None:
    """processor/pretrain.py: texts joined and cut into whole blocks, or cut off, without packing."""
    limit = data.config.cutoff_len if data.config else 0
    made = ruler.whole.examples([example for example in batch if is_text(example)])
    sizes = {parts[0].source: len(parts[0].branches[0]) for parts in made if not isinstance(parts, BadRow)}
    if data.config is not None and data.config.packing is False:
        for source, size in sizes.items():
            if size > limit:
                found.hit("texts_cut", source, size - limit)
    elif sizes and (lost := sum(sizes.values()) % limit):
        found.hit("blocks_cut", next(reversed(sizes)), lost)


# -- telling ---------------------------------------------------------------------------------------


def _summary(data: Data, version: str, whole: Sequence[str], found: Replayed) -> Finding:
    table = data.table
    stops = [name for name, rows in found.hits.items() if rows and facts()[1][name].effect == "stops"]
    kept = table.rows - len(found.out)
    if whole or stops:
        what = f"LLaMA-Factory {version} would not start on these {some(table.rows)}"
    else:
        what = f"LLaMA-Factory {version} would train on {kept:,} of {some(table.rows)}"
    what += f"; luthier trains on {table.rows - len(table.bad):,}"
    figures = {"version": version, "rows": table.rows, "kept": kept, "stops": bool(whole or stops)}
    return Finding("replay", "note", what, count=table.rows, figures=figures)


def _finding(name: str, rule: Rule, rows: Sequence[str], found: Replayed) -> Finding:
    """A rule and its rows; tokens of texts that are joined belong to no row."""
    lost = found.lost[name]
    tokens = f"about {some(lost, 'token')}"
    whole = name == "blocks_cut"
    verb = "leaves out" if whole else VERB[rule.effect]
    what = f"LLaMA-Factory {verb} {tokens if whole else some(len(rows))}: {rule.what}{_more(found, name)}"
    what += f" ({tokens})" if lost and not whole else ""
    named = sum(source in found.rejected for source in rows)
    if named:
        what += (
            f"; luthier names and leaves out {'them' if named == len(rows) else f'{named:,} of them'}, too"
        )
    elif rule.luthier:
        what += f"; luthier {rule.luthier}"
    fix, figures = _fix(rule, found, name), _cited(name, rule)
    severity = SEVERITY[rule.effect]
    return Finding(
        "replay", severity, what, () if whole else rows, lost if whole else len(rows), fix, figures=figures
    )


def _more(found: Replayed, name: str) -> str:
    return "" if name == "not_listed" else found.notes.get(name, "")


def _fix(rule: Rule, found: Replayed, name: str) -> str:
    return f"{rule.instead} {found.notes[name]}" if name == "not_listed" else rule.instead


def _cited(name: str, rule: Rule) -> dict[str, str]:
    where = "extras" if rule.where.startswith("extras") else "data"
    return {"rule": name, "effect": rule.effect, "source": f"src/llamafactory/{where}/{rule.where}"}
