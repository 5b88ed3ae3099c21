"""Extraction, tool calls, numbers and multiple choice on literal answers as models write them."""

import json

import pytest

from luthier.errors import DataError
from luthier.measure.metrics import choice, extraction, numbers, tools
from luthier.measure.metrics.json_text import parse, same
from luthier.measure.types import Answered
from luthier.types import ToolCall

SPO = (
    '[{"predicate": "目", "object_type": "目", "subject_type": "生物", "object": "同翅目",'
    ' "subject": "白胸三刺角蝉"}]'
)


def answered(*pairs: tuple[str, str]) -> Answered:
    answers, references = zip(*pairs, strict=True)
    sources = tuple(f"eval.json:{i + 1}" for i in range(len(pairs)))
    return Answered(sources, sources, references, answers)


def values(found) -> dict[str, float]:
    return {name: measured.value for name, measured in found.items()}


@pytest.mark.parametrize(
    ("text", "form", "value"),
    [
        (' {"a": 1}\n', "whole", {"a": 1}),
        ('结果如下：\n```json\n{"a": 1}\n```\n以上。', "fence", {"a": 1}),
        ("```\n[1]```", "fence", [1]),
        ('如 {"a": 1}，结果是 {"a": 1, "b": [2]}。', "embedded", {"a": 1, "b": [2]}),
        ('{"a": 1', "none", None),
        ('{"a": NaN}', "none", None),
        ("体育", "none", None),
        ("5", "none", None),
        ("", "none", None),
        ("[" * 100_000, "none", None),
        ("[" * 500 + "]" * 500, "none", None),
    ],
)
def test_json_is_found_where_it_stands(text: str, form: str, value) -> None:
    found = parse(text)
    assert (found.form, found.value) == (form, value)


def test_equal_values_are_the_same() -> None:
    assert same({"b": 1, "a": [2.0, " x"]}) == same({"a": [2, "x"], "b": 1.0})
    assert len({same(v) for v in (1, True, "1", None, [1])}) == 5


def test_triples_exact_and_partial() -> None:
    near = json.loads(SPO)
    near[0]["object"] = "同翅"
    task = answered((SPO, SPO), ("无", SPO), (f"```json\n{json.dumps(near)}\n```", SPO))
    found = values(extraction.metrics(task))
    # matched 1 of 2 answered and 3 wanted; the near one shares 2 of 3 characters: F1 0.8, other parts 1
    assert found["triple_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert found["triple_f1_partial"] == pytest.approx(2 * (1 + (1 + 1 + 0.8) / 3) / 5)
    assert found["json_valid"] == pytest.approx(1 / 3) and found["json_found"] == pytest.approx(2 / 3)
    assert found["field_f1"] == pytest.approx(2 * (5 + 4) / (10 + 15))
    assert found["field_f1_partial"] == pytest.approx(2 * (5 + 4.8) / 25)
    assert extraction.forms(task) == {"whole": 1, "fence": 1, "embedded": 0, "none": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"spo_list": [{"Subject": "甲", "predicate": "父亲", "object": "乙"}]}',
        '[["甲", "父亲", "乙"]]',
        '{"head": "甲", "relation": "父亲", "tail": "乙", "other": 1}',
        '[{"主体": "甲", "关系": "父亲 ", "客体": "乙"}, {"主体": "甲", "关系": "父亲", "客体": "乙"}]',
    ],
)
def test_triples_in_any_shape(text: str) -> None:
    assert extraction.triples(json.loads(text)) == {("甲", "父亲", "乙")}


def test_fields_of_records() -> None:
    wanted = '{"name": "王小明", "age": 30, "tags": ["a", "b"], "city": {"zip": "100"}}'
    got = '{"name": "王明", "age": "30", "tags": ["b", "c"], "extra": 1}'
    task = answered((got, wanted), (wanted, wanted))
    found = values(extraction.metrics(task))
    assert "triple_f1" not in found
    # the first row: one tag of five values right; answered 5 values, wanted 5; the second row is right
    assert found["field_f1"] == pytest.approx(2 * (1 + 5) / (10 + 10))
    assert found["field_f1_partial"] == pytest.approx(2 * (1 + 0.8 + 1 + 5) / 20)
    assert [found[f"schema_{kind}"] for kind in ("missing", "extra", "type")] == [1.0, 0.5, 0.5]
    assert found["schema_valid"] == found["json_match"] == 0.5
    fields = extraction.per_field(task)
    assert list(fields) == ["age", "city.zip", "name", "tags[]"]
    assert fields["tags[]"]["exact"].value == 0.75 and fields["name"]["partial"].value == pytest.approx(0.9)


def test_an_answer_without_json_lacks_every_field() -> None:
    found = values(extraction.metrics(answered(("不知道", '{"a": {"b": 1}, "c": 2}'))))
    assert found["schema_missing"] == 3 and found["field_f1"] == found["schema_valid"] == 0


def test_a_reference_that_is_no_json_is_an_error() -> None:
    with pytest.raises(DataError, match=r'eval\.json:2: the reference "体育" is no JSON'):
        extraction.metrics(answered(("{}", "{}"), ("{}", "体育")))


CALL = '{"name": "f", "arguments": {"a": 1, "b": "x"}}'


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"[{CALL}]",
        f"好的。<tool_call>\n{CALL}\n</tool_call>",
        '{"tool_calls": [{"function": {"name": "f", "arguments": "{\\"a\\": 1, \\"b\\": \\"x\\"}"}}]}',
        'Action: f\nAction Input: {"a": 1, "b": "x"}',
        'f\n{"a": 1, "b": "x"}',
        '{"name": "f", "parameters": {"a": 1, "b": "x"}}',
    ],
)
def test_calls_are_read_in_every_notation(text: str) -> None:
    assert tools.calls(text) == [ToolCall("f", {"a": 1, "b": "x"})]


def test_no_call_is_read_from_other_text() -> None:
    assert tools.calls('{"name": "王小明"} 和 [1, 2]，结果是：{"a": 1}') == []


def test_tool_calls_count_names_and_arguments() -> None:
    other = CALL.replace('"x"', '"y"')
    task = answered(
        (CALL, CALL), (other, CALL), (CALL.replace('"f"', '"g"'), CALL), ("你好", "您好"), (CALL, "您好")
    )
    found = values(tools.metrics(task))
    assert found["call_match"] == pytest.approx(2 / 5)
    assert found["name_match"] == pytest.approx(3 / 5)
    assert found["argument_match"] == pytest.approx(3 / 5)
    # matched 2 + 1 + 0 of 8 answered and 6 wanted
    assert found["argument_f1"] == pytest.approx(2 * 3 / 14)
    assert found["needless_call"] == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("共 1,234.5 元", 1234.5),
        ("12+30=42，所以答案是 42 个。第 3 题", 42),
        ("so 3 * 4 = 12\n#### 12", 12),
        (r"结果 \boxed{-3/4}", -0.75),
        ("50%", 0.5),
        ("３．５万", 35000),
        ("3-5", 5),
        ("温度是 -5 度", -5),
        ("1e-3", 0.001),
        ("The answer is unknown but 7 fits", 7),
        ("五", None),
        ("1/0", None),
        ("9" * 400, None),
        ("", None),
    ],
)
def test_numbers_are_read(text: str, value: float | None) -> None:
    assert numbers.number(text) == (pytest.approx(value) if value is not None else None)


def test_numbers_match_within_a_tolerance() -> None:
    task = answered(("3.1416", "3.14159"), ("不知道", "2"), ("答案是 2.0", "2"), ("3", "2"))
    assert values(numbers.metrics(task)) == {"number_match": 0.25, "no_number": 0.25}
    assert numbers.metrics(task, relative=1e-3)["number_match"].value == 0.5
    with pytest.raises(DataError, match=r'eval\.json:1: the reference "二" names no number'):
        numbers.metrics(answered(("2", "二")))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("B", "B"),
        ("b", "B"),
        ("（Ｃ）", "C"),
        ("B. 北京", "B"),
        ("B、因为选项A是错的", "B"),
        ("答案是 B", "B"),
        ("答案：**D**", "D"),
        ("正确答案应该是（C）。", "C"),
        ("先看A，A不对；再看B。因此选A是错的，答案为C", "C"),
        ("我选A", "A"),
        ("选择：B", "B"),
        ("The answer is (D).", "D"),
        ("Answer: C", "C"),
        ("I would choose option B because A is wrong", "B"),
        (r"\boxed{A}", "A"),
        ("应该是C吧", "C"),
        ("A dog is an animal", None),
        ("A和B都对", None),
        ("答案是 A、C", None),
        ("B is right, C is not", None),
        ("It must be B today", "B"),
        ("E", None),
        ("", None),
        ("Because of that", None),
    ],
)
def test_letters_are_read(text: str, chosen: str | None) -> None:
    assert choice.letter(text, "ABCD") == chosen


def test_choices_without_a_letter_are_wrong() -> None:
    task = answered(("答案是 B", "B"), ("不知道", "A"), ("选C", "A"), ("D", "D. 上海"))
    assert values(choice.metrics(task)) == {"accuracy": 0.5, "no_letter": 0.25}
    with pytest.raises(DataError, match=r'eval\.json:1: the reference "体育" chooses no single letter'):
        choice.metrics(answered(("A", "体育")))
