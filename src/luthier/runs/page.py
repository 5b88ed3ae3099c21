"""A comparison of runs as one HTML file (see luthier.pages.base), in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.measure import kinds
from luthier.pages import base, lines, spans
from luthier.pages.base import Language
from luthier.runs import compare, curves, told
from luthier.runs.beside import Line, Result

_LONGEST = 600  # characters of a text of a row
_KINDS: dict[str, spans.Kind] = {"improved": "better", "no evidence": "unsure", "regressed": "worse"}
_MARKS = {"improved": "▲", "no evidence": "○", "regressed": "▼"}


def page(result: Result, language: Language = "en") -> str:
    """All sections of `beside.beside`."""
    own = base.words("runs/words.yaml")[language]
    letters = [*result["runs"]]
    config = [line for line in result["config"] if line["key"] not in compare.PLACES]
    config.sort(key=lambda line: line["kind"] == "harmless")
    return base.render(
        "runs/page.html.jinja",
        "runs/page.css",
        language,
        w=own,
        letters=letters,
        runs=[_run(k, letter, one) for k, (letter, one) in enumerate(result["runs"].items())],
        tables=[
            (own["config"], _cells(config, letters)),
            (own["data"], _cells(result["data"], letters)),
            (own["results"], _cells(told.telling(result["results"]), letters)),
        ],
        cost=[
            (own["cost"].get(line["key"], line["key"]), [told.cost(line["key"], line[k]) for k in letters])
            for line in result["cost"]
        ],
        plots=_plots(result, own),
        tasks=[_task(name, result, own) for name in result["tasks"]],
        apart=[(one["task"], _upper(one["runs"]), one[language]) for one in result["apart"]],
        notes=[(one.get("task") or one["run"].upper(), one[language]) for one in result["notes"]],
    )


def _run(place: int, letter: str, one: Mapping[str, Any]) -> dict[str, Any]:
    how = " · ".join(filter(None, (one["stage"], one["method"], ", ".join(map(str, one["datasets"])))))
    return {
        "letter": letter.upper(), "swatch": lines.swatch(place, letter.upper()), "path": one["path"],
        "status": one["status"], "how": how,
    }  # fmt: skip


def _cells(found: Sequence[Line], letters: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """(key, "grave" or "", value of each run)."""
    return [
        (line["key"], "" if line.get("kind", "harmless") == "harmless" else "grave", values)
        for line in found
        for values in [[told.value(line[letter]) for letter in letters]]
    ]


def _plots(result: Result, own: Mapping[str, Any]) -> list[tuple[str, str]]:
    along, found = result["curves"]["along"], []
    for key, by_run in result["curves"].items():
        if key == "along":
            continue
        named = {k.upper(): told.placed(curve, along) for k, curve in by_run.items()}
        if not any(len(points) > 1 for points in named.values()):
            continue
        steep = curves.steep(y for points in named.values() for _, y in points)
        title = f"{own.get(key, key)} / {own[along]}"
        # a run without this curve keeps its place, and with it the shape of its marks
        every = {letter.upper(): named.get(letter.upper(), []) for letter in result["runs"]}
        found.append((title, lines.overlay(every, title, steep)))
    return found


def _task(name: str, result: Result, own: Mapping[str, Any]) -> dict[str, Any]:
    letters = [*result["runs"]]
    against = []
    for letter in letters[1:]:
        figures = told.of_run(result["tasks"][name], letter, letters)
        if figures:
            rows = told.of_run(result["rows"][name], letter, letters)
            against.append(_against(letter.upper(), figures, rows, own))
    return {"name": name, "kind": result["kinds"][name], "against": against}


def _against(
    letter: str, figures: Mapping[str, Any], rows: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    ends = (one[end] for metric, one in figures.items() if _share(metric) for end in ("low", "high", "delta"))
    along = spans.scale(ends, zero=True)
    score = own["score"].format(letter=letter, **rows) if rows["rated"] else ""
    return {
        "letter": letter,
        "n": next(iter(figures.values()))["n"],
        "metrics": [_metric(metric, one, along, own) for metric, one in figures.items()],
        "axis": spans.axis(along, own["difference"], factor=100, sign=True),
        "score": score,
        "rows": [
            (own[word].format(letter=letter), _rows(rows[f"{word}_rows"]), _more(rows, word, own))
            for word in ("won", "lost")
            if rows[f"{word}_rows"]
        ],
    }


def _metric(
    metric: str, one: Mapping[str, Any], along: spans.Scale, own: Mapping[str, Any]
) -> dict[str, Any]:
    before, after, delta, interval, verdict = told.figure(metric, one)
    kind = _KINDS[verdict]
    drawn = ""
    if _share(metric) and one["delta"] is not None:
        drawn = spans.span(one["delta"], (one["low"], one["high"]), along, kind, f"{metric}: {delta}")
    return {
        "name": metric, "before": before, "after": after, "delta": delta, "interval": interval,
        "kind": kind, "mark": _MARKS[verdict], "word": own[verdict], "span": drawn,
    }  # fmt: skip


def _share(metric: str) -> bool:
    return metric.removeprefix("likelihood_") not in kinds.PLAIN


def _rows(found: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    cut = {"input", "reference", "before", "after"}
    return [{k: told.shortened(v, _LONGEST) if k in cut else v for k, v in row.items()} for row in found]


def _more(rows: Mapping[str, Any], word: str, own: Mapping[str, Any]) -> str:
    left = rows[word] - len(rows[f"{word}_rows"])
    return str(own["more"].format(count=left)) if left else ""


def _upper(letters: Sequence[str]) -> str:
    return ", ".join(letter.upper() for letter in letters)
