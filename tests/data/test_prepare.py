"""When preparing stops: too many bad rows, or a file that is only a part of itself; data sets in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

import tasks
import tiny
from luthier.config import Config, load
from luthier.data.ledger import Ledger
from luthier.data.prepare import judge, prepare
from luthier.data.render import Renderer
from luthier.errors import DataError
from luthier.types import BadRow

CUT = BadRow("a.json:1001", "<end of file>", "the file is truncated at line 1: the JSON array does not end")


def account(bad: int) -> tuple[Ledger, list[BadRow]]:
    ledger, rejected = Ledger("a", rows_in=1000, kept=1000), []
    for number in range(bad):
        rejected.append(BadRow(f"a.json:{number}", "output", "empty answer"))
        ledger.drop(rejected[-1])
    return ledger, rejected


def test_one_per_cent_may_be_bad_and_no_more() -> None:
    judge(Config(), *account(10))
    with pytest.raises(DataError, match=r"a: 11 of 1011 rows are bad \(1\.1%; bad_rows_limit is 1%\)"):
        judge(Config(), *account(11))
    judge(Config(on_bad_rows="skip"), *account(999))
    judge(Config(bad_rows_limit=0.5), *account(999))


def test_the_first_twenty_are_named_and_the_file_that_holds_all() -> None:
    with pytest.raises(DataError) as caught:
        judge(Config(), *account(23), Path("cache/rejected.jsonl"))
    lines = str(caught.value).splitlines()
    assert lines[1] == "  a.json:0: output: empty answer"
    assert lines[20:] == [
        "  a.json:19: output: empty answer",
        "  … and 3 more",
        "All of them are in cache/rejected.jsonl.",
        "Mend these rows, or train without them: on_bad_rows=skip",
    ]


def test_a_truncated_file_stops_however_few_rows_it_seems_to_cost() -> None:
    ledger = Ledger("a", rows_in=1000, kept=1000)
    ledger.drop(CUT)
    with pytest.raises(DataError, match=r"a\.json:1001: <end of file>: the file is truncated at line 1"):
        judge(Config(), ledger, [CUT])
    judge(Config(on_bad_rows="skip"), ledger, [CUT])


def test_data_sets_in_turns_need_no_probabilities(tmp_path: Path) -> None:
    settings = tasks.make(tmp_path, 3, mix_strategy="interleave_under", max_samples=2)
    (tmp_path / "more.json").write_text('[{"instruction": "a", "output": "b"}]')
    config = load({**settings, "dataset": f"intent,{tmp_path / 'more.json'}"}, "train", {})
    corpus = prepare(config, Renderer.of(config, tiny.tokenizer()), lambda line: None).train
    assert corpus is not None
    assert [corpus[k].source.split(":")[0] for k in range(len(corpus))] == ["intent.json", "more.json"]
