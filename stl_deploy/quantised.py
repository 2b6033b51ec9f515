"""Fake-quantised layers: Loihi's integers in torch, with straight-through gradients.

A network of these computes in whole numbers what Lava's CPU simulation computes for the netx file made of it
(rules: `stl_deploy.exporters.loihi.step`), and trains in real ones. For a layer at scale s, with trained weight W,
bias b, one log-threshold ρ per row and one threshold τ for the population::

    w = clip(round(s·W·e^−ρ), ±127);  bias = clip(round(s·b·e^−ρ), ±4095);  K = clip(round(s·τ), 1, 2^17 − 1)
    v[t] = saturate(tz(v[t−1]·kept/4096) + 64·(wrap(Σ w·x[t]) + bias));  a spike where v > 64·K;  v is then 0

e^−ρ is a row's threshold moved into its weights, so that one K serves the population while each row's own threshold
still learns. round, tz, clip of the threshold and wrap pass gradients as if they were not there (straight-through
estimator, Bengio et al. 2013, arXiv 1308.3432); the spike has the network's surrogate at (v/64 − K)/s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.exporters.loihi.net import DECAY_ONE, MAX_BIAS, MAX_THRESHOLD
from stl_deploy.exporters.loihi.scales import WEIGHT_TOP
from stl_deploy.exporters.loihi.step import STATE_SHIFT
from stl_deploy.neuron import LIF
from stl_deploy.surrogate import Derivative

_V_TOP = 2**23 - 1
_SUM_TOP = 2**17
"""64 times a sum beyond this comes out at the other end of u's 24 bits."""


class _StraightThrough(torch.autograd.Function):
    """The quantised value forward, the gradient of the real one backward."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, quantised: Tensor) -> Tensor:
        return quantised.to(real.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, above: Tensor, derivative: Derivative) -> Tensor:
        ctx.save_for_backward(above)
        ctx.derivative = derivative
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return ctx.derivative(above) * grads[0], None


def whole(real: Tensor, low: float, high: float) -> Tensor:
    """``real`` rounded and kept within bounds; gradients pass except where a bound holds it."""
    kept = real.clamp(low, high)
    return _through(kept, kept.round())


def _through(real: Tensor, quantised: Tensor) -> Tensor:
    result: Tensor = _StraightThrough.apply(real, quantised)  # type: ignore[no-untyped-call]
    return result


class WholeSynapse(nn.Module):
    """A linear or conv layer in whole numbers, ``[N, *shape]`` to ``[N, *shape]``.

    weight, bias: real, before scaling. scale: a row's weights are multiplied by it before they are rounded.
    like: the layer that it replaces, whose stride, padding, dilation and groups it keeps. input_scale: real input
    times this is rounded to whole numbers first; None behind spikes.
    """

    scale: Tensor
    bias_scale: Tensor

    def __init__(
        self,
        like: nn.Linear | nn.Conv2d,
        weight: Tensor,
        bias: Tensor,
        scale: float,
        bias_scale: float,
        input_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.input_scale = input_scale
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.log_threshold = nn.Parameter(torch.zeros(len(weight)))
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("bias_scale", torch.tensor(bias_scale))
        self._like = (like.stride, like.padding, like.dilation, like.groups) if isinstance(like, nn.Conv2d) else None

    def numbers(self) -> tuple[Tensor, Tensor]:
        """Whole weights and biases, with gradients."""
        gain = torch.exp(-self.log_threshold)
        rows = gain.reshape(-1, *(1,) * (self.weight.dim() - 1))
        weight = whole(self.weight * rows * self.scale, -WEIGHT_TOP, WEIGHT_TOP)
        return weight, whole(self.bias * gain * self.bias_scale, -MAX_BIAS, MAX_BIAS)

    def forward(self, x: Tensor) -> Tensor:
        """Sums of whole numbers, wrapped as u is, and the bias."""
        weight, bias = self.numbers()
        if self.input_scale is not None:
            x = torch.round(x * self.input_scale)
        if self._like is None:
            return wrap(functional.linear(x, weight)) + bias
        stride, padding, dilation, groups = self._like
        total = functional.conv2d(x, weight, None, stride, padding, dilation, groups)
        return wrap(total) + bias[:, None, None]


def wrap(total: Tensor) -> Tensor:
    """Sums past ±2^17 come out at the other end, once."""
    if bool((total.detach().abs() >= _SUM_TOP).any()):
        moved = total - 2 * _SUM_TOP * (total > _SUM_TOP) + 2 * _SUM_TOP * (total <= -_SUM_TOP)
        return _through(total, moved)
    return total


class LoihiLIF(LIF):
    """Lava's neuron in whole numbers; one threshold for the population.

    threshold: K to begin with. scale: real potentials times this are whole numbers. v_decay: of 4096, what is lost.
    """

    scale: Tensor

    def __init__(self, like: LIF, threshold: int, scale: float, v_decay: int) -> None:
        super().__init__(
            like.shape,
            threshold=threshold / scale,
            granularity="layer",
            parametrisation="raw",
            decay=(DECAY_ONE - v_decay) / DECAY_ONE,
            surrogate_name=like.surrogate_name,
            detach_reset=like.detach_reset,
        )
        self.register_buffer("scale", torch.tensor(scale))
        self._kept = DECAY_ONE - v_decay

    @property
    def threshold(self) -> Tensor:
        """K, 0-dimensional, with its gradient."""
        return whole(self.threshold_parameter * self.scale, 1, MAX_THRESHOLD)

    def forward(self, x: Tensor) -> Tensor:
        """Sums ``[T, B, *shape]`` to spikes (0 or 1) of the same shape."""
        unit = 2**STATE_SHIFT
        threshold, span = self.threshold * unit, self.scale * unit
        rest, spikes = torch.zeros_like(x[0]), []
        for arriving in x.unbind(0):
            v = (self._leak(rest) + arriving * unit).clamp(-_V_TOP, _V_TOP)
            spike: Tensor = _Spike.apply((v - threshold) / span, self._derivative)  # type: ignore[no-untyped-call]
            spikes.append(spike)
            rest = v * (1 - (spike.detach() if self.detach_reset else spike))
        return torch.stack(spikes)

    def _leak(self, v: Tensor) -> Tensor:
        if self._kept == DECAY_ONE:
            return v
        real = v * (self._kept / DECAY_ONE)
        if self._kept & (self._kept - 1) == 0:
            return _through(real, real.trunc())
        return _through(real, (v.detach().double() * self._kept / DECAY_ONE).trunc())
