"""Seconds and memory of training steps on a CUDA card; needs torch alone, so that every peer runs it."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.workloads import Stack, Workload, training_step

Row = dict[str, float]
Rates = Callable[[Tensor], Tensor]
Contestant = tuple[Callable[[], nn.Module], Callable[[nn.Module], Rates]]
"""How a model is built, and what makes mean votes ``[B, classes]`` of input ``[T, B, ...]`` with it."""


def rates_of(stack: nn.Module) -> Rates:
    """Those of a `Stack`."""
    assert isinstance(stack, Stack)
    return stack.rates


def measure(workload: Workload, contestants: Mapping[str, Contestant], device: str, rounds: int) -> dict[str, Row]:
    """Of each contestant: median seconds of a training step, the most bytes that a step needs on top, and their ratios
    to those of ``floor``, which must be one.

    Contestants take turns, so that what else the card does hits all alike. On the CPU, which only tests this, there are
    no bytes.
    """
    steps = {}
    for name, (build, rates) in contestants.items():
        model = build().to(device)
        steps[name] = training_step(workload, model, rates(model), fused_adam=True, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            taken = _seconds(step, device)
            if turn:
                seconds[name].append(taken)
    rows = {name: {"seconds": statistics.median(times)} for name, times in seconds.items()}
    if device.startswith("cuda"):
        for name, row in rows.items():
            row["bytes"] = _bytes(steps[name], device)
    for row in rows.values():
        row |= {f"{key}_over_floor": value / rows["floor"][key] for key, value in row.items()}
    return rows


def _seconds(step: Callable[[], None], device: str) -> float:
    _finish(device)
    start = time.perf_counter()
    step()
    _finish(device)
    return time.perf_counter() - start


def _bytes(step: Callable[[], None], device: str) -> float:
    gc.collect()
    _finish(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    _finish(device)
    return float(torch.cuda.max_memory_allocated(device) - before)


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
