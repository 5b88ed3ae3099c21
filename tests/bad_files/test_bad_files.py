"""Each bad file is read with a note or refused with its place and reason, in 5 s and 500 MB; none is changed.

Wrong files cost rows one by one where what follows can still be told apart, and else the file as a whole.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bad_files.case import shortened
from bad_files.corpus import CASES

Reader = Callable[[str, Path], dict[str, Any]]
RECOGNISED = ": read as "  # of a format, which is said of every file that dataset_info.json does not list


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """read(case, folder) -> what came of it."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "PYTHONIOENCODING": "utf-8"}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # others set address space apart, not memory
    words = [sys.executable, "-m", "bad_files.reader"]
    with subprocess.Popen(words, stdin=-1, stdout=-1, env=environment, text=True, encoding="utf-8") as server:
        assert server.stdin is not None and server.stdout is not None

        def read(case: str, folder: Path) -> dict[str, Any]:
            name = CASES[case].write(folder)
            print(json.dumps([case, str(folder), name]), file=server.stdin, flush=True)
            found: dict[str, Any] = json.loads(server.stdout.readline())
            return found

        yield read
        server.stdin.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that another user may enter (pytest's own are closed to others)."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("name", CASES)
def test_what_comes_of_it(name: str, reader: Reader, folder: Path) -> None:
    case, found = CASES[name], reader(name, folder)
    assert "crash" not in found, found["crash"]
    assert found["kept"] == [shortened(texts) for texts in case.kept]
    assert len(found["bad"]) == len(case.bad), found["bad"]
    for (source, field, reason), (place, wanted, why) in zip(found["bad"], case.bad, strict=True):
        assert source.endswith(f":{place}") if isinstance(place, int) else source == place
        assert (field, why in reason) == (wanted, True), (field, reason)
    notes = [note for note in found["notes"] if not (RECOGNISED in note and '" ' in note)]
    assert len(notes) == len(case.notes), notes
    assert all(part in note for part, note in zip(case.notes, notes, strict=True)), notes
    if case.refused:
        assert case.refused in found["refused"] and " -> " in found["refused"], found["refused"]
    else:
        assert not found["refused"]
