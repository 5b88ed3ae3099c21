"""Running out of memory: every form of it is known, nothing else is taken for it, and tensors are let go."""

import weakref

import pytest
import torch

from luthier.train import memory

SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you"),
    RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.83 GB, other allocations: 1.02 GB)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a memory object"),
    OSError(12, "Cannot allocate memory"),
]
OTHERS = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x4)"),
    OSError(28, "No space left on device"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=str)
def test_every_form_of_running_out_is_recognised(error):
    def work():
        raise error

    with pytest.raises(memory.Shortage):
        memory.watched(work)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_left_alone(error):
    def work():
        raise error

    with pytest.raises(type(error)):
        memory.watched(work)


def test_the_tensors_of_what_failed_are_let_go():
    held = []

    def work():
        big = torch.zeros(10)
        held.append(weakref.ref(big))
        big.loop = [big]  # even one that only the collector finds
        raise MemoryError

    with pytest.raises(memory.Shortage):
        memory.watched(work)
    assert held[0]() is None
