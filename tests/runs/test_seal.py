"""What was written can be told from what was damaged, is not all there, or was written by a newer version."""

import json
import os
from pathlib import Path

import pytest

from luthier.errors import RunError
from luthier.runs import Run, atomic, log, seal


def sealed(folder: Path) -> Path:
    with Run.create(folder / "run") as run:
        run.append_log({"current_steps": 1, "loss": 2.5})
        run.append_log({"current_steps": 2, "loss": 2.25})
        with run.checkpoint(2) as checkpoint:
            (checkpoint / "weights").write_text("w")
        with run.result() as result:
            (result / "adapter_config.json").write_text("{}")
    return folder / "run"


def newer(file: Path) -> None:
    content = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("seal", "format")}
    file.write_bytes(seal._text({**content, "luthier": "9.0.0", "format": 2}, file))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_whole_passes(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    assert seal.verify(run / "checkpoint-2") == []
    assert seal.read(run / "checkpoint-2" / "manifest.json")["step"] == 2
    seal.check(run)
    assert Run.open(run).marker["status"] == "complete"


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    folder = sealed(tmp_path) / "checkpoint-2"
    file = folder / "manifest.json"
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            assert seal.verify(folder) != [], bit
        except seal.Newer:
            assert b'"format": 1' not in bytes(data)
    assert not whole.startswith(b"[")


@pytest.mark.parametrize("name", ["luthier.json", "checkpoint-2/manifest.json"])
def test_what_a_newer_version_wrote_is_named_and_left_alone(tmp_path: Path, name: str) -> None:
    run = sealed(tmp_path)
    newer(run / name)
    before = tree(run)
    for overwrite in (False, True) if name == "luthier.json" else (False,):
        with pytest.raises(
            RunError, match=r"written by luthier 9\.0\.0 \(format 2\).*pip install -U luthier"
        ):
            Run.create(run, overwrite=overwrite)
    assert {k: v for k, v in tree(run).items() if k != ".luthier.lock"} == before


def test_weights_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    (run / "checksums.json").unlink()
    with pytest.raises(RunError, match=r"not all there \(it has no checksums\.json\).*luthier runs resume"):
        seal.check(run)
    (run / "adapter_config.json").unlink()
    seal.check(run)  # a run that has no weights yet


def test_a_run_from_before_there_were_checksums_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "luthier.json").write_text('{"luthier": "0.1.0", "status": "complete"}')
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RunError, match=r"a run of an older luthier.*overwrite_output_dir: true"):
        seal.check(tmp_path)


def test_folders_of_other_programs_pass(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "adapter_config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "checkpoint-5"):
        seal.check(folder)
    (tmp_path / "checksums.json").write_text("{}")
    with pytest.raises(RunError, match="not used"):
        seal.check(tmp_path)


def test_a_damaged_marker_does_not_stand_in_the_way_of_going_on(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    (run / "luthier.json").write_bytes(b"\0" * 40)
    with pytest.raises(RunError, match=r"luthier\.json is damaged .*luthier runs resume"):
        _ = Run.open(run).marker
    with Run.create(run) as again:
        assert again.resume_from == run / "checkpoint-2"
        assert f"{run / 'luthier.json'} was damaged and is written anew" in again.notes
        assert again.marker["status"] == "running"


def test_a_run_that_ended_in_the_middle_of_its_result_begins_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run.create(tmp_path / "run") as run:
        run.append_log({"current_steps": 1})
        (run.path / "adapter_model.safetensors").write_text("one of two files")
        raise KeyboardInterrupt
    with Run.create(tmp_path / "run") as again:
        assert again.resume_from is None
        assert not (again.path / "adapter_model.safetensors").exists()


def test_damaged_log_lines_are_named_and_kept_beside(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    file = run / "trainer_log.jsonl"
    before = file.read_bytes().replace(b"2.25", b"2.24")
    file.write_bytes(before + b'{"current_steps": 3, "lo')
    with pytest.raises(RunError, match=r"trainer_log\.jsonl:2: not what was written"):
        log.read(run)
    assert log.look(run).rest == b'{"current_steps": 3, "lo'
    assert log.damage(run) == [f"{file}:2: damaged and left out; the log as it is will be kept beside"]
    log.trim(run, 5)
    assert log.read(run) == [{"current_steps": 1, "loss": 2.5}]
    assert (run / "trainer_log.damaged-1.jsonl").read_bytes().startswith(before)


def test_what_a_killed_process_logged_after_its_last_step_is_logged_once(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    log.append(run, {"current_steps": 2, "eval_loss": 1.5})
    log.trim(run, 2, lines=2)
    assert [record["loss"] for record in log.read(run)] == [2.5, 2.25]


def test_a_log_line_is_plain_json_with_its_checksum() -> None:
    line = log.encode({"current_steps": 1, "loss": 2.5})
    assert line == b'{"current_steps": 1, "loss": 2.5, "crc32": "a9f74847"}\n'


def test_what_is_discarded_is_never_there_in_part(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "a").write_text("a")
    atomic.discard(tmp_path / "checkpoint-1")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".checkpoint-1.gone-1-00000000").mkdir()
    (tmp_path / ".checkpoint-1.gone-1-00000000" / "a").write_text("a")
    assert atomic.recover(tmp_path, owned=True) == [".checkpoint-1.gone-1-00000000"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be marked there")
def test_what_another_process_writes_is_not_cleared(tmp_path: Path) -> None:
    """Even one whose number means nothing here, as in another container."""
    with atomic.directory(tmp_path / "store") as writing:
        renamed = tmp_path / ".store.tmp-999999999-00000000"
        writing.rename(renamed)
        assert atomic.recover(tmp_path) == []
        renamed.rename(writing)
    renamed.mkdir()
    assert atomic.recover(tmp_path) == [renamed.name]
