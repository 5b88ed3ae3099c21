"""A schema of the user's: what breaks it, by kind; what is no schema is refused before anything is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import UsageError
from luthier.measure.metrics import extraction, json_schema
from luthier.measure.types import Answered

ORDER = {
    "type": "object",
    "required": ["item", "count"],
    "additionalProperties": False,
    "properties": {
        "item": {"$ref": "#/$defs/name"},
        "count": {"type": "integer", "minimum": 1},
        "day": {"type": "string", "format": "date"},
        "size": {"enum": ["S", "M"]},
    },
    "$defs": {"name": {"type": "string", "pattern": "^[a-z]+$"}},
}


def load(folder: Path, content: Any) -> json_schema.Schema:
    file = folder / "order.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return json_schema.load(file)


def test_faults_are_named_by_the_word_of_the_schema_that_they_break(tmp_path: Path) -> None:
    schema = load(tmp_path, ORDER)
    good = {"item": "lamp", "count": 2, "day": "2024-02-29", "size": "S"}
    kinds = {
        "none": {},
        "required": {"count": None},
        "type": {"count": "2"},
        "minimum": {"count": 0},
        "pattern": {"item": "Lamp"},
        "enum": {"size": "L"},
        "format": {"day": "2023-02-29"},
        "additionalProperties": {"colour": "red"},
    }
    for kind, change in kinds.items():
        row = {key: value for key, value in {**good, **change}.items() if value is not None}
        found = schema.faults(f"Here it is:\n```json\n{json.dumps(row)}\n```")
        assert [fault.kind for fault in found] == ([] if kind == "none" else [kind])
    assert schema.faults('{"item": "lamp", "count": "2"}')[0].what == "$.count: '2' is not of type 'integer'"
    assert [fault.kind for fault in schema.faults("I do not know")] == [json_schema.NO_JSON]
    assert len(schema.faults('{"item": 1, "count": "2"}')) == 2


def test_the_share_of_answers_that_meet_it_is_a_metric(tmp_path: Path) -> None:
    right = '{"item": "lamp", "count": 2}'
    answers = (right, '{"item": "lamp", "count": "2"}', "none", '{"item": "desk", "count": 9}')
    sources = tuple(f"eval.json:{i}" for i in range(1, 5))
    answered = Answered(sources, sources, (right,) * 4, answers)
    found = extraction.metrics(answered, schema=load(tmp_path, ORDER))
    assert found["given_schema_valid"].value == 0.5
    assert "given_schema_valid" not in extraction.metrics(answered)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "order.json: is no JSON .*-> a JSON schema"),
        ([], "order.json: is no object"),
        ({"type": "objekt"}, r"order.json: \$.type: 'objekt' is not"),
        ({"pattern": "("}, r"order.json: \$.pattern: '\(' is not a 'regex'"),
        ({"$ref": "https://example.org/a.json"}, "nothing is fetched"),
        (
            {"properties": {"a": {"prefixItems": [{"$ref": "#/$defs/b"}]}}},
            r'"#/\$defs/b" is not in this file',
        ),
    ],
)
def test_what_is_no_schema_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--schema: .*none.json: No such file"):
        json_schema.load(tmp_path / "none.json")


def test_a_schema_without_end_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    schema = load(tmp_path, {"properties": {"a": {"$ref": "#/properties/a"}}})
    assert schema.faults('{"b": 1}') == []
    assert schema.faults('{"a": 1}') == [("$ref", "order.json refers to itself without end")]
