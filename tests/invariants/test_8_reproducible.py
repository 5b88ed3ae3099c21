"""Promise 8: a run's directory holds what it takes to make it again, and says when that has changed."""

import hashlib
import json
import shlex
from pathlib import Path

import pytest
import yaml

from desk import Luthier, desk, luthier, shop, write
from luthier import cli
from luthier.runs import Run, manifest

__all__ = ["desk", "luthier", "shop"]

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # sha256 of "hello"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, with its data and its base model beside it."""
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (base / name).write_text("hello")
    (tmp_path / "data.json").write_text("hello")
    config = {"seed": 7, "stage": "sft", "model_name_or_path": str(base)}
    with Run.create(tmp_path / "run") as run:
        run.write_text("template.jinja", "hello")
        built = manifest.build(
            config, data_files=["data.json"], template_text="hello", tokenizer_dir=base, base_dir=base
        )
        run.describe("seed: 7\nstage: sft\n", config, built)
    return tmp_path


def test_the_manifest_says_what_the_run_was_made_of(made: Path) -> None:
    kept = Run.open(made / "run").read_json("manifest.json")
    assert kept["seed"] == 7
    assert kept["data"] == [{"path": str(made / "data.json"), "bytes": 5, "sha256": HELLO}]
    assert kept["template"] == HELLO
    assert kept["tokenizer"] == {"path": str(made / "base"), "files": {"tokenizer.json": HELLO}}
    assert kept["base"]["files"] == {"config.json": HELLO, "model.safetensors": HELLO}
    assert {"python", "luthier", "torch", "transformers", "numpy"} <= set(kept["versions"])
    assert kept["machine"]["cores"] >= 1
    assert kept["cwd"] == str(made)


def test_the_configuration_is_kept_as_written_and_as_used(made: Path) -> None:
    run = Run.open(made / "run")
    assert (run.path / "config.yaml").read_text() == "seed: 7\nstage: sft\n"
    assert run.read_json("config.resolved.json")["model_name_or_path"] == str(made / "base")


def test_reproduce_gives_the_command(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "reproduce", "run", "--dry-run", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["command"] == f"luthier train {made}/run/config.yaml output_dir={made}/run-again"
    assert told["config"] == "seed: 7\nstage: sft\n"


def test_reproduce_names_everything_that_changed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "data.json").write_text("other")
    (made / "base" / "tokenizer.json").unlink()
    (made / "base" / "model.safetensors").write_text("hellO")
    (made / "run" / "template.jinja").write_text("bye")
    assert cli.main(["runs", "reproduce", "run", "--dry-run", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"] == [
        f"{made}/data.json has changed",
        f"{made}/base/tokenizer.json is missing",
        f"{made}/base/model.safetensors has changed",
        "template.jinja is not the template that the run was made with",
    ]


# --- a real run


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_trained_run_says_all_that_it_was_made_of(shop: Path) -> None:
    run = shop / "run"
    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert written == {  # nothing but what was asked for, as it was written
        "model_name_or_path": f"{shop}/base",
        "dataset": f"{shop}/rows.json",
        "output_dir": f"{shop}/run",
        "template": "qwen",
        "default_system": "Be brief.",
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "val_size": 4,
        "plot_loss": True,
    }
    used = json.loads((run / "config.resolved.json").read_bytes())
    assert (used["seed"], used["data_seed"], used["lora_rank"], used["lora_alpha"]) == (42, 42, 8, 16)
    assert used["lora_target"] == ["all"]
    kept = json.loads((run / "manifest.json").read_bytes())
    (data,) = kept["data"]
    assert (data["path"], data["sha256"]) == (f"{shop}/rows.json", sha256(shop / "rows.json"))
    for folder, names in (("base", ("config.json", "model.safetensors")), ("tokenizer", ("tokenizer.json",))):
        assert kept[folder]["path"] == str(shop / "base")
        assert all(kept[folder]["files"][name] == sha256(shop / "base" / name) for name in names)
    assert kept["template"] == sha256(run / "template.jinja")
    assert kept["seed"] == 42
    assert {"python", "luthier", "torch", "transformers", "peft", "accelerate", "tokenizers"} <= set(
        kept["versions"]
    )
    assert {"host", "system", "processor", "cores", "memory_bytes", "device"} <= set(kept["machine"])
    assert kept["command"] and kept["cwd"] and kept["created"]


def test_the_command_that_reproduce_gives_makes_the_same_weights(
    luthier: Luthier, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA with dropout, packing and a held-out part, over two epochs; then once more, from elsewhere."""
    write(desk / "data" / "dataset_info.json", {"mine": {"file_name": "../rows.json"}})
    base = {"model_name_or_path": "base", "dataset": "mine", "template": "chatml", "output_dir": "first"}
    request = {"lora_dropout": 0.1, "num_train_epochs": 2, "val_size": 2, "seed": 7, "learning_rate": 1e-2}
    write(desk / "train.json", {**base, **request, "per_device_train_batch_size": 2})
    assert luthier("train", "train.json", "packing=true", "cutoff_len=256").code == 0
    (desk / "elsewhere").mkdir()
    monkeypatch.chdir(desk / "elsewhere")
    words = ["runs", "reproduce", "../first", "--out", "again", "--format", "json"]
    code, out, _ = luthier(*words, "--dry-run")
    told = json.loads(out)
    assert (code, told["ok"], told["differences"], told["notes"]) == (0, True, [], [])
    change, _, command = told["command"].partition(" && ")
    monkeypatch.chdir(shlex.split(change)[1])
    name, *words = shlex.split(command)
    assert name == "luthier"
    code, out, err = luthier(*words)
    assert (code, out) == (0, f"{desk}/elsewhere/again\n"), err
    first, again = desk / "first", desk / "elsewhere" / "again"
    assert sha256(again / "adapter_model.safetensors") == sha256(first / "adapter_model.safetensors")
    code, out, _ = luthier("runs", "compare", first, again, "--format", "json")
    told = json.loads(out)
    assert {change["key"] for change in told["config"]} == {"output_dir", "logging_dir", "run_name"}
    assert told["data"] == []
    noted = {change["key"] for change in told["results"]} - {"train_peak_memory"}
    assert all("runtime" in key or "per_second" in key for key in noted)
