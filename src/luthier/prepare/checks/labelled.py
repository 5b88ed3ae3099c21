"""Checks of closed answer sets: names of labels, frequencies, wrong labels, annotators who disagree."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from luthier.prepare import agreement as kappas
from luthier.prepare import classify, exact, labels, noise, pii
from luthier.prepare.agreement import Agreement
from luthier.prepare.checks import Data
from luthier.prepare.labels import AlmostLabel
from luthier.prepare.noise import Noise
from luthier.prepare.report import Finding, some
from luthier.prepare.span import excerpt
from luthier.prepare.table import closed_columns

SAMPLES, SHOWN = 8, 60
LISTED, CONFUSED, RENAMED = 500, 20, 50
"""At most so many classes or suspects, and so many confusions, stand in `figures`, and renames in `fix`."""
SUBSTANTIAL, ALMOST_PERFECT = 0.6, 0.8
"""Bounds of kappa by Landis and Koch, 1977, doi:10.2307/2529310."""
_WHY = {"form": "another form of", "spelling": "a spelling of", "wrapped": "contains", "script": "a word for"}

Column = Sequence[str | None]


def label_names(data: Data) -> Iterator[Finding]:
    """Answers that are almost a label: a model would learn each as a class of its own."""
    found = labels.almost(data.table.answers, data.table.sources) if data.closed else []
    if not found:
        return
    samples = [
        f"{one.rows[0].source}: {_quoted(one.answer)} ({some(len(one.rows))}), {_WHY[one.why]} "
        + (_quoted(one.label) if one.label else "one of the labels")
        for one in found[:SAMPLES]
    ]
    rows = sorted(ref for one in found for ref in one.rows)
    unclear = sum(not one.label for one in found)
    left = f"; what {unclear} of them should be called is for you to add to the command" if unclear else ""
    left += f"; the command has {RENAMED} of them, so check again" if len(found) > RENAMED else ""
    yield Finding(
        "label_names",
        "warning",
        f"{some(len(rows))} with an answer that is almost a label ({some(len(found), 'such answer')}){left}",
        rows=[ref.source for ref in rows],
        fix=f"luthier data clean {data.file} --steps label_names {_renames(found)}",
        samples=samples,
        figures={"variants": [[one.answer, one.label, one.why, len(one.rows)] for one in found[:LISTED]]},
    )


def _renames(found: Sequence[AlmostLabel]) -> str:
    """Options of the step, quoted for a shell: names that are known; where none is, names to fill in."""
    known = [one for one in found if one.label] or found
    renames = {one.answer: one.label for one in sorted(known, key=lambda one: -len(one.rows))[:RENAMED]}
    table = "".join(
        sign if sign.isprintable() else f"\\U{ord(sign):08x}"
        for sign in json.dumps(renames, ensure_ascii=False)
    )
    return "label_names.roles=assistant " + shlex.quote(f"label_names.renames={table}")


def class_balance(data: Data) -> Iterator[Finding]:
    """How many rows each class has; classes too small to learn; one class that outweighs all others."""
    if data.closed is None:
        return
    answers = meant(data)
    balance = labels.balance(answers)
    first, second, last = balance.classes[0], balance.classes[1], balance.classes[-1]
    shown = {one.label: one.count for one in balance.classes[:LISTED]}
    yield Finding(
        "class_balance",
        "note",
        f"{len(balance.classes)} classes, {last.count:,} to {some(first.count)} each "
        f"(evenness {balance.evenness:.2f})",
        count=len(balance.classes),
        figures={"classes": shown, "ratio": round(balance.ratio, 2), "evenness": round(balance.evenness, 4)},
    )
    rare = {one.label: one.count for one in balance.classes if one.rare}
    if rare:
        yield Finding(
            "class_balance",
            "warning",
            f"classes with fewer than {labels.RARE} rows, too few to learn, to split and to score: "
            f"{len(rare)} of {len(balance.classes)}",
            rows=[s for s, answer in zip(data.table.sources, answers, strict=True) if answer in rare],
            fix="collect more rows of these classes, or join them with others",
            samples=[f"{_quoted(label)}: {some(count)}" for label, count in list(rare.items())[:SAMPLES]],
            figures={"classes": dict(list(rare.items())[:LISTED])},
        )
    if first.share > 0.5 and first.count >= 3 * second.count:
        yield Finding(
            "class_balance",
            "warning",
            f"{first.share:.0%} of the rows have one answer, {_quoted(first.label)}",
            count=first.count,
            fix="judge by macro F1, not by accuracy; take fewer rows of this class, or collect others",
            figures={"classes": {one.label: one.count for one in (first, second)}},
        )


def label_noise(data: Data) -> Iterator[Finding]:
    """Rows whose label the rest of the data contradicts: a list to read, never to apply unread."""
    if data.closed is None:
        return
    table, answers = data.table, meant(data)
    large = {answer for answer, count in Counter(answers).items() if count >= noise.FEWEST}
    if len(large) < 2:
        yield Finding(
            "label_noise",
            "note",
            f"wrong labels cannot be told: fewer than two classes have {noise.FEWEST} rows",
            count=len(large),
        )
        return
    found = noise.label_noise(table.inputs, answers, table.sources)
    judgeable = sum(answer in large for answer in answers)
    sampled = f"; {found.rows:,} of {judgeable:,} rows were drawn at random and judged"
    if not found.suspects:
        if found.rows < judgeable:
            yield Finding("label_noise", "note", f"no suspicious labels{sampled}", count=0)
        return
    yield Finding(
        "label_noise",
        "warning",
        f"{some(len(found.suspects))} whose label the rest of the data contradicts"
        + sampled * (found.rows < judgeable),
        rows=[ref.source for ref in sorted(one.row for one in found.suspects)],
        fix="read these rows, and correct by hand the labels that are wrong: some are right but unusual",
        samples=_suspects(found, table.inputs),
        figures=_figures(found),
    )


def meant(data: Data) -> list[str]:
    """The answers with each that is almost a label replaced by it."""
    renames = {answer: label for answer, (label, _) in labels.variants(data.table.answers).items() if label}
    return [renames.get(answer, answer) for answer in data.table.answers]


def _suspects(found: Noise, inputs: Sequence[str]) -> list[str]:
    shared = classify.shared_lines(inputs)
    samples = []
    for one in found.suspects[:SAMPLES]:
        text = excerpt(pii.mask(classify.own_lines(inputs[one.row.index], shared))[0], SHOWN)
        samples.append(f"{one.row.source}: {text} | given {_quoted(one.given)}, likely {_quoted(one.likely)}")
    return samples


def _figures(found: Noise) -> dict[str, object]:
    """suspects: [source, given, likely, probability], most probable first · confusions: [given, likely, rows]
    of the confident joint · accuracy, rate, judged: as in Noise."""
    return {
        "suspects": [
            [one.row.source, one.given, one.likely, round(one.probability, 3)]
            for one in found.suspects[:LISTED]
        ],
        "confusions": [[one.given, one.likely, one.count] for one in found.confusions[:CONFUSED]],
        "accuracy": round(found.accuracy, 4),
        "rate": round(found.rate, 4),
        "judged": found.rows,
    }


def agreement(data: Data) -> Iterator[Finding]:
    """How far label columns agree with each other, and with the answers that training reads."""
    columns = {name: _comparable(column) for name, column in closed_columns(data.table).items()}
    answers = _comparable(meant(data)) if data.closed else []
    for names in _alike(columns):
        group = {name: columns[name] for name in names}
        if len(group) > 1:
            yield from _between(data, group)
        if data.closed and _similar(set(answers), _values(group)):
            yield from _with_answers(data, group, answers)


def _between(data: Data, group: Mapping[str, Column]) -> Iterator[Finding]:
    """Cohen's kappa of two columns, Fleiss' of more."""
    pairs = {f"{a} / {b}": _cohen(data, group[a], group[b]) for a, b in combinations(group, 2)}
    if not any(pairs.values()):
        return  # nobody has labelled a row that somebody else has labelled
    first = next(iter(pairs.values()))
    found = first if len(group) == 2 else None
    if found is None:
        found = kappas.fleiss(list(zip(*group.values(), strict=True)), data.table.sources)
    which = "Cohen" if len(group) == 2 else "Fleiss"
    yield _agreed(data, group, found, f"{which}'s kappa of {', '.join(group)}", _pairwise(pairs))


def _with_answers(data: Data, group: Mapping[str, Column], answers: Column) -> Iterator[Finding]:
    """The answers against each column; told as rows where an annotator has said something else."""
    pairs = {name: _cohen(data, column, answers) for name, column in group.items()}
    for name, found in pairs.items():
        if found is not None:
            what = f"Cohen's kappa of {name} and the answers"
            yield _agreed(data, {name: group[name], "answer": answers}, found, what, _pairwise({name: found}))


def _agreed(
    data: Data, group: Mapping[str, Column], found: Agreement, what: str, pairs: Mapping[str, float | None]
) -> Finding:
    count = f"{len(found.disputed):,} of {some(found.rows)} disputed"
    samples = []
    for ref in found.disputed[:SAMPLES]:
        said = ", ".join(f"{name} {_quoted(column[ref.index] or '')}" for name, column in group.items())
        text = excerpt(pii.mask(data.table.inputs[ref.index])[0], SHOWN)
        samples.append(f"{ref.source}: {text} | {said}")
    poor = found.kappa is not None and found.kappa < SUBSTANTIAL
    return Finding(
        "agreement",
        "warning" if poor else "note",
        f"{what} is {_told(found.kappa)}; {count}",
        rows=[ref.source for ref in found.disputed],
        fix="settle these rows by one more opinion; where they are many, by a clearer guideline"
        if found.disputed
        else "",
        samples=samples,
        figures={
            "kappa": None if found.kappa is None else round(found.kappa, 4),
            "observed": round(found.observed, 4),
            "expected": round(found.expected, 4),
            "pairs": dict(pairs),
        },
    )


def _told(kappa: float | None) -> str:
    if kappa is None:
        return "not defined: one label throughout"
    if kappa < SUBSTANTIAL:
        return f"{kappa:.2f}, less than substantial"
    return f"{kappa:.2f}, {'almost perfect' if kappa >= ALMOST_PERFECT else 'substantial'}"


def _pairwise(pairs: Mapping[str, Agreement | None]) -> dict[str, float | None]:
    return {
        name: round(found.kappa, 4) if found is not None and found.kappa is not None else None
        for name, found in pairs.items()
    }


def _cohen(data: Data, first: Column, second: Column) -> Agreement | None:
    """None without a row that both have labelled."""
    both = any(a and b for a, b in zip(first, second, strict=True))
    return kappas.cohen(first, second, data.table.sources) if both else None


def _alike(columns: Mapping[str, Column]) -> list[list[str]]:
    """Names of columns in groups that use the same labels, each compared with the first of its group."""
    groups: list[list[str]] = []
    for name, column in columns.items():
        for group in groups:
            if _similar(_values({name: column}), _values({group[0]: columns[group[0]]})):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _similar(first: set[str | None], second: set[str | None]) -> bool:
    """At least half of all labels are used by both."""
    return 2 * len(first & second) >= len(first | second)


def _values(group: Mapping[str, Column]) -> set[str | None]:
    return {value for column in group.values() for value in column if value}


def _comparable(column: Column) -> list[str | None]:
    known = {value: exact.normalise(value) if value else None for value in set(column)}
    return [known[value] for value in column]


def _quoted(text: str) -> str:
    """As Python writes it, so that blanks and invisible characters show."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")
