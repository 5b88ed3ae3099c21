"""Tasks recognised from literal rows, from the formats of published tutorials, and from published data."""

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.data import formats, registry, sources
from luthier.errors import DataError, UsageError
from luthier.measure import tasks
from luthier.measure.tasks import Asked, recognise
from luthier.types import BadRow, Example, Message, ToolCall

SHARED = Path(__file__).parents[3] / "shared" / "data"
TOOLS = ({"name": "weather"},)
SPO = [
    '[{"predicate": "capital", "object_type": "city", "object": "Oslo", "subject": "Norway"}]',
    "[]",
    '```json\n[{"predicate": "author", "object_type": "person", "object": "Ada", "subject": "Notes"}]\n```',
]


def rows(*answers: str, question: str = "q") -> list[Asked]:
    return [Asked(f"{question} {i}", answer) for i, answer in enumerate(answers)]


def test_closed_labels_in_their_most_frequent_form() -> None:
    task = recognise(rows(*["体育"] * 5, *["财经"] * 4, *["Sport"] * 3, *["sport."] * 2, "？"))
    assert task.kind == "labels"
    assert task.labels == ("体育", "财经", "Sport")
    assert task.why == "14 of 15 answers are one of 3 short labels that recur (体育, 财经, Sport)."
    assert task.why_zh == "15 条答案中有 14 条属于反复出现的 3 个短标签（体育, 财经, Sport）。"


def test_labels_of_the_training_data_count_too() -> None:
    few = rows("a", "b", "c", "a")
    assert recognise(few).kind == "text"
    task = recognise(few, known=["a", "b", "c", "d"] * 5)
    assert (task.kind, task.labels) == ("labels", ("a", "b", "c", "d"))


def test_few_steps_of_a_scale_are_labels_and_many_numbers_are_numbers() -> None:
    assert recognise(rows(*["1", "2", "3"] * 4)).labels == ("1", "2", "3")
    task = recognise(rows(*[str(i) for i in range(20)] * 3))
    assert (task.kind, task.labels) == ("number", ())


@pytest.mark.parametrize(
    "answers",
    [
        ["42", "-3.5", "1,200 元", "$7", "85 %", "12个", "−4。"],
        ["First 3, then 4.\n#### 7", "So it is 12.\n#### 1,200", "#### -3"],
    ],
)
def test_numbers(answers: list[str]) -> None:
    task = recognise(rows(*answers))
    assert task.kind == "number"
    assert task.why.startswith(f"{len(answers)} of {len(answers)} answers are a number (")


@pytest.mark.parametrize(
    "question",
    [
        "Which?\nA. one\nB. two\nC. three\nD. four",
        "哪一个？A．甲 B．乙 C．丙 D．丁",
        "Which? (A) one (B) two (C) three (D) four",
        "选择：\nA、甲\nB、乙\nC、丙\nD、丁\n答案：",
    ],
)
def test_multiple_choice(question: str) -> None:
    task = recognise(rows("B", "A.", "(C)", "D. four", "B", question=question))
    assert (task.kind, task.labels) == ("choice", ("A", "B", "C", "D"))


def test_letters_without_options_are_labels() -> None:
    assert recognise(rows(*["A", "B", "C"] * 3)).kind == "labels"
    assert recognise(rows("A good idea.", "Because.", question="Plan A. or plan B. or C.")).kind == "text"


def test_fields_of_extracted_objects() -> None:
    answers = [json.dumps({"name": f"n{i}", "age": i}) for i in range(20)]
    answers[7] = json.dumps({"name": "x", "age": 1, "remark": "only here"})
    task = recognise(rows(*answers, "none"))
    assert (task.kind, task.fields, task.triple) == ("extraction", ("name", "age"), ())
    assert task.why == "20 of 21 answers are JSON objects or lists (recurring fields: name, age)."


def test_triples() -> None:
    task = recognise(rows(*SPO))
    assert task.kind == "extraction"
    assert task.fields == ("predicate", "object_type", "object", "subject")
    assert task.triple == ("subject", "predicate", "object")
    inside = [json.dumps({"spo_list": [{"主体": "a", "关系": "b", "客体": "c"}]}, ensure_ascii=False)] * 3
    assert recognise(rows(*inside)).triple == ("主体", "关系", "客体")


def test_json_that_recurs_is_extraction_and_words_in_quotes_are_labels() -> None:
    assert recognise(rows(*['{"label": "a"}', '{"label": "b"}'] * 4)).fields == ("label",)
    assert recognise(rows(*['"a"', '"b"'] * 4)).kind == "labels"
    assert recognise(rows('["a", "b"]', "[1]")).fields == ()


def test_calls_of_tools() -> None:
    call = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    tagged = f"<tool_call>\n{call}\n</tool_call>"
    said = [Asked("q", call, TOOLS), Asked("q", tagged, TOOLS), Asked("q", f"[{call}]", TOOLS)]
    task = recognise([*said, *rows("It is cold.", "It rains in Oslo.")])
    assert task.kind == "calls"
    assert task.why == "3 of 5 answers call a tool (weather)."
    assert recognise([Asked("q", call)] * 3).kind == "extraction"


def test_text_without_questions_is_for_perplexity() -> None:
    assert recognise([Asked("", "Once upon a time."), Asked("", "42")]).kind == "perplexity"


def test_free_text() -> None:
    task = recognise(rows("A long answer.", "Another one.", "[not JSON", "{" * 100_000))
    assert (task.kind, task.labels, task.fields) == ("text", (), ())
    assert task.why.startswith("The 4 answers are neither")


def test_the_user_may_name_the_task() -> None:
    assert recognise(rows("a", "b", "c", "c"), "labels").labels == ("c", "a", "b")
    assert recognise(rows("a", "b", "a", "b"), "text").kind == "text"
    assert recognise(rows("1", "1", "2", "2"), "number").kind == "number"
    assert recognise(rows("any", "thing"), "perplexity").why == "The request says so; 2 of 2 rows fit."
    mixed = recognise(rows('{"a": 1}', "none", "none at all"), "extraction")
    assert (mixed.fields, mixed.why) == (("a",), "The request says so; 1 of 3 rows fit.")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("label", '"label" is no kind of task -> "labels"?'),
        ("xyz", '"xyz" is no kind of task -> perplexity, calls, choice, extraction, labels, number, text'),
        ("extraction", 'task "extraction": no answer fits it, such as \'Hello there.\' -> "text"'),
        ("calls", 'task "calls": no answer fits it, such as \'Hello there.\' -> "text"'),
    ],
)
def test_a_task_that_cannot_be(kind: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        recognise(rows("Hello there.", "Good day."), kind)
    assert str(error.value) == message


def test_too_many_answers_are_no_labels() -> None:
    with pytest.raises(UsageError, match='-> "text"'):
        recognise(rows(*[f"answer {i} is this" for i in range(1001)]), "labels")


@pytest.mark.parametrize("none", [[], [Asked("q", " ")]])
def test_nothing_to_compare_with(none: list[Asked]) -> None:
    with pytest.raises(DataError, match=f"none of {len(none)} rows has an answer"):
        recognise(none)


def example(*turns: Message, **more: Any) -> Example:
    return Example(turns[:-1], ((turns[-1],),), **more)


def test_an_example_as_question_and_answer() -> None:
    system, user = Message("system", "s"), Message("user", "u")
    told = example(
        system, user, Message("assistant", "a", 1.0), Message("user", "v"), Message("assistant", "b")
    )
    assert tasks.asked(told) == Asked("u\n\na\n\nv", "b")
    assert tasks.asked(Example((), ((Message("text", "prose", 1.0),),))) == Asked("", "prose")
    assert tasks.asked(Example((user,), answer="known")) == Asked("u", "known")
    assert tasks.asked(example(user, Message("assistant", "bad"), verdict=False)).answer == ""
    two = Message("assistant", "", 1.0, (ToolCall("f", {"x": 1}), ToolCall("g", {})))
    assert json.loads(tasks.asked(example(user, two)).answer) == [
        {"name": "f", "arguments": {"x": 1}},
        {"name": "g", "arguments": {}},
    ]


def test_a_conversation_is_asked_where_tools_are_called() -> None:
    user, result, said = Message("user", "u"), Message("tool", "9"), Message("assistant", "It is 9.", 1.0)
    call = Message("assistant", "", 1.0, (ToolCall("weather", {}),))
    whole = example(user, call, result, said, tools=TOOLS, source="f:1")
    first, last = tasks.turns(whole)
    assert first == Example((user,), ((call,),), tools=TOOLS, source="f:1")
    assert last is whole
    read_only = example(user, Message("assistant", "", 0.0, call.tool_calls), result, said, tools=TOOLS)
    assert list(tasks.turns(read_only)) == [read_only]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published data sets are not here")
@pytest.mark.parametrize(
    ("folder", "name", "stage", "kind", "labels"),
    [
        ("news", "eval", "sft", "labels", 10),
        ("news", "train_300", "sft", "labels", 10),
        ("intent", "intent_test", "sft", "labels", 77),
        ("lf_demo", "identity", "sft", "text", 0),
        ("lf_demo", "alpaca_zh_demo", "sft", "text", 0),
        ("lf_demo", "glaive_toolcall_zh_demo", "sft", "calls", 0),
        ("lf_demo", "dpo_zh_demo", "rm", "text", 0),
        ("lf_demo", "kto_en_demo", "kto", "text", 0),
        ("lf_demo", "c4_demo", "pt", "perplexity", 0),
    ],
)
def test_published_data(folder: str, name: str, stage: str, kind: str, labels: int) -> None:
    (spec,) = registry.specs([name], str(SHARED / folder), stage=stage)
    said = []
    for row in sources.read(spec):
        assert not isinstance(row, BadRow)
        said += map(tasks.asked, tasks.turns(formats.to_example(row, spec, stage)))
    task = recognise(said)
    assert (task.kind, len(task.labels)) == (kind, labels)
