"""Promise 6: a checkpoint is whole or absent. Written beside, synced, renamed, marked complete."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.errors import RunError
from luthier.runs import Run, atomic
from luthier.runs.seal import verify

# Kill the writer before its k-th call to the operating system that touches a file, for every k, and look.
CRASHES = """
import json, os, sys
from pathlib import Path
from luthier.runs import Run, atomic
from luthier.runs.seal import verify

def content(folder):
    if not folder.exists():
        return "absent"
    assert verify(folder) == [], verify(folder)
    return (folder / "weights").read_text()

def write(run, text):
    with run.checkpoint(7) as folder:
        (folder / "weights").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "state.json").write_text("{}")

def dies(run, k):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    seen = 0
    def hook(event, args):
        nonlocal seen
        if event == "open" or event.startswith(("os.", "shutil.")):
            seen += 1
            if seen == k:
                os._exit(9)
    sys.addaudithook(hook)
    write(run, "new")
    os._exit(0)

found = []
for k in range(1, 500):
    run = Run(Path(sys.argv[1], str(k)))
    run.path.mkdir()
    if sys.argv[2] == "replace":
        write(run, "old")
    died = dies(run, k)
    before = content(run.path / "checkpoint-7")
    listed = [folder.name for folder in run.checkpoints()]
    atomic.recover(run.path)
    left = sorted(entry.name for entry in run.path.iterdir())
    found.append([before, listed, content(run.path / "checkpoint-7"), left])
    if not died:
        break
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are simulated with fork")
@pytest.mark.parametrize("older", ["none", "replace"])
def test_killed_at_any_instant(older: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path), older], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 10
    allowed = {"none": {"absent", "new"}, "replace": {"old", "new"}}[older]
    for before, listed, recovered, left in found:
        assert listed == ([] if before == "absent" else ["checkpoint-7"])
        assert recovered in allowed
        assert left == ([] if recovered == "absent" else ["checkpoint-7"])
    assert {recovered for _, _, recovered, _ in found} == allowed
    assert found[-1][2] == "new"


def test_an_exception_leaves_the_older_whole_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.checkpoint(3) as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(ZeroDivisionError), run.checkpoint(3) as folder:
        (folder / "weights").write_text("new")
        _ = 1 / 0
    assert (tmp_path / "checkpoint-3" / "weights").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-3"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full stands for a full disk")
def test_full_disk(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RunError, match=r"checkpoint-1: cannot be written: the disk is full"):  # noqa: SIM117
        with run.checkpoint(1), open("/dev/full", "w") as file:
            file.write("x")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_its_manifest_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in (10, 9):
        with run.checkpoint(step) as folder:
            (folder / "weights").write_text("w")
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    assert [folder.name for folder in run.checkpoints()] == ["checkpoint-9", "checkpoint-10"]
    assert verify(tmp_path / "checkpoint-11") == ["it has no manifest.json"]


def test_damage_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.checkpoint(5) as folder:
        (folder / "a").write_text("a")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text("b")
    folder = tmp_path / "checkpoint-5"
    assert atomic.read_json(folder / "manifest.json")["step"] == 5
    assert verify(folder) == []
    (folder / "a").write_text("A")
    (folder / "sub" / "b").unlink()
    assert verify(folder) == ["a is not what was written (its sha256 differs)", "sub/b is missing"]
