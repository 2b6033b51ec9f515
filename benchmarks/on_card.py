"""Seconds and memory of training steps on a CUDA card; needs torch alone, so that every peer runs it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.workloads import Stack, Workload, against_floor, interleaved, training_step

Row = dict[str, float]
Rates = Callable[[Tensor], Tensor]
Contestant = tuple[Callable[[], nn.Module], Callable[[nn.Module], Rates]]
"""Functions that build a model, and compute mean votes ``[B, classes]`` of input ``[T, B, ...]`` with it."""


def rates_of(stack: nn.Module) -> Rates:
    """Those of a `Stack`."""
    assert isinstance(stack, Stack)
    return stack.rates


def measure(workload: Workload, contestants: Mapping[str, Contestant], device: str, rounds: int) -> dict[str, Row]:
    """Of each contestant: median seconds of a training step, the most bytes that a step needs on top, and their ratios
    to those of ``floor``, which must be one.

    Contestants take turns, so that what else the card does hits all alike, and all multiply float32 as float32, which
    torch's convolutions do not by default. On the CPU, which only tests this, there are no bytes.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    steps = {}
    for name, (build, rates) in contestants.items():
        model = build().to(device)
        step = training_step(workload, model, rates(model), fused_adam=True, device=device)
        steps[name] = partial(_to_the_end, step, device)
    seconds = interleaved(steps, rounds)
    row = {"seconds": seconds}
    if device.startswith("cuda"):
        row["bytes"] = {name: _bytes(step, device) for name, step in steps.items()}
    row |= {f"{key}_over_floor": against_floor(values) for key, values in row.items()}
    return {name: {key: values[name] for key, values in row.items()} for name in steps}


def _to_the_end(step: Callable[[], None], device: str) -> None:
    """A step, and until the card is done with it."""
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _bytes(step: Callable[[], None], device: str) -> float:
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return float(torch.cuda.max_memory_allocated(device) - before)
