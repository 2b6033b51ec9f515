"""Split the weights behind a concatenation: W·[a; b] = Wa·a + Wb·b; elsewhere weights of 0 and 1 place the parts.

Pools and flattenings act on each channel alone, p([a; b]) = [p(a); p(b)], so a concatenation moves behind them first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.graph.convolutions import pointwise
from stl_deploy.graph.program import Concat, Conv, Linear, MaxPool, Node, Operand, Pool, Reshape
from stl_deploy.passes.base import Nodes, Pass, free, later, read_instead, readers_of, rewrite


def _split_all(nodes: Nodes) -> Nodes:
    """Split each concatenation into its readers' weights, W·[a; b] = Wa·a + Wb·b; else use weights of 0 and 1."""
    layers = dict(nodes)
    for name, layer in nodes.items():  # sources first, so that one behind several pools moves as one
        layers[name] = _flat(layers, layer) if isinstance(layer, Concat) else _concat_behind(layers, layer)
    for name in nodes:
        layer = layers[name]
        if isinstance(layer, Concat):
            readers = [r for r in layers.values() if any(s.node == name for s in r.operands)]
            if all(_splits(layers, reader) for reader in readers):
                for reader in readers:
                    _split(layers, layer, reader)
                del layers[name]
            else:
                _scatter(layers, layer)
    return layers


def _concat_behind(nodes: Nodes, reader: Node) -> Node:
    """Return a node; of one that acts on each channel alone and reads a concatenation, the concatenation behind it."""
    concat = nodes[reader.operands[0].node] if len(reader.operands) == 1 else None
    if not isinstance(concat, Concat) or not _is_by_channel(nodes, reader):
        return reader
    parts, sizes = list[Operand](), list[int]()
    for source, size in zip(concat.operands, concat.sizes, strict=True):
        name = free(nodes, f"{reader.name}_{len(parts) + 1}")
        sizes.append(reader.shape[0] * size // concat.shape[0])
        shapes: Any = {"shape": (sizes[-1], *reader.shape[1:]), "input_shape": (size, *concat.shape[1:])}
        nodes[name] = replace(reader, name=name, operands=later([source], reader.operands[0].delay), **shapes)
        parts.append(Operand(name))
    return Concat(name=reader.name, shape=reader.shape, operands=tuple(parts), sizes=tuple(sizes))


def _is_by_channel(nodes: Nodes, node: Node) -> bool:
    """Return whether a node acts on each channel alone; a flattening only before weights that are split, as a matrix
    that places its parts is large."""
    if not isinstance(node, Reshape):
        return isinstance(node, MaxPool | Pool)
    return len(node.shape) == 1 and all(_splits(nodes, reader) for reader in readers_of(nodes, node.name))


def _flat(nodes: Nodes, concat: Concat) -> Concat:
    """Flatten nested concatenations."""
    sources: list[Operand] = []
    sizes: list[int] = []
    for source, size in zip(concat.operands, concat.sizes, strict=True):
        inner = nodes[source.node]
        if isinstance(inner, Concat):
            inner = _flat(nodes, inner)
            sources += later(inner.operands, source.delay)
            sizes += inner.sizes
        else:
            sources.append(source)
            sizes.append(size)
    return replace(concat, operands=tuple(sources), sizes=tuple(sizes))


def _splits(nodes: Nodes, reader: Node) -> bool:
    """Return whether a concatenation can go into the weights of ``reader``, which becomes a sum with one reader."""
    summed = not any(isinstance(r, Concat) and any(s.node == reader.name for s in r.operands) for r in nodes.values())
    return (
        summed
        and len(reader.operands) == 1
        and (
            (isinstance(reader, Conv) and reader.groups == 1)
            or (isinstance(reader, Linear) and len(reader.input_shape) == 1)
        )
    )


def _split(nodes: Nodes, concat: Concat, reader: Node) -> None:
    """Make synapses for each part; readers of ``reader`` read all of them."""
    assert isinstance(reader, Conv | Linear)
    start, parts = 0, []
    for number, (source, size) in enumerate(zip(concat.operands, concat.sizes, strict=True)):
        name = free(nodes, f"{reader.name}_{number + 1}") if number else reader.name
        part = replace(
            reader,
            name=name,
            operands=later([source], reader.operands[0].delay),
            weight=np.ascontiguousarray(reader.weight[:, start : start + size]),
            bias=reader.bias if not number else None,
            input_shape=(size, *reader.input_shape[1:]),
        )
        nodes[name] = part
        parts.append(name)
        start += size
    _read_all(nodes, reader.name, parts)


def _scatter(nodes: Nodes, concat: Concat) -> None:
    """Place each part by weights of 0 and 1."""
    start, channels = 0, concat.shape[0]
    ends = []
    for number, (source, size) in enumerate(zip(concat.operands, concat.sizes, strict=True)):
        weight = np.zeros((channels, size), np.float32)
        weight[np.arange(start, start + size), np.arange(size)] = 1
        name = free(nodes, f"{concat.name}_{number + 1}")
        shape = (size, *concat.shape[1:])
        if len(shape) == 1:
            nodes[name] = Linear(
                name=name, shape=concat.shape, operands=(source,), weight=weight, bias=None, input_shape=shape
            )
        else:
            nodes[name] = pointwise(name, (source,), shape, weight)
        ends.append(name)
        start += size
    _read_all(nodes, concat.name, ends)
    del nodes[concat.name]


def _read_all(nodes: Nodes, name: str, parts: Sequence[str]) -> None:
    """Let readers of ``name`` read the sum of ``parts``."""
    for reader, layer in list(nodes.items()):
        if any(s.node == name for s in layer.operands):
            read_instead(nodes, reader, name, [Operand(part) for part in parts])


PASS = Pass("split_concats", rewrite(_split_all), "real", removes=(Concat,))
