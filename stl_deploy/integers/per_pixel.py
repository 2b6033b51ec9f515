"""Handle thresholds that differ between the pixels of a channel, which shared kernels cannot absorb.

Three ways: arrays of thresholds (form ``per-neuron``, Lava's CPU simulation only), and the two here: projected to one
per channel (an approximation), or the convolution unrolled into a dense layer, whose rows absorb any threshold.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Conv, Floats, Linear, Neuron, Node, Operand, Output, Pool, Program, Reshape
from stl_deploy.integers.fields import refuse
from stl_deploy.passes.permutations import arranged_fields

MAX_SYNAPSES = 2**26
"""The largest layer that is unrolled (256 MB of weights)."""


def average_thresholds(program: Program) -> Program:
    """Replace each convolutional neuron's thresholds by their mean over the channel's pixels.

    Nodes whose thresholds are one per channel already are left as they are.
    """
    return replace(program, nodes=tuple(_projected(program, node) for node in program.nodes))


def per_pixel(program: Program) -> tuple[str, ...]:
    """Return the neurons behind a convolution whose thresholds differ within a channel."""
    return tuple(node.name for node in program.spiking if _mean(program, node) is not None)


def _projected(program: Program, node: Node) -> Node:
    if not isinstance(node, Neuron):
        return node
    mean = _mean(program, node)
    return node if mean is None else replace(node, threshold=mean)


def _mean(program: Program, node: Neuron) -> Floats | None:
    """Return one threshold per channel ``(C, 1, 1)``, or None if nothing changes."""
    behind = program.by_name[node.operands[0].node]
    if node.threshold is None or not isinstance(behind, Conv) or len(node.shape) != 3:
        return None
    theta = np.broadcast_to(node.threshold, node.shape)
    if (theta == theta[:, :1, :1]).all():
        return None
    mean: Floats = theta.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return mean


def unroll_convolutions(program: Program) -> Program:
    """Turn the first convolution with thresholds per pixel, and all layers after it, into dense layers.

    netx goes from images to vectors and never back, so what follows is unrolled too. Names stay; shapes become flat
    in (C, H, W) order. Raises UnsupportedError for a layer of more than `MAX_SYNAPSES` synapses.
    """
    first = next(iter(per_pixel(program)), None)
    if first is None:
        return program
    entry = program.by_name[first].operands[0].node
    nodes: list[Node] = []
    flat = False
    for node in program.nodes:
        if node.name == entry:
            flat = True
            assert isinstance(node, Conv | Pool)
            flattened = Reshape(
                name=f"{entry}.flat",
                shape=(math.prod(node.input_shape),),
                operands=node.operands,
                input_shape=node.input_shape,
            )
            nodes.append(flattened)
            node = replace(node, operands=(Operand(flattened.name),))
        nodes.append(_flat(node) if flat else node)
    return replace(program, nodes=tuple(nodes))


def _flat(node: Node) -> Node:
    shape = (math.prod(node.shape),)
    if isinstance(node, Conv | Pool):
        return _dense(node)
    if isinstance(node, Neuron):
        return replace(node, shape=shape, **arranged_fields(node, np.arange(*shape)))
    if isinstance(node, Reshape):
        return replace(node, shape=shape, input_shape=shape)
    return replace(node, shape=shape) if isinstance(node, Output) else node


def _dense(node: Conv | Pool) -> Linear:
    """Return the matrix of a convolution or pool, column by column: its output for each unit input."""
    inputs, outputs = math.prod(node.input_shape), math.prod(node.shape)
    if inputs * outputs > MAX_SYNAPSES:
        refuse(
            node,
            "unrolled-too-large",
            f"unrolled it has {inputs} x {outputs} synapses, more than {MAX_SYNAPSES}",
            "project the thresholds to channels, or train with per-channel thresholds",
        )
    bias = None
    if isinstance(node, Conv):
        if node.bias is not None:
            bias = np.repeat(node.bias, outputs // len(node.bias)).astype(np.float32)
        node = replace(node, bias=None)
    columns = apply(node, np.eye(inputs, dtype=np.float32).reshape(inputs, *node.input_shape))
    weight = np.ascontiguousarray(columns.reshape(inputs, outputs).T)
    return Linear(
        name=node.name, shape=(outputs,), operands=node.operands, weight=weight, bias=bias, input_shape=(inputs,)
    )
