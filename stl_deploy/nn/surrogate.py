"""Surrogate gradients: replacements for the spike's derivative in the backward pass.

Each function gives ds/dv at distance ``x = v − θ`` from the threshold, elementwise, and can
write into ``out`` (which may be ``x`` itself) to save memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from stl_deploy._util.remedies import require_one_of
from stl_deploy.errors import InputError


class Derivative(Protocol):
    """An elementwise derivative; ``out`` may alias ``x``."""

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Return ds/dv at ``x = v − θ``."""
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


Surrogate = Callable[[Tensor], Tensor]
"""A user's own: the derivative ds/dv at v − θ, or spikes of v − θ with such a gradient."""
_PROBES = (-2.0, -0.25, 0.25, 2.0)


def surrogate_of(given: str | Surrogate) -> Derivative:
    """Return a derivative by its name, or of a user's callable.

    A callable that puts out 0 below and 1 above the threshold is a spike function with a gradient of its own, as
    snnTorch's and SpikingJelly's are: its gradient is the derivative. Any other is the derivative itself.
    Raises InputError for an unknown name, or a callable that is neither.
    """
    if isinstance(given, str):
        return surrogate(given)
    if not callable(given):
        raise InputError(f"expected a name or a callable of v - threshold as surrogate; found a {type(given).__name__}")
    probes = torch.tensor(_PROBES, requires_grad=True)
    try:
        with torch.enable_grad():
            values = given(probes)
    except Exception as error:  # a user's own code may raise anything
        raise InputError(f"surrogate {_called(given)} fails on four numbers: {type(error).__name__}: {error}") from None
    if not isinstance(values, Tensor) or values.shape != probes.shape:
        raise InputError(
            f"expected a surrogate that gives a tensor of its input's shape; found {_called(given)}, which does not"
        )
    if values.detach().tolist() != [0, 0, 1, 1]:
        return _Own(given, spikes=False)
    if not values.requires_grad:
        raise InputError(f"expected a surrogate with a gradient; found {_called(given)}, whose spikes have none")
    return _Own(given, spikes=True)


def _called(given: Surrogate) -> str:
    return f"'{getattr(given, '__name__', type(given).__name__)}'"


@dataclass(frozen=True)
class _Own:
    """A user's callable as a `Derivative`; spikes: it makes spikes, and its gradient is the derivative."""

    function: Surrogate
    spikes: bool

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        with torch.set_grad_enabled(self.spikes):
            at = x.detach().clone().requires_grad_(self.spikes)
            y = self.function(at)
            if self.spikes:
                (y,) = torch.autograd.grad(y.sum(), at)
        return y if out is None else out.copy_(y)


def surrogate(name: str) -> Derivative:
    """Return the derivative of that name; raise InputError if there is none."""
    require_one_of(name, SURROGATES, "surrogate gradient")
    return SURROGATES[name]
