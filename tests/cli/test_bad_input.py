"""Bad input: what is wrong, where, what to do instead; an exit code that is not 0; nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tasks
from desk import QUICK, Luthier, tree, write

SYSTEMLESS = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TRAIN = ["train", "model_name_or_path=base", "output_dir=saves/run", *QUICK]


def check_refused(luthier: Luthier, desk: Path, words: list[str], *said: str) -> str:
    """The command fails, says all of `said` on stderr and nothing on stdout, and leaves no trace."""
    before = tree(desk)
    code, out, err = luthier(*words)
    assert code in (1, 2), err
    assert out == ""
    assert "Traceback" not in err
    assert f"luthier {words[0]}:" in err
    for part in said:
        assert part in err
    assert tree(desk) == before
    assert not (desk / "saves").exists()
    return err


# --- data files


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("empty.json", "", ["empty.json", "the file is empty -> write at least one row"]),
        ("none.json", "[]", ["none.json", "holds no rows -> write at least one row"]),
        ("cut.json", '[{"instruction": "a", "outp', ["truncated at line 1", "-> look at the file"]),
        ("bytes.json", "\x00\x01\x02", ["bytes.json"]),
        ("odd.json", '[{"colour": "a", "size": "b", "x": "c"}]', ["cannot be told", "(colour, size, x) ->"]),
        ("page.docx", "x", ["page.docx", "(.docx) are not read -> turn documents into rows first"]),
    ],
)
def test_files_that_are_no_data(luthier: Luthier, desk: Path, name: str, text: str, said: list[str]) -> None:
    (desk / name).write_text(text)
    check_refused(luthier, desk, [*TRAIN, f"dataset={name}"], *said)


def test_a_file_that_is_not_there(luthier: Luthier, desk: Path) -> None:
    said = "dataset: the data file nope.json does not exist -> an existing file, or a name in"
    check_refused(luthier, desk, [*TRAIN, "dataset=nope.json"], said)
    write(desk / "data" / "dataset_info.json", {"intent": {"file_name": "gone.json"}})
    check_refused(luthier, desk, [*TRAIN, "dataset=intents"], "intents is not in", "-> did you mean intent?")
    check_refused(
        luthier, desk, [*TRAIN, "dataset=intent"], "data/gone.json does not exist -> the right file_name"
    )


@pytest.mark.parametrize("end", [-40, -2, -1])
def test_a_truncated_file_never_passes_for_a_whole_one(luthier: Luthier, desk: Path, end: int) -> None:
    """Even where the rows that can still be seen to be lost are fewer than 1 %."""
    text = json.dumps(tasks.rows(200), ensure_ascii=False)
    (desk / "cut.json").write_text(text[:end], encoding="utf-8")
    said = ("cut.json:", "the file is truncated at line 1", "on_bad_rows=skip")
    check_refused(luthier, desk, [*TRAIN, "dataset=cut.json"], *said)


def test_wrong_roles(luthier: Luthier, desk: Path) -> None:
    talks = [
        [{"from": "humann", "value": "a"}, {"from": "gpt", "value": "b"}],
        [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}],
        [{"from": "human", "value": "a"}],
    ]
    write(desk / "talks.json", [{"conversations": talk} for talk in talks])
    check_refused(
        luthier, desk, [*TRAIN, "dataset=talks.json"],
        "3 of 3 rows are bad (100.0%; bad_rows_limit is 1%):",
        'talks.json:1: conversations[0].from: unknown role "humann"; accepted: system, human, gpt',
        'did you mean "human"?',
        'talks.json:2: conversations[0]: starts with "gpt"; a conversation starts with "human"',
        'talks.json:3: conversations[0]: the last message is from "human", not from gpt',
        "Mend these rows, or train without them: on_bad_rows=skip",
    )  # fmt: skip


def test_more_than_one_per_cent_of_bad_rows_stops_before_the_model_is_loaded(
    luthier: Luthier, desk: Path
) -> None:
    write(desk / "some.json", [*tasks.rows(8), {"instruction": "x"}, {"instruction": "", "output": "y"}])
    (desk / "shell").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):  # no weights: loading would fail
        (desk / "shell" / name).write_bytes((desk / "base" / name).read_bytes())
    check_refused(
        luthier, desk, [*TRAIN, "dataset=some.json", "model_name_or_path=shell"],
        "2 of 10 rows are bad (20.0%; bad_rows_limit is 1%)",
        "some.json:9: output: missing; the row has instruction",
        "some.json:10: instruction: empty question",
    )  # fmt: skip
    code, out, _ = luthier(*TRAIN, "dataset=some.json", "on_bad_rows=skip")
    assert (code, out) == (0, "saves/run\n")
    lines = (desk / "saves" / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "source": "some.json:9",
            "field": "output",
            "reason": "missing; the row has instruction",
            "data": {"instruction": "x"},
        },
        {
            "source": "some.json:10",
            "field": "instruction",
            "reason": "empty question",
            "data": {"instruction": "", "output": "y"},
        },
    ]
    (ledger,) = json.loads((desk / "saves" / "run" / "ledger.json").read_bytes())
    assert (ledger["rows_in"], ledger["kept"], sum(ledger["dropped"].values())) == (10, 8, 2)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("gb18030", "rows.csv: read as GB18030 (GBK); it is not UTF-8"), ("utf-16", "rows.csv: read as UTF-16")],
)
def test_other_encodings_are_recognised_and_said_aloud(
    luthier: Luthier, desk: Path, encoding: str, said: str
) -> None:
    text = "问题,回答\n请告诉我你的名字,我的名字是小助手\n导出本月的数据,下载场景\n"
    (desk / "rows.csv").write_bytes(text.encode(encoding))
    code, out, err = luthier("data", "show", "rows.csv", "--model", "base", "--format", "json")
    assert code == 0
    assert f"note: {said}" in err.splitlines()
    assert [json.loads(line)["source"] for line in out.splitlines()] == ["rows.csv:1", "rows.csv:2"]
    assert "我的名字是小助手" in json.loads(out.splitlines()[0])["text"]
    code, _, err = luthier(*TRAIN, "dataset=rows.csv")
    assert code == 0
    assert f"note: {said}" in err
    assert "rows.csv: 2 rows = 2 kept + 0 dropped" in err


@pytest.mark.parametrize(
    ("rows", "what", "instead"),
    [
        ([{"instruction": "a", "chosen": "b", "rejected": "c"}], "preference pairs", '"chosen" as the resp'),
        ([{"instruction": "a", "output": "b", "kto_tag": True}], "KTO verdicts", "keep the good answers"),
        (["only text"], "plain text without answers", "use stage: pt"),
    ],
)
def test_data_of_another_stage(
    luthier: Luthier, desk: Path, rows: list[object], what: str, instead: str
) -> None:
    write(desk / "d.json", rows)
    check_refused(luthier, desk, [*TRAIN, "dataset=d.json"], f"d.json: holds {what}", "-> ", instead)


# --- models, adapters, templates


def test_templates_that_are_unknown_or_cannot_express_the_data(luthier: Luthier, desk: Path) -> None:
    said = "the template qwen33 is unknown -> did you mean qwen3?"
    check_refused(luthier, desk, [*TRAIN, "dataset=rows.json", "template=qwen33"], said)
    (desk / "plain.jinja").write_text(SYSTEMLESS)
    roles = {"system": "s", "user": "a", "assistant": "b"}
    write(desk / "sys.json", [{"messages": [{"role": r, "content": c} for r, c in roles.items()]}])
    check_refused(
        luthier, desk, [*TRAIN, "dataset=sys.json", "template=plain.jinja"],
        "sys.json:1: template plain.jinja cannot express a system message", "System role not supported",
        "-> choose a template with a place for it, or put that text into the user's message",
    )  # fmt: skip


def test_a_directory_that_is_no_model(luthier: Luthier, desk: Path) -> None:
    (desk / "folder").mkdir()
    (desk / "folder" / "notes.txt").write_text("x")
    for verb in (
        ["train", "output_dir=saves/run", "dataset=rows.json"],
        ["chat"],
        ["export", "export_dir=saves"],
    ):
        said = "folder has no config.json, so it is no model -> the directory that holds config.json"
        check_refused(luthier, desk, [*verb, "model_name_or_path=folder"], "model_name_or_path: ", said)
    said = "the model ./nowhere does not exist -> a directory with config.json, or a hub name OWNER/NAME"
    check_refused(luthier, desk, [*TRAIN, "dataset=rows.json", "model_name_or_path=./nowhere"], said)
    said = (
        "owner/nothing: neither a directory here nor in the cache, and HF_HUB_OFFLINE keeps us from the hub"
    )
    check_refused(luthier, desk, [*TRAIN, "dataset=rows.json", "model_name_or_path=owner/nothing"], said)


def test_an_adapter_for_another_base(luthier: Luthier, desk: Path, shop: Path) -> None:
    words = ["model_name_or_path=other", f"adapter_name_or_path={shop}/run"]
    said = f"adapter_name_or_path: {shop}/run was trained on {shop}/base, and other has other weights"
    verbs = [
        ["chat"],
        ["predict", "dataset=rows.json", "output_dir=saves"],
        ["export", "export_dir=saves"],
        ["train", "dataset=rows.json", "output_dir=saves/run", "max_steps=1"],
    ]
    for verb in verbs:
        check_refused(luthier, desk, [*verb, *words], said, "Give the base that it was trained on")
