"""Rows that say the same, evaluation rows that training has seen, and inputs with more than one answer.

What counts as a row depends on what is learnt from it: input and answer with the same system prompt; in
pairs also the rejected answer, in KTO data the verdict; in pre-training the text. Labels and other short
answers must be equal, because one other letter makes another answer of them.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from luthier.errors import MissingPackage
from luthier.measure import closed
from luthier.prepare import exact, near, pii, shingles
from luthier.prepare import leakage as leaking
from luthier.prepare.checks import Data
from luthier.prepare.leakage import Contradiction, Leak
from luthier.prepare.near import Alike, Cluster
from luthier.prepare.report import Finding, Severity, some
from luthier.prepare.span import excerpt
from luthier.prepare.table import Table

SAMPLES, SHOWN = 5, 60
SHORT = 60
"""Answers of at most so many bytes of UTF-8 that differ mostly exclude one another; longer ones need not."""


def duplicates(data: Data) -> Iterator[Finding]:
    """Rows that could go, because a row that is kept says the same: exact copies, then near ones.

    Raises MissingPackage, after the exact ones, when a package for near ones is missing.
    """
    missing = None
    try:
        found, kinds = alike_rows(data)
    except MissingPackage as error:
        missing = error
        found, kinds = alike_rows(data, None)
    same = near.stars(replace(found, pairs=[]), data.table.sources, kinds)
    copies = {copy.row.index for cluster in same for copy in cluster.copies}
    if copies:
        yield _copies(data, same, copies, "exact")
    if missing:
        raise missing
    clusters = near.stars(found, data.table.sources, kinds)
    others = {copy.row.index for cluster in clusters for copy in cluster.copies} - copies
    if others:
        yield _copies(data, clusters, others, "near")


def alike_rows(data: Data, threshold: float | None = near.THRESHOLD) -> tuple[Alike, Sequence[str] | None]:
    """What `near.stars` makes clusters of duplicates from: rows that are alike, and their kinds.

    threshold: None finds exact copies only.
    """
    table = data.table
    if data.closed:
        found = data.alike if threshold == near.THRESHOLD else alike_inputs(table, threshold)
        return found, _normalised(table.answers)
    columns = [table.inputs, table.answers, table.rejected]
    columns = [column for column in columns if any(column)] or [table.answers]
    return near.alike(columns, _kinds(table), threshold), None


def _kinds(table: Table) -> list[str]:
    """What copies must share to the letter: the system prompt, a short answer, the verdict."""
    known: dict[tuple[str, str, bool | None], str] = {}
    verdicts = table.verdicts or [None] * len(table)
    rows = zip(table.systems, table.answers, verdicts, strict=True)
    short = ((system, a if len(a) <= closed.LONGEST else "", verdict) for system, a, verdict in rows)
    return [
        known.get(row) or known.setdefault(row, "\0".join((row[0], exact.normalise(row[1]), str(row[2]))))
        for row in short
    ]


def alike_inputs(table: Table, threshold: float | None = near.THRESHOLD) -> Alike:
    """Rows with the same system prompt whose inputs are alike."""
    return near.alike([table.inputs], table.systems, threshold)


def _copies(data: Data, clusters: Sequence[Cluster], rows: set[int], how: str) -> Finding:
    table = data.table
    samples, kept = list[str](), 0
    for cluster in clusters:
        copies = [copy for copy in cluster.copies if copy.row.index in rows]
        kept += bool(copies)
        if copies and len(samples) < SAMPLES:
            texts = (_whole(table, ref.index) for ref in (cluster.keeper, copies[0].row))
            samples.append(f"{cluster.keeper.source} and {copies[0].row.source}: {_beside(*texts)}")
    step = "deduplication deduplication.near=false" if how == "exact" else "deduplication"
    return Finding(
        "duplicates",
        "warning",
        f"{some(len(rows))} could go: {how} copies of {some(kept, 'other')}",
        rows=[table.sources[i] for i in sorted(rows)],
        fix=f"luthier data clean {data.file} --steps {step}",
        samples=samples,
        figures={how: len(rows), "kept": kept, "share": round(len(rows) / len(table), 4)},
    )


def leakage(data: Data) -> Iterator[Finding]:
    """Evaluation rows whose input is, or nearly is, an input of a training row.

    An input that many training rows share with different answers ("Write a poem.") is no question, so such
    rows are compared with their answers. Raises MissingPackage without a package for near-duplicates.
    """
    shared = _shared(data.table)
    train = _questions(data.table, shared)
    for table in data.evals:
        found = leaking.leaks(train, _questions(table, shared), data.table.sources, table.sources)
        for how in ("exact", "near"):
            leaks = [leak for leak in found if (leak.similarity == 1) == (how == "exact")]
            if leaks:
                yield _leaks(data, table, leaks, how)


def _shared(table: Table) -> set[bytes]:
    """Keys of inputs that more than 1 % of the rows (and more than 25) have, with different answers."""
    counts = Counter(table.inputs)
    limit = max(shingles.COMMON_ROWS, shingles.COMMON_SHARE * len(table))
    answers: dict[str, set[str]] = {text: set() for text, count in counts.items() if count > limit}
    if answers:
        for text, answer in zip(table.inputs, table.answers, strict=True):
            if text in answers and len(answers[text]) < 2:
                answers[text].add(answer)
    return {exact.key(text) for text, different in answers.items() if len(different) > 1}


def _questions(table: Table, shared: set[bytes]) -> Sequence[str]:
    """What must not be on both sides of a split: the inputs; the whole row where that is none of its own."""
    if not shared and all(table.inputs):
        return table.inputs
    rows = zip(table.inputs, table.whole(), strict=True)
    return [whole if not text or exact.key(text) in shared else text for text, whole in rows]


def _leaks(data: Data, table: Table, leaks: Sequence[Leak], how: str) -> Finding:
    severity: Severity = "error" if how == "exact" else "warning"
    verb = "are also" if how == "exact" else "are nearly"
    train = data.table
    samples = [
        f"{leak.evaluation.source} and {leak.train.source}: "
        + _beside(_input(train, leak.train.index), _input(table, leak.evaluation.index))
        for leak in leaks[:SAMPLES]
    ]
    return Finding(
        "leakage",
        severity,
        f"{len(leaks):,} of {some(len(table))} of {table.spec.name} {verb} in the training data",
        rows=[leak.evaluation.source for leak in leaks],
        fix=f"luthier data clean {data.file} --not-in {shlex.quote(table.spec.name)}",
        samples=samples,
        figures={
            how: len(leaks),
            "share": round(len(leaks) / len(table), 4),
            "train_rows": [leak.train.source for leak in leaks],
            "similarity": [round(leak.similarity, 3) for leak in leaks],
        },
    )


def contradictions(data: Data) -> Iterator[Finding]:
    """Rows that ask the same and are answered differently.

    Labels: equal inputs (errors) and near ones (warnings) with different labels. Free text: equal inputs
    only, since an open question has many answers. Pairs: one pair both ways round. KTO: one answer, good
    and bad.
    """
    table = data.table
    if data.closed:
        yield from _of_labels(data)
    elif table.verdicts:
        found = near.alike([table.inputs, table.answers], table.systems, None)
        verdicts = ["good" if verdict else "bad" for verdict in table.verdicts]
        both = leaking.contradictions(table.inputs, verdicts, table.sources, found=found)
        yield from _conflict(data, both, "error", "the same answer is called good and bad")
    elif table.rejected:
        yield from _of_pairs(data)
    elif table.stage != "pt":
        yield from _of_answers(data)


def _of_labels(data: Data) -> Iterator[Finding]:
    table, missing = data.table, None
    try:
        found = data.alike
    except MissingPackage as error:
        missing, found = error, alike_inputs(table, None)
    all_of_them = leaking.contradictions(table.inputs, table.answers, table.sources, found=found)
    only_equal = replace(found, pairs=[])
    equal = leaking.contradictions(table.inputs, table.answers, table.sources, found=only_equal)
    told = {row.index for one in equal for row in one.rows}
    others = [one for one in all_of_them if not all(row.index in told for row in one.rows)]
    yield from _conflict(data, equal, "error", "the same input has different labels")
    yield from _conflict(data, others, "warning", "nearly the same input has different labels")
    if missing:
        raise missing


def _of_answers(data: Data) -> Iterator[Finding]:
    table = data.table
    found = alike_inputs(table, None)
    shared = _shared(table)
    both = leaking.contradictions(table.inputs, table.answers, table.sources, found=found)
    both = [one for one in both if exact.key(table.inputs[one.rows[0].index]) not in shared]
    short = [
        one for one in both if all(len(answer.encode("utf-8", "replace")) <= SHORT for answer in one.answers)
    ]
    told = {one.rows[0].index for one in short}
    long = [one for one in both if one.rows[0].index not in told]
    yield from _conflict(data, short, "warning", "the same input has different short answers")
    yield from _conflict(data, long, "note", "the same input has several answers, as open questions may")


def _of_pairs(data: Data) -> Iterator[Finding]:
    table, first = data.table, dict[bytes, int]()
    found = []
    rows = zip(table.systems, table.inputs, table.answers, table.rejected, strict=True)
    for i, (system, text, chosen, rejected) in enumerate(rows):
        here, turned = (
            exact.key("\0".join((system, text, *both))) for both in ((chosen, rejected), (rejected, chosen))
        )
        if here == turned:
            continue  # equal answers contradict nothing
        first.setdefault(here, i)
        if turned in first:
            refs = tuple(exact.ref(k, table.sources) for k in (first[turned], i))
            found.append(Contradiction(refs, (table.answers[first[turned]], chosen), 1.0))
    yield from _conflict(data, found, "error", "the answer that one row prefers is rejected by another")
    equal = [i for i, (a, b) in enumerate(zip(table.answers, table.rejected, strict=True)) if a == b]
    if equal:
        yield Finding(
            "contradictions",
            "error",
            f"{some(len(equal))} whose chosen and rejected answers are equal: they teach nothing",
            rows=[table.sources[i] for i in equal],
            fix="leave these rows out, or correct one of the answers",
            samples=[f"{table.sources[i]}: {_safe(table.answers[i])}" for i in equal[:SAMPLES]],
            figures={"equal": len(equal)},
        )


def _conflict(data: Data, found: Sequence[Contradiction], severity: Severity, what: str) -> Iterator[Finding]:
    if not found:
        return
    sources = data.table.sources
    rows = sorted({row.index for one in found for row in one.rows})
    samples = [_contradiction(data.table, one) for one in found[:SAMPLES]]
    yield Finding(
        "contradictions",
        severity,
        f"{what} ({some(len(found), 'input')}, {some(len(rows))})",
        rows=[sources[i] for i in rows],
        fix=""
        if severity == "note"
        else "decide which answer is right, and correct or leave out the other rows",
        samples=samples,
        figures={"inputs": len(found), "groups": [[row.source for row in one.rows] for one in found]},
    )


def _contradiction(table: Table, one: Contradiction) -> str:
    """A row for each of the first different answers, as "source: input -> answer"."""
    answers: dict[str, str] = {}
    for row, answer in zip(one.rows, one.answers, strict=True):
        line = f"{row.source}: {_safe(_input(table, row.index), 40)} -> {_safe(answer, 30)}"
        answers.setdefault(exact.normalise(answer), line)
    return " | ".join(list(answers.values())[:3])


def _normalised(answers: Sequence[str]) -> list[str]:
    known = {answer: exact.normalise(answer) for answer in set(answers)}
    return [known[answer] for answer in answers]


def _whole(table: Table, i: int) -> str:
    return "\n\n".join(filter(None, (table.inputs[i], table.answers[i])))


def _input(table: Table, i: int) -> str:
    return table.inputs[i] or table.answers[i]


def _safe(text: str, limit: int = SHOWN) -> str:
    return excerpt(pii.mask(text)[0], limit)


def _beside(one: str, other: str) -> str:
    """Two texts where they begin to differ; one text where they do not."""
    ours, theirs = pii.mask(one)[0], pii.mask(other)[0]
    if exact.normalise(ours) == exact.normalise(theirs):
        return excerpt(ours, SHOWN)
    same = next(
        (k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    start = max(0, same - SHOWN // 2)
    mark = "…" * (start > 0)
    return " | ".join(mark + excerpt(text[start:], SHOWN) for text in (ours, theirs))
