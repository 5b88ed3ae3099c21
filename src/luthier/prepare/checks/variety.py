"""Languages, rows unlike the others, and how varied a data set is.

Closed answers (labels) are left out wherever they repeat by design. Figures of outliers and diversity come
from at most 50,000 rows and about 20 M characters, drawn at random with a fixed seed; the finding then says
so. Lengths and languages are those of all rows.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.prepare import measure, pii
from luthier.prepare import text as texts
from luthier.prepare.checks import Data
from luthier.prepare.checks import topics as topic
from luthier.prepare.checks.wording import Wording, openings, wording
from luthier.prepare.report import Finding
from luthier.prepare.span import excerpt
from luthier.prepare.table import Table

SAMPLE, CHARACTERS = 50_000, 6_000_000
GREAT, LETTERS, PART = 0.9, 20, 0.15
FAR, TIMES, SPREAD = 5.0, 4.0, 0.1
ONE_OPENING, NEARLY_EMPTY = 0.5, 0.01
_SHOWN = 5
_CODE_LINE = re.compile(
    r"^[^\S\n]*(?:(?:def|class|import|from|return|public|const|let|var|function|SELECT|INSERT)\b.*"
    r"|[#/]{1,2}include.*|.*[;{}][^\S\n]*|[\w.\[\]]+ *[+-]?= *\S.*)$",
    re.MULTILINE,
)
_TAG = re.compile(r"<[^<>]{1,200}>")
_OBJECT = re.compile(r"\s*(?:\{\s*\"|\[\s*\{|ToolCall\()")
_TRANSLATION = re.compile(
    r"translat|language|paraphras|翻译|译成|译为|译文"
    r"|\b(?:english|chinese|french|german|spanish|japanese|korean|russian|italian|portuguese|arabic|hindi)\b"
    r"|[英中汉日法德俄韩]语|[英中日法德俄韩]文|西班牙语|葡萄牙语|意大利语",
    re.IGNORECASE,
)
_SCRIPT = {"zh": "han", "en": "latin", "ja": "kana", "ko": "hangul", "ru": "cyrillic", "ar": "arabic"}


# -- languages


def languages(data: Data) -> Iterator[Finding]:
    """Which languages inputs and answers are in; rows in another than nearly all; answers in another than
    their question."""
    table = data.table
    asked = [_spoken(text) for text in table.inputs]
    given = [""] * len(table) if data.closed else [_spoken(text) for text in table.answers]
    rows = [one or other for one, other in zip(asked, given, strict=True)]
    counts = Counter(filter(None, rows))
    if not counts:
        return
    figures: dict[str, Any] = {"counts": dict(counts.most_common())}
    if any(asked) and any(given):
        for name, told in (("inputs", asked), ("answers", given)):
            figures[name] = dict(Counter(filter(None, told)).most_common())
    shares = ", ".join(f"{_percent(n, counts.total())} {name}" for name, n in counts.most_common(4))
    silent = len(rows) - counts.total()
    untold = f" ({silent:,} with too few letters to tell are left out)" if silent else ""
    what = f"the rows are {shares}{untold}"
    yield Finding("languages", "note", what, count=len(counts), figures=figures)
    yield from _strays(data, rows, counts)
    yield from _mismatches(data, asked, given)


def _spoken(text: str) -> str:
    """The language of what is prose in `text`: code and data are in none."""
    if _OBJECT.match(text):
        return ""
    if not text.isascii() or "\n" in text or "`" in text or "<" in text:
        text = _CODE_LINE.sub("", _TAG.sub("", texts.without_code(text)))
    return measure.language(text, LETTERS)


def _strays(data: Data, rows: Sequence[str], counts: Counter[str]) -> Iterator[Finding]:
    main, most = counts.most_common(1)[0]
    share = most / counts.total()
    if share < GREAT:
        return
    table = data.table
    found = [
        i
        for i, told in enumerate(rows)
        if told and told != main and not _partly(table.inputs[i] or table.answers[i], main, told)
    ]
    if not found:
        return
    others = ", ".join(f"{name} {n}" for name, n in Counter(rows[i] for i in found).most_common(4))
    sources = [table.sources[i] for i in found]
    yield Finding(
        "languages",
        "warning" if share < 0.99 else "note",
        f"rows in another language than the rest ({main} {_percent(most, counts.total())}): {others}",
        rows=sources,
        fix=data.or_leave_out("read them", sources),
        samples=[f"{rows[i]}: {_shown(table.inputs[i] or table.answers[i], 80)}" for i in found[:_SHOWN]],
    )


def _mismatches(data: Data, asked: Sequence[str], given: Sequence[str]) -> Iterator[Finding]:
    """Where nearly all answers are in the language of their question, those that are not.

    A question that holds text of the answer's language, or speaks of languages, may well mean it.
    """
    table = data.table
    told = [i for i, (one, other) in enumerate(zip(asked, given, strict=True)) if one and other]
    unlike = [i for i in told if asked[i] != given[i]]
    if len(unlike) > (1 - GREAT) * len(told):
        return
    found = [
        i for i in unlike if not (_TRANSLATION.search(table.inputs[i]) or _holds(table.inputs[i], given[i]))
    ]
    if not found:
        return
    sources = [table.sources[i] for i in found]
    pairs = Counter(f"{asked[i]} → {given[i]}" for i in found)
    yield Finding(
        "languages",
        "warning",
        "answers in another language than their question, which does not ask for it: "
        + ", ".join(f"{pair} {n}" for pair, n in pairs.most_common(4)),
        rows=sources,
        fix=data.or_leave_out(
            "write these answers anew, say in the question which language is wanted", sources
        ),
        samples=[f"{_shown(table.inputs[i])} → {_shown(table.answers[i])}" for i in found[:_SHOWN]],
        figures={"pairs": dict(pairs.most_common())},
    )


def _holds(text: str, language: str) -> bool:
    """Enough letters of the language's script in `text` for a phrase."""
    return measure.weights(text).get(_SCRIPT.get(language, language), 0) >= LETTERS / 2


def _partly(text: str, language: str, told: str) -> bool:
    """A part of `text`, told to be in another language, is in the script of `language`: an instruction
    beside the text that it is about. Languages that share a script are not told apart by it.
    """
    if {language, told} in ({"zh", "ja"}, {"en", "latin"}):
        return False
    found = measure.weights(text)
    return found.get(_SCRIPT.get(language, language), 0) >= PART * sum(found.values())


def _filtered(data: Data, setting: str) -> str:
    chosen = f" quality_filter.{setting}" if setting else ""
    return f"luthier data clean {data.file} --steps quality_filter{chosen}"


def _shown(text: str, length: int = 40) -> str:
    """The beginning of `text` in one line, with what is private in it masked."""
    return excerpt(pii.mask(text[: 4 * length])[0], length)


def _percent(part: int, whole: int) -> str:
    """A share that says 100 % only where nothing is missing."""
    if part == whole:
        return "100%"
    return min(f"{part / whole:.1%}", ">99.9%", key=lambda shown: shown == "100.0%")


# -- outliers


def outliers(data: Data) -> Iterator[Finding]:
    """Rows much longer or shorter than the others, and texts that repeat themselves or are mostly signs.

    Loops, the same words again and again, are found by the check of texts, in every row.
    """
    table = data.table
    chosen, said = _sample(table)
    columns = {"inputs": table.inputs} | ({} if data.closed else {"answers": table.answers})
    for name, column in columns.items():
        yield from _lengths(data, name, np.fromiter(map(len, column), np.int64, len(column)))
    limits = texts.rules()["gopher" if table.stage == "pt" else "answers"]
    found: dict[int, str] = {}
    kinds: Counter[str] = Counter()
    answered: set[int] = set()  # rows whose answer the filter of `data clean` would judge alike
    for name, column in columns.items():
        for i in chosen:
            if len(column[i]) < 24:
                continue
            spans = measure.beyond(column[i], limits)
            kinds.update({span.kind for span in spans})
            if spans:
                answered |= {i} if name == "answers" else set()
                found.setdefault(i, f"{spans[0].kind} {spans[0].shown}: {_shown(column[i])}")
    if found:
        rows = sorted(found)
        sources = [table.sources[i] for i in rows]
        yield Finding(
            "outliers",
            "note",
            "texts that repeat themselves or are mostly signs: "
            + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common(4))
            + said,
            rows=sources,
            fix=_filtered(data, "rules=gopher" if table.stage == "pt" else "")
            if answered == set(found)
            else data.or_leave_out("read them", sources),
            samples=[found[i] for i in rows[:_SHOWN]],
            figures={"kinds": dict(kinds.most_common())},
        )


def _lengths(data: Data, name: str, lengths: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[Finding]:
    """Robust z-scores of the logarithm of the length, by median and MAD (Iglewicz and Hoaglin, 1993).

    Lengths are skewed and often nearly equal, so a row must be both five deviations away and four times
    longer or shorter than the median. Empty texts belong to the check of structure.
    """
    full = np.flatnonzero(lengths)
    if len(full) < 20:
        return
    logs = np.log(lengths[full])
    middle = float(np.median(logs))
    spread = max(SPREAD, 1.4826 * float(np.median(np.abs(logs - middle))))
    far = np.abs(logs - middle)
    rows = full[(far > FAR * spread) & (far > np.log(TIMES))]
    if not len(rows):
        return
    longer = int((lengths[rows] > np.exp(middle)).sum())
    sides = ((longer, "longer"), (len(rows) - longer, "shorter"))
    told = " and ".join(f"{count} far {side}" for count, side in sides if count)
    order = rows[np.argsort(-np.abs(np.log(lengths[rows]) - middle), kind="stable")]
    column = getattr(data.table, name)
    yield Finding(
        "outliers",
        "note",
        f"{name} of unusual length: {told} than the median of {round(float(np.exp(middle)))} characters",
        rows=[data.table.sources[i] for i in rows],
        fix="read them: they are often several rows in one, pages that were copied whole, or cut off",
        samples=[f"{lengths[i]} characters: {_shown(column[i], 80)}" for i in order[:_SHOWN]],
        figures={"median": round(float(np.exp(middle))), "longest": int(lengths.max())},
    )


# -- diversity


def diversity(data: Data) -> Iterator[Finding]:
    """Distinct n-grams, openings, vocabulary and topics of inputs and, unless they are labels, answers."""
    table = data.table
    if not len(table):
        return
    chosen, said = _sample(table)
    random.Random(1).shuffle(chosen)
    columns = {"inputs": table.inputs} | ({} if data.closed else {"answers": table.answers})
    drawn = {name: [column[i] for i in chosen if column[i]] for name, column in columns.items()}
    drawn = {name: column for name, column in drawn.items() if column}
    figures = {name: wording(column) for name, column in drawn.items()}
    begins = {name: openings(column) for name, column in drawn.items()}
    parts = "; ".join(f"{name}: {_told(one)}" for name, one in figures.items())
    if not figures:
        return
    yield Finding(
        "diversity",
        "note",
        parts + said,
        count=sum(one.vocabulary for one in figures.values()),
        figures={name: _figures(one, begins[name]) for name, one in figures.items()},
    )
    yield from _monotony(figures, begins, bool(data.closed))
    yield from _topics(next(iter(drawn.values())), next(iter(drawn)))


def _told(one: Wording) -> str:
    return (
        f"{one.vocabulary:,} different words or characters in {one.units:,}, distinct-2 {one.distinct[2]:.2f}"
    )


def _figures(one: Wording, begins: Sequence[tuple[str, float]]) -> dict[str, Any]:
    distinct = {f"distinct-{n}": round(share, 4) for n, share in one.distinct.items()}
    return {
        **distinct,
        "vocabulary": one.vocabulary,
        "units": one.units,
        "entropy": round(one.entropy, 2),
        "heaps": round(one.heaps, 3),
        "growth": [list(point) for point in one.growth],
        "openings": [[begin, round(share, 4)] for begin, share in begins],
    }


def _monotony(
    figures: Mapping[str, Wording], begins: Mapping[str, list[tuple[str, float]]], closed: bool
) -> Iterator[Finding]:
    """Warnings for text that was meant to be free: instructions before labels are alike by design."""
    for name, one in figures.items():
        begin, share = begins[name][0] if begins[name] else ("", 0.0)
        free = name == "answers" or not closed
        if share > ONE_OPENING and free and one.enough:
            yield Finding(
                "diversity",
                "warning" if name == "answers" else "note",
                f"{share:.0%} of the {name} begin with “{begin}”",
                count=1,
                fix="put what is always the same into the system prompt"
                if name == "inputs"
                else "vary how answers begin, or leave the beginning out: the model will repeat it",
                figures={"openings": [[text, round(part, 4)] for text, part in begins[name]]},
            )
        if free and one.poor:
            yield Finding(
                "diversity",
                "warning",
                f"the {name} say much the same: only {one.distinct[2]:.0%} of the pairs of neighbouring "
                "words are distinct; free text has 50 % and more",
                count=1,
                fix="look for templates and near-duplicates, and add rows that are worded differently",
            )


def _topics(column: Sequence[str], name: str) -> Iterator[Finding]:
    found = topic.topics(column[: topic.MOST_ROWS])
    if not found:
        return
    total = sum(one.count for one in found)
    few = sum(one.count < NEARLY_EMPTY * total for one in found)
    shares = np.array([one.count / total for one in found])
    even = float(-(shares * np.log(shares)).sum() / np.log(len(shares))) if len(shares) > 1 else 1.0
    counts: dict[str, int] = {}
    for one in found:
        counts[one.name] = counts.get(one.name, 0) + one.count
    yield Finding(
        "diversity",
        "note",
        f"topics of the {name}: the largest of {len(found)} clusters ({found[0].name}) has {shares[0]:.0%} "
        f"of {total:,} rows, {few} have less than {NEARLY_EMPTY:.0%}; evenness {even:.2f} of 1",
        count=len(found),
        fix="add rows of what your users will ask about and a small cluster stands for" if few else "",
        figures={"counts": counts, "evenness": round(even, 4)},
    )


def _sample(table: Table) -> tuple[list[int], str]:
    """Positions to look at, in order, and what to say about it."""
    count, characters = len(table), sum(map(len, table.inputs)) + sum(map(len, table.answers))
    most = min(SAMPLE, max(1000, count * CHARACTERS // max(1, characters)))
    if count <= most:
        return list(range(count)), ""
    return sorted(random.Random(42).sample(range(count), most)), f" (in {most:,} of {count:,} rows)"
