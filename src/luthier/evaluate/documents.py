"""Does a task ask for facts that stand in documents? Then looking them up serves better than weights.

A fact of an answer is a word that cannot be guessed from the language: a number, a name (a capitalised word
that does not begin a sentence, or one with capitals or digits inside, such as X200), what stands in quotation
marks; of an answer without any of these, the whole of it where it has at most `_SHORT` characters and no
spaces ("张伟"). Words in more than `_COMMON` of the different answers are the task's vocabulary, no facts.
A fact that stands in the question needs no knowledge; one in the answers of the nearest training rows can be
looked up there; one in neither was taught by no row near it. That fine-tuning teaches new facts slowly, and
that retrieval serves them better, was measured by Ovadia et al. ("Fine-Tuning or Retrieval?", EMNLP 2024) and
by Gekhman et al. ("Does Fine-Tuning LLMs on New Knowledge Encourage Hallucinations?", EMNLP 2024).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml

from luthier.evaluate.nearest import Index
from luthier.measure.strings import normalise
from luthier.measure.tasks import Asked

LEAST = 20
"""So many different answers are needed to tell facts from vocabulary."""
_NEAREST = 4
_COPY = 0.8
_COMMON = 0.05
_SHORT = 12
_SAMPLE = 500  # rows looked at, evenly spread
_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?:[.,:/-]\d+)*")
_QUOTED = re.compile(r"《([^《》]+)》|“([^“”]+)”|「([^「」]+)」|\"([^\"]+)\"")
_WORD = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ\d'’-]*")
_LOOK = 4  # characters before a word that say whether it begins a sentence
_BEGINS = re.compile(r"(?:^|[.!?:;。！？：；\n*•\"“(（-])\s*$")


@dataclass(frozen=True)
class Facts:
    """Shares, 0 to 1. asks: of the rows, questions for a fact · rows: with facts that the question does not
    name · in_question: of all facts, those that the question names · in_nearest: of the others, those that
    stand in the answers of the 4 nearest training rows, None without these · near: of the rows, those with a
    training row that is nearly their question (similarity of at least 0.8) · n: rows looked at.
    """

    n: int
    asks: float
    rows: float
    in_question: float
    in_nearest: float | None
    near: float | None


def facts(rows: Sequence[Asked], trained: Sequence[Asked] = ()) -> Facts | None:
    """What the answers of a task hold that is not in its questions; None where there are too few answers."""
    answers = {normalise(row.answer): row.answer for row in rows}
    if len(answers) < LEAST:
        return None
    count = Counter(fact for answer in answers.values() for fact in words(answer))
    rows = rows[:: max(1, len(rows) // _SAMPLE)][:_SAMPLE]
    own = [{f for f in words(row.answer) if count[f] <= max(2, _COMMON * len(answers))} for row in rows]
    unknown = [
        {fact for fact in found if not _holds(row.question, fact)}
        for found, row in zip(own, rows, strict=True)
    ]
    total, left = sum(map(len, own)), sum(map(len, unknown))
    in_nearest, near = _known(rows, unknown, trained) if trained else (None, None)
    return Facts(
        len(rows),
        sum(asks(row.question) for row in rows) / len(rows),
        sum(map(bool, unknown)) / len(rows),
        (total - left) / max(total, 1),
        in_nearest,
        near,
    )


def words(answer: str) -> set[str]:
    """The numbers, names and quotations of an answer, with case folded."""
    found = set(_NUMBER.findall(answer))
    found |= {text for groups in _QUOTED.findall(answer) for text in groups if text}
    for match in _WORD.finditer(answer):
        word, start = match[0], match.start()
        first = _BEGINS.search(answer[max(0, start - _LOOK) : start]) is not None
        inside = any(sign.isupper() or sign.isdigit() for sign in word[1:])
        if inside or (word[0].isupper() and not first and len(word) > 1):
            found.add(word)
    whole = answer.strip().rstrip("。.")
    if not found and 0 < len(whole) <= _SHORT and not whole.isascii() and not any(map(str.isspace, whole)):
        found.add(whole)
    return {fact.casefold() for fact in found}


def asks(question: str) -> bool:
    """Whether the last line of a question asks for something that can be looked up."""
    line = question.strip().rpartition("\n")[2].strip().casefold()
    if line.endswith(("?", "？", "吗", "呢")):
        return True
    return line.startswith(_asking()["begin"]) or any(word in line for word in _asking()["within"])


def _known(
    rows: Sequence[Asked], unknown: Sequence[set[str]], trained: Sequence[Asked]
) -> tuple[float, float]:
    """Share of the unknown facts in the answers of the nearest training rows; rows with nearly their own."""
    found = Index([row.question for row in trained]).nearest([row.question for row in rows], _NEAREST)
    hits = copies = 0
    for own, places in zip(unknown, found, strict=True):
        read = "\n".join(trained[place].answer for place, _ in places)
        hits += sum(_holds(read, fact) for fact in own)
        copies += places[0][1] >= _COPY
    return hits / max(sum(map(len, unknown)), 1), copies / len(rows)


def _holds(text: str, fact: str) -> bool:
    """Whether a text names a fact; 13 is not in 137."""
    if fact[0].isdigit():
        return re.search(rf"(?<!\d){re.escape(fact)}(?!\d)", text) is not None
    return fact in text.casefold()


@functools.cache
def _asking() -> Mapping[str, tuple[str, ...]]:
    text = files("luthier.evaluate").joinpath("documents.yaml").read_text("utf-8")
    loaded: dict[str, list[str]] = yaml.safe_load(text)
    return {name: tuple(found) for name, found in loaded.items()}
