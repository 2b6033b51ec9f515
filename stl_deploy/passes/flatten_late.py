"""Move flattenings behind the elementwise nodes that read them: n(R·x) = R·n'(x), with n' in the image's shape.

A convolution behind such neurons then reads the image as it is: the flattening and its inverse vanish. Between them it
would have to become its matrix.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Delay, Neuron, Node, Operand, Program, Reshape, Scale, Shape
from stl_deploy.passes.base import Nodes, Pass, Rewritten, free, later, read_instead, readers_of, with_nodes
from stl_deploy.passes.permutations import Indices, arranged_fields, flattens


def _move(program: Program) -> Rewritten:
    nodes, places = dict(program.by_name), {}
    for node in program.nodes:  # sources first: a chain of elementwise nodes moves as one
        shape = _shape_before(nodes, nodes[node.name])
        if shape is not None:
            places[node.name] = _in_shape(nodes, node.name, shape)
    return Rewritten(with_nodes(program, nodes), places)


def _shape_before(nodes: Nodes, node: Node) -> Shape | None:
    """Return the shape that every source of an elementwise node is flattened from; None if they differ."""
    if not isinstance(node, Neuron | Scale | Delay):
        return None
    sources = [nodes[source.node] for source in node.operands]
    flattened = [s for s in sources if isinstance(s, Reshape) and flattens(s.input_shape, s.shape)]
    shapes = {reshape.input_shape for reshape in flattened}
    return shapes.pop() if len(flattened) == len(sources) and len(shapes) == 1 else None


def _in_shape(nodes: Nodes, name: str, shape: Shape) -> Indices:
    """Give a node the shape, and its readers a flattening of it; return the places of its values."""
    node, flat = nodes[name], free(nodes, f"{name}_flat")
    for reader in readers_of(nodes, name):
        read_instead(nodes, reader.name, name, (Operand(flat),))
    flattenings = [nodes[source.node] for source in node.operands]
    places = np.arange(int(np.prod(shape))).reshape(shape)
    nodes[name] = replace(
        node,
        shape=shape,
        operands=tuple(s for source in node.operands for s in later(nodes[source.node].operands, source.delay)),
        **arranged_fields(node, places),
    )
    nodes[flat] = Reshape(name=flat, shape=node.shape, operands=(Operand(name),), input_shape=shape)
    for reshape in flattenings:
        if reshape.name in nodes and not readers_of(nodes, reshape.name):
            del nodes[reshape.name]
    return places


PASS = Pass("flatten_late", _move, "bits")
