"""What the demo's base learns from, made from templates: prose to pre-train on, then conversations.

Everyday sentences, questions with answers, arithmetic and talk between shops and customers, in Chinese and
English. No request of the task is in it, and no intent is ever an answer: the base can talk a little, but
what sorts requests is learnt by tuning alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.demo.grammar import Slots, expand, table

LANGUAGES = ("zh", "en")
DOCUMENTS, CONVERSATIONS = 12_000, 10_000

Turns = list[tuple[str, str]]
"""Questions with their answers, in order."""


@dataclass(frozen=True)
class _Source:
    texts: Mapping[str, Mapping[str, Any]]
    slots: Mapping[str, Slots]
    rng: random.Random


def write(directory: str | Path, seed: int = 0) -> Path:
    """Write the data sets `text` (pre-training) and `talk` (conversations) and their dataset_info.json."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    talk = [{"messages": _messages(turns)} for turns in conversations(seed)]
    files: dict[str, Any] = {
        "text.json": [{"text": text} for text in documents(seed)],
        "talk.json": talk,
        "dataset_info.json": {
            "text": {"file_name": "text.json", "columns": {"prompt": "text"}},
            "talk": {"file_name": "talk.json", "formatting": "openai"},
        },
    }
    for name, content in files.items():
        (directory / name).write_text(
            json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
    return directory


def documents(seed: int = 0, count: int = DOCUMENTS) -> list[str]:
    """Prose, and conversations written down as questions and answers; a pure function of the arguments."""
    source = _source(f"{seed} documents")
    return [_pick(_TEXTS, source)(source, source.rng.choice(LANGUAGES)) for _ in range(count)]


def conversations(seed: int = 0, count: int = CONVERSATIONS) -> list[Turns]:
    """Conversations of one to three turns; a pure function of the arguments."""
    source = _source(f"{seed} conversations")
    return [_talk(source, source.rng.choice(LANGUAGES)) for _ in range(count)]


def _source(seed: str) -> _Source:
    texts = {**table("corpus.yaml"), "dialogues": table("dialogues.yaml")}
    shop = table("slots.yaml")
    slots = {language: {**texts["slots"], **shop[language]} for language in LANGUAGES}
    return _Source(texts, slots, random.Random(seed))


def _messages(turns: Turns) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]


def _prose(source: _Source, language: str, section: str = "plain") -> str:
    templates = source.texts[section][language]
    chosen = source.rng.sample(templates, source.rng.randint(1, 3))
    sentences = (_capital(expand(template, source.slots[language], source.rng)) for template in chosen)
    return {"zh": "", "en": " "}[language].join(sentences)


def _service(source: _Source, language: str) -> str:
    return _prose(source, language, "service")


def _transcript(source: _Source, language: str) -> str:
    ask, reply = {"zh": ("问：", "答："), "en": ("Q: ", "A: ")}[language]
    turns = _talk(source, language)
    return "\n".join(f"{ask}{question}\n{reply}{answer}" for question, answer in turns)


def _talk(source: _Source, language: str) -> Turns:
    return [_pick(_TURNS, source)(source, language) for _ in range(source.rng.randint(1, 3))]


def _pair(source: _Source, language: str, section: str) -> tuple[str, str]:
    pair = source.rng.choice(source.texts[section][language].splitlines())
    values: dict[str, Any] = {}
    question, answer = (
        expand(part, source.slots[language], source.rng, values) for part in pair.split(" => ")
    )
    return _capital(question) if language == "en" else question, answer


def _question(source: _Source, language: str) -> tuple[str, str]:
    return _pair(source, language, "questions")


def _reply(source: _Source, language: str) -> tuple[str, str]:
    return _pair(source, language, "replies")


def _request(source: _Source, language: str) -> tuple[str, str]:
    group = source.rng.choice(source.texts["dialogues"][language])
    values: dict[str, Any] = {}
    question, answer = (
        expand(source.rng.choice(group[part]), source.slots[language], source.rng, values)
        for part in ("asks", "replies")
    )
    opening, ending = (source.rng.choice(source.texts[part][language]) for part in ("openings", "endings"))
    question = opening + question + ending
    return _capital(question) if source.rng.random() < 0.5 else question, _capital(answer)


def _sum(source: _Source, language: str) -> tuple[str, str]:
    rng = source.rng
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if rng.random() < 0.5:
        a, b = max(a, b), min(a, b)
        question = {"zh": f"{a}减{b}等于几？", "en": f"What is {a} - {b}?"}[language]
        return question, str(a - b)
    return {"zh": f"{a}加{b}等于几？", "en": f"What is {a} + {b}?"}[language], str(a + b)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _pick(
    weighted: Mapping[Callable[[_Source, str], Any], int], source: _Source
) -> Callable[[_Source, str], Any]:
    return source.rng.choices(list(weighted), list(weighted.values()))[0]


_TEXTS: dict[Callable[[_Source, str], str], int] = {_prose: 4, _service: 6, _transcript: 7}
_TURNS: dict[Callable[[_Source, str], tuple[str, str]], int] = {
    _question: 5,
    _reply: 2,
    _sum: 1,
    _request: 10,
}
