"""The tolerant JSON reader: what it reads, what it loses, and what it says of the loss."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data.sources import encoding, json_rows
from luthier.errors import DataError
from luthier.types import BadRow


def read(path, text, reader=json_rows.read_json, notes=None):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return list(reader(path, notes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "d.json"


def test_truncated_array_yields_every_whole_row_and_the_line_of_the_cut(path):
    text = json.dumps([{"q": str(n), "a": "x"} for n in range(3)], indent=1)
    cut = text[: text.index('"2"') + 2]
    items = read(path, cut)
    assert items[:2] == [(1, {"q": "0", "a": "x"}), (2, {"q": "1", "a": "x"})]
    number, bad = items[2]
    assert number == 3 and bad.reason == "the file is truncated at line 11: the JSON array does not end"


@pytest.mark.parametrize("end", ["", ",", ",\n  ", '\n,{"q"', '\n,{"q": "tw', '\n,{"q": 1.', '\n,{"q": tr'])
def test_truncated_anywhere(path, end):
    items = read(path, '[\n{"q": "one"}' + end)
    assert items[0] == (1, {"q": "one"})
    assert len(items) == 2 and items[1][1].reason.startswith("the file is truncated at line ")


@pytest.mark.parametrize("end", ["{", '{"q', '{"q": "tw', '{"q": "two"', '{"q": "tw\n\n'])
def test_a_truncated_last_line(path, end):
    items = read(path, '{"q": "one"}\n{"q": "un\n' + end, json_rows.read_jsonl)
    assert [number for number, _ in items] == [1, 2, 3]
    assert items[1][1].reason.startswith("line 2: not valid JSON: Unterminated string")
    assert (items[2][1].field, items[2][1].reason) == (
        "<end of file>",
        "the file is truncated at line 3: the JSON object does not end",
    )


def test_broken_element_costs_itself_alone(path):
    rows = [
        {"conversations": [{"from": "human", "value": str(n)}, {"from": "gpt", "value": "x"}]}
        for n in range(5)
    ]
    text = json.dumps(rows, indent=2).replace('"value": "2"', '"value": 2"')
    items = read(path, text)
    assert [value for _, value in items if not isinstance(value, BadRow)] == [
        rows[0],
        rows[1],
        rows[3],
        rows[4],
    ]
    assert [(n, v.reason) for n, v in items if isinstance(v, BadRow)] == [
        (3, "line 30: not valid JSON: Expecting ',' delimiter; the next row is in line 38")
    ]


@pytest.mark.parametrize("size", [1, 3, 16, 50, 1 << 20])
def test_broken_elements_of_a_one_line_array_whatever_the_block_size(path, size, monkeypatch):
    rows = [{"q": str(n), "tools": [{"name": "a"}, {"name": "b"}], "a": "x" * n} for n in range(30)]
    text = json.dumps(rows).replace('"q": "7"', '"q": 7"').replace('"q": "20"', '"q" "20"')
    monkeypatch.setattr(encoding.blocks, "__defaults__", (size,))
    items = read(path, text)
    assert [value for _, value in items if not isinstance(value, BadRow)] == [
        row for row in rows if row["q"] not in ("7", "20")
    ]
    assert [number for number, value in items if isinstance(value, BadRow)] == [8, 21]


def test_broken_element_at_the_end(path):
    items = read(path, '[{"q": 1}, {"q": 2,,}]')
    assert items[0] == (1, {"q": 1})
    assert items[1][1].reason.startswith("line 1: not valid JSON")


def test_line_breaks_in_strings_nan_and_missing_or_extra_commas_are_read(path):
    assert read(path, '[{"a": "x\ny\tz"} {"a": NaN},, {"a": -Infinity},]')[0] == (1, {"a": "x\ny\tz"})
    values = [value for _, value in read(path, '[{"a": 1} {"a": 2},, {"a": -Infinity},]')]
    assert values == [{"a": 1}, {"a": 2}, {"a": float("-inf")}]


def test_cut_in_the_middle_of_a_character(path):
    notes: list[str] = []
    path.write_bytes('[{"q": "好"},\n{"q": "好好"}]'.encode()[:-4])
    items = list(json_rows.read_json(path, notes))
    assert items[0] == (1, {"q": "好"})
    assert items[1][1].reason == "the file is truncated at line 2: the JSON array does not end"
    assert notes == ["d.json: ends in the middle of a character (byte offset 25)"]


def test_a_bad_line_is_one_bad_row(path):
    text = '{"a": 1}\n{"a": \n\n{"a": 3} x\n{"a": "\u2028"}\n'
    items = read(path, text, json_rows.read_jsonl)
    assert [number for number, _ in items] == [1, 2, 4, 5]
    assert items[0][1] == {"a": 1} and items[3][1] == {"a": "\u2028"}
    assert items[1][1].reason == "line 2: not valid JSON: Expecting value"
    assert items[2][1].reason == "line 4: more text after the JSON object: 'x' -> write one object per line"


def test_json_that_is_json_lines_and_the_other_way_round(path):
    notes: list[str] = []
    assert read(path, '{"a": 1}\n{"a": 2}\n') == [(1, {"a": 1}), (2, {"a": 2})]
    assert read(path, '[{"a": 1}]', json_rows.read_jsonl, notes) == [(1, {"a": 1})]
    assert notes == ["d.json: holds a JSON array, not JSON Lines; read as an array"]


def test_pretty_printed_objects_one_after_another(path):
    assert read(path, '{\n "a": 1\n}\n{\n "a": 2\n}\n') == [(1, {"a": 1}), (2, {"a": 2})]
    with pytest.raises(DataError, match=r"line 5: not valid JSON: .* one object per line"):
        read(path, '{\n "a": 1\n}\n{\n "a" 2\n}\n{\n "a": 3\n}\n')


@pytest.mark.parametrize("indent", [None, 1])
def test_object_that_holds_the_list_of_rows(path, indent):
    notes: list[str] = []
    text = json.dumps({"version": "1.0", "data": [{"q": "a"}, {"q": "b"}]}, indent=indent)
    assert read(path, text, notes=notes) == [(1, {"q": "a"}), (2, {"q": "b"})]
    assert notes == ['d.json: one JSON object; its rows are the list under "data"']


@pytest.mark.parametrize("indent", [None, 1])
def test_single_conversation_is_a_row_and_not_a_list_of_rows(path, indent):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert read(path, json.dumps(row, indent=indent)) == [(1, row)]


def test_nesting_bomb_is_a_bad_row(path):
    items = read(path, "[" + "[" * 100_000)
    assert len(items) == 1 and isinstance(items[0][1], BadRow)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=5),
    size=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
)
def test_any_array_reads_as_json_reads_it_whatever_the_block_size(tmp_path_factory, rows, size, indent):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(rows, indent=indent), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding.blocks, "__defaults__", (size,))
        assert [value for _, value in json_rows.read_json(path)] == rows


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    path = tmp_path / "big.json"
    row = json.dumps({"instruction": "question " * 20, "input": "", "output": "answer " * 40})
    path.write_text("[" + ",\n".join([row] * 40_000) + "]")  # 19 MB
    tracemalloc.start()
    count = sum(1 for _ in json_rows.read_json(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert peak < 12_000_000


TOO_MUCH = [("9" * 5000, "a number of thousands of digits"), ("[" * 99_999, "nested too deeply")]


@pytest.mark.parametrize(("bad", "why"), TOO_MUCH)
def test_a_value_that_python_does_not_read_costs_its_row(path, bad, why):
    good, row = '{"a": 1}', f'{{"a": {bad}}}'
    lines, array = f"{good}\n{row}\n{good}\n", f"[{good}, {row}, {good}]"
    for text, reader in ((lines, json_rows.read_jsonl), (array, json_rows.read_json)):
        (_, first), (_, second), (_, third) = read(path, text, reader)
        assert first == third == {"a": 1}
        assert isinstance(second, BadRow) and why in second.reason
    with pytest.raises(DataError, match=why):
        read(path, row)
