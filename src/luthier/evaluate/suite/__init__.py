"""The fixed suite against forgetting: general abilities and prose, the same before and after training.

Tuning for one task can damage what the model could do before. The suite asks 276 short questions that have
nothing to do with anybody's task, in English and Chinese: following instructions, keeping to a format,
arithmetic, common knowledge by multiple choice, what to refuse and what not, and everyday reading. All were
written for this package and none is taken from a public benchmark, so no base model has been trained on them.
Each is judged by rules (`rules.RULES`), right or wrong, without a judging model. Beside them stand 60
paragraphs of prose for perplexity. The items, wordings and texts are data files of this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from luthier.evaluate.suite.rules import RULES
from luthier.measure.types import Measured

LANGUAGES = ("en", "zh")
LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Ability:
    """A part of the suite: its key, its name in each language, and how many new tokens an answer may have."""

    key: str
    name: Mapping[str, str]
    tokens: int


@dataclass(frozen=True, slots=True)
class Item:
    """One question to a model without examples or system prompt.

    prompt: what the user says · checks: (rule, arguments), all of which a right answer meets · choices: the
    texts of the options A to D, else () · answer: the letter, number or word, "" where only rules decide ·
    good, bad: answers that pass and that fail.
    """

    id: str
    ability: str
    language: str
    prompt: str
    checks: tuple[tuple[Any, ...], ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    answer: str = ""
    choices: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters, where the item can be scored by their likelihood; else ()."""
        return LETTERS if self.choices else ()


@dataclass(frozen=True, slots=True)
class Text:
    """One paragraph of general prose."""

    id: str
    language: str
    text: str


@cache
def abilities() -> tuple[Ability, ...]:
    """The parts of the suite in the order of the report."""
    found = _wording()["abilities"]
    return tuple(Ability(key, one["name"], one["tokens"]) for key, one in found.items())


@cache
def items() -> tuple[Item, ...]:
    """All questions, ability by ability, English before Chinese."""
    found = []
    for key, one in _wording()["abilities"].items():
        rows = [json.loads(line) for line in _read(f"{key}.jsonl").splitlines()]
        make, asks = _MAKE.get(key, _ruled), one.get("ask", {})
        found += [make(key, row, asks.get(row["language"], "")) for row in rows]
    return tuple(found)


def judge(item: Item, answer: str) -> float:
    """1.0 for an answer that meets all checks of the item, else 0.0; repeating the question is no answer.

    Thoughts of a reasoning model must be taken off before (`measure.strings.without_thought`).
    """
    text = answer.strip()
    if not text or item.prompt in text:
        return 0.0
    return float(all(RULES[name](text, *arguments) for name, *arguments in item.checks))


def measured(asked: Sequence[Item], answers: Sequence[str]) -> dict[str, Measured]:
    """The share of right answers of each ability; answers[i] is the reply to asked[i].

    Two systems that answered the same items have the same rows in the same order, as pairs need.
    """
    points = np.array([judge(item, text) for item, text in zip(asked, answers, strict=True)], np.float64)
    of = np.array([item.ability for item in asked])
    parts = {ability.key: points[of == ability.key] for ability in abilities()}
    return {key: _share(part) for key, part in parts.items() if len(part)}


@cache
def texts() -> tuple[Text, ...]:
    """The paragraphs for perplexity, English before Chinese."""
    return tuple(
        Text(f"texts.{language}.{number:02}", language, block.strip())
        for language in LANGUAGES
        for number, block in enumerate(_read(f"texts.{language}.txt").strip().split("\n\n"), 1)
    )


@cache
def identity() -> dict[str, str]:
    """For the report: `version`, and `sha256` of items, texts, wordings and rules."""
    names = ["suite.yaml", *(f"{ability.key}.jsonl" for ability in abilities())]
    names += [*(f"texts.{language}.txt" for language in LANGUAGES), "refusals.yaml", "rules.py"]
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{_read(name)}\0".encode())
    return {"version": _wording()["version"], "sha256": digest.hexdigest()}


# --- from a row of a data file to an Item


def _ruled(ability: str, row: Mapping[str, Any], ask: str) -> Item:
    checks = tuple(map(tuple, row["checks"]))
    good, bad = tuple(row["good"]), tuple(row["bad"])
    return Item(row["id"], ability, row["language"], row["prompt"], checks, good, bad)


def _arithmetic(ability: str, row: Mapping[str, Any], ask: str) -> Item:
    right = row["answer"]
    prompt, checks = ask.format(question=row["question"]), (("number", right),)
    wrong = str(Decimal(right) + 1)
    return Item(row["id"], ability, row["language"], prompt, checks, (right,), (wrong,), right)


def _knowledge(ability: str, row: Mapping[str, Any], ask: str) -> Item:
    choices, right = tuple(row["choices"]), row["answer"]
    prompt = ask.format(question=row["question"], **dict(zip(LETTERS, choices, strict=True)))
    good = (right, choices[LETTERS.index(right)])
    bad = tuple(text for pair in zip(LETTERS, choices, strict=True) for text in pair if text not in good)
    checks = (("letter", right, *choices),)
    return Item(row["id"], ability, row["language"], prompt, checks, good, bad, right, choices)


def _reading(ability: str, row: Mapping[str, Any], ask: str) -> Item:
    prompt, answers = ask.format(text=row["text"], question=row["question"]), tuple(row["answers"])
    checks = (("says", *answers),)
    bad = tuple(row["bad"])
    return Item(row["id"], ability, row["language"], prompt, checks, answers, bad, answers[0])


_MAKE: dict[str, Callable[[str, Mapping[str, Any], str], Item]] = {
    "arithmetic": _arithmetic,
    "knowledge": _knowledge,
    "reading": _reading,
}


def _share(points: np.ndarray[Any, np.dtype[np.float64]]) -> Measured:
    rows = np.stack([points, np.ones_like(points)], axis=1)
    return Measured(rows, lambda sums: sums[..., 0] / sums[..., 1], per_row=points)


@cache
def _wording() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_read("suite.yaml"))
    return found


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
