"""The report of an evaluation as Markdown, in English or Chinese: what the page says, without its plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from luthier.evaluate import page, wording
from luthier.evaluate.figures import Row, Table
from luthier.evaluate.wording import Task, Words
from luthier.pages.base import Language
from luthier.pages.texts import printable

_LONGEST = 160  # characters of a text in a cell
Lines = Iterator[str]


def markdown(result: Mapping[str, Any], language: Language = "en") -> str:
    """report.md. result: what report.json holds."""
    w, tasks = wording.words(language), wording.tasks(result, language)
    lines = [f"# {w['report']}", ""]
    systems = page.systems(result, language)
    lines += [f"- {w['colon'].join(filter(None, [side, cell(name)]))}" for side, name in systems]
    lines += ["", w["one_system"]] if len(systems) == 1 else []
    for one in wording.answers(result, language):
        mark = wording.MARKS.get(one.verdict or "", "")
        lines += ["", f"{mark} **{_plain(one.head)}** {_plain(one.text)}".lstrip()]
    advice = [text for task in tasks for text in wording.notes(task.detail, "advice", language)]
    lines += ["", f"**{w['advice']}**", "", *_list(advice)] if advice else []
    for task in tasks:
        lines += _section(w, task, language)
    return "\n".join([*lines, "", w["method"]]) + "\n"


def cell(text: str) -> str:
    """A text in one cell of a table: one line, shortened, nothing in it read as markup."""
    line = " ".join(printable(text).split())
    return _plain(line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…")


def _section(w: Words, task: Task, language: Language) -> Lines:
    section = page.section(task, language)
    yield from ("", w["colon"].join(filter(None, [f"## {cell(task.title)}", section["kind"]])), "")
    if section["why"]:
        yield from (_plain(section["why"]), "")
    if section["notes"]:
        yield from (*_list(section["notes"]), "")
    if section["table"]:
        yield from _table(w, section["table"], w["metric"])
    if section["scoring"]:
        yield from ("", section["scoring"])
    for name, told in _BLOCKS.items():
        if section[name]:
            yield from told(w, section[name])


def _table(w: Words, table: Table, head: str) -> Lines:
    names = ["value"] if table.alone else ["before", "after", "difference"]
    heads = [head, *(w[name] for name in names), w["interval"], w["row_count"]]
    heads += [] if table.alone else [w["verdict"]]
    yield from _head(heads)
    for title, rows in table.groups:
        if title:
            yield _line([f"**{cell(title)}**", *[""] * (len(heads) - 1)])
        for row in rows:
            yield _line(_cells(w, table, row))


def _cells(w: Words, table: Table, row: Row) -> list[str]:
    name = cell(row.name) + (f" ({w['lower']})" if row.lower else "")
    if table.alone:
        return [name, row.after, row.interval, row.n]
    return [name, row.before, row.after, row.delta, row.interval, row.n, f"{row.mark} {row.word}"]


def _shots(w: Words, found: Mapping[str, Any]) -> Lines:
    yield from ("", f"### {w['shots']}", "", found["help"], "")
    yield from _table(w, found["table"], w["comparison"])


def _curve(w: Words, found: Mapping[str, Any]) -> Lines:
    yield from ("", f"### {w['curve']}", "", *_list(found["notes"]), "")
    yield from _head([w[name] for name in ("share", "curve_rows", "value", "interval", "seconds")])
    yield from (_line(line.values()) for line in found["lines"])


def _judge(w: Words, found: Mapping[str, Any]) -> Lines:
    yield from ("", f"### {w['judge']}", "", _plain(found["what"]))
    if found["rate"]:
        yield f"{found['mark']} {found['rate']}".lstrip()
    yield from (
        "",
        *_list(found["notes"]),
        *_list(f"{name}{w['colon']}{value}" for name, value in found["lines"]),
    )


def _classes(w: Words, found: Mapping[str, Any]) -> Lines:
    yield from ("", f"### {found['title']}", "")
    sides, both = found["sides"], len(found["sides"]) == 2
    yield from _head([found["part"], *sides.values(), *([w["difference"]] if both else [])])
    for line in [*found["shown"], *found["more"]]:
        yield _line(
            [cell(line["name"]), *(line[side] for side in sides), *([line["change"]] if both else [])]
        )


def _confusion(w: Words, found: Mapping[str, Any]) -> Lines:
    if not found["pairs"]:
        return
    yield from ("", f"### {w['most_confused']}", "")
    yield from _head([w["right"], w["answered"], *found["sides"].values()])
    for right, answered, counts in found["pairs"]:
        yield _line([cell(right), cell(answered), *(counts[side] for side in found["sides"])])


def _reliability(w: Words, found: Mapping[str, Any]) -> Lines:
    yield from ("", f"### {w['calibration']}", "", found["help"])


def _slices(w: Words, found: Table) -> Lines:
    yield from ("", f"### {w['slices']}", "")
    yield from _table(w, found, w["slice"])


def _examples(w: Words, found: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Lines:
    for title, rows in found:
        yield from ("", f"### {title}", "")
        sides = [name for name, _, _ in rows[0]["answers"]]
        near = any(row["nearest"] for row in rows)
        yield from _head([w["row"], w["input"], w["reference"], *sides, *([w["nearest"]] if near else [])])
        for row in rows:
            texts = [row["source"], row["input"], row["reference"], *(text for _, text, _ in row["answers"])]
            nearest = [f"{one['input']} → {one['answer']} ({one['source']})" for one in row["nearest"][:1]]
            yield _line(map(cell, [*texts, *(nearest or [""] * near)]))


_BLOCKS: dict[str, Callable[[Words, Any], Lines]] = {
    **{"shots": _shots, "curve": _curve, "judge": _judge, "classes": _classes, "confusion": _confusion},
    **{"reliability": _reliability, "slices": _slices, "examples": _examples},
}
"""Block of a section of the page -> how it is told."""


def _head(names: Sequence[str]) -> Lines:
    yield from (_line(names), "|" + "---|" * len(names))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(texts: Iterable[str]) -> list[str]:
    return [f"- {_plain(text)}" for text in texts]


def _plain(text: str) -> str:
    """A text whose signs are no markup."""
    line = printable(text).replace("\n", " ")
    for sign in "\\`*_[]<>|#":
        line = line.replace(sign, "\\" + sign)
    return line
