"""Files that a request names are looked for before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.config import load
from luthier.errors import ConfigError


def problems(words: list[str], verb: str = "train") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(words, verb, {})
    return [str(p) for p in caught.value.problems]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model, an adapter and data/dataset_info.json."""
    monkeypatch.chdir(tmp_path)
    for name, file in (("model", "config.json"), ("adapter", "adapter_config.json"), ("empty", "x.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    (tmp_path / "data").mkdir()
    info = {
        "identity": {"file_name": "identity.json"},
        "lost": {"file_name": "lost.json"},
        "web": {"hf_hub_url": "a/b"},
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "data" / "identity.json").write_text("[]")
    (tmp_path / "own.csv").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "dataset", ["identity", "identity,web", "own.csv", "./own.csv", "identity.json", "data", "owner/name"]
)
def test_data_sets_that_are_there(house: Path, dataset: str) -> None:
    assert load(["model_name_or_path=model", "output_dir=out", f"dataset={dataset}"], "train", {}).dataset[0]


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            "identiti",
            "dataset: the data set identiti is not in data/dataset_info.json -> did you mean identity?",
        ),
        ("zzz", "dataset: the data set zzz is not in data/dataset_info.json -> one of identity, lost, web"),
        (
            "lost",
            "data/dataset_info.json: `lost` (asked for by dataset): data/lost.json does not exist "
            "-> the right file_name",
        ),
        (
            "none.json",
            "dataset: the data file none.json does not exist "
            "-> an existing file, or a name in dataset_info.json",
        ),
        (
            "a/b/c",
            "dataset: the data file a/b/c does not exist -> an existing file, or a name in dataset_info.json",
        ),
    ],
)
def test_data_sets_that_are_not_there(house: Path, dataset: str, expected: str) -> None:
    assert problems(["model_name_or_path=model", "output_dir=out", f"dataset={dataset}"]) == [expected]


def test_a_broken_table_of_data_sets(house: Path) -> None:
    (house / "data" / "dataset_info.json").write_text('{"a": {},\n')
    (problem,) = problems(["model_name_or_path=model", "output_dir=out", "dataset=a"])
    assert problem.startswith("data/dataset_info.json:2: is not valid JSON")
    (house / "data" / "dataset_info.json").write_text('{"a": {"columns": {}}}')
    (problem,) = problems(["model_name_or_path=model", "output_dir=out", "dataset=a"])
    assert problem == 'data/dataset_info.json: `a` names no file -> "file_name": "FILE"'


def test_no_table_of_data_sets(house: Path) -> None:
    assert problems(["model_name_or_path=model", "output_dir=out", "dataset=a", "dataset_dir=nowhere"]) == [
        "dataset: the data set a is unknown: nowhere/dataset_info.json does not exist "
        "-> dataset_dir, or a data file as dataset"
    ]
    words = ["model_name_or_path=model", "output_dir=out", "dataset=a", "dataset_dir=ONLINE"]
    assert load(words, "train", {}).dataset == ("a",)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("/nowhere/at/all", "the model /nowhere/at/all does not exist"),
        ("./nowhere", "the model ./nowhere does not exist"),
        ("saves/a/b", "the model saves/a/b does not exist"),
        ("empty", "empty has no config.json, so it is no model"),
        ("adapter", "adapter is an adapter, not a model"),
    ],
)
def test_a_model_that_is_none(house: Path, model: str, expected: str) -> None:
    (problem,) = problems([f"model_name_or_path={model}"], "chat")
    assert problem.startswith("model_name_or_path: ") and expected in problem and " -> " in problem


def test_a_gguf_file_is_talked_to_and_not_merged(house: Path) -> None:
    (house / "b.gguf").write_text("")
    assert load(["b.gguf"], "chat").model_name_or_path == "b.gguf"
    (problem,) = problems(["b.gguf", "export_dir=out"], "export")
    assert "b.gguf is a GGUF file, which can be talked to, not tuned" in problem


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ("./nowhere", "the adapter ./nowhere does not exist"),
        ("empty", "empty has no adapter_config.json, so it is no adapter -> the directory that holds it"),
        (
            "model",
            "so it is no adapter -> model_name_or_path, it is a whole model",
        ),
    ],
)
def test_an_adapter_that_is_none(house: Path, adapter: str, expected: str) -> None:
    (problem,) = problems(["model_name_or_path=model", f"adapter_name_or_path={adapter}"], "chat")
    assert expected in problem


def test_an_unknown_template(house: Path) -> None:
    assert problems(["model_name_or_path=model", "template=qwne"], "chat") == [
        "template: the template qwne is unknown -> did you mean qwen?"
    ]
    (problem,) = problems(["model_name_or_path=model", "template=xyzzy"], "chat")
    assert "a .jinja file, or one of " in problem and ", alpaca, " in problem


@pytest.mark.parametrize("template", ["qwen", "tokenizer", "own.csv", "{{ messages }}", "null"])
def test_templates_that_are_known(house: Path, template: str) -> None:
    assert load(["model_name_or_path=model", f"template={template}"], "chat", {}).verb == "chat"


def test_a_template_file_that_is_not_there(house: Path) -> None:
    assert problems(["model_name_or_path=model", "template=my.jinja"], "chat") == [
        "template: my.jinja does not exist -> a .jinja file or a name"
    ]
