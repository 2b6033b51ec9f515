"""Compile (or load) and run kernels once on small input, so that no failure comes in the middle of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from stl_deploy.nn.fused import synaptic_kernels
from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.compile import cache_folder
from stl_deploy.nn.fused.input_convolution.convolution import entry_block
from stl_deploy.nn.fused.passes import Form
from stl_deploy.nn.fused.sample_threads import array, wide

_FORM = Form(2, 2, 2, False, "arctan", False)


def blocks(dtype: torch.dtype) -> None:
    """Run forward and backward passes on currents of ``dtype``; raises whatever numba, LLVM or the disk do."""
    theta, decay = torch.ones(2, 1, 1, dtype=wide(dtype)), torch.tensor(0.5, dtype=wide(dtype), requires_grad=True)
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
        torch.enable_grad(),
    ):
        norm, conv = nn.BatchNorm2d(2, dtype=wide(dtype)), nn.Conv2d(1, 2, 3, padding=1, dtype=wide(dtype))
        x = torch.zeros(2, 2, 2, 4, 4, dtype=dtype, requires_grad=True)
        image = torch.ones(1, 2, 1, 4, 4, dtype=wide(dtype))
        plain_blocks = [block(x, theta, decay, maybe_norm, _FORM) for maybe_norm in (None, norm)]
        for spikes in (*plain_blocks, entry_block(image, conv, theta, decay, norm, _FORM)):
            spikes.sum().backward()  # type: ignore[no-untyped-call]
    _mark(dtype, "blocks")


def everything(dtype: torch.dtype) -> None:
    """Compile all of this module: `blocks`, then the kernels that only some networks have."""
    blocks(dtype)
    synaptic(dtype)
    _mark(dtype, "everything")


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
