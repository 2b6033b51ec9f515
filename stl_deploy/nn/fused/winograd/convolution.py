"""Convolve with fewer multiplications (Winograd 1980; Lavin and Gray 2016, section 4).

Windows of 6 by 6 numbers give a tile of outputs: 4 by 4 for kernels of 3, 2 by 2 for kernels of 5. With the window d,
the kernel g and their transforms ``V = Bᵀ d B`` and ``U = G g Gᵀ``, the outputs are ``Aᵀ (U ∘ V) A``: 36 products
instead of 144 or 100. Over channels they are 36 matrix products.

Rounding grows with the transforms' entries: its root mean square is up to 10 times that of plain float32 sums. The
interpolation points determine the entries; 0, ±2/3, ±3/2 round half as much as the usual 0, ±1, ±2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stl_deploy.nn.fused.rows import Array
from stl_deploy.nn.fused.sample_threads import MOST_PARTS, array, is_plain, run, split
from stl_deploy.nn.fused.vectors import LANES
from stl_deploy.nn.fused.winograd import tile_kernels as tiles
from stl_deploy.nn.fused.winograd.tile_kernels import Grid

_WINDOW = 6
_TWO = 2 * LANES
"""Channels are multiplied two vectors at a time."""
_FEWEST = 64
"""Channels on either side from which on the matrix products are worth the transforms."""
_WORTH = 2
"""Times fewer multiplications from which on they are; at 1.6 times, plain sums were the faster."""
_AT_A_TIME = 24 * 128
"""Tiles times channels that are worked on at a time: 36 of each stay in a processor's own cache."""
_SUMS = 1 << 25
"""Numbers that the parts of a kernel's gradient may take, 128 MiB, if that leaves two of them."""


def suits(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether `convolve` can compute this convolution, and is worth it."""
    out, into, height, width = conv.weight.shape
    return (
        tiles.FAST
        and is_plain(conv)
        and height == width
        and height in tiles.BY_SIDE
        and min(out, into) >= _FEWEST
        and out % _TWO == into % _TWO == 0
        and x.dtype == conv.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and _fewer(x.shape[2:], height, conv.padding) >= _WORTH  # type: ignore[arg-type]  # is_plain: not a str
    )


def _fewer(shape: Sequence[int], side: int, padding: Sequence[int]) -> float:
    """Return the ratio of multiplications saved; tiles beyond the outputs count as waste."""
    sides = _output(shape, side, padding)
    down, across = _tiles(sides, side)
    return math.prod(sides) * side**2 / (down * across * _WINDOW**2)


def _output(shape: Sequence[int], side: int, padding: Sequence[int]) -> list[int]:
    return [n + 2 * pad - side + 1 for n, pad in zip(shape, padding, strict=True)]


def _tiles(outputs: Sequence[int], side: int) -> tuple[int, int]:
    """Return the numbers of tiles down and across."""
    down, across = (-(-n // (_WINDOW - side + 1)) for n in outputs)
    return down, across


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return ``conv``, which `suits`, of ``x[N, C, H, W]``: ``[N, K, H', W']``, channels-last in memory."""
    padding = conv.padding
    assert not isinstance(padding, str)
    maps = x.permute(0, 2, 3, 1).contiguous()
    out: Tensor = _Convolution.apply(maps, conv.weight, padding)  # type: ignore[no-untyped-call]
    out = out.permute(0, 3, 1, 2)
    return out if conv.bias is None else out + conv.bias[:, None, None]


class _Convolution(torch.autograd.Function):
    """``[N, H, W, C]``, weights ``[K, C, k, k]`` -> ``[N, H', W', K]``."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        side = weight.shape[2]
        sides = _output(maps.shape[1:3], side, padding)
        down, across = _tiles(sides, side)
        ctx.grid = Grid(_WINDOW - side + 1, down, across, *padding)
        ctx.save_for_backward(maps, weight)
        out = maps.new_empty((len(maps), *sides, len(weight)))
        _through(tiles.BY_SIDE[side].convolve, maps, _transformed(weight), ctx.grid, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        grad, of_maps, of_weight = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            of_maps = torch.empty_like(maps)
            _through(
                tiles.BY_SIDE[weight.shape[2]].of_maps, grad, _transformed(weight.transpose(0, 1)), ctx.grid, of_maps
            )
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(_of_kernel(maps, grad, ctx.grid, weight.shape[2]), weight)
        return of_maps, of_weight, None


def _through(kernel: Any, maps: Tensor, factors: Tensor, grid: Grid, out: Tensor) -> None:
    """Run a kernel, ``convolve`` or ``of_maps``, over all maps."""
    source, by, target, f = array(maps), array(factors), array(out), _factors(maps.dtype)
    rows = _rows(maps.shape[3])

    def part(_: int, first: int, last: int) -> None:
        kernel(source, by, first, last, grid, rows, f, target)

    run(part, split(len(maps)), out.numel())


def _of_kernel(maps: Tensor, grad: Tensor, grid: Grid, side: int) -> Tensor:
    """Return the gradient of the transformed kernel, ``[36, K / LANES, C, LANES]``."""
    channels, outputs = maps.shape[3], grad.shape[3]
    shape = (_WINDOW**2, outputs // LANES, channels, LANES)
    parts = split(len(maps), min(max(_SUMS // math.prod(shape), 2), MOST_PARTS))
    sums = maps.new_empty((len(parts), *shape))
    x, g, totals, f = array(maps), array(grad), array(sums), _factors(maps.dtype)
    rows, kernel = _rows(max(channels, outputs)), tiles.BY_SIDE[side].of_kernel

    def part(index: int, first: int, last: int) -> None:
        kernel(x, g, first, last, grid, rows, f, totals[index])

    run(part, parts, maps.numel())
    return sums.sum(0)


def _rows(channels: int) -> int:
    return max(_AT_A_TIME // (tiles.ROWS * channels), 1) * tiles.ROWS


@cache
def _kernel_transform(side: int) -> Tensor:
    """Return G ⊗ G, ``[36, k·k]``, float64; G maps a polynomial's k coefficients to its values and the highest of them.

    A value is divided by the product of its point's distances to the others, which `tiles` leaves out.
    """
    points = torch.tensor(tiles.POINTS, dtype=torch.float64)
    distances = points[:, None] - points + torch.eye(len(points), dtype=torch.float64)
    values = points[:, None] ** torch.arange(side) / distances.prod(1, keepdim=True)
    g = torch.cat([values, torch.eye(side, dtype=torch.float64)[-1:]])
    return torch.kron(g, g)


def _transformed(weight: Tensor) -> Tensor:
    """Transform ``[K, C, k, k]`` -> ``[36, K / LANES, C, LANES]``; rounded once."""
    channels, side = weight.shape[1:3]
    taps = weight.reshape(-1, LANES, channels, side * side).permute(3, 0, 2, 1).double()
    return (_kernel_transform(side) @ taps.flatten(1)).to(weight.dtype).view(-1, *taps.shape[1:])


def _of_weight(of_kernel: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of ``weight`` from that of `_transformed`'s result."""
    taps = _kernel_transform(weight.shape[2]).T @ of_kernel.flatten(1).double()
    by_tap = taps.to(weight.dtype).view(-1, *of_kernel.shape[1:])
    return by_tap.permute(1, 3, 2, 0).reshape(weight.shape)


def _factors(dtype: torch.dtype) -> Array:
    return tiles.FACTORS.astype(np.float64 if dtype == torch.float64 else np.float32)
