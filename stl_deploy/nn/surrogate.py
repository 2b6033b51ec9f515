"""Surrogate gradients: what stands in for the derivative of the spike in the backward pass.

Each function gives ds/dv at distance ``x = v − θ`` from the threshold, elementwise, and can
write into ``out`` (which may be ``x`` itself) to save memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from stl_deploy.errors import InputError


class Derivative(Protocol):
    """An elementwise derivative; ``out`` may alias ``x``."""

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """ds/dv at ``x = v − θ``."""
        ...


def arctan(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """1 / (1 + (πx)²): the arctan surrogate with α = 2 of the STL-SNN authors' code."""
    return torch.mul(x, math.pi, out=out).square_().add_(1).reciprocal_()


def sigmoid(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """α·σ(αx)·(1 − σ(αx)) with α = 4, whose peak is 1."""
    y = torch.mul(x, 4.0, out=out).sigmoid_()
    return y.mul_(1 - y).mul_(4.0)


def triangular(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """max(0, 1 − |x|)."""
    return torch.abs(x, out=out).neg_().add_(1).clamp_(min=0)


def rectangular(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """1 where |x| < 1/2, else 0 (STBP, Wu et al. 2018, h1 with width 1)."""
    y = torch.abs(x, out=out)
    return y.lt_(0.5)


SURROGATES: Mapping[str, Derivative] = MappingProxyType(
    {"arctan": arctan, "sigmoid": sigmoid, "triangular": triangular, "rectangular": rectangular}
)
"""Every surrogate by the name that a configuration uses."""


def surrogate(name: str) -> Derivative:
    """The derivative of that name; raises InputError if there is none."""
    if name not in SURROGATES:
        raise InputError(f"no surrogate gradient '{name}'; accepted: {', '.join(SURROGATES)}")
    return SURROGATES[name]
