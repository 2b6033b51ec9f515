"""Fake-quantised layers: Loihi's integers in torch, with straight-through gradients.

Such a network computes the same as Lava's CPU simulation of its netx file, or, with skips or graded values that netx
does not support, as its C export (rules: `stl_deploy.integers.step`), while its parameters train in real numbers.
Synapses output integers divided by the layer's unit, a power of two; this is lossless and keeps thresholds near 1,
inside the surrogate's width. For a layer of scale s with trained weight W, bias b, one log-threshold ρ per row and one
threshold τ per population::

    w = clip(round(s·W·e^−ρ), ±127);  bias = clip(round(s·b·e^−ρ), ±4095);  K = clip(round(unit·τ), 1, 2^17 − 1)
    v[t] = saturate(tz(v[t−1]·kept/4096) + 64·(wrap(Σ w·x[t]) + bias));  a spike where v > 64·K;  v is then 0

e^−ρ folds a row's threshold into its weights: the population has one K while each row's threshold still learns. Layers
that feed one population share s, e^−ρ and the bias, each with its own w, and Σ covers all of them. Real or averaged
input is summed in multiples of its unit, which s includes. Rounding, the threshold's clip and the wrap use
straight-through gradients (Bengio et al. 2013, arXiv 1308.3432); the spike has the network's surrogate at (v/64 −
K)/unit.

In training mode a population is an ordinary `LIF` with a threshold just above K, which runs in the fast blocks:
fractions of v below 1/64 are kept and v does not saturate. Evaluation is bit-exact.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.graph.program import Doubles
from stl_deploy.integers.net import (
    DECAY_ONE,
    LOIHI,
    MAX_BIAS,
    MAX_THRESHOLD,
    STATE_SHIFT,
    Accumulator,
    IntegerNeuron,
)
from stl_deploy.integers.real_weights import one_scale
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.step import exact_type, integrate
from stl_deploy.nn.layers import Synapse, straight_through, wide
from stl_deploy.nn.neuron import LIF

_JUST_ABOVE = 2 ** -(STATE_SHIFT + 1)


def whole(real: Tensor, low: float, high: float) -> Tensor:
    """Round ``real`` within bounds; gradients pass except at a bound."""
    kept = real.clamp(low, high)
    return straight_through(kept, kept.round())


def _array(values: Tensor) -> Doubles:
    array: Doubles = values.detach().cpu().double().numpy()
    return array


class _Weights(Synapse):
    """The products of a linear or conv layer ``like``: its stride, padding, dilation and groups."""

    def __init__(self, like: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self._like = (like.stride, like.padding, like.dilation, like.groups) if isinstance(like, nn.Conv2d) else None

    def _products(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self._like is None:
            return functional.linear(x, weight, bias)
        stride, padding, dilation, groups = self._like
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


class WholeReadout(_Weights):
    """A layer without a threshold behind it, ``[N, *shape]`` to ``[N, *shape]``.

    8 bits and one scale for all its rows, as `stl_deploy.integers.real_weights.one_scale` has it.
    """

    def __init__(self, like: nn.Linear | nn.Conv2d) -> None:
        super().__init__(like)
        self.weight, self.bias = like.weight, like.bias

    def numbers(self) -> tuple[Tensor, Tensor | None]:
        """Return weights and biases on their grid, with gradients."""
        scale = one_scale([_array(self.weight)], [None if self.bias is None else _array(self.bias)])
        weight, bias = straight_through(self.weight, torch.round(self.weight * scale) / scale), self.bias
        return weight, None if bias is None else straight_through(bias, torch.round(bias * scale) / scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return sums and biases, in real numbers."""
        return self._products(x, *self.numbers())


class WholeSynapse(_Weights):
    """A linear or conv layer in integers divided by ``unit``, ``[N, *shape]`` to ``[N, *shape]``.

    weight, bias: real, before scaling. scale: a row's weights are multiplied by it before they are rounded.
    unit: a power of two. like: the layer that it replaces. bias: None where `beside` another layer, which has it.
    input_scale: input times this is rounded to integers first; None behind spikes and their sums. accumulator: of
    the integers; where it does not wrap, no sum reaches its limits. weight_top: the largest weight. beyond: whether
    sums wrapped in the last run.
    """

    scale: Tensor
    bias_scale: Tensor

    def __init__(
        self,
        like: nn.Linear | nn.Conv2d,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        bias_scale: float,
        unit: float,
        input_scale: float | None = None,
        accumulator: Accumulator = LOIHI,
        weight_top: int = WEIGHT_TOP,
    ) -> None:
        super().__init__(like)
        self._weight_top = weight_top
        self._sum_top = accumulator.u_top >> STATE_SHIFT if accumulator.wraps else None
        self.input_scale, self.unit, self.beyond = input_scale, unit, False
        self.weight, self.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
        self.log_threshold = nn.Parameter(torch.zeros(len(weight)))
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("bias_scale", torch.tensor(bias_scale))

    def beside(self, other: WholeSynapse) -> None:
        """Share the row thresholds of another layer, which reaches the same population."""
        self.log_threshold = other.log_threshold

    def numbers(self) -> tuple[Tensor, Tensor | None]:
        """Return integer weights and biases, with gradients."""
        gain = torch.exp(-self.log_threshold)
        rows = gain.reshape(-1, *(1,) * (self.weight.dim() - 1))
        weight = whole(self.weight * rows * self.scale, -self._weight_top, self._weight_top)
        if self.bias is None:
            return weight, None
        return weight, whole(self.bias * gain * self.bias_scale, -MAX_BIAS, MAX_BIAS)

    def forward(self, x: Tensor, *others: tuple[WholeSynapse, Tensor]) -> Tensor:
        """Return wrapped sums and the bias, over the unit; others: layers beside this one, with their inputs."""
        weight, bias = self.numbers()
        x = self._whole(x)
        largest = float(x.detach().abs().max()) * float(weight.detach().abs().flatten(1).sum(1).max())
        weight, bias = weight / self.unit, None if bias is None else bias / self.unit
        sum_top, self.beyond = self._sum_top, False
        if not others and (sum_top is None or largest < sum_top):
            return self._products(x, weight, bias)
        total = self._products(x, weight)
        for synapse, arriving in others:
            total = total + synapse._products(synapse._whole(arriving), synapse.numbers()[0] / synapse.unit)
        if sum_top is not None:
            least, greatest = torch.aminmax(total.detach())
            top = sum_top / self.unit
            if least <= -top or greatest > top:
                total, self.beyond = wrap(total, top), True
        return total if bias is None else total + bias.reshape(-1, *(1,) * (total.dim() - 2)).to(total.dtype)

    def _whole(self, x: Tensor) -> Tensor:
        return (
            x if self.input_scale is None else straight_through(x * self.input_scale, torch.round(x * self.input_scale))
        )


def wrap(total: Tensor, top: float) -> Tensor:
    """Wrap sums past ±top, once."""
    moved = total - 2 * top * (total > top) + 2 * top * (total <= -top)
    return straight_through(total, moved)


class LoihiLIF(LIF):
    """Lava's neuron, on sums over ``unit``; one threshold for the population.

    threshold: K to begin with. v_decay: of 4096, what is lost. accumulator: of the integers. beyond: whether potentials
    reached its limits in the last run in eval mode.
    """

    def __init__(self, like: LIF, threshold: int, unit: float, v_decay: int, accumulator: Accumulator = LOIHI) -> None:
        super().__init__(
            like.shape,
            threshold=threshold / unit,
            granularity="layer",
            parametrisation="raw",
            decay=(DECAY_ONE - v_decay) / DECAY_ONE,
            surrogate=like.surrogate,
            detach_reset=like.detach_reset,
        )
        self.unit, self.v_decay, self.beyond = unit, v_decay, False
        self._accumulator = accumulator

    @property
    def whole_threshold(self) -> Tensor:
        """K, 0-dimensional, with its gradient."""
        return whole(self.threshold_parameter * self.unit, 1, MAX_THRESHOLD)

    @property
    def threshold(self) -> Tensor:
        """The least potential that fires, over the unit: K and half a step of v."""
        above: Tensor = (self.whole_threshold + _JUST_ABOVE) / self.unit
        return above

    @property
    def plain(self) -> bool:
        """Whether the fast training path runs."""
        return self.training

    def forward(self, x: Tensor) -> Tensor:
        """Map sums ``[T, B, *shape]`` to spikes (0 or 1) of the same shape; in evaluation without gradients."""
        return super().forward(x) if self.training else self._on_loihi(wide(x))

    @torch.no_grad()
    def _on_loihi(self, x: Tensor) -> Tensor:
        neuron = IntegerNeuron(v_decay=self.v_decay, threshold=self.whole_threshold.cpu().numpy().astype(np.int32))
        accumulator = self._accumulator
        kind = exact_type(neuron, 0 if accumulator.wraps else np.inf)
        drive = (x * (self.unit * 2**STATE_SHIFT)).cpu().numpy().astype(kind, copy=False)
        spikes, (low, high) = np.empty(drive.shape, np.uint8), accumulator.potentials
        self.beyond = False

        def reach(v: Doubles) -> None:
            self.beyond |= bool(v.min() <= low or v.max() >= high)

        integrate(neuron, drive, spikes, limit=(low, high), observe=reach if accumulator.wraps else None)
        return torch.from_numpy(spikes).to(x)
