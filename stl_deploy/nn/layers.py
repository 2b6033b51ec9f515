"""Layers that torch lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Rounding


def wide(x: Tensor) -> Tensor:
    """Return bfloat16 and float16 as float32, others unchanged: for sums that lose precision in few bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Synapse(nn.Module):
    """Weights other than torch's `Linear` and `Conv2d`: no memory, ``[N, *shape]`` to ``[N, *shape]``."""


class SumPool2d(nn.Module):
    """Sum over square windows, ``[N, C, H, W]``."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Sum the windows inside the input."""
        return functional.avg_pool2d(x, self.kernel_size, self.stride, divisor_override=1)


class Sum(nn.Module):
    """Sum the outputs of several layers, all of one shape."""

    def forward(self, *branches: Tensor) -> Tensor:
        """Add up from left to right."""
        first, *others = branches
        for other in others:
            first = first + other
        return first


class Vote(nn.Module):
    """The readout: each class's vote is the mean over its ``population`` neurons, ``[N, classes·population]``."""

    def __init__(self, population: int) -> None:
        super().__init__()
        self.population = population

    def forward(self, x: Tensor) -> Tensor:
        """Return votes ``[N, classes]``; of bfloat16 spikes in float32."""
        if self.population == 1:
            return wide(x)
        return wide(x).reshape(*x.shape[:-1], -1, self.population).mean(-1)


class _ByStep(nn.modules.batchnorm._BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        """Normalise, same shape; the running statistics move T times."""
        if self.training:
            return torch.stack([super(_ByStep, self).forward(step) for step in x.unbind(0)])
        return super().forward(x.flatten(0, 1)).reshape(x.shape)


class StepNorm1d(_ByStep, nn.BatchNorm1d):
    """Batch norm with the statistics of each time step apart, ``[T, B, C]``; affine and running ones are shared."""


class StepNorm2d(_ByStep, nn.BatchNorm2d):
    """Batch norm with the statistics of each time step apart, ``[T, B, C, H, W]`` (the STL-SNN authors' code)."""


Norm = nn.BatchNorm1d | nn.BatchNorm2d
_LEAST_VALUES = 2


def is_by_step(norm: nn.Module | None) -> bool:
    """Return whether a norm's statistics are those of each time step."""
    return isinstance(norm, StepNorm1d | StepNorm2d)


def require_values(number: float) -> None:
    """Raise InputError unless batch norm has several values of each channel to learn from."""
    if number < _LEAST_VALUES:
        raise InputError(
            f"expected at least two values of each channel for batch norm to learn from; found {number:g} (a batch of "
            "one sample at one step?); use larger batches, or no norm"
        )


@torch.no_grad()
def follow(norm: Norm, mean: Tensor, squares: Tensor, number: Tensor | float) -> None:
    """Update the running statistics, once for each row; by a mean over all so far if momentum is None, as torch.

    Mean and sum of squared deviations by channel, ``[S, C]``, of so many values each, ``[S, 1]`` or one for all.
    Raises InputError where that is one.
    """
    require_values(float(torch.as_tensor(number).min()))
    assert norm.num_batches_tracked is not None
    for now in zip(mean, squares / (number - 1), strict=True):
        norm.num_batches_tracked.add_(1)
        share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        for statistic, value in zip(running(norm), now, strict=True):
            statistic.lerp_(value.to(statistic.dtype), share)


def running(norm: Norm) -> tuple[Tensor, Tensor]:
    """Return a norm's running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def require_sequence(x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise InputError unless x is ``[T, B, *shape]``, of at least one step and sample."""
    if tuple(x.shape[2:]) != shape or x.dim() < 3 or 0 in x.shape[:2]:
        raise _refusal(f"expected input {_axes(shape)} with T, B >= 1; found {list(x.shape)}")


def _axes(shape: tuple[int, ...]) -> str:
    return f"[T, B, {', '.join(map(str, shape))}]"


def _refusal(message: str) -> Exception:
    """Return an InputError, or while torch compiles a ValueError, as it shows the words of its own errors alone."""
    return ValueError(message) if torch.compiler.is_compiling() else InputError(message)


def require_tensor(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return x ``[T, B, *shape]``; raise InputError unless it is a tensor of this shape and, but for autocast, type."""
    if not isinstance(x, Tensor):
        raise _refusal(
            f"expected a torch tensor {_axes(shape)}; found a {type(x).__name__}; give torch.as_tensor(x, "
            f"dtype={dtype})"
        )
    require_sequence(x, shape)
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise _refusal(f"expected input of {dtype}, which the module computes in; found {x.dtype}; give x.to({dtype})")
    return x


def pads_of(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return the pads in torch's order: those of the last axis first."""
    return [size for sides in reversed(padding) for size in sides]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, before: Tensor, after: Tensor) -> Tensor:
        return after.to(before.dtype)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(before: Tensor, after: Tensor) -> Tensor:
    """Return ``after`` with the gradient of ``before``, from which it was rounded (Bengio et al. 2013)."""
    through: Tensor = _StraightThrough.apply(before, after)  # type: ignore[no-untyped-call]
    return through


def rounded(ratio: Tensor, rounding: Rounding) -> Tensor:
    """Return counts of spikes, rounded in one of the Program's ways; their gradient passes straight through."""
    with torch.no_grad():
        if rounding == "half_even":
            counts = torch.round(ratio)
        else:
            counts = torch.floor(ratio + 0.5) if rounding == "half_up" else torch.trunc(ratio)
    return straight_through(ratio, counts)
