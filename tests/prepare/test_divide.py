"""Splits on disk: every row in one place, as it was; groups whole; classes in proportion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.errors import DataError, UsageError
from luthier.prepare import cli, divide, shares, words
from luthier.prepare.opened import opened

TOPICS = ["体育", "财经", "科技"]


def rows(count: int = 60) -> list[dict[str, Any]]:
    nouns = ["球赛", "股票", "芯片", "比分", "涨跌", "发布", "冠军", "基金", "手机", "教练"]
    return [
        {
            "instruction": f"{nouns[i % 10]}{nouns[i // 10]}{i}{chr(0x4E00 + 37 * i)}{chr(0x5000 + 91 * i)}",
            "output": TOPICS[i % 3],
            "id": i,
            "user": f"u{i % 7}",
        }
        for i in range(count)
    ]


def data(folder: Path, found: list[Any], name: str = "news.json") -> Path:
    path = folder / name
    text = json.dumps(found, ensure_ascii=False, indent=2)
    if name.endswith(".jsonl"):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in found)
    path.write_text(text, "utf-8")
    return path


def split(path: Path, *given: str) -> dict[str, Any]:
    assert cli.main(["split", str(path), *given]) == 0
    found: dict[str, Any] = json.loads((path.parent / "news.split.json").read_text("utf-8"))
    return found


def part(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"news.{name}.json").read_text("utf-8"))
    return found


def test_every_row_once_as_it_was(tmp_path: Path) -> None:
    path = data(tmp_path, rows())
    before = path.read_bytes()
    ledger = split(path, "--parts", "train=0.8,eval=0.1,test=0.1")
    found = {name: part(tmp_path, name) for name in ("train", "eval", "test")}
    assert {name: len(some) for name, some in found.items()} == {"train": 48, "eval": 6, "test": 6}
    assert sorted((row for some in found.values() for row in some), key=lambda row: row["id"]) == rows()
    assert ledger["classes"] == {topic: {"train": 16, "eval": 2, "test": 2} for topic in TOPICS}
    assert path.read_bytes() == before


def test_the_ledger_says_where_each_row_went(tmp_path: Path) -> None:
    path = data(tmp_path, rows())
    ledger = split(path)
    for name, files in ledger["went"].items():
        numbers = [
            n
            for piece in files["news.json"].split(", ")
            for n in range(int(piece.split("-")[0]), int(piece.split("-")[-1]) + 1)
        ]
        assert [row["id"] + 1 for row in part(tmp_path, name)] == numbers


def test_the_parts_read_as_the_source_does(tmp_path: Path) -> None:
    path = data(tmp_path, [{"问": f"{i} {chr(0x4E00 + i)}", "答": "a b"[i % 2 * 2]} for i in range(20)])
    split(path)
    for name, count in (("news_train", 18), ("news_eval", 2)):
        source = opened(name, {"dataset_dir": str(tmp_path)})
        assert source.spec.columns["prompt"] == "问"
        assert len(list(source.rows())) == count


def test_near_duplicates_and_users_stay_together(tmp_path: Path) -> None:
    found = rows(30)
    found += [{**row, "instruction": row["instruction"] + "。", "id": row["id"] + 30} for row in found]
    path = data(tmp_path, found)
    ledger = split(path, "--parts", "train=0.5,eval=0.5")
    sides = [{row["id"] % 30 for row in part(tmp_path, name)} for name in ("train", "eval")]
    assert not sides[0] & sides[1]
    assert ledger["groups"]["rows"] == 60
    split(path, "--group", "user", "--overwrite")
    users = [{row["user"] for row in part(tmp_path, name)} for name in ("train", "eval")]
    assert not users[0] & users[1] and users[0] | users[1] == {f"u{i}" for i in range(7)}


def test_rows_that_cannot_be_used_are_kept_apart(tmp_path: Path) -> None:
    found = rows(20)
    found[3]["output"], found[7] = "", 5  # type: ignore[call-overload]
    ledger = split(data(tmp_path, found))
    rejected = [json.loads(line) for line in (tmp_path / "news.rejected.jsonl").read_text().splitlines()]
    assert [(one["source"], one["data"]) for one in rejected] == [
        ("news.json:4", found[3]),
        ("news.json:8", 5),
    ]
    assert ledger["rows"] == 20 == sum(one["rows"] for one in ledger["parts"].values()) + ledger["rejected"]
    assert ledger["went"]["rejected"] == {"news.json": "4, 8"}


def test_an_input_that_changes_meanwhile(tmp_path: Path) -> None:
    path = data(tmp_path, rows())
    plan = divide.planned(words.parse([str(path)], divide.OPTIONS, "split"))
    data(tmp_path, rows(59))
    with pytest.raises(DataError, match="changed while it was"):
        divide.carry_out(plan)
    assert [file.name for file in tmp_path.iterdir()] == ["news.json"]


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    path = data(tmp_path, rows())
    (tmp_path / "news.eval.json").write_text("mine")
    with pytest.raises(UsageError, match=r"news\.eval\.json: exists already"):
        split(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["news.eval.json", "news.json"]
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "a.json"}}')
    split(path, "--overwrite")
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == {"mine": {"file_name": "a.json"}}
    split(path, "--overwrite", "--register")
    assert list(json.loads((tmp_path / "dataset_info.json").read_text())) == [
        "mine",
        "news_train",
        "news_eval",
    ]


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        (["--by", "topic"], UsageError, 'no row has a value in the column "topic" -> the rows have instr'),
        (["--group", "usr"], UsageError, 'did you mean "user"'),
        (["--parts", "train,eval=61"], DataError, "60 rows can be used, and the parts need more"),
        (["--parts", "train=30,eval=20"], DataError, "10 of them would be in no part"),
        (["--parts", "train=0.999,eval=0.001"], DataError, "no row would be in eval"),
        (["--seed", "x"], UsageError, "whole number"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    tmp_path: Path, asked: list[str], error: type[Exception], match: str
) -> None:
    path = data(tmp_path, rows())
    with pytest.raises(error, match=match):
        split(path, *asked)
    assert [file.name for file in tmp_path.iterdir()] == ["news.json"]


def test_labels_must_be_labels(tmp_path: Path) -> None:
    path = data(tmp_path, [{"instruction": f"{i}?", "output": f"answer {i}"} for i in range(20)])
    with pytest.raises(UsageError, match="free text"):
        split(path, "--by", "label")
    assert split(path)["by"] == ""


@pytest.mark.parametrize(
    "text",
    [
        "train",
        "train,eval",
        "a=0.5,a=0.5",
        "a=0.5,b=0.6",
        "a=0.5,b=0.4",
        "a=2.5,b",
        "a=-1,b",
        "a=0,b",
        "=1,b",
    ],
)
def test_parts_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="--parts"):
        shares.parsed(text)


def test_parts_in_all_forms() -> None:
    assert shares.of(shares.parsed("train, eval=10%, test=50"), 200) == pytest.approx(
        {"train": 0.65, "eval": 0.1, "test": 0.25}
    )


@given(st.lists(st.integers(1, 60), unique=True).map(sorted))
def test_ranges_name_each_number_once(numbers: list[int]) -> None:
    back = [
        n
        for piece in divide.ranges(numbers).split(", ")
        if piece
        for n in range(int(piece.split("-")[0]), int(piece.split("-")[-1]) + 1)
    ]
    assert back == numbers


@given(
    st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {"instruction": st.text(max_size=4), "output": st.sampled_from(["a", "b", "", None])}
            ),
            st.just(5),
        ),
        min_size=3,
        max_size=14,
    ),
    st.integers(0, 9),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_books_balance(tmp_path: Path, found: list[Any], seed: int) -> None:
    path = data(tmp_path, found, "news.jsonl")
    for old in tmp_path.glob("news.*"):
        if old != path:
            old.unlink()
    (tmp_path / "dataset_info.json").write_text(
        json.dumps(
            {"news": {"file_name": "news.jsonl", "columns": {"prompt": "instruction", "response": "output"}}}
        )
    )
    given = ["split", "news", f"--dataset_dir={tmp_path}", "--parts=a=0.5,b=0.5", f"--seed={seed}"]
    try:
        assert cli.main(given) == 0
    except DataError as error:
        assert "no row would be in" in str(error) or "none of" in str(error)
        return
    counts = [
        file.read_bytes().count(b"\n")
        for file in (tmp_path / f"news.{name}.jsonl" for name in ("a", "b", "rejected"))
        if file.exists()
    ]
    assert sum(counts) == len(found)
