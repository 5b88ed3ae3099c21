"""What this computer is: the accelerator, the number formats it is fast at, memory and cores.

`config.resolve` reads the answer, so that config itself never imports torch. Inside a container the
control group's limits count, not the host's: a worker with 4 of 64 cores must not start 64 threads.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from luthier.config import Machine

CGROUP = Path("/sys/fs/cgroup")


def detect() -> Machine:
    """The machine of this process. With LOCAL_RANK set, the accelerator that this rank uses."""
    cores, limit = available_cores(), memory_limit()
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(rank)
        return Machine(
            device="cuda",
            name=properties.name,
            # Emulated bf16 (compute capability < 8) is slower than float32 and is not counted.
            bf16=torch.cuda.is_bf16_supported(including_emulation=False),
            fp16=True,
            memory_bytes=properties.total_memory,
            cores=cores,
            devices=torch.cuda.device_count(),
        )
    npu = getattr(torch, "npu", None)  # torch_npu registers itself under this name
    if npu is not None and npu.is_available():
        memory = npu.get_device_properties(rank).total_memory
        return Machine("npu", npu.get_device_name(rank), True, True, memory, cores, npu.device_count())
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory()
        return Machine("mps", "Apple GPU", True, True, memory, cores, 1)
    name = str(cpu_features().get("cpu_name", "CPU"))
    return Machine("cpu", name, fast_bf16(cpu_features()), False, limit, cores, 1)


def device() -> torch.device:
    """Where this process computes: "cuda:<LOCAL_RANK>", "npu:<LOCAL_RANK>", "mps" or "cpu"."""
    kind = detect().device
    if kind in ("cuda", "npu"):
        return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(kind)


def cpu_features() -> dict[str, object]:
    """The processor's instruction sets by name, empty where torch is too old to tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)
    return dict(capabilities())


def fast_bf16(features: dict[str, object]) -> bool:
    """Without these instructions bf16 products are emulated and several times slower than float32."""
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def available_cores(root: Path = CGROUP) -> int:
    """Cores this process may use: its affinity, cut by the control group's quota (at least 1)."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _number(root / "cpu.max", 0), _number(root / "cpu.max", 1)
    if quota[0] is None:  # version 1 of control groups; -1 means no limit
        quota = _number(root / "cpu/cpu.cfs_quota_us", 0), _number(root / "cpu/cpu.cfs_period_us", 0)
    if quota[0] and quota[1] and quota[0] > 0:
        cores = min(cores, math.ceil(quota[0] / quota[1]))
    return max(cores, 1)


def memory_limit(root: Path = CGROUP) -> int:
    """Bytes of main memory this process may use: the computer's, cut by the control group's limit."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _number(root / file, 0)
        if limit is not None and limit > 0:
            limits.append(limit)
    return min(limits)


def _number(file: Path, column: int) -> int | None:
    """Integer in a column of a one-line file; None where there is no file or the word "max"."""
    if not file.is_file():
        return None
    words = file.read_text(encoding="ascii").split()
    return int(words[column]) if len(words) > column and words[column].lstrip("-").isdigit() else None
