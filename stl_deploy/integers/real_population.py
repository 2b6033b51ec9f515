"""A population of neurons before rounding: its gain and drive offset absorbed into weights, bias and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from stl_deploy._util.arrays import row_values
from stl_deploy.graph.program import Doubles, Neuron
from stl_deploy.integers.fields import refuse
from stl_deploy.passes.base import by_row


@dataclass(frozen=True, eq=False)
class RealPopulation:
    """A population before rounding.

    Attributes:
        weights: One array ``[rows, ...]`` for each layer of synapses that reaches it.
        bias: Added to v in each step; ``[rows]``, or the population's shape if pixels differ.
        theta: Thresholds, broadcast to the population's shape.
        theta_rows: Thresholds by row, or None if they differ between the pixels of a channel.
        v_reset: Value of v after a spike, broadcast to the population's shape; None: 0.
        v_start, u_start: Values of v and u before the first step, broadcast likewise; None: 0.
        gain: Factor on each row's weights.
        also_whole: Further values that must be integers for an exact result, ``[rows]`` each.
    """

    neuron: Neuron
    weights: tuple[Doubles, ...]
    bias: Doubles | None
    theta: Doubles
    theta_rows: Doubles | None
    v_reset: Doubles | None
    v_start: Doubles | None
    u_start: Doubles | None
    gain: Doubles
    also_whole: tuple[Doubles, ...] = ()

    @property
    def level(self) -> Doubles:
        """Return the potentials at which neurons fire first: θ, or θ/2 where counts are rounded to the nearest."""
        return self.theta if self.neuron.rounding == "down" else self.theta / 2

    @property
    def jump(self) -> Doubles | None:
        """Return how far a spike raises each threshold, broadcast to the population's shape; None: thresholds stay."""
        adaptation, threshold = self.neuron.adaptation, self.neuron.threshold
        if adaptation is None or threshold is None:
            return None
        return np.asarray(adaptation.jump * (self.theta / threshold), np.float64)

    @property
    def raised(self) -> Doubles | None:
        """Return how far each threshold is raised in the first step; None: not at all."""
        adaptation, threshold = self.neuron.adaptation, self.neuron.threshold
        if adaptation is None or threshold is None or adaptation.start is None:
            return None
        first = adaptation.start.astype(np.float64) * adaptation.decay
        return first * (self.theta / threshold) if first.any() else None


def real_population(
    neuron: Neuron,
    weights: Sequence[Doubles],
    bias: Doubles | None,
    also_whole: Sequence[Doubles] = (),
    *,
    pixels: bool = False,
) -> RealPopulation:
    """Absorb the gain and the drive offset of a population's neurons; weights are for integer input.

    A gain that differs between the pixels of a channel cannot go into shared weights. v/gain takes its place, with
    threshold, reset value and offset divided by the gain: equal in real numbers, for the leak is linear.

    Args:
        pixels: Whether the target holds a threshold and a bias of each pixel's own; else such gains are refused.
    """
    if neuron.multi_spike and neuron.decay is None:
        neuron = replace(neuron, reset="subtract")  # one form for counts: without memory every reset acts alike
    require_rows(neuron, pixels)
    total = total_gain(neuron)
    gain, divisor = row_values(total), np.ones(neuron.shape)
    if gain is None:
        gain, divisor = np.ones(neuron.shape[0]), total
    bias = None if bias is None else bias * gain
    if neuron.offset is not None:
        offset = np.broadcast_to(neuron.offset, neuron.shape) / divisor
        rows = row_values(offset)
        bias = _added(bias, offset if rows is None else rows)
    if bias is not None and not bias.any():
        bias = None
    assert neuron.threshold is not None
    theta = np.broadcast_to(neuron.threshold, neuron.shape) / divisor
    remembers = neuron.decay is not None and neuron.decay.any()
    v_reset, v_start = (
        None if value is None or not value.any() else np.broadcast_to(value, neuron.shape) / divisor
        for value in (neuron.v_reset, neuron.v_start if remembers else None)
    )
    u_start = None
    if neuron.synapse is not None and neuron.synapse.decay.any() and neuron.i_start is not None:
        u_start = np.broadcast_to(1.0 if neuron.gain is None else neuron.gain, neuron.shape) * neuron.i_start / divisor
    return RealPopulation(
        neuron=neuron,
        weights=tuple(weight * by_row(gain, weight.ndim) for weight in weights),
        bias=bias,
        theta=theta,
        theta_rows=row_values(theta),
        v_reset=v_reset,
        v_start=v_start,
        u_start=u_start if u_start is not None and u_start.any() else None,
        gain=gain,
        also_whole=tuple(values * gain for values in also_whole),
    )


def _added(bias: Doubles | None, offset: Doubles) -> Doubles:
    """Return ``[rows]``, or the population's shape if the offset has it."""
    return offset if bias is None else by_row(bias, offset.ndim) + offset


def total_gain(neuron: Neuron) -> Doubles:
    """Return the factor on the input of each neuron: its gain and its synapse's."""
    gain = np.ones(neuron.shape)
    if neuron.gain is not None:
        gain = gain * neuron.gain
    if neuron.synapse is not None:
        if neuron.synapse.gain is not None:
            gain = gain * neuron.synapse.gain
        if neuron.synapse.rule == "exp_add":
            gain = gain * neuron.synapse.decay
    return gain


def row_gain(neuron: Neuron) -> Doubles:
    """Return the factor on the input of each row; refuse gains that differ between the pixels of a channel."""
    gain = row_values(total_gain(neuron))
    if gain is None:
        _refuse_pixels(neuron, "gain")
    return gain


def require_rows(neuron: Neuron, pixels: bool) -> None:
    """Refuse gains and drive offsets that differ between the pixels of a channel, as `real_population` takes them."""
    gain = total_gain(neuron)
    if row_values(gain) is None:
        if not pixels:
            _refuse_pixels(neuron, "gain")
        if not (gain > 0).all():
            reason = "its gain differs between pixels and is not above 0 everywhere"
            refuse(neuron, "gain-per-pixel", reason, "use gains above 0, or one value per channel")
    uneven = neuron.offset is not None and row_values(np.broadcast_to(neuron.offset, neuron.shape)) is None
    if uneven and neuron.spiking and not pixels:  # potentials are not stored: an output adds what drives each pixel
        _refuse_pixels(neuron, "drive offset")


def _refuse_pixels(neuron: Neuron, what: str) -> NoReturn:
    slug = f"{what.replace(' ', '-')}-per-pixel"
    refuse(neuron, slug, f"its {what} differs between pixels", "use one value per channel")
