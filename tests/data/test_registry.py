"""Names of data sets: dataset_info.json with LLaMA-Factory's meaning, paths, and what is refused."""

import json

import pytest

from luthier.data import formats, registry, sources
from luthier.errors import DataError
from luthier.types import Row

ROW = {"instruction": "a", "input": "", "output": "b"}
CHAT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}


@pytest.fixture
def home(tmp_path):
    """A data directory with two files; `home(info)` writes its dataset_info.json."""

    def write(info):
        (tmp_path / "rows.json").write_text(json.dumps([ROW]))
        (tmp_path / "chat.jsonl").write_text(json.dumps(CHAT) + "\n")
        (tmp_path / "dataset_info.json").write_text(json.dumps(info), "utf-8")
        return str(tmp_path)

    return write


def one(name, directory, **options):
    (spec,) = registry.specs([name], directory, **options)
    return spec


def test_defaults_are_those_of_llama_factory(home):
    spec = one("d", home({"d": {"file_name": "rows.json"}}))
    assert (spec.formatting, spec.ranking, spec.split, spec.where) == ("alpaca", False, "train", "file")
    assert spec.columns["prompt"] == "instruction" and spec.columns["system"] is None
    assert spec.tags["user_tag"] == "human" and spec.tags["function_tag"] == "function_call"
    assert [row.source for row in sources.read(spec)] == ["rows.json:1"]


def test_columns_not_listed_are_not_read_and_that_is_said(home):
    info = {"d": {"file_name": "rows.json", "columns": {"prompt": "instruction"}}}
    spec = one("d", home(info))
    assert spec.columns["response"] is None and spec.columns["query"] is None
    assert spec.notes == (
        'd: the column "output" of the rows is not read, as dataset_info.json does not list it'
        ' -> add "response": "output" to "columns" (list every column there) if it should be',
    )


def test_tags_not_listed_are_none(home):
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
    info = {"d": {"file_name": "chat.jsonl", "formatting": "sharegpt", "tags": tags}}
    spec = one("d", home(info))
    assert spec.tags["system_tag"] is None and spec.columns["messages"] == "conversations"
    assert spec.notes == ()


def test_openai_without_tags_has_openai_names(home):
    spec = one("d", home({"d": {"file_name": "rows.json", "formatting": "openai"}}), look=False)
    assert (spec.tags["role_tag"], spec.tags["observation_tag"]) == ("role", "tool")
    assert spec.columns["messages"] == "messages"


def test_hub_entries_prefer_what_llama_factory_prefers(home, monkeypatch):
    entry = {
        "hf_hub_url": "a/b",
        "ms_hub_url": "c/d",
        "subset": "en",
        "split": "test",
        "folder": "x",
        "num_samples": 9,
    }
    directory = home({"both": entry, "ms": {"ms_hub_url": "c/d"}})
    spec = one("both", directory, look=False, hub={"cache_dir": "cache", "hf_hub_token": "secret"})
    assert (spec.where, spec.location, spec.cache_dir, spec.token) == ("hf", "a/b", "cache", "secret")
    assert (spec.subset, spec.split, spec.folder, spec.num_samples) == ("en", "test", "x", 9)
    assert "secret" not in repr(spec) and "secret" not in str(spec.as_dict())
    assert one("ms", directory, look=False).where == "ms"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert one("both", directory, look=False).location == "c/d"


def test_path_of_a_file_is_recognised_from_its_rows(home, monkeypatch):
    directory = home({})
    spec = one("chat.jsonl", directory)
    assert spec.formatting == "sharegpt"
    assert spec.notes == (
        'chat.jsonl: read as sharegpt: "conversations" holds messages with "from" and "value"',
    )
    assert formats.to_example(next(sources.read(spec)), spec).answer == "b"
    assert one(f"{directory}/rows.json", "elsewhere").formatting == "alpaca"
    monkeypatch.chdir(directory)
    assert one("rows.json", "elsewhere").formatting == "alpaca"


def test_names_that_mean_a_hub(home, monkeypatch):
    directory = home({})
    found = {name: one(name, directory, look=False) for name in ("hf:a/b", "ms:a/b", "a/b")}
    assert {name: (spec.where, spec.location) for name, spec in found.items()} == {
        "hf:a/b": ("hf", "a/b"),
        "ms:a/b": ("ms", "a/b"),
        "a/b": ("hf", "a/b"),
    }
    assert one("squad", "ONLINE", look=False).location == "squad"


def test_all_problems_at_once_with_the_nearest_names(home):
    info = {
        "identity": {"file_name": "rows.json"},
        "gone": {"file_name": "row.json"},
        "nowhere": {"filename": "rows.json"},
        "script": {"script_url": "s"},
        "om": {"om_hub_url": "s"},
        "cloud": {"cloud_file_name": "s3://x"},
        "odd": {"file_name": "rows.json", "formatting": "alpacca"},
        "few": {"file_name": "rows.json", "num_samples": "5"},
    }
    directory = home(info)
    with pytest.raises(DataError) as caught:
        registry.specs(["identty", *list(info)[1:], "chat.json", "identity"], directory)
    lines = str(caught.value).splitlines()
    assert len(lines) == 9
    for line, expected in zip(
        lines,
        [
            'did you mean "identity"?',
            'did you mean "rows.json"?',
            'did you mean "file_name" by "filename"?',
            "would run foreign code -> save its rows as a file",
            "openMind hub is not supported -> download the files",
            "copy the file here",
            'unknown formatting "alpacca" -> did you mean "alpaca"?',
            '"num_samples" is text -> write a whole number',
            "no such file or folder",
        ],
        strict=True,
    ):
        assert expected in line


def test_keys_that_nobody_reads_are_named(home):
    info = {
        "d": {
            "file_name": "rows.json",
            "colums": {},
            "columns": {"prompt": "instruction", "answer": "output"},
        }
    }
    notes = one("d", home(info)).notes
    assert notes[0] == 'd: "colums" in dataset_info.json is not read; did you mean "columns"?'
    assert notes[1].startswith('d: "columns.answer" in dataset_info.json is not read')


@pytest.mark.parametrize("text", ['{"d": {"file_name": "rows.json",}', "[]", '{"d": "rows.json"}'])
def test_broken_dataset_info(home, tmp_path, text):
    home({})
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset_info\.json: "):
        registry.specs(["d"], str(tmp_path))


def test_dataset_info_in_gbk(home, tmp_path):
    home({})
    info = {"客服": {"file_name": "rows.json", "columns": {"prompt": "instruction", "response": "output"}}}
    (tmp_path / "dataset_info.json").write_bytes(json.dumps(info, ensure_ascii=False).encode("gbk"))
    assert one("客服", str(tmp_path)).columns["response"] == "output"


def test_unknown_kind_of_file_and_encodings_are_reported_by_the_look(home, tmp_path):
    home({})
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match="are not read -> turn documents into rows first"):
        registry.specs(["notes.pdf"], str(tmp_path))
    (tmp_path / "g.json").write_bytes(
        json.dumps([{"instruction": "你好吗", "output": "很好"}], ensure_ascii=False).encode("gbk")
    )
    assert one("g.json", str(tmp_path)).notes[0] == "g.json: read as GB18030 (GBK); it is not UTF-8"


@pytest.mark.parametrize(
    "columns, ranking, stage, message",
    [
        (
            {"prompt": "instruction", "chosen": "output", "rejected": "input"},
            True,
            "sft",
            "pairs are for stage: rm or dpo",
        ),
        ({"prompt": "instruction", "response": "output"}, False, "rm", "needs preference pairs"),
        ({"prompt": "instruction", "response": "output"}, False, "kto", "needs a verdict per row"),
        ({"prompt": "instruction", "response": "output", "kto_tag": "x"}, False, "sft", "for stage: kto"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, True, "predict", "which prediction cannot use"),
    ],
)
def test_data_sets_that_do_not_fit_the_stage(home, columns, ranking, stage, message):
    directory = home({"d": {"file_name": "rows.json", "columns": columns, "ranking": ranking}})
    with pytest.raises(DataError, match=message):
        registry.specs(["d"], directory, stage=stage)


def test_row_of_a_whole_json_file(home):
    directory = home({"d": {"file_name": "rows.json"}})
    assert list(sources.read(one("d", directory))) == [Row(ROW, "rows.json:1")]
