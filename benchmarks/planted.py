"""Known faults planted into a copy of real data, and which of them `luthier data check` finds.

    python benchmarks/planted.py LABELLED_TRAIN LABELLED_EVAL TEXTS [--seeds 0,1,2]

LABELLED_*: JSON lists (alpaca or one-turn sharegpt) whose answers are labels; TEXTS: one with free answers.
Twenty of each: near-duplicates of training rows in the evaluation set, flipped labels, contradictions
(a training row once more, equal or nearly, with another label), personal data in texts, answers cut at a
random place. The command is run on the files before and after. A row that it reports before is a fault of the
data itself, not of the doctor: `precision` leaves it out, `of all reported` counts it as a false alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from luthier import cli
from luthier.prepare import fakes

EACH = 20
Rows = list[dict[str, Any]]


def question(row: dict[str, Any]) -> str:
    return str(row["conversations"][0]["value"] if "conversations" in row else row["instruction"])


def answer(row: dict[str, Any]) -> str:
    return str(row["conversations"][1]["value"] if "conversations" in row else row["output"])


def changed(row: dict[str, Any], asked: str | None = None, answered: str | None = None) -> dict[str, Any]:
    new: dict[str, Any] = json.loads(json.dumps(row))
    turns = new.get("conversations")
    if asked is not None:
        new |= {"instruction": asked} if turns is None else {}
        if turns:
            turns[0]["value"] = asked
    if answered is not None:
        new |= {"output": answered} if turns is None else {}
        if turns:
            turns[1]["value"] = answered
    return new


def nearly(text: str, rng: random.Random) -> str:
    """One letter left out, doubled or swapped with the next (never beside a digit), or another ending."""
    ending = text.rstrip("?.!？。")
    places = [i for i in range(6, len(text) - 2) if not any(c.isdigit() for c in text[i - 1 : i + 3])]
    kind = rng.choice(["left out", "doubled", "swapped", "ending"])
    if kind == "ending" or not places:
        return ending + ("。" if text.endswith("！") else "！")
    i = rng.choice(places)
    new = {"left out": "", "doubled": text[i] * 2, "swapped": text[i + 1] + text[i]}[kind]
    return text[:i] + new + text[i + (2 if kind == "swapped" else 1) :]


def private(rng: random.Random) -> str:
    """A sentence with one made-up piece of personal data."""
    card = "62220" + "".join(str(rng.randrange(10)) for _ in range(10))
    born = f"1101051{rng.randrange(9)}8{rng.randrange(10, 99)}0{rng.randrange(1, 9)}1{rng.randrange(9)}"
    first = f"110105198{rng.randrange(10)}0{rng.randrange(1, 9)}1{rng.randrange(9)}{rng.randrange(100, 999)}"
    return rng.choice(
        [
            f"我的手机号是13{rng.randrange(10)}{rng.randrange(10_000_000, 99_999_999)}。",
            f"Write to {rng.choice(['li.wei', 'anna', 'b.tanaka'])}{rng.randrange(99)}@{born[-2:]}mail.com.",
            f"身份证号{first}{fakes.id_card_digit(first)}。",
            f"银行卡{card}{fakes.luhn_digit(card)}。",
            f"My key is sk-proj-{''.join(rng.choice('abcdefghjkmnpqrstABCDEFGH234567') for _ in range(40))}.",
        ]
    )


def flips(train: Rows, rng: random.Random) -> set[int]:
    labels = sorted({answer(row) for row in train})
    chosen = set(rng.sample(range(len(train)), EACH))
    for i in chosen:
        train[i] = changed(
            train[i], answered=rng.choice([label for label in labels if label != answer(train[i])])
        )
    return chosen


def contradictions(train: Rows, rng: random.Random) -> tuple[set[int], set[int]]:
    """The new rows, and the rows that they contradict, which are rightly reported with them."""
    labels = sorted({answer(row) for row in train})
    start = len(train)
    contradicted = rng.sample(range(start), EACH)
    for k, i in enumerate(contradicted):
        other = rng.choice([label for label in labels if label != answer(train[i])])
        asked = question(train[i])
        train.append(changed(train[i], asked=asked if k % 2 else nearly(asked, rng), answered=other))
    return set(range(start, len(train))), set(contradicted)


def leaks(train: Rows, evaluation: Rows, rng: random.Random) -> set[int]:
    start = len(evaluation)
    for i in rng.sample(range(len(train)), EACH):
        evaluation.append(changed(train[i], asked=nearly(question(train[i]), rng)))
    return set(range(start, len(evaluation)))


def personal(texts: Rows, rng: random.Random) -> set[int]:
    chosen = set(rng.sample(range(len(texts)), EACH))
    for i in chosen:
        said = answer(texts[i])
        at = rng.choice([0, len(said)])
        texts[i] = changed(texts[i], answered=said[:at] + private(rng) + said[at:])
    return chosen


def cuts(texts: Rows, free: set[int], rng: random.Random) -> set[int]:
    """Answers of 80 characters and more, cut at a random place between a third and nine tenths."""
    can = [i for i, row in enumerate(texts) if len(answer(row)) >= 80 and i not in free]
    chosen = set(rng.sample(can, EACH))
    for i in chosen:
        said = answer(texts[i])
        texts[i] = changed(texts[i], answered=said[: rng.randrange(len(said) // 3, int(len(said) * 0.9))])
    return chosen


CHECKS: dict[str, tuple[str, ...]] = {
    "near-duplicates across the split": ("leakage",),
    "flipped labels": ("label_noise",),
    "contradictions": ("contradictions",),
    "personal data and secrets": ("personal_data", "secrets"),
    "truncations": ("truncation",),
}


def found(folder: Path, labelled: tuple[Rows, Rows], texts: Rows) -> dict[str, set[int]]:
    """Fault -> rows (from 0) that the command reports."""
    names = ("train", "eval", "texts")
    for name, rows in zip(names, (*labelled, texts), strict=True):
        (folder / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    findings: list[dict[str, Any]] = []
    train, evaluation, other = (str(folder / f"{name}.json") for name in names)
    for words in (
        [train, "--eval", evaluation, "--only", "leakage,label_noise,contradictions"],
        [other, "--only", "texts,truncation"],
    ):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert cli.main(["data", "check", *words, "--format", "json"]) == 0
        findings += json.loads(out.getvalue())["findings"]
    return {
        fault: {
            int(row.rpartition(":")[2]) - 1
            for one in findings
            if one["check"] in checks
            for row in one["rows"]
        }
        for fault, checks in CHECKS.items()
    }


def trial(labelled: tuple[Rows, Rows], texts: Rows, seed: int) -> dict[str, tuple[float, float, float]]:
    """Fault -> (recall, precision, precision of all that is reported)."""
    rng = random.Random(seed)
    train, evaluation, other = list(labelled[0]), list(labelled[1]), list(texts)
    with tempfile.TemporaryDirectory() as name:
        before = found(Path(name), (train, evaluation), other)
        planted = {"flipped labels": flips(train, rng)}
        flipped = found(Path(name), (train, evaluation), other)  # some flips contradict a near-duplicate
        planted["contradictions"], contradicted = contradictions(train, rng)
        planted["near-duplicates across the split"] = leaks(list(labelled[0]), evaluation, rng)
        planted["personal data and secrets"] = personal(other, rng)
        planted["truncations"] = cuts(other, planted["personal data and secrets"], rng)
        after = found(Path(name), (train, evaluation), other)
    # The rows that contradict have a wrong label, too; those that they contradict are reported beside them.
    right = {"contradictions": contradicted, "flipped labels": planted["contradictions"]}
    figures = {}
    for fault, rows in planted.items():
        hits, reported = len(after[fault] & rows), after[fault] - right.get(fault, set())
        known = before[fault] | (flipped[fault] if fault == "contradictions" else set())
        new = len(reported - known - rows)
        figures[fault] = (hits / len(rows), hits / max(1, hits + new), hits / max(1, len(reported)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("train", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    request = parser.parse_args()
    files = (request.train, request.evaluation, request.texts)
    train, evaluation, texts = (json.loads(path.read_text(encoding="utf-8")) for path in files)
    trials = [trial((train, evaluation), texts, int(seed)) for seed in request.seeds.split(",")]
    for fault in CHECKS:
        recall, precision, of_all = (statistics.mean(one[fault][k] for one in trials) for k in range(3))
        print(f"{fault}: recall {recall:.2f}, precision {precision:.2f} (of all reported {of_all:.2f})")


if __name__ == "__main__":
    main()
