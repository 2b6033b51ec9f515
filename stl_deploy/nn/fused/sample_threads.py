"""Shared parts of all kernels: samples on threads, tensors as arrays."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from stl_deploy.nn.fused.rows import Array

_MOST_PARTS = 16
"""Samples are worked on in so many parts at most, whatever the threads: sums over them come out the same."""
_WORTH_A_THREAD = 1 << 15
"""Numbers in a layer from which on threads pay."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute potentials in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def array(tensor: Tensor) -> Array:
    """Return the memory of a contiguous tensor; bfloat16 as uint16."""
    tensor = tensor.detach()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def scalar(value: Tensor, like: Tensor) -> Any:
    """Return a 0-dimensional tensor as a number of ``like``'s type."""
    return array(value.detach().to(like.dtype).reshape(1))[0]


@cache
def split(samples: int) -> tuple[range, ...]:
    """Split the samples into at most `_MOST_PARTS` runs of nearly equal length."""
    parts = min(samples, _MOST_PARTS)
    edges = [samples * i // parts for i in range(parts + 1)] if samples else []
    return tuple(range(first, last) for first, last in pairwise(edges))


def run(part: Callable[[int, int, int], None], parts: Sequence[range], work: int) -> None:
    """Call ``part(index, first, last)`` for every part, on as many threads as torch uses, this one among them."""
    threads = min(torch.get_num_threads(), len(parts)) if work >= _WORTH_A_THREAD else 1
    # a thread lets go of `take` a moment after it is done: the arrays hang on the queue, which is empty by then
    waiting = deque((part, index, samples.start, samples.stop) for index, samples in enumerate(parts))

    def take() -> None:
        while waiting:
            try:
                call, index, first, last = waiting.popleft()
            except IndexError:  # another thread had the last one
                return
            call(index, first, last)

    others = [_pool(threads - 1, os.getpid()).submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        other.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of this process: a forked one needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"fused-{process}")
