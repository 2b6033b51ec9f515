"""Count any number of samples in bounded memory, sequentially or in several processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any

from numpy.typing import NDArray

from stl_deploy.energy.counts.count import ActivityCounter
from stl_deploy.errors import InputError
from stl_deploy.graph.program import InputCoding, Program
from stl_deploy.graph.readout import decided_right
from stl_deploy.graph.run import run

Arrays = NDArray[Any] | Mapping[str, NDArray[Any]]
Part = tuple[Arrays, NDArray[Any] | None]
"""Samples ``[T, B, *shape]`` and their labels ``[B]``, or None."""


def count_stream(
    program: Program, parts: Iterable[Part], coding: InputCoding, *, processes: int = 1, chunk: int = 64
) -> ActivityCounter:
    """Run and count each part; the counts equal those of one run over all samples.

    ``parts`` is read as it is needed: at most two parts for each process are in memory. Results do not
    depend on ``processes``. Raises InputError for parts of different T, none at all, or fewer than one process.
    """
    if processes < 1:
        raise InputError(f"expected 1 process or more; found {processes}")
    whole = ActivityCounter(program, coding)
    counters = _in_turn if processes == 1 else _at_once
    seen = False
    for counter in counters(program, iter(parts), coding, processes, chunk):
        whole.merge(counter)
        seen = True
    if not seen:
        raise InputError("no samples to count")
    return whole


def split(arrays: Mapping[str, NDArray[Any]], labels: NDArray[Any] | None, size: int) -> Iterator[Part]:
    """Split the samples into parts of ``size``."""
    batch = next(iter(arrays.values())).shape[1]
    for start in range(0, batch, size):
        part = slice(start, start + size)
        yield {name: x[:, part] for name, x in arrays.items()}, None if labels is None else labels[part]


def _in_turn(
    program: Program, parts: Iterator[Part], coding: InputCoding, _processes: int, chunk: int
) -> Iterator[ActivityCounter]:
    for part in parts:
        yield _count(program, part, coding, chunk)


def _at_once(
    program: Program, parts: Iterator[Part], coding: InputCoding, processes: int, chunk: int
) -> Iterator[ActivityCounter]:
    waiting: deque[Future[ActivityCounter]] = deque()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for part in islice(parts, 2 * processes):
            waiting.append(pool.submit(_count, program, part, coding, chunk))
        while waiting:
            yield waiting.popleft().result()
            for part in islice(parts, 1):
                waiting.append(pool.submit(_count, program, part, coding, chunk))


def _count(program: Program, part: Part, coding: InputCoding, chunk: int) -> ActivityCounter:
    x, labels = part
    counter = ActivityCounter(program, coding, labels)
    counter.right = decided_right(program, run(program, x, observe=counter, chunk=chunk), labels)
    return counter
