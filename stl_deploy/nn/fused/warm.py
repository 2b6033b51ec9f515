"""Compiles, or loads, and runs kernels once on a few numbers, so that no failure comes in the middle of a step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.compile import cache_folder
from stl_deploy.nn.fused.input_convolution.convolution import entry_block
from stl_deploy.nn.fused.input_dense.dense import product
from stl_deploy.nn.fused.passes import Form, backward_pass, no_entry, of_map
from stl_deploy.nn.fused.sample_threads import array, wide
from stl_deploy.nn.fused.winograd.convolution import convolve

_FORM = Form(2, 2, 2, False, "arctan", False)
_PATIENCE = 60.0
"""Seconds to wait for the other process at most."""


def blocks(dtype: torch.dtype) -> None:
    """Run forward and backward passes on currents of ``dtype``; raises whatever numba, LLVM or the disk do."""
    theta, decay = torch.ones(2, 1, 1, dtype=wide(dtype)), torch.tensor(0.5, dtype=wide(dtype), requires_grad=True)
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        norm, conv = nn.BatchNorm2d(2, dtype=wide(dtype)), nn.Conv2d(1, 2, 3, padding=1, dtype=wide(dtype))
        x = torch.zeros(2, 2, 2, 4, 4, dtype=dtype, requires_grad=True)
        image = torch.ones(1, 2, 1, 4, 4, dtype=wide(dtype))
        with _backward_elsewhere(dtype), torch.no_grad():
            block(x, theta, decay, norm, _FORM)
            entry_block(image, conv, theta, decay, norm, _FORM)
        with torch.enable_grad():
            for one in (None, norm):
                block(x, theta, decay, one, _FORM).sum().backward()  # type: ignore[no-untyped-call]
            entry_block(image, conv, theta, decay, norm, _FORM).sum().backward()  # type: ignore[no-untyped-call]
    folder = cache_folder()
    if folder is not None:
        (folder / _mark(dtype)).touch()


def backward(dtype: torch.dtype) -> None:
    """The backward pass alone, called as `blocks` does."""
    layout, size = of_map(2, 2, 4, 4), 32
    grad, x = torch.zeros(2, 2, size // 4, dtype=dtype), torch.zeros(2, 2, size, dtype=dtype)
    trace, level = torch.zeros(2, 2, size, dtype=wide(dtype)), torch.ones(size, dtype=wide(dtype))
    entry, mean = no_entry(array(trace).dtype), np.empty((0, 1))
    backward_pass(grad, trace, x, entry, mean, level, level[0], _FORM, layout, x.clone(), of_decay=True)


@contextmanager
def _backward_elsewhere(dtype: torch.dtype) -> Iterator[None]:
    """Meanwhile another process compiles the backward pass, where nothing is kept and there are two processors.

    What goes wrong there is left to this process, which compiles what it does not find.
    """
    if cache_folder() is None or is_kept(dtype) or _processors() < 2:
        yield
        return
    code = f"import sys; sys.path[:] = {sys.path}; from stl_deploy.nn.fused import warm; warm.backward(warm.{dtype})"
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
    """As `blocks`, for a dense layer of the input."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        product(torch.eye(2, 4, dtype=dtype), nn.Linear(4, 2, dtype=dtype)).sum().backward()  # type: ignore[no-untyped-call]


def winograd(dtype: torch.dtype) -> None:
    """As `blocks`, for the convolutions of fewer multiplications."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        for side in (3, 5):
            maps = torch.zeros(1, 64, 8, 8, dtype=dtype, requires_grad=True)
            conv = nn.Conv2d(64, 64, side, padding=side // 2, dtype=dtype)
            convolve(maps, conv).sum().backward()  # type: ignore[no-untyped-call]


def is_kept(dtype: torch.dtype) -> bool:
    """Whether `blocks` has kept its code for ``dtype`` on disk."""
    folder = cache_folder()
    return folder is not None and (folder / _mark(dtype)).exists()


def _mark(dtype: torch.dtype) -> str:
    return f"warm-{str(dtype).removeprefix('torch.')}"
