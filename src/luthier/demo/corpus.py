"""Text for pre-training the demo's base, made from templates: prose, and short conversations in ChatML.

It holds everyday sentences, questions with answers, arithmetic and customer-service prose in Chinese and
English, but no request of the task and no intent as an answer: what the base can sort, it learnt by tuning.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from luthier.demo.grammar import Slots, expand, table

LANGUAGES = ("zh", "en")
DOCUMENTS = 12_000
TURN = "<|im_start|>{role}\n{content}<|im_end|>\n"


@dataclass(frozen=True)
class _Source:
    texts: Mapping[str, Mapping[str, Any]]
    slots: Mapping[str, Slots]
    rng: random.Random


def documents(seed: int = 0, count: int = DOCUMENTS) -> list[str]:
    """`count` documents of 20 to 400 characters; a pure function of the arguments."""
    texts = {**table("corpus.yaml"), "dialogues": table("dialogues.yaml")}
    shop = table("slots.yaml")
    slots = {language: {**texts["slots"], **shop[language]} for language in LANGUAGES}
    source = _Source(texts, slots, random.Random(f"{seed} corpus"))
    kinds, weights = zip(*_KINDS, strict=True)
    return [
        kind(source, source.rng.choice(LANGUAGES)) for kind in source.rng.choices(kinds, weights, k=count)
    ]


def rows(seed: int = 0, count: int = DOCUMENTS) -> list[dict[str, str]]:
    """The documents as rows of a pre-training data set."""
    return [{"text": text} for text in documents(seed, count)]


def chat(*turns: tuple[str, str]) -> str:
    """(question, answer) pairs in ChatML."""
    return "".join(
        TURN.format(role="user", content=question) + TURN.format(role="assistant", content=answer)
        for question, answer in turns
    )


def _prose(source: _Source, language: str, section: str = "plain") -> str:
    templates = source.texts[section][language]
    chosen = source.rng.sample(templates, source.rng.randint(1, 4))
    joint = "" if language == "zh" else " "
    return joint.join(_capital(expand(t, source.slots[language], source.rng)) for t in chosen)


def _service(source: _Source, language: str) -> str:
    return _prose(source, language, "service")


def _conversation(source: _Source, language: str) -> str:
    turns = []
    for _ in range(source.rng.randint(1, 3)):
        section = source.rng.choices(("questions", "replies", "sums"), (6, 2, 1))[0]
        if section == "sums":
            turns.append(_sum(source.rng, language))
            continue
        pair = source.rng.choice(source.texts[section][language].splitlines())
        values: dict[str, Any] = {}
        question, answer = (
            expand(part, source.slots[language], source.rng, values) for part in pair.split(" => ")
        )
        turns.append((_capital(question) if language == "en" else question, answer))
    return chat(*turns)


def _dialogue(source: _Source, language: str) -> str:
    group = source.rng.choice(source.texts["dialogues"][language])
    values: dict[str, Any] = {}
    question, answer = (
        expand(source.rng.choice(group[part]), source.slots[language], source.rng, values)
        for part in ("asks", "replies")
    )
    opening, ending = (source.rng.choice(source.texts[part][language]) for part in ("openings", "endings"))
    question = opening + question + ending
    return chat((_capital(question) if source.rng.random() < 0.5 else question, _capital(answer)))


def _sum(rng: random.Random, language: str) -> tuple[str, str]:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if rng.random() < 0.5:
        a, b = max(a, b), min(a, b)
        question = {"zh": f"{a}减{b}等于几？", "en": f"What is {a} - {b}?"}[language]
        return question, str(a - b)
    return {"zh": f"{a}加{b}等于几？", "en": f"What is {a} + {b}?"}[language], str(a + b)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_KINDS: tuple[tuple[Callable[[_Source, str], str], int], ...] = (
    (_prose, 3),
    (_service, 4),
    (_conversation, 5),
    (_dialogue, 8),
)
