"""Limits of a container, and what counts as fast bf16."""

import pytest
import torch

from luthier.config import Machine
from luthier.model import machine


def test_the_machine_of_this_process():
    found = machine.detect()
    assert isinstance(found, Machine)
    assert found.cores >= 1
    assert found.memory_bytes > 2**20
    assert found.device == ("cuda" if torch.cuda.is_available() else found.device)
    assert machine.device().type == found.device


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_quota_cuts_the_cores(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert machine.available_cores(tmp_path) == (cores or machine.available_cores(tmp_path / "none"))


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_control_group_cuts_the_memory(tmp_path, name):
    whole = machine.memory_limit(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("1048576\n")
    assert machine.memory_limit(tmp_path) == 1048576
    (tmp_path / name).write_text("max\n")
    assert machine.memory_limit(tmp_path) == whole


def test_bf16_is_fast_only_with_instructions_for_it():
    assert machine.fast_bf16({"avx512_bf16": True})
    assert machine.fast_bf16({"amx_bf16": True, "avx2": True})
    assert not machine.fast_bf16({"avx2": True, "avx512_f": True, "avx512_bf16": False})
    assert not machine.fast_bf16({})
