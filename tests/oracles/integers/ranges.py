"""How far u and v go in each layer of a netx network, against the 24 bits that hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.layers import NetxFile, SpikingLayer
from stl_deploy.integers.bounds import weighted
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, IntegerNeuron, Ints, Synapse
from stl_deploy.integers.step import currents, integrate
from stl_deploy.integers.sums import Sums, adder, blocks
from tests.oracles.integers.simulate import Spikes, bias_of, on_samples, run_layer, through
from tests.oracles.integers.weights import lava_synapse

Bounds = tuple[int, int]


@dataclass(frozen=True)
class LayerRange:
    """(least, greatest) u and v of a layer, in 64ths as the registers hold them.

    worst: no input within the given bounds and of the given number of steps goes further. seen: on calibration.
    """

    node: str
    key: str
    u_worst: Bounds
    v_worst: Bounds
    u_seen: Bounds
    v_seen: Bounds

    def joined(self, other: LayerRange) -> LayerRange:
        """Of the samples of both."""
        return replace(self, u_seen=_hull(self.u_seen, other.u_seen), v_seen=_hull(self.v_seen, other.v_seen))

    @property
    def holds(self) -> bool:
        """Whether no input at all can overflow."""
        return _within(self.u_worst) and _within(self.v_worst)


def _hull(one: Bounds, other: Bounds) -> Bounds:
    return min(one[0], other[0]), max(one[1], other[1])


def _within(bounds: Bounds) -> bool:
    return max(-bounds[0], bounds[1]) < STATE_TOP


def population_range(
    node: str,
    key: str,
    neuron: IntegerNeuron,
    bias: Ints | None,
    worst: Bounds,
    steps: int,
    sums: Iterable[Sums],
) -> LayerRange:
    """Ranges of a population. worst: bounds of any synaptic sum, 0 included; sums: those seen, ``[T, b, *shape]``.

    bias: broadcasts to the population's shape.
    """
    u_worst = tuple(_series(extreme << STATE_SHIFT, int(np.min(neuron.i_decay)), steps) for extreme in worst)
    offset = np.zeros(1, np.int64) if bias is None else bias.astype(np.int64)
    drive = (u_worst[0] + (int(offset.min()) << STATE_SHIFT), u_worst[1] + (int(offset.max()) << STATE_SHIFT))
    least = int(np.min(neuron.v_decay))
    kept = (DECAY_ONE - least) / DECAY_ONE
    top = int(int(neuron.threshold.max()) * 2**STATE_SHIFT * kept) + drive[1]
    v_worst = (min(0, _series(drive[0], least, steps)), max(0, top))
    u_seen, v_seen = _seen(neuron, offset, sums)
    return LayerRange(node, key, (u_worst[0], u_worst[1]), v_worst, u_seen, v_seen)


def worst_sums(synapse: Synapse, bounds: Bounds) -> Bounds:
    """Least and greatest synaptic sum for inputs within ``bounds`` (which include 0)."""
    low, high = weighted(synapse.weight.reshape(len(synapse.weight), -1), None, bounds)
    shift = getattr(synapse, "shift", 0)
    return low >> shift, high >> shift


def _series(step: int, decay: int, steps: int) -> int:
    """What the same step comes to after ``steps`` of them, with this decay (its magnitude is never rounded down)."""
    kept = (DECAY_ONE - decay) / DECAY_ONE
    factor = steps if kept == 1 else (1 - kept**steps) / (1 - kept)
    return int(np.sign(step)) * int(np.ceil(abs(step) * factor))


def _seen(neuron: IntegerNeuron, bias: NDArray[np.int64], sums: Iterable[Sums]) -> tuple[Bounds, Bounds]:
    """Extremes of u and v, where neither wraps nor saturates."""
    extremes = np.zeros(4, np.float64)

    def seen(values: NDArray[Any], at: int) -> None:
        extremes[at] = min(extremes[at], values.min())
        extremes[at + 1] = max(extremes[at + 1], values.max())

    for part in sums:
        u = currents(neuron, part.astype(np.float64), np.float64, None)
        seen(u, 0)
        u += bias << STATE_SHIFT
        integrate(neuron, u, np.empty(u.shape, np.uint8), limit=None, observe=lambda v: seen(v, 2))
    u_low, u_high, v_low, v_high = (int(extreme) for extreme in extremes)
    return (u_low, u_high), (v_low, v_high)


def measure_ranges(net: NetxFile, x: NDArray[Any]) -> tuple[LayerRange, ...]:
    """Ranges of every layer for integer calibration input ``x`` ``[T, B, *shape]``; its extremes bound inputs."""
    entering = (min(0, int(x.min())), max(0, int(x.max())))

    def ranges(part: slice) -> list[LayerRange]:
        found: list[LayerRange] = []

        def run(key: str, layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
            found.append(_range(key, layer, x, (0, 1) if found else entering))
            return run_layer(layer, x)

        through(net, x[:, part], run)
        return found

    parts = on_samples(net, x, ranges)
    return tuple(reduce(LayerRange.joined, layers) for layers in zip(*parts, strict=True))


def _range(key: str, layer: SpikingLayer, x: NDArray[Any], bounds: Bounds) -> LayerRange:
    synapse = lava_synapse(layer)
    add_up = adder(synapse, x)
    sums = (add_up(x[:, part]) for part in blocks(synapse.shape, x))
    worst = worst_sums(synapse, bounds)
    return population_range(layer.node or key, key, layer.neuron, bias_of(layer), worst, x.shape[0], sums)
