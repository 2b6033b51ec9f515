"""Move norms in front of rearrangements that stay (`absorb_permutations`): n(P·x) = P·n'(x).

A norm scales and shifts each channel, so it does the same to each value wherever that stands. Transformers transpose
tokens and channels for the norm alone; behind the weights themselves it folds into them, and the two transpositions
are none.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from stl_deploy.graph.program import Doubles, Gather, Norm, Operand, Reshape, Shape
from stl_deploy.passes.base import Nodes, Pass, by_row, read_instead, readers_of, rewrite
from stl_deploy.passes.permutations import bijective


def _move(nodes: Nodes) -> Nodes:
    moved = dict(nodes)
    for name in nodes:
        while _swapped(moved, name):
            pass
    return moved


def _swapped(nodes: Nodes, name: str) -> bool:
    """Move one norm in front of what it reads, if that only rearranges values for it; return whether it was moved."""
    norm = nodes[name]
    if not isinstance(norm, Norm) or len(norm.operands) != 1 or norm.operands[0].delay:
        return False
    order = nodes[norm.operands[0].node]
    if not isinstance(order, Gather | Reshape) or len(readers_of(nodes, order.name)) != 1:
        return False
    if isinstance(order, Gather) and not bijective(order):
        return False
    places = order.indices.reshape(-1) if isinstance(order, Gather) else np.arange(prod(order.shape))
    channels = np.broadcast_to(_along(np.arange(len(norm.scale)), norm.axis, norm.shape), norm.shape).reshape(-1)
    before = np.empty(len(places), np.int64)
    before[places] = channels
    axis, order_of_channels = _axis(before.reshape(order.input_shape))
    if order_of_channels is None:
        return False
    numbers: dict[str, Any] = {"scale": norm.scale[order_of_channels], "shift": norm.shift[order_of_channels]}
    mean: Doubles | None = None if norm.mean is None else norm.mean[order_of_channels]
    for reader in readers_of(nodes, name):
        read_instead(nodes, reader.name, name, (Operand(order.name),))
    nodes[name] = replace(norm, shape=order.input_shape, operands=order.operands, axis=axis, mean=mean, **numbers)
    nodes[order.name] = replace(order, operands=(Operand(name),))
    return True


def _along(values: Any, axis: int, shape: Shape) -> Any:
    return by_row(values, len(shape) if axis == 0 else 1)


def _axis(channels: Any) -> tuple[int, Any]:
    """Return the axis that channels lie along, the last or the first, and its channels in order (None: neither)."""
    last, first = channels.reshape(-1, channels.shape[-1])[0], channels.reshape(len(channels), -1)[:, 0]
    for axis, along in ((-1, last), (0, first)):
        if np.array_equal(np.broadcast_to(_along(along, axis, channels.shape), channels.shape), channels):
            return axis, along
    return 0, None


PASS = Pass("norms_before_orders", rewrite(_move), "bits")
