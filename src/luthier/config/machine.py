"""What `resolve` must know of the computer; `luthier.model.machine` fills it in: config needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """device: "cuda", "npu", "mps" or "cpu" · name: as the maker calls it · bf16, fp16: fast natively, not
    emulated · memory_bytes: of one device · cores: CPU cores of this process · devices: accelerators seen.
    """

    device: str = "cpu"
    name: str = "CPU"
    bf16: bool = False
    fp16: bool = False
    memory_bytes: int = 0
    cores: int = 1
    devices: int = 1
