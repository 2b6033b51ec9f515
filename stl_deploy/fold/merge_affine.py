"""A scale and an offset of each value, into the weights right behind them: W·(s·x + t) + b = (W·s)·x + (b + W·t).

So goes an input's normalisation, ``(x - mean) / std``, into the first layer. It holds in real arithmetic. A convolution
that pads its input with zeros does not take an offset in, for what it pads with has none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.fold.graph_nodes import with_fields
from stl_deploy.graph.dialect import Dialect
from stl_deploy.graph.lower import lower
from stl_deploy.graph.program import Conv, Floats, Linear, Node, Program, Reshape, Scale
from stl_deploy.graph.segments import is_loop, segments

Doubles = NDArray[np.float64]


class _Affine(NamedTuple):
    """A node as s·x + t, each of one value's own, ``[*shape]``."""

    scale: Doubles
    offset: Doubles


def merge_affine(graph: nir.NIRGraph, dialect: Dialect) -> nir.NIRGraph:
    """The graph without scales and offsets that only weights read; the same graph if there are none."""
    program = lower(graph, dialect)
    looped = {node.name for part in segments(program) if is_loop(part) for node in part}  # whose edges' delays stay
    for node in reversed(program.nodes):
        affine = _affine(node) if node.name in graph.nodes.keys() - looped and _reads_one(node) else None
        readers = None if affine is None else _weights_behind(program, node)
        if affine is None or readers is None:
            continue
        changed = [_merged(reader, affine) for reader in readers]
        made = [each for each in changed if each is not None and np.isfinite(each[0]).all()]
        if len(made) == len(readers) and all(reader.name in graph.nodes for reader in readers):
            for reader, (weight, bias) in zip(readers, made, strict=True):
                graph = _with_weights(graph, reader.name, weight, bias)
            return merge_affine(_without(graph, node), dialect)
    return graph


def _reads_one(node: Node) -> bool:
    return len(node.sources) == 1 and not node.sources[0].delay


def _affine(node: Node) -> _Affine | None:
    """Scales, depthwise convolutions of size 1 and diagonal weights; None for what mixes values."""
    scale: Floats
    if isinstance(node, Scale):
        return _Affine(np.broadcast_to(node.scale.astype(np.float64), node.shape), np.zeros(node.shape))
    if isinstance(node, Conv):
        alone = node.weight.size == len(node.weight) == node.groups == node.input_shape[0]
        if not alone or set(node.stride) != {1} or _pads(node):
            return None
        scale, shape = node.weight.reshape(-1), (-1, *(1,) * (len(node.shape) - 1))
    elif isinstance(node, Linear):
        diagonal = node.weight.shape[0] == node.weight.shape[1]
        if not diagonal or np.count_nonzero(node.weight) != np.count_nonzero(np.diagonal(node.weight)):
            return None
        scale, shape = np.diagonal(node.weight), (-1,)
    else:
        return None
    offset = np.zeros(len(scale)) if node.bias is None else node.bias
    values = (np.broadcast_to(each.reshape(shape).astype(np.float64), node.shape) for each in (scale, offset))
    return _Affine(*values)


def _pads(node: Conv) -> bool:
    return any(before or after for before, after in node.padding)


def _weights_behind(program: Program, node: Node) -> list[Linear | Conv] | None:
    """All that read a node, in other shapes too; None where one is no weights, or reads something else besides."""
    found: list[Linear | Conv] = []
    waiting = [node]
    while waiting:
        readers = program.readers[waiting.pop().name]
        for reader in readers:
            if not _reads_one(reader) or not isinstance(reader, Linear | Conv | Reshape):
                return None
            if isinstance(reader, Reshape):
                waiting.append(reader)
            else:
                found.append(reader)
        if not readers:
            return None
    return found


def _merged(reader: Linear | Conv, affine: _Affine) -> tuple[Doubles, Doubles] | None:
    """The weight and bias of a reader that takes in what is before it; None where its weights are shared by values."""
    scale, offset = (values.reshape(reader.input_shape) for values in affine)
    weight = reader.weight.astype(np.float64)
    bias = np.zeros(len(weight)) if reader.bias is None else reader.bias.astype(np.float64)
    axis = -1 if isinstance(reader, Linear) else 0
    scale, offset = (np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) for values in (scale, offset))
    if (scale != scale[:, :1]).any() or (offset != offset[:, :1]).any():
        return None
    scale, offset = scale[:, 0], offset[:, 0]
    if isinstance(reader, Linear):
        return weight * scale, bias + weight @ offset
    if offset.any() and _pads(reader):
        return None
    groups = np.repeat(np.arange(reader.groups), len(weight) // reader.groups)
    scale, offset = (values.reshape(reader.groups, -1)[groups] for values in (scale, offset))
    kernel = (..., *(None,) * (weight.ndim - 2))
    shift = (weight * offset[kernel]).reshape(len(weight), -1).sum(axis=1)
    return weight * scale[kernel], bias + shift


def _with_weights(graph: nir.NIRGraph, name: str, weight: Doubles, bias: Doubles) -> nir.NIRGraph:
    held: Any = graph.nodes[name]
    weight = weight.reshape(held.weight.shape).astype(np.float32)
    if hasattr(held, "bias"):
        changes = {"weight": weight, "bias": bias.reshape(held.bias.shape).astype(np.float32)}
        return with_fields(graph, {name: changes})
    if not bias.any():
        return with_fields(graph, {name: {"weight": weight}})
    nodes = {**graph.nodes, name: nir.Affine(weight, bias.astype(np.float32))}
    return nir.NIRGraph(nodes, graph.edges, metadata=graph.metadata, type_check=False)


def _without(graph: nir.NIRGraph, node: Node) -> nir.NIRGraph:
    """The graph in which what read a node reads what that read."""
    nodes = {name: held for name, held in graph.nodes.items() if name != node.name}
    (before,) = (start for start, end in graph.edges if end == node.name)
    edges = [(before if start == node.name else start, end) for start, end in graph.edges if end != node.name]
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)
