"""Input on which a capture is proved: made of x, and otherwise than x."""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLES = 2
_FACTORS = (-1.25, 0.6, 1.15)
_RATES = (0.1, 0.3, 0.6, 1.0, 1.0)
_EXTREMES = (1e9, -1e4, 1e2)
"""Factors of x at which branches and bounds show that lie far beyond its range."""


def sized(x: Tensor, axis: int, *, samples: int, steps: int | None = None) -> Tensor:
    """Return so many samples of ``x`` along ``axis``, and steps along the other one; what it lacks is repeated."""
    x = x.index_select(axis, torch.arange(samples) % x.shape[axis])
    return x if steps is None else x.index_select(1 - axis, torch.arange(steps) % x.shape[1 - axis])


def permuted(x: Tensor, seed: int) -> Tensor:
    """Return the values of ``x`` in other places."""
    order = torch.randperm(x.numel(), generator=_generator(seed))
    return x.reshape(-1)[order].reshape(x.shape)


def within(x: Tensor, axis: int) -> Tensor:
    """Return values of ``x`` below its largest, in two samples along ``axis``; of two values fewer of the larger."""
    few, generator = _few(x, axis), _generator(3)
    values: Tensor = torch.unique(x)
    if len(values) > 2:
        lower = values[: max(2, int(0.7 * len(values)))]
        return lower[torch.randint(len(lower), few.shape, generator=generator)]
    return values[(torch.rand(few.shape, generator=generator) < 0.15).long() * (len(values) - 1)]


def beyond(x: Tensor, axis: int) -> Tensor:
    """Return numbers off the grid and the range of ``x``, of both signs, in two samples along ``axis``."""
    few, generator = permuted(_few(x, axis), 4), _generator(5)
    factors = torch.tensor(_FACTORS, dtype=x.dtype)[torch.randint(len(_FACTORS), few.shape, generator=generator)]
    shifted = (torch.rand(few.shape, generator=generator) < 0.125).to(x.dtype) * (0.05 * x.abs().max())
    return few * factors + shifted


def extremes(x: Tensor, axis: int) -> Tensor:
    """Return a sample far beyond the range of ``x`` for each factor, and one that is so in its first half alone."""
    one = permuted(sized(x, axis, samples=1), 9)
    first = torch.arange(one.shape[1 - axis]) < one.shape[1 - axis] // 2
    first = first.reshape([-1 if dim == 1 - axis else 1 for dim in range(one.dim())])
    whole = [one * factor for factor in _EXTREMES]
    return torch.cat([*whole, *(torch.where(first, many, one) for many in whole)], axis)


def of_each_kind(x: Tensor, axis: int) -> Tensor:
    """Return samples within the range of ``x`` and beyond it, and from nearly silent to dense."""
    few, values, generator = _few(x, axis), torch.unique(x), _generator(8)
    drawn = []
    for rate in _RATES:
        drive = values[torch.randint(len(values), few.shape, generator=generator)]
        drawn.append(torch.where(torch.rand(few.shape, generator=generator) < rate, drive, values[0]))
    return torch.cat([within(x, axis), beyond(x, axis), *drawn], axis)


def _few(x: Tensor, axis: int) -> Tensor:
    return sized(x, axis, samples=_SAMPLES)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
