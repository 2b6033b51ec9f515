"""Split the input of a graph that was traced with one array of all features again: one for each of the module's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stl_deploy._util.reachable import reachable
from stl_deploy.config.options import Time
from stl_deploy.errors import CaptureError
from stl_deploy.graph.program import Gather, Input, Node, Operand, Output, Program, Reshape
from stl_deploy.graph.segments import ordered
from stl_deploy.passes.base import Rewritten
from stl_deploy.passes.permutations import Permutations, arrange
from stl_deploy.tracing.recording.packed_inputs import Packed, Part


def graph_input(model: nn.Module, folded: Rewritten, x: NDArray[Any]) -> Any:
    """Return the module's input ``[T, B, *shape]`` in the graph's order of axes; of several inputs a dict."""
    if not isinstance(model, Packed):
        return arrange(x, folded.places.get(folded.program.inputs[0].name))
    arrays = {}
    for part in model.parts:
        array = x[..., part.start : part.stop].reshape(*x.shape[:2], *part.shape)
        arrays[part.node] = arrange(array, folded.places.get(part.node))
    return arrays


def given_each(
    parts: Sequence[Part], x: Mapping[str, NDArray[Any]], time: Time, steps: int, arranged: Permutations
) -> dict[str, NDArray[Any]]:
    """Return inputs as the module takes them, by its names, as the graph's own ``[T, B, *shape]``.

    Arrays under other names, and those in the graph's order of axes, stay as they are.
    """
    arrays = dict(x)
    for part in parts:
        if part.name not in arrays:
            continue
        array = arrays.pop(part.name)
        array = array.swapaxes(0, 1) if time == "second" else array
        if time == "inside" and array.shape[1:] == part.shape:
            array = np.broadcast_to(array, (steps, *array.shape))
        arrays[part.node] = arrange(array, arranged.get(part.node)) if array.shape[2:] == part.shape else array
    return arrays


def split_input(program: Program, parts: Sequence[Part]) -> tuple[Program, tuple[Part, ...]]:
    """Return a Program with an Input for each part in place of the one of all features, and the parts' nodes.

    Gathers of one part read its Input. Raises CaptureError for a layer that reads several parts as one.
    """
    (joined,) = program.inputs
    taken = set(program.by_name) - {joined.name}
    parts = [replace(part, node=part.name if part.name not in taken else f"{part.name}_input") for part in parts]
    nodes: dict[str, Node] = {part.node: Input(name=part.node, shape=part.shape, operands=()) for part in parts}
    stands_for: dict[str, Operand] = {}
    for node in program.nodes:
        if isinstance(node, Gather) and [operand.node for operand in node.operands] == [joined.name]:
            part = next((part for part in parts if _is_of(node, part)), None)
            if part is not None:
                source = Operand(part.node, node.operands[0].delay)
                gathered = _gathered(node, part, source)
                if gathered is None:
                    stands_for[node.name] = source
                else:
                    nodes[node.name] = gathered
                continue
        if isinstance(node, Reshape) and len(node.operands) == 1:
            inner = nodes.get(node.operands[0].node)
            entry = nodes.get(inner.operands[0].node) if isinstance(inner, Reshape) and inner.operands else None
            # Input [2, 3] -> Reshape [6] -> Reshape [2, 3]: the input as it is
            if isinstance(entry, Input) and inner is not None and entry.shape == node.shape:
                stands_for[node.name] = Operand(entry.name, inner.operands[0].delay + node.operands[0].delay)
                continue
        if node.name != joined.name:
            nodes[node.name] = node
    if any(operand.node == joined.name for node in nodes.values() for operand in node.operands):
        raise CaptureError("a layer reads several of the model's inputs as one array, which no graph holds")
    for name, node in list(nodes.items()):
        operands = tuple(_resolved(operand, stands_for) for operand in node.operands)
        if operands != node.operands:
            nodes[name] = replace(node, operands=operands)
    return replace(program, nodes=ordered(_needed(nodes))), tuple(parts)


def _is_of(node: Gather, part: Part) -> bool:
    places = node.indices[node.indices >= 0]
    return bool(places.size and (places >= part.start).all() and (places < part.stop).all())


def _gathered(node: Gather, part: Part, source: Operand) -> Node | None:
    """Return what takes the place of a Gather of one part; None for all of it as it is."""
    places = np.where(node.indices >= 0, node.indices - part.start, -1)
    if not np.array_equal(places.reshape(-1), np.arange(prod(part.shape))):
        return replace(node, indices=places, operands=(source,), input_shape=part.shape)
    if node.shape == part.shape:
        return None
    return Reshape(name=node.name, shape=node.shape, operands=(source,), input_shape=part.shape)


def _resolved(operand: Operand, stands_for: Mapping[str, Operand]) -> Operand:
    while operand.node in stands_for:
        source = stands_for[operand.node]
        operand = Operand(source.node, source.delay + operand.delay)
    return operand


def _needed(nodes: dict[str, Node]) -> dict[str, Node]:
    """Return the inputs and the nodes that an output depends on."""
    outputs = (name for name, node in nodes.items() if isinstance(node, Output))
    needed = {*reachable(outputs, lambda name: (operand.node for operand in nodes[name].operands))}
    return {name: node for name, node in nodes.items() if name in needed or isinstance(node, Input)}
