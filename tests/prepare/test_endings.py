"""Answers that stop in the middle: literal ones, and cuts planted into made prose and lists."""

import random

import pytest

from luthier.prepare.endings import FEW, unfinished

pytest.importorskip("sklearn")
NOUNS = "river teacher garden machine letter winter window market doctor village bridge story".split()
PLACES = "Verona Lisbon Kyoto Marrakesh Oslo Valparaiso Tartu Ghent".split()
VERBS = "watches repairs remembers paints follows crosses describes measures forgets visits".split()


def sentence(rng: random.Random) -> str:
    a, b, c = (rng.choice(NOUNS) for _ in range(3))
    return f"The {a} {rng.choice(VERBS)} the {b} behind the {c}."


def prose(rng: random.Random) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randrange(2, 6)))


def titles(rng: random.Random) -> str:
    """A list whose items end without a full stop, as titles do."""
    items = [f"{k}. The {rng.choice(NOUNS)} of {rng.choice(PLACES)}" for k in range(1, 7)]
    return "Here are six titles:\n" + "\n".join(items)


def test_plain_signs_need_no_other_answers() -> None:
    answers = [
        "The bridge crosses the river, and the village",
        "It is done.",
        "Three things matter. First of all, there is the matter of",
        "Steps:\n1. Open the window.\n2. Close it.\n3.",
        "```python\nprint(1)",
        "yes",
    ]
    assert [(one.index, one.why) for one in unfinished(answers)] == [
        (2, 'ends with "of"'),
        (3, "an empty item at the end"),
        (4, "open code fence"),
    ]


def test_cuts_are_told_by_the_other_endings() -> None:
    rng = random.Random(3)
    answers = [prose(rng) if k % 3 else titles(rng) for k in range(3 * FEW)]
    planted = set(rng.sample([k for k in range(len(answers)) if k % 3], 20))
    for k in planted:
        last = answers[k].rstrip(".").rfind(".")  # the cut is behind it, so never at the end of a sentence
        answers[k] = answers[k][: rng.randrange(last + 6, len(answers[k]) - 2)]
    found = {one.index for one in unfinished(answers)}
    assert len(found & planted) >= 19
    assert len(found - planted) <= 2


def test_titles_without_full_stops_are_whole() -> None:
    rng = random.Random(4)
    assert unfinished([titles(rng) for _ in range(2 * FEW)]) == []


def test_labels_have_no_endings() -> None:
    assert unfinished(["sports", "politics", "体育", "财经"] * 200) == []


def test_the_same_answers_give_the_same_result() -> None:
    rng = random.Random(5)
    answers = [prose(rng)[: rng.randrange(40, 200)] for _ in range(FEW)]
    assert unfinished(answers) == unfinished(answers)
