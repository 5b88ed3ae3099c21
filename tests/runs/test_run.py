import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.errors import RunError
from luthier.runs import Run, lock
from luthier.runs.seal import verify


def tree(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def save(run: Run, step: int, text: str = "w") -> Path:
    with run.checkpoint(step) as folder:
        (folder / "weights").write_text(text)
    return run.path / f"checkpoint-{step}"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has taken tmp_path/run and waits."""
    code = (
        "import sys; from luthier.runs import Run\n"
        "run = Run.create(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=-1, stdout=-1, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_life_of_a_run(tmp_path: Path) -> None:
    with Run.create(tmp_path / "saves" / "run") as run:
        assert run.resume_from is None
        assert run.status == "running"
        run.write_marker(stage="sft", base="b", adapter=True)
        run.append_log({"current_steps": 1, "loss": 2.5})
        save(run, 1)
    read = Run.open(run.path)
    assert read.status == "complete"
    assert {k: read.marker[k] for k in ("verb", "stage", "base", "adapter")} == {
        "verb": "train", "stage": "sft", "base": "b", "adapter": True,
    }  # fmt: skip
    assert read.read_log() == [{"current_steps": 1, "loss": 2.5}]
    assert sorted(os.listdir(run.path)) == ["checkpoint-1", "luthier.json", "trainer_log.jsonl"]


def test_how_it_ended_is_recorded(tmp_path: Path) -> None:
    for error, status in ((ValueError("boom"), "failed"), (KeyboardInterrupt(), "interrupted")):
        with pytest.raises(type(error)), Run.create(tmp_path / status) as run:
            run.append_log({"current_steps": 1})
            raise error
        assert Run.open(run.path).status == status
    assert Run.open(tmp_path / "failed").marker["error"] == "boom"


def test_a_failure_before_anything_was_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), Run.create(tmp_path / "saves" / "run") as run:
        run.describe("a: 1\n", {"a": 1}, {})
        run.write_json("ledger.json", [])
        run.write_text("rejected.jsonl", "")
        raise ValueError("no data")
    assert os.listdir(tmp_path) == []


def test_second_writer_is_told_who_holds_it(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    before = tree(tmp_path)
    with pytest.raises(RunError, match=rf"in use by process {writer.pid} on .+ since 20") as caught:
        Run.create(tmp_path / "run", overwrite=True)
    assert caught.value.exit_code == 1
    assert tree(tmp_path) == before
    found = lock.holder(tmp_path / "run")
    assert found is not None
    assert found.pid == writer.pid
    assert Run.open(tmp_path / "run").status == "running"


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.wait()
    assert Run.open(tmp_path / "run").status == "interrupted"
    with Run.create(tmp_path / "run") as run:
        assert run.status == "running"
    assert lock.holder(tmp_path / "run") is None


def test_continues_from_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run.create(tmp_path) as run:
        for step in (2, 4, 10):
            save(run, step)
        (tmp_path / "checkpoint-12").mkdir()
        for step in range(1, 13):
            run.append_log({"current_steps": step})
        raise KeyboardInterrupt
    with open(tmp_path / "trainer_log.jsonl", "a") as file:
        file.write('{"current_st')  # killed while it wrote the line
    (tmp_path / "checkpoint-10" / "weights").write_text("rot")
    with Run.create(tmp_path) as run:
        assert run.resume_from == tmp_path / "checkpoint-4"
        assert run.notes[0].startswith(
            f"{tmp_path / 'checkpoint-10'} is damaged and passed over: weights is not"
        )
        assert run.notes[1] == f"continuing from {tmp_path / 'checkpoint-4'} (step 4)"
        run.append_log({"current_steps": 5, "loss": 1.0})
        assert [r["current_steps"] for r in run.read_log()] == [1, 2, 3, 4, 5]


def test_a_refused_continuation_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    with Run.create(tmp_path) as run:
        save(run, 2)
        for step in range(1, 4):
            run.append_log({"current_steps": step})
    before = tree(tmp_path)
    with pytest.raises(RunError, match="lora_rank"), Run.create(tmp_path) as run:
        assert run.resume_from == tmp_path / "checkpoint-2"
        raise RunError("lora_rank: 8 -> 16")
    assert tree(tmp_path) == before


def test_continues_from_a_given_checkpoint(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a") as run:
        given = save(run, 3)
    with Run.create(tmp_path / "b", resume=str(given)) as run:
        assert run.resume_from == given
    with pytest.raises(RunError, match="checkpoint-9 cannot be continued: it does not exist"):
        Run.create(tmp_path / "c", resume=tmp_path / "a" / "checkpoint-9")
    assert not (tmp_path / "c").exists()


def test_overwrite_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    with Run.create(tmp_path) as run:
        save(run, 3)
        for name in (
            "adapter_model.safetensors",
            "all_results.json",
            "training_loss.png",
            "ledger.json",
            "notes.md",
        ):
            (tmp_path / name).write_text("x")
    with Run.create(tmp_path, overwrite=True) as run:
        assert run.resume_from is None
        assert sorted(os.listdir(tmp_path)) == [".luthier.lock", "luthier.json", "notes.md"]


def test_overwrite_spares_what_the_run_reads(tmp_path: Path) -> None:
    with Run.create(tmp_path) as run:
        kept = save(run, 3)
    before = tree(tmp_path)
    with pytest.raises(RunError, match=r"overwrite_output_dir: would delete .*checkpoint-3"):
        Run.create(tmp_path, overwrite=True, resume=kept)
    with pytest.raises(RunError, match="overwrite_output_dir: would delete"):
        Run.create(tmp_path, overwrite=True, inputs=["somewhere/else", tmp_path])
    assert tree(tmp_path) == before


OCCUPIED = {
    "notes": (["notes.txt"], "files that are not a run (notes.txt)", "write beside them"),
    "other trainer": (["trainer_log.jsonl"], "the run of another program", "overwrite_output_dir: true"),
    "hf trainer": (["checkpoint-5/optimizer.pt"], "the run of another program", "overwrite_output_dir: true"),
    "model": (["config.json", "model.safetensors"], "a model that is not a run of luthier's", "give another"),
    "finished": (
        ["luthier.json", "adapter_model.safetensors"],
        "a finished run without",
        "overwrite_output_dir",
    ),
}


@pytest.mark.parametrize("case", OCCUPIED)
def test_a_directory_in_use_is_not_touched(case: str, tmp_path: Path) -> None:
    names, what, instead = OCCUPIED[case]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunError) as caught:
        Run.create(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"output_dir: {tmp_path} is not empty: it holds {what}")
    assert instead in message
    assert sorted(tree(tmp_path)) == sorted(names)


def test_overwrite_never_deletes_a_model_or_files_of_the_same_name(tmp_path: Path) -> None:
    for name, folder in (("model.safetensors", "model"), ("config.yaml", "project")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("mine")
        with pytest.raises(RunError, match="is not empty"):
            Run.create(tmp_path / folder, overwrite=True)
        assert tree(tmp_path / folder) == {name: b"mine"}


def test_hidden_files_and_job_output_do_not_occupy(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").write_text("")
    (tmp_path / "train.log").write_text("so far")
    with Run.create(tmp_path) as run:
        assert run.resume_from is None
    assert (tmp_path / "train.log").read_text() == "so far"


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), Run.create(tmp_path) as run:
        run.append_log({"current_steps": 1})
        run.write_text("rejected.jsonl", "{}\n")
        raise ValueError("x")
    with Run.create(tmp_path) as run:
        assert run.resume_from is None
        assert run.read_log() == []
        assert "error" not in run.marker
        assert not (tmp_path / "rejected.jsonl").exists()


def test_checkpoints_are_not_continued_when_told_not_to(tmp_path: Path) -> None:
    with Run.create(tmp_path) as run:
        save(run, 1)
    with pytest.raises(
        RunError, match="checkpoints that are not to be continued; set overwrite_output_dir: true"
    ):
        Run.create(tmp_path, resume=False)
    assert verify(tmp_path / "checkpoint-1") == []


def test_results_join_a_run_without_changing_its_state(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), Run.create(tmp_path) as run:
        save(run, 1)
        raise ValueError("x")
    with Run.join(tmp_path) as run, pytest.raises(RunError, match="in use"):
        run.write_json("predict_results.json", {"predict_rouge-1": 1.0})
        Run.join(tmp_path)
    assert Run.open(tmp_path).status == "failed"
    assert Run.open(tmp_path).read_json("predict_results.json") == {"predict_rouge-1": 1.0}


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run") as run:
        folder = save(run, 1)
    with pytest.raises(
        RunError, match=r"checkpoint-1: not a run directory \(it has no luthier\.json\); use .*run"
    ):
        Run.open(folder)
    with pytest.raises(RunError, match="no such directory"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file; give a directory"):
        Run.create(tmp_path / "file")
