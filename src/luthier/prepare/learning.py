"""The door to scikit-learn's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and OpenMP on one thread. The products of the checks are small and sparse, and threads that wait
    for each other on a busy machine cost more than they bring: 70 s instead of 4 were seen.

    Enter it after the libraries are imported: only pools that are there can be limited.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn depends on it

    with threadpool_limits(1):
        yield
