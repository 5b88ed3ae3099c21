"""Memory: how many tokens one forward pass may hold, and what it means when there is too little.

The budget is an estimate from the model's sizes and the machine's memory. It may err towards too many: the
loop then splits the step smaller and repeats it. It changes speed only, never the mathematics.
"""

from __future__ import annotations

import errno
import gc
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psutil
import torch

from luthier.config import Machine
from luthier.data.batch import Flat

LARGEST = {"cpu": 4096}
DEFAULT_LARGEST = 32768
"""Beyond this a longer row does not run faster; it only takes longer until the next Ctrl-C is heard."""

_T = TypeVar("_T")
_WORDS = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory|failed to allocate|bad_alloc"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT)_STATUS_(INTERNAL_ERROR_HOST_)?ALLOC(ATION)?_FAILED"
    r"|could not create a (memory|primitive)",
    re.IGNORECASE,
)
"""How allocators say it: PyTorch's own for CPU ("DefaultCPUAllocator: can't allocate memory", on Windows "not
enough memory"), CUDA, HIP, XPU, NPU and MPS ("MPS backend out of memory"), a driver ("CUDA error: out of
memory"), math libraries ("CUBLAS_STATUS_ALLOC_FAILED"), C++ ("std::bad_alloc"), oneDNN ("could not create a
memory object"; it has no other words for it)."""


class Shortage(Exception):
    """A pass, or an update, did not fit into memory. flats: its sequences · said: the allocator's words."""

    def __init__(self, flats: Sequence[Flat], said: str) -> None:
        super().__init__(said)
        self.flats, self.said = list(flats), said


def ran_out(error: BaseException) -> bool:
    """Whether an exception says, in any of its forms, that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def watched(work: Callable[[], _T], flats: Sequence[Flat] = ()) -> _T:
    """Do `work`; raises Shortage in place of whatever the allocator raised, with the memory given back."""
    try:
        return work()
    except (RuntimeError, MemoryError, OSError) as error:
        if not ran_out(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    # Outside the handler: the exception's frames would keep the tensors of the failed pass alive.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    raise Shortage(flats, said)


def smaller(budget: int, passes: Sequence[Sequence[Flat]]) -> int:
    """Half of what the largest pass holds, or of the budget where that is less."""
    return max(1, min(budget, max(sum(len(f.ids) for f in p) for p in passes)) // 2)


def checkpoint_activations(model: Any) -> None:
    """Gradient checkpointing, by the newer name that transformers gives it where it has one."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def keep_activations(model: Any) -> None:
    disable = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
    disable()


def is_checkpointing(model: torch.nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def tokens_per_pass(
    config: Any, machine: Machine, weight_bytes: int, trained_bytes: int, checkpointing: bool
) -> int:
    """Token budget for a transformer described by a transformers `config`.

    Activations kept for the backward pass, per token and layer: about 16 hidden-sized and 3
    intermediate-sized values (Korthikanti et al., 2022, without the attention matrix, which sdpa does not
    keep); with gradient checkpointing one hidden-sized value per layer. Logits: 3 float32 copies.
    Trained weights need a gradient and two moments.
    """
    text = config.get_text_config()
    hidden, layers = int(text.hidden_size), int(getattr(text, "num_hidden_layers", 12))
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    value_bytes = 4 if machine.device == "cpu" else 2
    per_layer = hidden * value_bytes if checkpointing else (16 * hidden + 3 * inner) * value_bytes
    per_token = layers * per_layer + 3 * 4 * int(text.vocab_size)
    free = 0.7 * machine.memory_bytes - weight_bytes - 3 * trained_bytes
    largest = LARGEST.get(machine.device, DEFAULT_LARGEST)
    return max(256, min(largest, int(free / per_token))) if free > 0 else 256


def peak(device: torch.device) -> int:
    """Most bytes held at once so far: by tensors on a GPU, elsewhere by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = psutil.Process().memory_info()
    if hasattr(used, "peak_wset"):  # Windows
        return int(used.peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
