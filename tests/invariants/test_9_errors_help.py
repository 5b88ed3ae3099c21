"""Promise 9: an error says what is wrong, where, and what to write instead; nothing half-written is left."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from desk import QUICK, Luthier, desk, luthier, shop, tree, write
from luthier.config import compat, rules

__all__ = ["desk", "luthier", "shop"]

TRAIN = ["train", "model_name_or_path=base", "dataset=rows.json", "output_dir=saves/run", *QUICK]
RUN = "{shop}/run"
# what is typed · exit code · where it is wrong · what is wrong · what to do instead
REQUESTS: list[tuple[list[str], int, str, str, str]] = [
    (["trian"], 2, "luthier:", "there is no verb trian", "did you mean `luthier train`?"),
    ([*TRAIN, "lora_rnk=8"], 2, "lora_rnk:", "unknown key `lora_rnk`", "did you mean `lora_rank`?"),
    (["train", "typo.yaml"], 2, "typo.yaml:2:", "unknown key `lora_rnk`", "did you mean `lora_rank`?"),
    (["train", "twice.yaml"], 2, "twice.yaml:2:", "`seed` is given twice", "one of the two"),
    ([*TRAIN, "bf16=true", "fp16=true"], 2, "bf16:", "two answers to one question", "one of the two"),
    ([*TRAIN, "lora_rank=eight"], 2, "lora_rank:", "must be a whole number", "see `luthier keys lora_rank`"),
    ([*TRAIN, "stage=dpo"], 2, "stage:", "trained by a later version", "stage: sft or pt"),
    ([*TRAIN, "fp8=true"], 2, "fp8:", "`fp8` is refused, because", "quantization_bit: 4 for less memory"),
    ([*TRAIN, "template=qwn"], 2, "template:", "the template qwn is unknown", "did you mean qwen?"),
    ([*TRAIN, "dataset=nope.csv"], 2, "dataset:", "nope.csv does not exist", "an existing file"),
    ([*TRAIN, "model_name_or_path=folder"], 2, "model_name_or_path:", "folder has no config.json", "the dir"),
    ([*TRAIN, "dataset=empty.json"], 1, "empty.json:", "the file is empty", "write at least one row"),
    ([*TRAIN, "dataset=cut.json"], 1, "cut.json:3:", "truncated at line 1", "on_bad_rows=skip"),
    ([*TRAIN, "dataset=bad.json"], 1, "bad.json:2: output:", "did you mean", "on_bad_rows=skip"),
    ([*TRAIN, "val_size=12"], 1, "val_size:", "12 of 12 examples leaves 0", "write a fraction (0.1)"),
    ([*TRAIN, "cutoff_len=8"], 1, "rows.json:1: cutoff_len:", "more than cutoff_len = 8", "Raise cutoff_len"),
    ([*TRAIN, "output_dir=folder"], 1, "output_dir: folder", "files that are not a run", "give an empty"),
    (["train", RUN, "lora_rank=2"], 1, "lora_rank:", "8 -> 2 (impossible)", "give another output_dir"),
    (["chat", RUN, "model_name_or_path=other"], 1, "adapter_name_or_path:", "other has other", "Give the"),
    (["chat", "nowhere"], 2, "nowhere:", "no such file or directory", "a run directory"),
    (["predict", RUN, "dataset=pairs.json"], 1, "pairs.json:", "holds preference pairs", 'read "chosen" as'),
    (["export", RUN, "export_dir=folder"], 1, "export_dir: folder", "is not empty", "give another"),
    (["data", "show", "rows.json"], 2, "model_name_or_path:", "is missing", "--model DIR"),
    (["runs", "nowhere"], 2, "nowhere:", "no such directory", "luthier runs DIR"),
    (["keys", "lora_rnk"], 2, "luthier keys:", "no key is called lora_rnk", "did you mean lora_rank?"),
]  # fmt: skip


@pytest.fixture
def mistakes(desk: Path) -> Path:
    """The files that the requests speak of."""
    lines = ["model_name_or_path: base", "lora_rnk: 8", "dataset: rows.json", "output_dir: run"]
    (desk / "typo.yaml").write_text("\n".join(lines))
    (desk / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    (desk / "empty.json").write_text("")
    (desk / "cut.json").write_text('[{"instruction":"a","output":"b"},{"instruction":"c","output":"d"},{"i')
    write(desk / "bad.json", [{"instruction": "a", key: "b"} for key in ("output", "outptu")])
    write(desk / "pairs.json", [{"instruction": "a", "chosen": "b", "rejected": "c"}])
    (desk / "folder").mkdir()
    (desk / "folder" / "notes.txt").write_text("mine")
    return desk


@pytest.mark.parametrize("case", REQUESTS, ids=[" ".join(case[0][:1] + case[0][-1:]) for case in REQUESTS])
def test_what_where_and_instead(
    luthier: Luthier, mistakes: Path, shop: Path, case: tuple[list[str], int, str, str, str]
) -> None:
    words, status, where, what, instead = case
    before, run = tree(mistakes), tree(shop / "run")
    code, out, err = luthier(*[word.format(shop=shop) for word in words])
    assert (code, out) == (status, "")
    assert "Traceback" not in err
    for part in (where, what, instead):
        assert part in err
    assert err.rindex(instead) > err.index(what)
    assert tree(mistakes) == before
    assert not (mistakes / "saves").exists()
    assert tree(shop / "run") == run


def test_all_problems_at_once(luthier: Luthier, mistakes: Path) -> None:
    words = [
        "lora_rnk=1",
        "fp8=true",
        "learning_rate=x",
        "template=qwn",
        "dataset=nope.csv",
        "bf16=true",
        "fp16=1",
    ]
    code, _, err = luthier(*TRAIN, *words)
    assert code == 2
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == [
        "lora_rnk",
        "fp8",
        "learning_rate",
        "bf16",
        "template",
        "dataset",
    ]
    write(
        mistakes / "talks.json", [{"conversations": [{"from": "gpt", "value": "a"}]}, {"conversations": []}]
    )
    code, _, err = luthier(*TRAIN, "dataset=talks.json,pairs.json,empty.json")
    assert code == 1
    named = re.findall(r"data set (\S+): ", err)
    assert named == ["pairs.json", "empty.json"]


def test_every_rule_and_every_refused_key_says_what_to_write_instead() -> None:
    assert all(rule.what and rule.instead for rule in (*rules.ANYWHERE, *rules.TRAIN))
    assert all(instead for needs in rules.NEEDS.values() for _, instead in needs)
    rows = [*compat.keys().values(), *compat.environment().values()]
    assert all(row.because and row.use for row in rows if row.status == "refused")
    assert all(row.because for row in rows if row.status == "ignored")


def test_check_tells_programs_the_same(luthier: Luthier, mistakes: Path) -> None:
    code, out, _ = luthier("check", "typo.yaml", "template=qwn", "--format", "json")
    problems = json.loads(out)["problems"]
    assert code == 2
    assert [problem["where"] for problem in problems] == ["typo.yaml:2", "template"]
    assert all(problem["what"] and problem["instead"] for problem in problems)
