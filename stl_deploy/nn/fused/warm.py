"""Compile (or load) and run kernels once on small input, so that no failure comes in the middle of a step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stl_deploy.nn.fused import synaptic_kernels
from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.compile import cache_folder
from stl_deploy.nn.fused.input_convolution.convolution import entry_block
from stl_deploy.nn.fused.input_dense.dense import product
from stl_deploy.nn.fused.passes import Form, backward_pass, no_entry, of_map
from stl_deploy.nn.fused.sample_threads import array, wide
from stl_deploy.nn.fused.winograd.convolution import convolve

_FORM = Form(2, 2, 2, False, "arctan", False)
_PATIENCE = 300.0
"""Seconds to wait for the other process at most."""


def blocks(dtype: torch.dtype) -> None:
    """Run forward and backward passes on currents of ``dtype``; raises whatever numba, LLVM or the disk do."""
    with _elsewhere(dtype, () if is_kept(dtype) else ("backward",)):
        _run_blocks(dtype, learning=False)
    _run_blocks(dtype, learning=True)
    _mark(dtype, "blocks")


def everything(dtype: torch.dtype) -> None:
    """Compile all of this module: `blocks`, then the kernels that only some networks have."""
    blocks(dtype)
    with _elsewhere(dtype, () if is_kept(dtype, "everything") else ("winograd_3",)):
        winograd_5(dtype)
        input_dense(dtype)
        synaptic(dtype)
    winograd_3(dtype)
    _mark(dtype, "everything")


def _run_blocks(dtype: torch.dtype, *, learning: bool) -> None:
    theta, decay = torch.ones(2, 1, 1, dtype=wide(dtype)), torch.tensor(0.5, dtype=wide(dtype), requires_grad=True)
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
        torch.set_grad_enabled(learning),
    ):
        norm, conv = nn.BatchNorm2d(2, dtype=wide(dtype)), nn.Conv2d(1, 2, 3, padding=1, dtype=wide(dtype))
        x = torch.zeros(2, 2, 2, 4, 4, dtype=dtype, requires_grad=True)
        image = torch.ones(1, 2, 1, 4, 4, dtype=wide(dtype))
        plain_blocks = [block(x, theta, decay, maybe_norm, _FORM) for maybe_norm in (None, norm)]
        for spikes in (*plain_blocks, entry_block(image, conv, theta, decay, norm, _FORM)):
            if learning:
                spikes.sum().backward()  # type: ignore[no-untyped-call]


def backward(dtype: torch.dtype) -> None:
    """Run the backward pass alone, called as `blocks` does."""
    layout, size = of_map(2, 2, 4, 4), 32
    grad, x = torch.zeros(2, 2, size // 4, dtype=dtype), torch.zeros(2, 2, size, dtype=dtype)
    trace, level = torch.zeros(2, 2, size, dtype=wide(dtype)), torch.ones(size, dtype=wide(dtype))
    entry, mean = no_entry(array(trace).dtype), np.empty((0, 1))
    backward_pass(grad, trace, x, entry, mean, level, level[0], _FORM, layout, x.clone(), of_decay=True)


@contextmanager
def _elsewhere(dtype: torch.dtype, kernels: Sequence[str]) -> Iterator[None]:
    """Compile these in another process meanwhile, if code can be kept and there are two processors.

    If that fails, this process compiles the missing kernels itself.
    """
    if not kernels or cache_folder() is None or _processors() < 2:
        yield
        return
    calls = "; ".join(f"warm.{name}(warm.{dtype})" for name in kernels)
    code = f"import sys; sys.path[:] = {sys.path}; from stl_deploy.nn.fused import warm; {calls}"
    try:
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        yield
        return
    try:
        yield
        other.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        other.kill()
        other.wait()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def input_dense(dtype: torch.dtype) -> None:
    """Warm the dense layer of the input, as `blocks` does."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        product(torch.eye(2, 4, dtype=dtype), nn.Linear(4, 2, dtype=dtype)).sum().backward()  # type: ignore[no-untyped-call]


def synaptic(dtype: torch.dtype) -> None:
    """Warm neurons with a synaptic current, as `blocks` does."""
    x, row = (np.ones(shape, array(torch.zeros(0, dtype=wide(dtype))).dtype) for shape in ((2, 1, 2), (2,)))
    given = [x, row, row, row]
    for cap in (1, 2):
        rule = (cap, 0, True, False)
        trace = synaptic_kernels.forward(given, rule, True)
        synaptic_kernels.backward(trace[0], given, trace, rule)


def winograd_3(dtype: torch.dtype) -> None:
    """Warm Winograd convolutions with kernels of 3 by 3, as `blocks` does."""
    _winograd(dtype, 3)


def winograd_5(dtype: torch.dtype) -> None:
    """Warm Winograd convolutions with kernels of 5 by 5, as `blocks` does."""
    _winograd(dtype, 5)


def _winograd(dtype: torch.dtype, side: int) -> None:
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        maps = torch.zeros(1, 64, 8, 8, dtype=dtype, requires_grad=True)
        conv = nn.Conv2d(64, 64, side, padding=side // 2, dtype=dtype)
        convolve(maps, conv).sum().backward()  # type: ignore[no-untyped-call]


def is_kept(dtype: torch.dtype, kernels: str = "blocks") -> bool:
    """Return whether `blocks` (or `everything`) has kept its code for ``dtype`` on disk."""
    mark = _mark_of(dtype, kernels)
    return mark is not None and mark.exists()


def _mark(dtype: torch.dtype, kernels: str) -> None:
    mark = _mark_of(dtype, kernels)
    if mark is not None:
        mark.touch()


def _mark_of(dtype: torch.dtype, kernels: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"warm-{kernels}-{str(dtype).removeprefix('torch.')}"
