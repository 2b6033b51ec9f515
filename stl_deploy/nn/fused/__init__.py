"""The fast path on the CPU: batch norm, LIF and max pooling in one pass over memory, compiled by numba.

The first block also computes its convolution, from the input's events.

`stl_deploy.nn.network.Network` uses it if `ready` allows. Otherwise (CUDA, no numba, soft resets) layers run one after
the other in torch. Spikes and gradients differ only by the rounding of batch norm and of sums over events.

`plan` finds the blocks; `block` and, with the input's convolution, `input_convolution` are differentiable functions;
`passes` runs `kernels` over all samples on the threads of `sample_threads`; kernels are written with `vectors`, and
`compile` caches them on disk. If compilation fails, `ready` returns False, with one warning.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import nn

from stl_deploy._util import install
from stl_deploy.nn.fused.switch import SWITCH, Kernels, installed, ready, works

if TYPE_CHECKING:
    from stl_deploy.nn.schedule import Sources, Stage

__all__ = ["SWITCH", "installed", "is_warm", "path", "ready", "stages", "works"]


def is_warm(kernels: Kernels = "blocks") -> bool:
    """Return whether compiled code for float32 is kept on disk, so that the first step needs no compiler."""
    from stl_deploy.nn.fused.warm import is_kept

    return is_kept(torch.float32, kernels)


def path() -> str:
    """Name of the active kernel path."""
    if os.environ.get(SWITCH) == "0":
        return f"torch, one layer after the other: {SWITCH}=0 turns the compiled blocks off"
    if not install.is_there("numba"):
        return f"torch, one layer after the other; for compiled blocks on the CPU: {install.command('fast')}"
    compiled = f"compiled by numba {version('numba')} (CPU); torch elsewhere"
    return f"blocks of norm, LIF and pool (the first with the convolution of the input), {compiled}"


def stages(layers: nn.ModuleDict, sources: Sources, steps: int, *, pools: bool) -> list[Stage]:
    """Return the forward pass in blocks (see `stl_deploy.nn.fused.plan.stages`); loads numba."""
    from stl_deploy.nn.fused import plan

    return plan.stages(layers, sources, steps, pools=pools)
