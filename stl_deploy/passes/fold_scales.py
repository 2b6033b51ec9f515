"""Fold a scale of each output into the weights right before it: s·(W·x + b) = (s·W)·x + s·b in real arithmetic.

A scale of a sum goes into every term: s·(V·x + W·y) = (s·V)·x + (s·W)·y, as in recurrent layers that multiply what
arrives by 1 - α, and into a term that is scaled itself. That is always done, since a scale of a sum fits into no other
layer. Terms without weights (spikes of a skip connection) stay under the scale: s·(V·x + z) = (s·V)·x + s·z, so that
integers need no scale of a mixed sum. A norm of a sum is a scale of it, and a shift that goes into one term's bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.graph.program import Conv, Doubles, Linear, Node, Operand, Program, Scale
from stl_deploy.passes.base import Nodes, Pass, Rewritten, by_row, bypassed, row_factors, with_nodes


def _until_done(rewrite: Callable[[Program, Nodes], list[str]]) -> Callable[[Program], Rewritten]:
    """Repeat a rewriting until it finds nothing more: a scale of a scale is met with what the first one left."""

    def run(program: Program) -> Rewritten:
        gone: list[str] = []
        while True:
            nodes: Nodes = dict(program.by_name)
            removed = rewrite(program, nodes)
            made = with_nodes(program, bypassed(nodes, removed))
            if made is program:
                return Rewritten(program, removed=tuple(gone))
            gone += [name for name in program.by_name if name not in made.by_name]
            program = made

    return run


def _fold(program: Program, nodes: Nodes) -> list[str]:
    gone: list[str] = []
    for scale in program.of(Scale):
        factors = _rows(program, scale, scale.operands[0]) if len(scale.operands) == 1 else None
        if factors is None or scale.operands[0].node in gone:
            continue
        _multiply(nodes, {scale.operands[0].node: factors})
        gone.append(scale.name)
    return gone


def _fold_sums(program: Program, nodes: Nodes) -> list[str]:
    touched: set[str] = set()
    for node in program.nodes:
        scale, shift = _as_scale(node)
        if scale is None or len(scale.operands) == 1:
            continue
        terms = {term.node: _rows(program, scale, term) for term in scale.operands}
        factors = {name: rows for name, rows in terms.items() if rows is not None}
        bare = tuple(term for term in scale.operands if term.node not in factors)
        readers = program.readers[scale.name]
        around = {scale.name, *terms, *(reader.name for reader in readers)}
        adding = all(reader.combine == "add" for reader in readers)
        # A late term stays under the sum: NIR's readers find a loop's delay by the order of edges.
        # Weights, or another scale, that could not take the factors, would need a scale of their own.
        fitting = not any(term.delay or isinstance(program.by_name[term.node], Linear | Conv | Scale) for term in bare)
        if not factors or not adding or not fitting or around & touched:
            continue
        weights = next((name for name in factors if isinstance(nodes[name], Linear | Conv)), None)
        if shift is not None and weights is None:
            continue
        touched |= around
        _multiply(nodes, factors)
        if shift is not None:
            layer: Any = nodes[weights or ""]
            nodes[layer.name] = replace(layer, bias=shift if layer.bias is None else layer.bias + shift)
        apart = [term for term in scale.operands if term.node in factors]
        if bare:
            nodes[scale.name] = replace(scale, operands=bare)
            apart.append(Operand(scale.name))
        else:
            del nodes[scale.name]
        for reader in readers:
            read: list[Operand] = []
            for source in reader.operands:
                read += (source,) if source.node != scale.name else apart
            nodes[reader.name] = replace(nodes[reader.name], operands=tuple(read))
    return []


def _as_scale(node: Node) -> tuple[Scale | None, Any]:
    """Return a node as a scale and a shift of each row: a norm of a sum has become weights with one factor a row."""
    if isinstance(node, Scale):
        return node, None
    if not isinstance(node, Linear | Conv) or len(node.operands) == 1:
        return None, None
    rows = row_factors(node)
    if rows is None or (isinstance(node, Linear) and len(node.shape) > 1):
        return None, None
    scale = by_row(rows, len(node.shape))
    return Scale(name=node.name, shape=node.shape, operands=node.operands, scale=scale), node.bias


def _multiply(nodes: Nodes, factors: Mapping[str, Doubles]) -> None:
    """Multiply the rows of weights and biases, or a scale."""
    for name, rows in factors.items():
        layer: Any = nodes[name]
        if isinstance(layer, Scale):
            scale: Any = np.asarray(layer.scale, np.float64) * rows
            nodes[name] = replace(layer, scale=scale)
            continue
        bias = None if layer.bias is None else layer.bias * rows
        nodes[name] = replace(layer, weight=layer.weight * by_row(rows, layer.weight.ndim), bias=bias)


def _rows(program: Program, scale: Scale, term: Operand) -> Doubles | None:
    """Return one factor for each row of the weights, or value of the scale, that a scale reads; None if none fits."""
    before = program.by_name[term.node]
    if term.delay or not isinstance(before, Linear | Conv | Scale) or len(program.readers[before.name]) != 1:
        return None
    # Read twice by one sum, it would bring the shift twice.
    if [operand.node for operand in scale.operands].count(before.name) != 1:
        return None
    if any(
        source.node == scale.name and source.delay
        for reader in program.readers[scale.name]
        for source in reader.operands
    ):
        return None
    whole = np.broadcast_to(np.asarray(scale.scale, np.float64), scale.shape)
    if isinstance(before, Scale):
        return whole.copy()
    if isinstance(before, Linear):
        return whole.copy() if len(scale.shape) == 1 else None
    flat = whole.reshape(scale.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


PASS = Pass("fold_scales", _until_done(_fold), "real", wanted=lambda options: options.thresholds == "weights")
OF_SUMS = Pass("fold_scales_of_sums", _until_done(_fold_sums), "real")
