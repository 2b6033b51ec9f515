"""Compiles, or loads, and runs every kernel once on a few numbers, so that no failure comes in the middle of a step."""

from __future__ import annotations

import torch
from torch import nn

from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.compile import cache_folder
from stl_deploy.nn.fused.input_convolution.convolution import entry_block
from stl_deploy.nn.fused.input_dense.dense import product
from stl_deploy.nn.fused.passes import Form
from stl_deploy.nn.fused.winograd.convolution import convolve


def warm(dtype: torch.dtype) -> None:
    """Run forward and backward passes on currents of ``dtype``; raises whatever numba, LLVM or the disk do."""
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    theta, decay = torch.ones(2, 1, 1, dtype=wide), torch.tensor(0.5, dtype=wide, requires_grad=True)
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        for norm in (None, nn.BatchNorm2d(2, dtype=wide)):
            form = Form(2, 2, 2, False, "arctan", False)
            x = torch.zeros(2, 2, 2, 4, 4, dtype=dtype, requires_grad=True)
            block(x, theta, decay, norm, form).sum().backward()  # type: ignore[no-untyped-call]
        conv = nn.Conv2d(1, 2, 3, padding=1, dtype=wide)
        image = torch.ones(1, 2, 1, 4, 4, dtype=wide)
        entry_block(image, conv, theta, decay, nn.BatchNorm2d(2, dtype=wide), form).sum().backward()  # type: ignore[no-untyped-call]
        if dtype == torch.float32:
            product(torch.eye(2, 4), nn.Linear(4, 2)).sum().backward()  # type: ignore[no-untyped-call]
    folder = cache_folder()
    if folder is not None:
        (folder / _mark(dtype)).touch()


def warm_winograd(dtype: torch.dtype) -> None:
    """As `warm`, for the convolutions of fewer multiplications."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        for side in (3, 5):
            maps = torch.zeros(1, 64, 8, 8, dtype=dtype, requires_grad=True)
            conv = nn.Conv2d(64, 64, side, padding=side // 2, dtype=dtype)
            convolve(maps, conv).sum().backward()  # type: ignore[no-untyped-call]


def is_kept(dtype: torch.dtype) -> bool:
    """Whether `warm` has kept its code for ``dtype`` on disk."""
    folder = cache_folder()
    return folder is not None and (folder / _mark(dtype)).exists()


def _mark(dtype: torch.dtype) -> str:
    return f"warm-{str(dtype).removeprefix('torch.')}"
