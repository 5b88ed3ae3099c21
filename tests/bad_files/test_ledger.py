"""Random files: rows in = kept + dropped, each dropped one with place and reason, no kept one changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat
from luthier.data import prepare
from luthier.data.ledger import Ledger
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError
from luthier.types import BadRow, Example, Rendered

Folders = pytest.TempPathFactory
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=30).filter(str.strip)
GOOD = st.builds(lambda question, answer: {"instruction": question, "output": answer}, TEXT, TEXT)
VALUE = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.just(""), st.lists(TEXT, max_size=2), st.just({})
)
MISSING = st.dictionaries(st.sampled_from(["instruction", "input", "outptu"]), TEXT, max_size=3)
WRONG = st.builds(
    lambda row, key, value: row | {key: value}, GOOD, st.sampled_from(["instruction", "output"]), VALUE
)
NO_ROW = st.one_of(st.none(), st.booleans(), st.integers(), st.lists(st.integers(), max_size=2), TEXT)
BROKEN = st.builds(
    lambda row, at: (dumped := json.dumps(row))[: 1 + at % (len(dumped) - 1)], GOOD, st.integers(0, 10_000)
)
NOISE = st.binary(min_size=1, max_size=30).filter(
    lambda found: bool(found.strip(b" \t\0,")) and not {10, 13} & set(found)
)
# one line of a file: (what it is, its bytes)
LINE = st.one_of(
    GOOD.map(lambda row: (row, json.dumps(row, ensure_ascii=False).encode())),
    MISSING.map(lambda row: (None, json.dumps(row).encode())),
    WRONG.map(lambda row: (None, json.dumps(row).encode())),
    NO_ROW.map(lambda row: (None, json.dumps(row).encode())),
    BROKEN.map(lambda text: (None, text.encode())),
    NOISE.map(lambda found: (None, found)),
)
FILES = st.lists(LINE, min_size=1, max_size=12)


@pytest.fixture(scope="module")
def renderer() -> Any:
    return chat.renderer(chat.CHATML, cutoff_len=4096)


def account(path: Path, renderer: Any) -> tuple[Ledger, list[Example], list[BadRow], list[Rendered]]:
    """Read and render a file as training does."""
    spec = DatasetSpec(path.name, "file", str(path), formatting="alpaca")
    ledger, bad, examples = Ledger(path.name), list[BadRow](), list[Example]()

    def rows() -> Any:
        for row in prepare.examples(spec, "sft", ledger=ledger):
            examples.extend([row] if isinstance(row, Example) else [])
            yield row

    made = list(prepare.rendered(rows(), renderer, ledger, bad))
    return ledger, examples, bad, made


def texts(example: Example) -> tuple[str, str]:
    return example.trunk[0].content, example.branches[0][0].content


@settings(max_examples=150, deadline=None)
@given(lines=FILES)
def test_lines(lines: list[tuple[Any, bytes]], renderer: Any, tmp_path_factory: Folders) -> None:
    """JSON Lines: a line costs itself alone, wherever the file is not refused as a whole."""
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    # a good line first, so that it is JSON Lines and neither an archive nor another encoding
    path.write_bytes(b"\n".join([b'{"instruction": "q", "output": "a"}'] * 300 + [line for _, line in lines]))
    try:
        ledger, examples, bad, made = account(path, renderer)
    except DataError as error:
        assert str(path) in str(error) and " -> " in str(error)
        assert b"\xff" in path.read_bytes() or any(byte > 127 for _, line in lines for byte in line)
        return
    ledger.check()
    good = {301 + n: (row["instruction"], row["output"]) for n, (row, _) in enumerate(lines) if row}
    found = {int(example.source.rpartition(":")[2]): texts(example) for example in examples[300:]}
    assert ledger.rows_in == 300 + len(lines) == ledger.kept + len(bad)
    assert found.keys() >= good.keys()
    assert {place: found[place] for place in good} == good
    dropped = [int(row.source.rpartition(":")[2]) for row in bad]
    assert sorted([*found, *dropped]) == list(range(301, 301 + len(lines)))
    assert all(row.reason for row in bad) and sum(ledger.dropped.values()) == len(bad)
    assert len(made) == ledger.kept


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(GOOD, st.sampled_from(["", "quote", "colon", "comma", "type"])), min_size=1, max_size=8
    ),
    indent=st.sampled_from([None, 1]),
)
def test_arrays(rows: Any, indent: int | None, renderer: Any, tmp_path_factory: Folders) -> None:
    """A JSON array with broken elements: every good row is kept as it is, every broken one has its reason."""
    damage = {
        "quote": ('": "', '": '),
        "colon": ('": "', '" "'),
        "comma": ('"\n}', '",,\n}'),
        "type": ('": "', '": ["'),
    }
    texts_of = []
    for row, fault in rows:
        text = json.dumps(row, indent=indent)
        texts_of.append(text.replace(*damage[fault], 1) if fault else text)
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_text("[" + ",\n".join(texts_of) + "]", encoding="utf-8")
    ledger, examples, bad, _ = account(path, renderer)
    ledger.check()
    good = [
        (row["instruction"], row["output"])
        for text, (row, _) in zip(texts_of, rows, strict=True)
        if text == json.dumps(row, indent=indent)
    ]
    assert [texts(example) for example in examples] == good
    assert ledger.rows_in == ledger.kept + len(bad)
    assert (len(bad) > 0) == (len(good) < len(rows)) and all(row.reason for row in bad)


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=300),
    kind=st.sampled_from(["json", "jsonl", "csv", "tsv", "txt", "json.gz", "parquet", "arrow", "xlsx"]),
    head=st.sampled_from(
        [
            b"",
            b"[",
            b'{"a": 1}\n',
            b"instruction,output\n",
            b"PAR1",
            b"PK\x03\x04",
            b"ARROW1\0\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
        ]
    ),
)
def test_any_bytes(content: bytes, kind: str, head: bytes, renderer: Any, tmp_path_factory: Folders) -> None:
    """Any bytes: rows that add up, or a refusal that names the file and what to do; no other error."""
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(head + content)
    try:
        ledger, _, bad, _ = account(path, renderer)
    except DataError as error:
        assert path.name in str(error) and " -> " in str(error)
        return
    ledger.check()
    assert ledger.rows_in == ledger.kept + len(bad) > 0
    assert all(row.reason and row.source.startswith(f"any.{kind}:") for row in bad)
