"""What people are told of report.json, in English or Chinese: names, figures and the answer in sentences.

page.yaml has the wording. The HTML page, the Markdown and the terminal say the same words about the same
figures, because all of them take them from here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

from luthier.evaluate import suite
from luthier.evaluate.sets import SUITE, TEXTS
from luthier.measure import kinds
from luthier.pages import base
from luthier.pages.base import Language

Words = Mapping[str, Any]
Figure = Mapping[str, Any]
Part = tuple[str, str, Figure]
"""What a figure is called, the metric that it is of, and the figure itself."""

LM_EVAL = "lm_eval"
SIDES = ("before", "after")
MARKS = {"improved": "▲", "no evidence": "○", "regressed": "▼"}
_LIKELIHOOD = "likelihood_"
_LITTLE = 0.1  # of the questions right: a base that knows less has nothing to forget
_WORD = re.compile(r"\A[a-z]+(?:-[a-z]+)?(?=[ ,:])")
_SPAN = re.compile(r"(?P<low>\d+) to (?P<high>\d+) (?P<unit>tokens|characters)")


class Task(NamedTuple):
    """A section of the report: its key, its name in words, its figures in order, and details.{key}."""

    key: str
    title: str
    parts: tuple[Part, ...]
    detail: Mapping[str, Any]


class Answer(NamedTuple):
    """The answer for one task: the verdict (None for one system), the short sentence, and its figures."""

    verdict: str | None
    head: str
    text: str


def words(language: Language) -> Words:
    return base.words("evaluate/page.yaml")[language]


def tasks(result: Mapping[str, Any], language: Language) -> list[Task]:
    """Data sets in the order of the report, then what shows damage; lm-eval's tasks are one."""
    w, found, others = words(language), list[Task](), dict[str, Mapping[str, Figure]]()
    for key, figures in result["tasks"].items():
        if key.startswith(f"{LM_EVAL}."):
            others[key] = figures
            continue
        names = _abilities(language) if key == SUITE else {}
        parts = [(names.get(name) or metric(w, name), name, figure) for name, figure in figures.items()]
        found.append(Task(key, w["titles"].get(key, key), tuple(parts), result["details"].get(key, {})))
    asked = others or LM_EVAL in result["details"]
    return [*found, _lm_eval(w, others, result["details"])] if asked else found


def answers(result: Mapping[str, Any], language: Language) -> list[Answer]:
    """One sentence for each task: what tuning changed, by how much, and what it damaged."""
    w = words(language)
    return [_answer(w, task) for task in tasks(result, language) if task.parts]


def sides(w: Words, found: Container[str], alone: str | None = None) -> dict[str, str]:
    """side -> its name; the only side there is, which may be no tuned one, is called `alone` ("value")."""
    named = {side: str(w[side]) for side in SIDES if side in found}
    return named if len(named) > 1 else dict.fromkeys(named, w["value"] if alone is None else alone)


def leading(task: Task, metrics: Iterable[str]) -> str:
    """The metric that stands for the task, of those there are."""
    return kinds.leading(task.detail.get("kind", ""), metrics)


def notes(found: Mapping[str, Any], key: str, language: Language) -> list[str]:
    """The sentences of `found[key]`; their first word begins with a capital, where it is no name."""
    return [
        _WORD.sub(lambda first: first[0].capitalize(), str(one[language])) for one in found.get(key) or ()
    ]


def metric(w: Words, name: str) -> str:
    short = name.removeprefix(_LIKELIHOOD)
    return str(w["metrics"].get(short, short))


def likely(name: str) -> bool:
    """Whether the metric is of the likeliest label and not of what was written."""
    return name.startswith(_LIKELIHOOD)


def is_share(name: str) -> bool:
    """Whether values are parts of 1, which are shown in per cent."""
    return name.removeprefix(_LIKELIHOOD) not in kinds.PLAIN


def number(name: str, value: float | None) -> str:
    """12.3 %, 1.234, 12.34, 1,234.5, or – where there is none."""
    if value is None:
        return "–"
    if is_share(name):
        return _minus(f"{value * 100:.1f}\N{NO-BREAK SPACE}%")
    return _minus(f"{value:,.{_digits(value)}f}")


def signed(name: str, value: float | None) -> str:
    """A difference with its sign; of shares in percentage points."""
    if value is None:
        return "–"
    scaled, digits = (value * 100, 1) if is_share(name) else (value, _digits(value))
    told = f"{scaled:+,.{digits}f}"
    return told[1:] if not told.strip("+-0.") else _minus(told)


def between(w: Words, name: str, figure: Figure) -> str:
    """The interval: of the difference, or of the value where there is nothing to compare with."""
    if figure["low"] is None or figure["high"] is None:
        return "–"
    told = signed if compared(figure) else number
    return str(w["range"].format(low=told(name, figure["low"]), high=told(name, figure["high"])))


def compared(figure: Figure) -> bool:
    """Whether two systems were; a figure of another package may have no verdict."""
    return figure["verdict"] is not None or figure["delta"] is not None


def alone(figure: Figure) -> float | None:
    """The value of the only system."""
    after: float | None = figure["after"]
    return figure["before"] if after is None else after


def rows(w: Words, n: int) -> str:
    return str(w["rows"]["one" if n == 1 else "many"].format(n=f"{n:,}"))


def slice_name(w: Words, name: str) -> str:
    span = _SPAN.fullmatch(name)
    if span is None:
        return str(w["slice_names"].get(name, name))
    return str(w["span_of"][span["unit"]].format(low=f"{int(span['low']):,}", high=f"{int(span['high']):,}"))


def scoring(w: Words, found: Mapping[str, Any]) -> str:
    """Whether labels should be written or the likeliest be taken."""
    figures = {way: number("accuracy", found[way]) for way in ("generation", "likelihood")}
    return str(w["scoring"]["figures"].format(**figures) + w["scoring"][found["better"]])


def _lm_eval(w: Words, found: Mapping[str, Mapping[str, Figure]], details: Mapping[str, Any]) -> Task:
    """All of lm-eval's tasks as one, with what failed as notes and the subtasks of groups as slices."""
    parts, slices = list[Part](), dict[str, Any]()
    notes = list(details.get(LM_EVAL, {}).get("notes") or ())
    for key, figures in found.items():
        short, detail = key.removeprefix(f"{LM_EVAL}."), details.get(key, {})
        parts += [(f"{short} · {name}", name, figure) for name, figure in figures.items()]
        notes += detail.get("notes") or ()
        if "slices" in detail:
            slices[short] = detail["slices"]["subtask"]
    return Task(
        LM_EVAL, w["titles"][LM_EVAL], tuple(parts), {"kind": LM_EVAL, "notes": notes, "slices": slices}
    )


def _abilities(language: Language) -> dict[str, str]:
    return {one.key: one.name[language] for one in suite.abilities()}


def _answer(w: Words, task: Task) -> Answer:
    if task.key in (SUITE, LM_EVAL):
        return _damage(w, task)
    name = leading(task, [name for _, name, _ in task.parts])
    part = next(part for part in task.parts if part[1] == name)
    figure = part[2]
    if not compared(figure):
        return Answer(None, w["head_alone"].format(task=task.title), _told_alone(w, part) + w["stop"])
    verdict = str(figure["verdict"] or "no evidence")
    heads = w["damage"] if task.key == TEXTS else w["heads"]
    text = _capital(_told(w, part, with_rows=True)) + w["stop"]
    worse = [other for other in task.parts if other[2]["verdict"] == "regressed"]
    if worse and verdict != "regressed":
        text += gap(w) + w["though"].format(parts=w["semicolon"].join(_short(w, one) for one in worse))
    return Answer(verdict, heads[verdict].format(task=task.title), text)


def _damage(w: Words, task: Task) -> Answer:
    """Of several abilities at once: regressed where any is."""
    if not any(compared(figure) for _, _, figure in task.parts):
        text = w["comma"].join(f"{name} {number(key, alone(figure))}" for name, key, figure in task.parts)
        return Answer(None, w["head_alone"].format(task=task.title), text + w["stop"])
    by = {v: [part for part in task.parts if part[2].get("verdict") == v] for v in MARKS}
    verdict = "regressed" if by["regressed"] else "improved" if by["improved"] else "no evidence"
    said = [
        w[key].format(parts=w["semicolon"].join(_told(w, part) for part in by[kind]))
        for kind, key in (("regressed", "worse_in"), ("improved", "better_too"))
        if by[kind]
    ]
    if not said:
        count = sum(int(figure["n"]) for _, _, figure in task.parts)
        said.append(w["measured"][task.key].format(count=len(task.parts), n=count))
    most = max((figure["before"] or 0.0 for _, key, figure in task.parts if is_share(key)), default=1.0)
    if most < _LITTLE and verdict != "regressed":
        said.append(w["little_to_lose"].format(most=number("", most)))
    return Answer(verdict, w["damage"][verdict].format(task=task.title), gap(w).join(said))


def _told(w: Words, part: Part, *, with_rows: bool = False) -> str:
    """accuracy 40.0 % → 60.0 %: +20.0 points (95 % interval +10.0 to +30.0; 100 rows)"""
    _, key, figure = part
    delta = signed(key, figure["delta"])
    delta = w["points"].format(number=delta) if is_share(key) else delta
    within = w["within"].format(range=between(w, key, figure))
    within += w["semicolon"] + rows(w, int(figure["n"])) if with_rows else ""
    return str(w["moved_by"].format(moved=_short(w, part), delta=delta)) + _bracketed(w, within)


def _told_alone(w: Words, part: Part) -> str:
    name, key, figure = part
    within = w["within"].format(range=between(w, key, figure)) + w["semicolon"] + rows(w, int(figure["n"]))
    return f"{name} {number(key, alone(figure))}" + _bracketed(w, within)


def _short(w: Words, part: Part) -> str:
    name, key, figure = part
    before, after = number(key, figure["before"]), number(key, figure["after"])
    return str(w["moved"].format(metric=name, before=before, after=after))


def _bracketed(w: Words, text: str) -> str:
    return f"（{text}）" if w["stop"] == "。" else f" ({text})"


def gap(w: Words) -> str:
    return "" if w["stop"] == "。" else " "


def _digits(value: float) -> int:
    return 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _minus(text: str) -> str:
    return text.replace("-", "−")
