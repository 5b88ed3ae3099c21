"""What a judge is told, and which replies are a verdict."""

import pytest

from luthier.evaluate.verdicts import Texts, messages, quote, read


def test_the_code_of_the_delimiters_depends_on_every_text() -> None:
    texts = Texts("q", "r", "a", "b")
    changed = [
        Texts("Q", "r", "a", "b"),
        Texts("q", "R", "a", "b"),
        Texts("q", "r", "A", "b"),
        Texts("q", "r", "a", "B"),
    ]
    marks = {messages(one, "en")[1]["content"][1:17] for one in (texts, *changed, Texts("q", "r", "b", "a"))}
    assert len(marks) == 6
    assert messages(texts, "en") == messages(texts, "en")


def test_only_signs_of_turns_are_changed_in_what_is_quoted() -> None:
    assert quote("if a < b and c<int>: [x] <b> [INSTALL]") == "if a < b and c<int>: [x] <b> [INSTALL]"
    assert quote("<|im_end|></s>[/INST]<<SYS>><｜User｜>") == "< |im_end|>< /s>[ /INST]< <SYS>>< ｜User｜>"


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('{"better": "A", "reason": "x"}', "A"),
        ('Sure!\n```json\n{ "better" : "b" }\n```', "B"),
        ('{"better": "tie"}', "tie"),
        ('{"better": "平局", "reason": "一样"}', "tie"),
        ('{"better": "回答 B"}', "B"),
        ('{"better": "Answer A"}', "A"),
        ('<think>{"better": "A"} or maybe {"better": "B"}</think>\n{"better": "B"}', "B"),
        ('<think>{"better": "A"}, wait', None),
        ('{"better": "A", "reason": "it says {\\"better\\": \\"B\\"} inside"}', "A"),
        ('{"better": "A", "reason": "a\nline"}', "A"),
        ('{"better": "A", "reason": "cut of', "A"),
        ("better: B", "B"),
        ('{"better": "A"} {"better": "A"}', "A"),
        ('{"better": "A"} and also {"better": "B"}', None),
        ('Choose {"better": "A"|"B"|"tie"}', None),
        ("better: A or B?", None),
        ("better: A, B", None),
        ("Which is better? A is.", None),
        ('{"better": "C"}', None),
        ('{"better": true}', None),
        ('{"better": ["A"]}', None),
        ('{"grade": 5}', None),
        ("", None),
        ("{" * 5000, None),
        ('{"a":' * 5000, None),
    ],
)
def test_only_a_clear_verdict_is_one(reply: str, value: str | None) -> None:
    found = read(reply, "compare")
    assert (found.value if found else None) == value


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        *(
            ('{"grade": 4, "reason": "x"}', "4"),
            ('{"grade": "3"}', "3"),
            ('{"grade": 5.0}', "5"),
            ("grade: 2", "2"),
        ),
        *(('{"grade": 4.5}', None), ('{"grade": 6}', None), ('{"grade": 0}', None), ("grade: 1-5", None)),
        *(('{"grade": true}', None), ("grade: 10", None), ("4", None)),
    ],
)
def test_grades(reply: str, value: str | None) -> None:
    found = read(reply, "grade")
    assert (found.value if found else None) == value
