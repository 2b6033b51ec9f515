"""Compile (or load) and run kernels once on small input, so that no failure comes in the middle of a step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stl_deploy.nn.fused import synaptic_kernels
from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.compile import cache_folder
from stl_deploy.nn.fused.input_convolution.convolution import entry_block
from stl_deploy.nn.fused.passes import Form, backward_pass, no_entry, of_map
from stl_deploy.nn.fused.sample_threads import array, wide

_FORM = Form(2, 2, 2, False, "arctan", False)
_PATIENCE = 300.0
"""Seconds to wait for the other process at most."""


def blocks(dtype: torch.dtype) -> None:
    """Run forward and backward passes on currents of ``dtype``; raises whatever numba, LLVM or the disk do."""
    with _backward_elsewhere(dtype):
        _run_blocks(dtype, learning=False)
    _run_blocks(dtype, learning=True)
    _mark(dtype, "blocks")


def everything(dtype: torch.dtype) -> None:
    """Compile all of this module: `blocks`, then the kernels that only some networks have."""
    blocks(dtype)
    synaptic(dtype)
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
def _backward_elsewhere(dtype: torch.dtype) -> Iterator[None]:
    """Compile the backward pass in another process meanwhile, unless kept; needs kept code and two processors.

    If that fails, this process compiles it itself.
    """
    if is_kept(dtype) or cache_folder() is None or _processors() < 2:
        yield
        return
    call = f"warm.backward(warm.{dtype})"
    code = f"import sys; sys.path[:] = {sys.path}; from stl_deploy.nn.fused import warm; {call}"
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


def synaptic(dtype: torch.dtype) -> None:
    """Warm neurons with a synaptic current, as `blocks` does."""
    x, row = (np.ones(shape, array(torch.zeros(0, dtype=wide(dtype))).dtype) for shape in ((2, 1, 2), (2,)))
    given = [x, row, row, row]
    for cap in (1, 2):
        rule = (cap, 0, True, False)
        trace = synaptic_kernels.forward(given, rule, True)
        synaptic_kernels.backward(trace[0], given, trace, rule)


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
