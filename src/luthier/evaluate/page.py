"""The report of an evaluation as one HTML file, in English or Chinese: a pure function of report.json.

On top the answer in one sentence a task; then each task with its figures and whatever its details hold. A
section whose details are absent is left out, so the page of one system, of perplexity only, or of an older
report.json is made by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from luthier.evaluate import figures, page_labels, page_parts, wording
from luthier.evaluate.wording import Task
from luthier.pages import base
from luthier.pages.base import Language

PARTS: dict[str, Callable[[Task, Language], Any]] = {
    "shots": page_parts.shots,
    "curve": page_parts.curve,
    "judge": page_parts.judge,
    "classes": page_labels.classes,
    "confusion": page_labels.confusion,
    "reliability": page_labels.reliability,
    "slices": page_parts.slices,
    "examples": page_parts.examples,
}
"""Blocks of a section: name in the template -> what it needs, or something empty where there is nothing."""
_KEPT = ("rows", "sha256", "version")


def page(result: Mapping[str, Any], language: Language = "en") -> str:
    """The page. result: what report.json holds."""
    w = wording.words(language)
    tasks = wording.tasks(result, language)
    sets = [task.title for task in tasks if task.key not in w["titles"]]
    return base.render(
        "evaluate/page.html.jinja",
        "evaluate/page.css",
        language,
        w=w,
        name=w["comma"].join(sets) or w["report"],
        systems=systems(result, language),
        answers=wording.answers(result, language),
        kinds=figures.KINDS,
        marks=wording.MARKS,
        advice=[text for task in tasks for text in wording.notes(task.detail, "advice", language)],
        sections=[section(task, language) for task in tasks],
        about=_about(result, language),
    )


def systems(result: Mapping[str, Any], language: Language) -> list[tuple[str, str]]:
    """(before or after, who that is) of the systems; one that is alone has no side."""
    found = result["systems"]
    sides = wording.sides(wording.words(language), found, "")
    return [(name, str(found[side]["name"])) for side, name in sides.items()]


def section(task: Task, language: Language) -> dict[str, Any]:
    """What is told of a task: its figures, and each of PARTS."""
    w, detail = wording.words(language), task.detail
    why = detail.get("why_zh") if language == "zh" else None
    return {
        "title": task.title,
        "kind": w["kinds"].get(detail.get("kind"), ""),
        "why": why or detail.get("why") or "",
        "notes": wording.notes(detail, "notes", language),
        "table": figures.table(w, task.parts) if task.parts else None,
        "scoring": wording.scoring(w, detail["scoring"]) if detail.get("scoring") else "",
        **{name: part(task, language) for name, part in PARTS.items()},
    }


def _about(result: Mapping[str, Any], language: Language) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, lines) of what a reader needs to do it again: nested keys are joined with points."""
    w = wording.words(language)
    data = {
        name: {key: detail[key] for key in _KEPT if key in detail}
        for name, detail in result.get("details", {}).items()
    }
    run = {key: result[key] for key in ("seed", "seconds") if key in result}
    parts = {
        "systems": {
            name: result["systems"][side] for side, name in wording.sides(w, result["systems"], "").items()
        },
        "decoding": result.get("decoding", {}),
        "data": data,
        "versions": result.get("versions", {}),
        "run": run,
    }
    told = [(str(w["about_parts"][name]), _flat(part)) for name, part in parts.items()]
    return [(title, lines) for title, lines in told if lines]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            line
            for key, inside in value.items()
            for line in _flat(inside, f"{name} · {key}" if name else key)
        ]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))] if value else []
    return [] if value is None else [(name, str(value))]
