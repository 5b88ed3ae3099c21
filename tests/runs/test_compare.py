import copy
from pathlib import Path
from typing import Any

import pytest

from luthier.config.schema import KEYS
from luthier.errors import RunError
from luthier.runs import compare, manifest

CONFIG: dict[str, Any] = {
    "model_name_or_path": "/models/a", "stage": "sft", "finetuning_type": "lora", "lora_rank": 8,
    "learning_rate": 1e-4, "dataset": ["intents"], "logging_steps": 10, "adapter_name_or_path": [],
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "data": [{"path": "/data/a.json", "sha256": "1" * 64}, {"path": "/data/b.json", "sha256": "2" * 64}],
    "template": "3" * 64,
    "tokenizer": {"path": "/models/a", "files": {"tokenizer.json": "4" * 64}},
    "base": {"path": "/models/a", "files": {"model.safetensors": "5" * 64}},
    "adapters": [],
    "versions": {"torch": "2.13.0"},
}


def told(found: list[compare.Change]) -> dict[str, str]:
    return {change.key: change.kind for change in found}


def test_every_key_in_the_tables_is_in_the_schema() -> None:
    named = compare._IMPOSSIBLE | compare._HARMLESS | set(compare._CONTENT)
    assert named - set(KEYS) == {"base", "adapters"}


def test_keys_by_what_their_change_means() -> None:
    new = {
        **CONFIG,
        "lora_rank": 16,
        "learning_rate": 2e-4,
        "logging_steps": 5,
        "top_p": 0.5,
        "unheard_of": 1,
    }
    assert told(compare.changes(CONFIG, new)) == {
        "lora_rank": "impossible",
        "learning_rate": "changes the mathematics",
        "logging_steps": "harmless",
        "top_p": "harmless",
        "unheard_of": "changes the mathematics",
    }
    assert compare.changes(CONFIG, copy.deepcopy(CONFIG)) == []
    assert compare.changes({"dataset": ("a",)}, {"dataset": ["a"]}) == []


def test_content_by_what_its_change_means() -> None:
    new = copy.deepcopy(MANIFEST)
    new["data"][1]["sha256"] = "f" * 64
    new["template"] = "f" * 64
    new["tokenizer"]["files"]["tokenizer.json"] = "f" * 64
    new["base"]["files"]["model.safetensors"] = "f" * 64
    new["adapters"] = [{"path": "/x", "files": {"adapter_model.safetensors": "f" * 64}}]
    new["versions"]["torch"] = "2.14.0"
    assert told(compare.manifest_changes(MANIFEST, new)) == {
        "data.b.json": "changes the mathematics",
        "template": "changes the mathematics",
        "tokenizer.tokenizer.json": "changes the mathematics",
        "base.model.safetensors": "impossible",
        "adapters.adapter_model.safetensors": "impossible",
        "versions.torch": "harmless",
    }


def test_the_same_content_under_another_name_is_harmless() -> None:
    moved = copy.deepcopy(MANIFEST)
    moved["data"][0]["path"] = "/elsewhere/z.json"
    config = {**CONFIG, "model_name_or_path": "/copies/a", "dataset": ["other"]}
    assert told(compare.all_changes(CONFIG, config, MANIFEST, moved)) == {
        "model_name_or_path": "harmless",
        "dataset": "harmless",
    }
    moved["data"].reverse()
    assert told(compare.all_changes(CONFIG, config, MANIFEST, moved)) == {
        "model_name_or_path": "harmless",
        "dataset": "changes the mathematics",
        "data.a.json": "changes the mathematics",
        "data.b.json": "changes the mathematics",
    }


def test_another_name_of_unknown_content_counts() -> None:
    config = {**CONFIG, "model_name_or_path": "org/b", "dataset": ["other"]}
    assert told(compare.all_changes(CONFIG, config, {}, {})) == {
        "model_name_or_path": "impossible",
        "dataset": "changes the mathematics",
    }


def test_going_on_must_be_confirmed_key_by_key() -> None:
    new = {**CONFIG, "learning_rate": 2e-4, "dataset": ["intents", "more"], "logging_steps": 5}
    found = compare.changes(CONFIG, new)
    with pytest.raises(RunError) as caught:
        compare.confirm(found, confirmed=False)
    assert str(caught.value) == (
        "the run was begun without these changes:\n"
        "  learning_rate: 0.0001 -> 0.0002 (changes the mathematics)\n"
        '  dataset: ["intents"] -> ["intents", "more"] (changes the mathematics)\n'
        "undo these, or set confirm_changes: true to go on with them"
    )
    assert compare.confirm(found, confirmed=True) == [
        "continuing with learning_rate: 0.0001 -> 0.0002 (changes the mathematics)",
        'continuing with dataset: ["intents"] -> ["intents", "more"] (changes the mathematics)',
        "continuing with logging_steps: 10 -> 5 (harmless)",
    ]
    assert compare.confirm(compare.changes(CONFIG, {**CONFIG, "logging_steps": 5}), confirmed=False) == [
        "continuing with logging_steps: 10 -> 5 (harmless)"
    ]


def test_what_is_impossible_stays_so_when_confirmed() -> None:
    found = compare.changes(CONFIG, {**CONFIG, "lora_rank": 16})
    with pytest.raises(
        RunError, match=r"cannot be continued with these changes:\n  lora_rank: 8 -> 16 \(impos"
    ):
        compare.confirm(found, confirmed=True)


def test_a_changed_data_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text("[]")
    old = manifest.build(CONFIG, data_files=[path])
    path.write_text("[ ]")
    new = manifest.build(CONFIG, data_files=[path])
    assert [str(change) for change in compare.manifest_changes(old, new)] == [
        "data.train.json: 4f53cda18c2b -> 5984eac0c5c6 (changes the mathematics)"
    ]
