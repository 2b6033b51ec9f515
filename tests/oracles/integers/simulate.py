"""The integer model: a netx network in numpy, bit for bit as Lava's CPU simulation runs it.

Every sample starts from rest, and outputs stand in the input's time frame: the step of
latency that Lava adds per layer is taken out. Proved against recordings of real Lava (tests).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.layers import ConvLayer, FlattenLayer, InputLayer, NetxFile, SpikingLayer, layer_key
from stl_deploy.graph.threads import map_samples
from stl_deploy.integers.net import DECAY_ONE, MAX_BIAS, MIN_BIAS, Ints
from stl_deploy.integers.simulate import IntegerRun, as_integers
from stl_deploy.integers.step import step_through
from stl_deploy.integers.sums import adder, blocks
from tests.oracles.integers.weights import lava_synapse

Spikes = NDArray[np.uint8]
T = TypeVar("T")

VALUES_AT_ONCE = 2**25
"""Samples are run in groups whose widest layers have about this many values over all of time, all threads together."""


def simulate(net: NetxFile, x: NDArray[Any], *, record: bool = False) -> IntegerRun:
    """Run ``net`` on integers ``x`` ``[T, B, *input shape]``; values above 1 are graded events.

    ``y`` is the last layer's spikes; ``spikes`` are by ``layer<i>``. Raises InputError if x does not fit the network or
    holds fractions.
    """
    x = as_integers(x, net.input_shape)
    parts = on_samples(net, x, lambda part: _run(net, x[:, part], record))
    spikes = {key: np.concatenate([part.spikes[key] for part in parts], axis=1) for key in parts[0].spikes}
    return IntegerRun(np.concatenate([part.y for part in parts], axis=1), spikes)


def on_samples(net: NetxFile, x: NDArray[Any], work: Callable[[slice], T]) -> list[T]:
    """``work`` of groups of the samples of ``x`` ``[T, B, ...]``, on threads."""
    steps, samples = x.shape[:2]
    widest = max(math.prod(layer.shape) for _, layer in net.spiking)
    return map_samples(work, samples, widest * steps, VALUES_AT_ONCE)


def run_layer(layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
    """Spikes ``[T, B, *layer.shape]`` of one layer for its input ``[T, B, ...]``, from rest."""
    bias = bias_of(layer)
    synapse = lava_synapse(layer)
    add_up = adder(synapse, x)
    spikes = np.empty((*x.shape[:2], *layer.shape), np.uint8)
    for part in blocks(synapse.shape, x):
        step_through(layer.neuron, add_up(x[:, part]), bias, spikes[:, part], bound=add_up.bound)
    return spikes


def run_input(layer: InputLayer, x: NDArray[Any]) -> Spikes:
    """Spikes of the input's own neurons, whose bias ``x`` is at each step.

    Raises InputError where a bias is wider than its register.
    """
    assert layer.neuron is not None
    if x.dtype != bool and (x.min() < MIN_BIAS or x.max() > MAX_BIAS):
        raise InputError(
            f"expected input from {MIN_BIAS} to {MAX_BIAS}, the bias of the input layer's neurons; found {x.min()} to "
            f"{x.max()} (lava-dl trains on {layer.scale} times the image plus {layer.offset})"
        )
    spikes = np.empty(x.shape, np.uint8)
    # A bias reaches v as a current does that decays at once.
    step_through(replace(layer.neuron, i_decay=DECAY_ONE), x.astype(np.int32), None, spikes, bound=-MIN_BIAS)
    return spikes


def bias_of(layer: SpikingLayer) -> Ints | None:
    """A layer's bias as it broadcasts to the layer's shape."""
    if layer.bias is not None and isinstance(layer, ConvLayer) and layer.bias.ndim == 1:
        return layer.bias[:, None, None]
    return layer.bias


def through(net: NetxFile, x: NDArray[Any], run: Callable[[str, SpikingLayer, NDArray[Any]], Spikes]) -> NDArray[Any]:
    """``x`` from layer to layer: ``run`` gives the spikes of one with neurons, by its key, for what arrives."""
    for index, layer in enumerate(net.layers):
        if isinstance(layer, FlattenLayer):
            x = x.reshape(*x.shape[:2], -1)
        elif not isinstance(layer, InputLayer):
            x = run(layer_key(index), layer, x)
    return x


def _run(net: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
    spikes: dict[str, Spikes] = {}

    def kept(key: str, found: Spikes) -> Spikes:
        if record:
            spikes[key] = found
        return found

    first = net.layers[0]
    if isinstance(first, InputLayer) and first.neuron is not None:
        x = kept(layer_key(0), run_input(first, x))
    return IntegerRun(through(net, x, lambda key, layer, arriving: kept(key, run_layer(layer, arriving))), spikes)
