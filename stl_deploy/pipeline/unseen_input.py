"""Input that capture's proof makes of x, so that what x does not show of a model is found.

A constant that code outside of torch computed from x (its maximum, its number of values) is right as long as that
property of x stays; so the minimum, the maximum, the distinct values and the signs change.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLES = 2
_FACTORS = (-1.25, 0.6, 1.15)


def permuted(x: Tensor, seed: int) -> Tensor:
    """The values of ``x`` in other places."""
    order = torch.randperm(x.numel(), generator=_generator(seed))
    return x.reshape(-1)[order].reshape(x.shape)


def within(x: Tensor, axis: int) -> Tensor:
    """Values of ``x`` other than its largest ones, in two samples along ``axis``; two values: fewer of the larger."""
    few, generator = _few(x, axis), _generator(3)
    values: Tensor = torch.unique(x)  # type: ignore[no-untyped-call]
    if len(values) > 2:
        lower = values[: max(2, int(0.7 * len(values)))]
        return lower[torch.randint(len(lower), few.shape, generator=generator)]
    return values[(torch.rand(few.shape, generator=generator) < 0.15).long() * (len(values) - 1)]


def beyond(x: Tensor, axis: int) -> Tensor:
    """Numbers off the grid and the range of ``x``, of both signs, in two samples along ``axis``."""
    few, generator = permuted(_few(x, axis), 4), _generator(5)
    factors = torch.tensor(_FACTORS, dtype=x.dtype)[torch.randint(len(_FACTORS), few.shape, generator=generator)]
    shifted = (torch.rand(few.shape, generator=generator) < 0.125).to(x.dtype) * (0.05 * x.abs().max())
    return few * factors + shifted


def _few(x: Tensor, axis: int) -> Tensor:
    return x.index_select(axis, torch.arange(_SAMPLES) % x.shape[axis])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
