"""The integer model: a netx network in numpy, bit for bit as Lava's CPU simulation runs it.

Every sample starts from rest, and outputs stand in the input's time frame: the step of
latency that Lava adds per layer is taken out. Proved against recordings of real Lava (tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.integers.net import DECAY_ONE, MAX_BIAS, MIN_BIAS, Ints, Shape
from stl_deploy.exporters.integers.step import step_through
from stl_deploy.exporters.integers.sums import adder, blocks
from stl_deploy.exporters.loihi.net import ConvLayer, FlattenLayer, InputLayer, IntegerNet, SpikingLayer
from stl_deploy.exporters.loihi.weights import lava_synapse
from stl_deploy.graph.threads import spread, threads

Spikes = NDArray[np.uint8]

_CHUNK_VALUES = 2**25
"""Samples are run in groups whose widest layers have about this many values over all of time, all threads together."""


@dataclass(frozen=True)
class IntegerRun:
    """``y``: the last layer's spikes ``[T, B, *shape]``; ``spikes``: each layer's, by ``layer<i>``, if recorded."""

    y: Spikes
    spikes: Mapping[str, Spikes]


def simulate(net: IntegerNet, x: NDArray[Any], *, record: bool = False) -> IntegerRun:
    """Run ``net`` on whole numbers ``x`` ``[T, B, *input shape]``; values above 1 are graded events.

    Raises InputError if x does not fit the network or holds fractions.
    """
    x = check_input(net.input_shape, x)
    widest = max(math.prod(layer.shape) for _, layer in net.spiking)
    workers = threads()
    at_once = max(1, min(_CHUNK_VALUES // (widest * x.shape[0] * workers), -(-x.shape[1] // workers)))
    chunks = [slice(start, start + at_once) for start in range(0, x.shape[1], at_once)]
    parts = spread(lambda chunk: _run(net, x[:, chunk], record), chunks, workers)
    if len(parts) == 1:
        return parts[0]
    spikes = {key: np.concatenate([part.spikes[key] for part in parts], axis=1) for key in parts[0].spikes}
    return IntegerRun(np.concatenate([part.y for part in parts], axis=1), spikes)


def check_input(shape: Shape, x: NDArray[Any]) -> NDArray[Any]:
    """``x`` as whole numbers ``[T, B, *shape]``; raises InputError if it is anything else."""
    if x.ndim < 2 or x.shape[2:] != shape or x.size == 0:
        raise InputError(f"the input has shape {list(x.shape)}; expected [T, B, {', '.join(map(str, shape))}]")
    if x.dtype.kind not in "fiub":
        raise InputError(f"the input holds {x.dtype}; expected whole numbers or bool")
    if x.dtype.kind == "f" and not np.array_equal(x, np.trunc(x)):
        raise InputError("the input holds fractions or NaN; Loihi takes whole numbers (multiply by the input scale)")
    if np.abs(x).max() >= 2**31 if x.dtype.kind != "b" else False:
        raise InputError("the input holds values beyond 32 bits; Lava's events carry less")
    return x if x.dtype.kind != "f" else x.astype(np.int32)


def run_layer(layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
    """Spikes ``[T, B, *layer.shape]`` of one layer for its input ``[T, B, ...]``, from rest."""
    bias = bias_of(layer)
    synapse = lava_synapse(layer)
    add_up = adder(synapse, x)
    spikes = np.empty((*x.shape[:2], *layer.shape), np.uint8)
    for part in blocks(synapse, x):
        step_through(layer.neuron, add_up(x[:, part]), bias, spikes[:, part], bound=add_up.bound)
    return spikes


def run_input(layer: InputLayer, x: NDArray[Any]) -> Spikes:
    """Spikes of the input's own neurons, whose bias ``x`` is at each step.

    Raises InputError where a bias is wider than its register.
    """
    assert layer.neuron is not None
    if x.dtype != bool and (x.min() < MIN_BIAS or x.max() > MAX_BIAS):
        raise InputError(
            f"the input runs from {x.min()} to {x.max()}; it is the bias of the input layer's neurons, {MIN_BIAS} to "
            f"{MAX_BIAS} (lava-dl trains on {layer.scale} times the image plus {layer.offset})"
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


def _run(net: IntegerNet, x: NDArray[Any], record: bool) -> IntegerRun:
    spikes: dict[str, Spikes] = {}
    for index, layer in enumerate(net.layers):
        if isinstance(layer, InputLayer):
            if layer.neuron is not None:
                x = run_input(layer, x)
                if record:
                    spikes[f"layer{index}"] = x
            continue
        if isinstance(layer, FlattenLayer):
            x = x.reshape(*x.shape[:2], -1)
            continue
        x = run_layer(layer, x)
        if record:
            spikes[f"layer{index}"] = x
    return IntegerRun(x, spikes)
