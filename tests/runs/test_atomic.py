import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from luthier.errors import RunError
from luthier.runs import atomic, hashing


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "eins")
    atomic.write_text(path, "二\n")
    assert path.read_bytes() == "二\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_keeps_pointing(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic.directory(tmp_path / "link") as folder:
        (folder / "x").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "x").read_text() == "x"


def test_json_of_paths_numbers_and_damaged_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_json(
        path, {"p": Path("x/y"), "n": np.float32(0.5), "a": np.arange(2), "s": {2, 1}, "t": "\ud800中"}
    )
    assert json.loads(path.read_bytes()) == {"p": "x/y", "n": 0.5, "a": [0, 1], "s": [1, 2], "t": "\ud800中"}
    assert "中" in path.read_text("utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_that_is_not_finite_reaches_the_disk(number: float, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.json: not written, because a number in it is not finite"):
        atomic.write_json(tmp_path / "a.json", {"loss": number})
    assert os.listdir(tmp_path) == []


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"a\.json: not valid JSON .*line 1 column 7"):
        atomic.read_json(tmp_path / "a.json")
    with pytest.raises(RunError, match=r"b\.json: no such file"):
        atomic.read_json(tmp_path / "b.json")


def test_errors_of_the_body_are_not_about_the_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic.directory(tmp_path / "a"):
        (tmp_path / "elsewhere").read_text()
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"), atomic.directory(tmp_path / "file" / "a"):
        pytest.fail("the body must not run")
    assert (tmp_path / "file").read_text() == "x"


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    for pid in (int(dead.stdout), os.getppid()):
        (tmp_path / f".a.tmp-{pid}-0123abcd").mkdir()
    (tmp_path / f".b.tmp-{int(dead.stdout)}-0123abcd").mkdir()
    (tmp_path / ".mine").write_text("kept")
    with atomic.directory(tmp_path / "a") as folder:
        (folder / "x").write_text("x")
    living = f".a.tmp-{os.getppid()}-0123abcd"
    assert sorted(os.listdir(tmp_path)) == sorted(
        [living, f".b.tmp-{int(dead.stdout)}-0123abcd", ".mine", "a"]
    )
    assert atomic.recover(tmp_path, owned=True) == sorted([living, f".b.tmp-{int(dead.stdout)}-0123abcd"])
    assert sorted(os.listdir(tmp_path)) == [".mine", "a"]


def test_large_files_are_hashed_once(tmp_path: Path) -> None:
    memory, path = tmp_path / "memory" / "sha256.json", tmp_path / "weights"
    path.write_bytes(b"hello")
    first = hashing.cached(path, memory=memory, at_least=1)
    assert first == hashing.sha256_bytes(b"hello")
    status = path.stat()
    path.write_bytes(b"HELLO")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashing.cached(path, memory=memory, at_least=1) == first  # remembered: same size, same time
    os.utime(path, ns=(0, 0))
    assert hashing.cached(path, memory=memory, at_least=1) == hashing.sha256_bytes(b"HELLO")
    memory.write_text("damaged")
    assert hashing.cached(path, memory=memory, at_least=1) == hashing.sha256_bytes(b"HELLO")


def test_a_tree_is_hashed_by_relative_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("hello")
    (tmp_path / "a").write_text("hello")
    hello = hashing.sha256_text("hello")
    assert list(hashing.sha256_tree(tmp_path).items()) == [("a", hello), ("b/x", hello)]
    assert list(hashing.sha256_tree(tmp_path, leave_out=["a"])) == ["b/x"]
    assert hashing.sha256_json({"b": 1, "a": 2}) == hashing.sha256_json({"a": 2, "b": 1})
