"""Convert a netx file to an `IntegerGraph`, and back.

netx and Lava store a dense layer's weights in 8 bits and a sign, enlarged; `as_stored` gives the weights that are
summed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.layers import (
    ConvLayer,
    DenseLayer,
    FlattenLayer,
    InputLayer,
    Layer,
    NetxFile,
    SpikingLayer,
    layer_key,
)
from stl_deploy.graph.program import Node, Operand, Reshape, Shape
from stl_deploy.integers import graph as int_ir
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.net import DECAY_ONE, LOIHI, MAX_BIAS, MIN_BIAS, Ints
from stl_deploy.integers.real_weights import bits_of
from stl_deploy.integers.simulate import IntegerRun, as_integers, simulate

_WIDEST_INPUT = 2**31 - 1


def run_file(file: NetxFile, x: NDArray[Any], *, record: bool = False) -> IntegerRun:
    """Run a netx file bit for bit as Lava's CPU simulation does, every sample from rest.

    Outputs are in the input's time frame: the step of latency that Lava adds per layer is removed.

    Args:
        file: The network.
        x: Integers ``[T, B, *input shape]``; values above 1 are graded events.
        record: Also return the spikes of each layer, by ``layer<i>``.

    Raises:
        InputError: If x does not fit the network, holds fractions, or is wider than the input neurons' bias.
    """
    entry = file.layers[0]
    if isinstance(entry, InputLayer) and entry.neuron is not None:
        _require_bias(as_integers(x, file.input_shape), entry)
    return simulate(to_graph(file), x, record=record)


def _require_bias(x: NDArray[Any], entry: InputLayer) -> None:
    if x.dtype != bool and (x.min() < MIN_BIAS or x.max() > MAX_BIAS):
        raise InputError(
            f"expected input from {MIN_BIAS} to {MAX_BIAS}, the bias of the input layer's neurons; found {x.min()} to "
            f"{x.max()} (lava-dl trains on {entry.scale} times the image plus {entry.offset})"
        )


def to_graph(file: NetxFile) -> int_ir.IntegerGraph:
    """Return the network that netx runs; populations are named ``layer<i>``, their weights ``layer<i>.weights``."""
    nodes: list[Node] = [
        int_ir.IntegerInput(
            name="input",
            shape=file.input_shape,
            operands=(),
            low=-_WIDEST_INPUT,
            high=_WIDEST_INPUT,
            scale=2.0 ** (file.fraction_bits or 0),
        )
    ]
    for index, layer in enumerate(file.layers):
        for node in _nodes(layer, layer_key(index), nodes[-1].shape):
            nodes.append(replace(node, operands=(Operand(nodes[-1].name),)))
    last = nodes[-1]
    nodes.append(int_ir.IntegerOutput(name="output", shape=last.shape, operands=(Operand(last.name),), unit=1.0))
    return int_ir.IntegerGraph(tuple(nodes), LOIHI)


def _nodes(layer: Layer, key: str, arriving: Shape) -> tuple[Node, ...]:
    """Return the nodes of a layer, their sources left open."""
    if isinstance(layer, InputLayer):
        if layer.neuron is None:
            return ()
        # A bias reaches v as a current does that decays at once.
        neuron = replace(layer.neuron, i_decay=DECAY_ONE)
        return (int_ir.IntegerLIF(name=key, shape=layer.shape, operands=(), neuron=neuron, bias=None),)
    if isinstance(layer, FlattenLayer):
        return (Reshape(name=key, shape=(math.prod(arriving),), operands=(), input_shape=arriving),)
    bias = layer.bias[:, None, None] if layer.bias is not None and layer.bias.ndim < len(layer.shape) else layer.bias
    weights = _weights(layer, f"{key}.weights")
    return weights, int_ir.IntegerLIF(name=key, shape=layer.shape, operands=(), neuron=layer.neuron, bias=bias)


def _weights(layer: SpikingLayer, name: str) -> Node:
    common: dict[str, Any] = {"name": name, "shape": layer.shape, "operands": (), "bias": None}
    if isinstance(layer, DenseLayer):
        return as_stored(int_ir.DenseNode(weight=layer.weight, delay=layer.delay, **common))
    (vertical, horizontal) = layer.padding
    return int_ir.ConvNode(
        weight=layer.weight,
        stride=layer.stride,
        padding=((vertical, vertical), (horizontal, horizontal)),
        dilation=layer.dilation,
        groups=layer.groups,
        input_shape=layer.input_shape,
        **common,
    )


def to_file(graph: int_ir.IntegerGraph) -> NetxFile:
    """Return the netx file of a chain, layers named by its populations; raise UnsupportedError for other graphs."""
    entry = graph.input
    layers: list[Layer] = [InputLayer(shape=entry.shape, fraction_bits=bits_of(entry.scale))]
    for before, node in zip(graph.nodes, graph.nodes[1:], strict=False):
        if [(source.node, source.delay) for source in node.operands] != [(before.name, 0)]:
            refuse(node, "skip-connection", "it does not read the node before it alone", "export a chain of layers")
        match node:
            case int_ir.IntegerLIF():
                layers.append(_layer(before, node))
            case Reshape() if node.shape != node.input_shape:
                layers.append(FlattenLayer())
            case int_ir.DenseNode() | int_ir.ConvNode() | int_ir.SumPoolNode() | Reshape() | int_ir.IntegerOutput():
                pass
            case _:
                refuse(node, "no-layer", f"no layer of netx is a {type(node).__name__}", "export to c")
    return NetxFile(tuple(layers))


def _layer(weights: Node, node: int_ir.IntegerLIF) -> SpikingLayer:
    bias = node.bias
    if bias is not None and bias.size == node.shape[0]:
        bias = bias.reshape(-1)
    common: dict[str, Any] = {"neuron": node.neuron, "bias": bias, "node": node.name}
    if isinstance(weights, int_ir.DenseNode):
        if weights.shift:
            refuse(weights, "stored-weights", "its weights are as Lava stores them", "write the file they are from")
        return DenseLayer(weight=weights.weight, delay=weights.delay, **common)
    if isinstance(weights, int_ir.ConvNode):
        return ConvLayer(
            weight=weights.weight,
            input_shape=weights.input_shape,
            stride=weights.stride,
            padding=_padding(weights, weights.padding),
            dilation=weights.dilation,
            groups=weights.groups,
            **common,
        )
    if not isinstance(weights, int_ir.SumPoolNode):
        refuse(node, "no-synapse", "no layer of weights feeds it", "put a layer of weights before it")
    channels = weights.input_shape[0]
    return ConvLayer(  # a depthwise kernel of ones
        weight=np.ones((channels, 1, *weights.kernel), np.int32),
        input_shape=weights.input_shape,
        stride=weights.stride,
        padding=_padding(weights, weights.padding),
        groups=channels,
        **common,
    )


def _padding(node: Node, padding: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int]:
    (top, bottom), (left, right) = padding
    if top != bottom or left != right:
        refuse(node, "asymmetric-padding", f"padding {padding}", "netx pads both sides alike; pad the input")
    return top, left


def as_stored(node: Node) -> Node:
    """Return a dense layer with the weights that Lava sums; other nodes unchanged."""
    if not isinstance(node, int_ir.DenseNode):
        return node
    stored, bits = stored_weights(node.weight)
    if np.array_equal(stored, node.weight << bits):
        return replace(node, enlarged=bits)
    return replace(node, weight=stored, shift=bits)


def stored_weights(weight: Ints) -> tuple[Ints, int]:
    """Return netx's form of a dense layer's weights: (weights in the synapse, right shift of its sums in bits).

    Weights are doubled as often as they fit; Lava sums the enlarged weights and shifts the sum right, rounding
    down. Where no weight is above 0, -256 becomes -255 and then loses the low bits that are 0 in all the others
    (lava-dl 0.6 ``netx.utils``, lava 0.10 ``weightutils``). Otherwise nothing is lost, within the widths of
    `stl_deploy.exporters.netx.layers`.
    """
    low, high = int(weight.min()), int(weight.max())
    if high < 0:
        bits = _whole_log2(256, -low)
    elif low >= 0:
        bits = _whole_log2(255, high)
    else:
        bits = 1 + min(_whole_log2(128, -low), _whole_log2(127, high) if high else 16)
    stored = weight.astype(np.int32) << bits
    return (
        -truncate(np.minimum(-stored, 255), _unused_bits(weight) + bits - (high == 0)) if high <= 0 else stored
    ), bits


def truncate(magnitude: Ints, bits: int) -> Ints:
    """Clear the low bits of a weight's magnitude that netx declares unused, as Lava does."""
    return (magnitude >> bits) << bits


def _unused_bits(weight: Ints) -> int:
    """Return the number of low bits that are 0 in every weight, at most 8."""
    together = int(np.bitwise_or.reduce(np.abs(weight), axis=None))
    return min(8, (together & -together).bit_length() - 1)


def _whole_log2(top: int, bottom: int) -> int:
    """Return floor(log2(top / bottom)) for positive integers, without rounding."""
    bits = top.bit_length() - bottom.bit_length()
    fits = (top << max(0, -bits)) >= (bottom << max(0, bits))
    return bits if fits else bits - 1
