"""The data of the demo: a customer-service assistant that knows its name and sorts requests by intent.

Written as a user would write it (Alpaca rows and a dataset_info.json), in Chinese and English. The held-out
rows use other wordings than the training rows, not only other products and cities. Some rows are whole
conversations, so that the assistant still knows what to do at the third question.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from luthier.demo.grammar import Slots, expand, table

LANGUAGES = ("zh", "en")
TRAIN_ROWS, EVAL_ROWS = 64, 10  # per intent and language
_TRIES = 10_000
_COLUMNS = ("prompt", "query", "response", "history")

CONVERSATIONS = 160  # per language

AlpacaRow = dict[str, Any]


def write(directory: str | Path, seed: int = 0) -> Path:
    """Write dataset_info.json and a file for each of the data sets into `directory`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sets = rows(seed)
    info: dict[str, dict[str, Any]] = {name: {"file_name": f"{name}.json"} for name in sets}
    info["conversation"]["columns"] = dict(
        zip(_COLUMNS, ("instruction", "input", "output", "history"), strict=True)
    )
    for name, content in {
        **{f"{name}.json": data for name, data in sets.items()},
        "dataset_info.json": info,
    }.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (directory / name).write_text(text + "\n", encoding="utf-8")
    return directory


def rows(seed: int = 0) -> dict[str, list[AlpacaRow]]:
    """The data sets by name; a pure function of the seed."""
    slots = table("slots.yaml")
    intents = {language: table(f"intents.{language}.yaml") for language in LANGUAGES}
    sets: dict[str, list[AlpacaRow]] = {
        "identity": _identity(),
        "intent": [],
        "conversation": [],
        "intent_eval": [],
    }
    for name, part, count in (
        ("intent", "train", TRAIN_ROWS),
        ("intent_eval", "eval", EVAL_ROWS),
    ):
        rng = random.Random(f"{seed} {part}")
        for language, spec in intents.items():
            for label, templates in spec["intents"].items():
                texts = _requests(templates[part], count, spec, slots[language], rng)
                sets[name] += [_row(text, label) for text in texts]
        rng.shuffle(sets[name])
    rng = random.Random(f"{seed} conversation")
    for language in LANGUAGES:
        singles = [
            [row for row in sets[name] if is_chinese(row["instruction"]) == (language == "zh")]
            for name in ("identity", "intent")
        ]
        sets["conversation"] += [_conversation(singles, rng) for _ in range(CONVERSATIONS)]
    return sets


def labels() -> list[str]:
    """The intents, which are the answers that the model may give."""
    return list(table("intents.zh.yaml")["intents"])


def _requests(
    templates: Sequence[str],
    count: int,
    spec: dict[str, Any],
    slots: Slots,
    rng: random.Random,
) -> list[str]:
    """`count` different requests, the templates in turn."""
    found: dict[str, None] = {}
    for template, _ in zip(cycle(templates), range(_TRIES), strict=False):
        core = expand(template, slots, rng)
        around = spec["wrap"]["question" if re.search(spec["question"], core) else "statement"]
        text = rng.choice(around["before"]) + core + rng.choice(around["after"])
        found.setdefault(text[0].upper() + text[1:] if rng.random() < 0.5 else text)
        if len(found) == count:
            return list(found)
    raise ValueError(f"the templates make fewer than {count} different requests: {templates[0]} ...")


def _identity() -> list[AlpacaRow]:
    groups = [group for language in LANGUAGES for group in table("identity.yaml")[language]]
    return [_row(question, group["answer"]) for group in groups for question in group["ask"]]


def _conversation(singles: Sequence[Sequence[AlpacaRow]], rng: random.Random) -> AlpacaRow:
    """Two to four rows as the turns of one conversation."""
    turns = [rng.choice(rng.choice(singles)) for _ in range(rng.randint(2, 4))]
    return turns[-1] | {"history": [[turn["instruction"], turn["output"]] for turn in turns[:-1]]}


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def _row(question: str, answer: str) -> AlpacaRow:
    return {"instruction": question, "input": "", "output": answer}
