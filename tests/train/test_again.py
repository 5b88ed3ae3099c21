"""`luthier runs reproduce`: the same weights come out, or it says where the two part and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from history import copy, history, write
from luthier import cli
from luthier.runs import Run, reproduce, seal

__all__ = ["history"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # reproducing goes to where the run was started; this brings it back


@pytest.fixture(scope="module")
def again(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """high/, trained again."""
    out = tmp_path_factory.mktemp("again") / "high"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        assert cli.main(["runs", "reproduce", str(history / "high"), "--out", str(out)]) == 0
    return out


def asked(
    capsys: pytest.CaptureFixture[str], run: Path, out: Path, *words: str
) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli.main(["runs", "reproduce", str(run), "--out", str(out), "--format", "json", *words])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, told


def test_the_same_machine_gives_the_same(
    history: Path, again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = asked(capsys, history / "high", again)
    assert (code, told["ok"], told["causes"]) == (0, True, [])
    assert told["weights"]["sha256"][0] == told["weights"]["sha256"][1]
    assert (told["weights"]["tensors"], told["weights"]["differ"]) == (28, [])
    assert told["losses"]["first"] is None
    assert told["losses"]["compared"] == 12 + 3  # of steps, of evaluations
    first, second = (load_file(run / "adapter_model.safetensors") for run in (history / "high", again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert cli.main(["runs", "reproduce", str(history / "high"), "--out", str(again)]) == 0
    assert capsys.readouterr().out.startswith("equal: 28 tensors (sha256 ")


def test_an_interrupted_reproduction_goes_on(
    history: Path, again: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stopped"
    shutil.copytree(again, out)
    for name in ("checkpoint-8", "checkpoint-12"):  # as a kill after step 4 leaves it
        shutil.rmtree(out / name)
    for name in ("adapter_model.safetensors", "checksums.json", "all_results.json", "train_results.json"):
        (out / name).unlink()
    marker = seal.read(out / "luthier.json")
    seal.write(out / "luthier.json", {**marker, "status": "running"})
    code = cli.main(["runs", "reproduce", str(history / "high"), "--out", str(out)])
    said = capsys.readouterr()
    assert "continuing from" in said.err and "(step 4)" in said.err
    assert (code, said.out[:18]) == (0, "equal: 28 tensors ")


def test_a_changed_weight_is_found(
    history: Path, again: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(history, "high", tmp_path)
    file = run / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[3]
    tensors[name].view(-1)[5] += 0.25
    save_file(tensors, file)
    code, told = asked(capsys, run, tmp_path / "new")
    assert code == 1 and not (tmp_path / "new").exists()
    assert told["differences"] == [
        f"{run}: adapter_model.safetensors is not what was written (its sha256 differs)"
    ]
    code, told = asked(capsys, run, again, "--anyway")
    (differ,) = told["weights"]["differ"]
    assert (code, differ["tensor"], differ["differing"]) == (1, name, 1)
    assert differ["max_abs"] == pytest.approx(0.25, abs=1e-6)
    assert told["losses"]["first"] is None
    assert told["causes"] == told["differences"]


def test_another_seed_parts_at_the_first_step(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(history, "high", tmp_path)
    resolved = json.loads((run / "config.resolved.json").read_text())
    write(run / "config.resolved.json", {**resolved, "seed": 8})
    code, told = asked(capsys, run, tmp_path / "new", "--anyway")
    first = told["losses"]["first"]
    assert (code, first["step"], first["key"]) == (1, 1, "loss")
    assert first["delta"] == first["now"] - first["then"] != 0
    assert len(told["weights"]["differ"]) == 28
    sizes = [one["max_abs"] for one in told["weights"]["differ"]]
    assert sizes == sorted(sizes, reverse=True)
    assert told["causes"][0] == f"{run}/config.resolved.json has changed"


def test_what_changed_is_said_before_training(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(history, "high", tmp_path)
    data = tmp_path / "intent.json"
    shutil.copy(history / "data" / "intent.json", data)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"][0]["path"] = str(data)
    write(run / "manifest.json", manifest)
    data.write_text("[]")
    (run / "template.jinja").write_text("{{ messages }}")
    assert cli.main(["runs", "reproduce", str(run), "--out", str(tmp_path / "new")]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"differs: {data} has changed"
    assert "differs: template.jinja is not the template that the run was made with" in out
    assert out[-1] == "not trained: undo these, or --anyway"
    assert not (tmp_path / "new").exists()


def test_mistakes(history: Path, again: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        assert cli.main(["runs", "reproduce", *words]) in (1, 2)
        return capsys.readouterr().err

    high = str(history / "high")
    assert "is the run itself -> another directory" in told(high, "--out", high)
    assert "holds another run (" in told(str(history / "low"), "--out", str(again))
    unfinished = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt), Run.create(unfinished) as run:
        run.describe("", {}, {"cwd": "."})
        run.append_log({"current_steps": 1, "loss": 1.0})
        raise KeyboardInterrupt
    assert "is interrupted, so there is nothing to compare with" in told(str(unfinished))
    run = copy(history, "high", tmp_path)
    resolved = json.loads((run / "config.resolved.json").read_text())
    write(run / "config.resolved.json", {**resolved, "trust_remote_code": True})
    assert "ran code that came with its model" in told(str(run), "--anyway")


def test_causes_the_likeliest_first(tmp_path: Path) -> None:
    made = []
    for name, versions, threads, rank in (("a", "2.1", 1, 8), ("b", "2.2", 2, 16)):
        with Run.create(tmp_path / name) as run:
            manifest = {
                "versions": {"python": "3.11", "torch": versions}, "process": {"threads": threads},
                "machine": {"device": "cpu", "host": name},
            }  # fmt: skip
            run.describe("", {"lora_rank": rank, "output_dir": name, "report_to": [name]}, manifest)
        made.append(Run.open(tmp_path / name))
    assert reproduce.causes(*made) == [
        "lora_rank: 8 then, 16 now",
        'versions.torch: "2.1" then, "2.2" now',
        "process.threads: 1 then, 2 now",
        'machine.host: "a" then, "b" now',
    ]
    assert reproduce.causes(made[0], made[0]) == []


def test_where_two_logs_part(tmp_path: Path) -> None:
    made = []
    for name, last in (("a", 0.5), ("b", 0.25)):
        with Run.create(tmp_path / name) as run:
            run.append_log({"current_steps": 1, "loss": 2.0})
            run.append_log({"current_steps": 2, "eval_loss": 1.0})
            run.append_log({"current_steps": 2, "loss": last})
        made.append(Run.open(tmp_path / name))
    with Run.create(tmp_path / "c") as run:
        run.append_log({"current_steps": 1, "loss": 2.0})
    assert reproduce.losses(*made) == {
        "compared": 3, "first": {"step": 2, "key": "loss", "then": 0.5, "now": 0.25, "delta": -0.25},
    }  # fmt: skip
    found = reproduce.losses(made[0], Run.open(tmp_path / "c"))
    assert found["first"] == {"step": 2, "key": "loss", "then": 0.5, "now": None, "delta": None}
