"""A run directory knows base, adapter, template and system message; no verb differs from them unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.config import load
from luthier.errors import ConfigError

REPEATED = """\
model_name_or_path: base
dataset: a/b
lora_rank: 3
overwrite_output_dir: true
resume_from_checkpoint: saves/x/checkpoint-1
format: json
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "base", {"config.json": {}})
    return tmp_path


def make(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def run(weights: str = "adapter_config.json", **resolved: Any) -> dict[str, Any]:
    """The files of a run that was tuned on base/ with the template qwen."""
    keys = {"model_name_or_path": "base", "template": "qwen", "dataset": ["a/b"], "val_size": 0.1, "seed": 7}
    return {
        "luthier.json": {"base": "base", "template": "qwen", "system": "Be brief.", "status": "complete"},
        "config.resolved.json": {
            **keys,
            "enable_thinking": False,
            "cutoff_len": 99,
            "trust_remote_code": True,
        }
        | resolved,
        "template.jinja": "{{ messages }}",
        weights: {},
    }


@pytest.mark.parametrize(
    "words",
    [
        ["saves/x"],
        ["saves/x/luthier.json"],
        ["model_name_or_path=base", "adapter_name_or_path=saves/x"],
        ["model_name_or_path=base", "output_dir=saves/x"],
        ["model_name_or_path=saves/x"],
    ],
)
def test_everything_comes_from_the_run(home: Path, words: list[str]) -> None:
    make(home / "saves/x", run())
    config = load(words, "chat", {})
    assert (config.run, config.adapter_name_or_path) == ("saves/x", ("saves/x",))
    assert (config.model_name_or_path, config.template) == ("base", "saves/x/template.jinja")
    assert (config.system, config.enable_thinking, config.cutoff_len) == ("Be brief.", False, 99)
    assert config.notes == ()


def test_no_preference_for_thinking_is_kept(home: Path) -> None:
    make(home / "saves/x", run(enable_thinking=None))
    assert load(["saves/x"], "chat", {}).enable_thinking is None


def test_permission_to_run_code_is_not_inherited(home: Path) -> None:
    make(home / "saves/x", run())
    assert load(["saves/x"], "chat", {}).trust_remote_code is False


def test_a_run_that_changed_all_weights_is_the_model(home: Path) -> None:
    make(home / "saves/x", run("config.json"))
    config = load(["saves/x", "export_dir=out"], "export", {})
    assert (config.model_name_or_path, config.adapter_name_or_path) == ("saves/x", ())


def test_a_given_value_wins_over_the_run(home: Path) -> None:
    make(home / "saves/x", run())
    make(home / "moved", {"config.json": {}})
    config = load(
        ["saves/x", "model_name_or_path=moved", "system=Be kind.", "--no_enable_thinking"], "chat", {}
    )
    assert (config.model_name_or_path, config.system) == ("moved", "Be kind.")


def test_the_name_of_the_same_template_changes_nothing(home: Path) -> None:
    make(home / "saves/x", run())
    config = load(["saves/x", "--template", "qwen"], "chat", {})
    assert (config.template, config.notes) == ("saves/x/template.jinja", ())


def test_another_template_is_not_taken_by_accident(home: Path) -> None:
    make(home / "saves/x", run())
    config = load(["saves/x", "--template", "qwen3"], "chat", {})
    assert config.template == "saves/x/template.jinja"
    assert config.notes == (
        "--template: saves/x was trained with the template qwen, so that one is used, not qwen3 "
        "(confirm_changes: true uses yours)",
    )


def test_another_template_can_be_insisted_on(home: Path) -> None:
    make(home / "saves/x", run())
    config = load(["saves/x", "--template", "qwen3", "--confirm_changes"], "chat", {})
    assert config.template == "qwen3"
    assert config.notes == (
        "--template: saves/x was trained with the template qwen; qwen3 is used, as asked",
    )


def test_predict_takes_the_held_out_part_unless_data_is_given(home: Path) -> None:
    make(home / "saves/x", run())
    held_out = load(["saves/x"], "predict", {})
    assert (held_out.dataset, held_out.val_size, held_out.seed) == (("a/b",), 0.1, 7)
    given = load(["saves/x", "--dataset", "c/d"], "predict", {})
    assert (given.dataset, given.val_size, given.seed) == (("c/d",), 0, 42)


@pytest.mark.parametrize("word", ["saves/x/checkpoint-4", "adapter_name_or_path=saves/x/checkpoint-4"])
def test_a_checkpoint_knows_what_its_run_knows(home: Path, word: str) -> None:
    make(home / "saves/x", run("unfinished.txt"))
    make(home / "saves/x/checkpoint-4", {"adapter_config.json": {"base_model_name_or_path": "elsewhere"}})
    config = load([word, "template=qwen3"], "chat", {})
    assert config.adapter_name_or_path == ("saves/x/checkpoint-4",)
    assert (config.model_name_or_path, config.system) == ("base", "Be brief.")
    assert config.template == "saves/x/template.jinja"
    assert "was trained with the template qwen, so that one is used, not qwen3" in config.notes[0]
    make(home / "saves/y", run("unfinished.txt"))
    make(home / "saves/y/checkpoint-4", {"config.json": {}})
    whole = load(["saves/y/checkpoint-4"], "chat", {})
    assert (whole.model_name_or_path, whole.adapter_name_or_path) == ("saves/y/checkpoint-4", ())
    assert whole.template == "saves/y/template.jinja"


def test_train_a_run_again(home: Path) -> None:
    make(home / "saves/x", {**run(), "config.yaml": REPEATED})
    config = load(["saves/x", "max_steps=5"], "train", {})
    assert (config.lora_rank, config.output_dir, config.max_steps) == (3, "saves/x", 5)
    assert config.where["lora_rank"] == "saves/x/config.yaml:3"
    assert config.written == {
        "max_steps": 5,
        "model_name_or_path": "base",
        "dataset": "a/b",
        "lora_rank": 3,
        "output_dir": "saves/x",
    }


def test_without_a_run_the_base_answers_and_a_note_says_so(home: Path) -> None:
    config = load(["model_name_or_path=base", "output_dir=saves/none"], "chat", {})
    assert config.notes == ("output_dir: no trained run in saves/none; the base is used",)
    assert config.adapter_name_or_path == ()


def test_training_goes_on_from_an_adapter_with_its_template(home: Path) -> None:
    make(home / "saves/x", run())
    words = ["model_name_or_path=base", "adapter_name_or_path=saves/x", "dataset=a/b", "output_dir=saves/y"]
    config = load(words, "train", {})
    assert (config.template, config.system, config.cutoff_len) == ("saves/x/template.jinja", None, 2048)
    other = load([*words, "template=llama3"], "train", {})
    assert other.template == "llama3"
    assert "was trained with the template qwen; llama3 is used, as asked" in other.notes[0]


def test_an_adapter_of_another_program_knows_its_base(home: Path) -> None:
    make(home / "peft", {"adapter_config.json": {"base_model_name_or_path": "base"}})
    assert load(["peft", "template=qwen"], "chat", {}).model_name_or_path == "base"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"luthier.json": {"base": "base"}}, "saves/x: holds no trained weights yet"),
        ({"luthier.json": "{", "adapter_config.json": {}}, "saves/x/luthier.json: cannot be read"),
    ],
)
def test_a_run_that_cannot_be_used(home: Path, files: dict[str, Any], expected: str) -> None:
    make(home / "saves/x", files)
    with pytest.raises(ConfigError) as caught:
        load(["saves/x", "model_name_or_path=base"], "chat", {})
    assert str(caught.value.problems[0]).startswith(expected)


def test_a_run_whose_base_is_gone(home: Path) -> None:
    make(home / "saves/x", run(model_name_or_path="/gone/base") | {"luthier.json": {"base": "/gone/base"}})
    with pytest.raises(ConfigError) as caught:
        load(["saves/x"], "chat", {})
    (problem,) = caught.value.problems
    assert problem.where == "saves/x/luthier.json (model_name_or_path)"
    assert problem.what == "the model /gone/base does not exist"
