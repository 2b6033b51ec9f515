"""Spread samples over threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")
Part = TypeVar("Part")


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def threads() -> int:
    """Return the number of BLAS threads: the cores, or OMP_NUM_THREADS and its like."""
    return max((library["num_threads"] for library in _blas().info()), default=1)


def map_samples(work: Callable[[slice], T], samples: int, values: int, at_once: int) -> list[T]:
    """Run `map_parts` over groups of samples of ``values`` values each, at most ``at_once`` values in all threads."""
    workers = threads()
    size = max(1, min(at_once // (values * workers), -(-samples // workers)))
    return map_parts(work, [slice(start, start + size) for start in range(0, samples, size)])


def map_parts(work: Callable[[Part], T], parts: Sequence[Part]) -> list[T]:
    """Run ``work`` on each part, in order, on threads, with single-threaded BLAS.

    BLAS's own threads help less with products this small, and wait for each other at full speed, which takes the cores
    from whatever else runs.
    """
    workers = threads()
    with _blas().limit(limits=1):
        if workers == 1 or len(parts) == 1:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(work, parts))
