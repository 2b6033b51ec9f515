"""How far u and v go in each layer of a netx network, against the 24 bits that hold them."""

from __future__ import annotations

from functools import reduce
from typing import Any

from numpy.typing import NDArray

from stl_deploy.exporters.netx.net import IntegerNet, SpikingLayer
from stl_deploy.integers.ranges import Bounds, LayerRange, population_range, worst_sums
from stl_deploy.integers.sums import adder, blocks
from tests.oracles.integers.simulate import Spikes, bias_of, on_samples, run_layer, through
from tests.oracles.integers.weights import lava_synapse


def measure_ranges(net: IntegerNet, x: NDArray[Any]) -> tuple[LayerRange, ...]:
    """Ranges of every layer for whole-number calibration input ``x`` ``[T, B, *shape]``; its extremes bound inputs."""
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
