"""Find the outputs of a node that an event reaches, per step, by structure.

An event is a non-zero input; it arrives at every output it has a structural tap to, whatever the
weight. A non-zero bias arrives at every step. Masks are bool ``[T, B, *shape]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from stl_deploy.energy.counts.taps import Window, bias_of, windows
from stl_deploy.graph.program import Conv, Delay, Gather, Linear, MaxPool, Node, Operand, Pool, Program, passes_on
from stl_deploy.graph.run import delayed

Mask = NDArray[np.bool_]


def arrivals(node: Node, events: Mask) -> Mask:
    """Mark where an event or a nonzero bias arrives at the output of ``node``.

    events: where its input is not zero; of a node without taps (an input, a neuron), where its output is not.
    Axes along which nothing differs are broadcast, not stored.
    """
    shape = (*events.shape[:2], *node.shape)
    bias = bias_of(node)
    # nothing else can add to it, so the taps need not be walked
    if bias is not None and (bias != 0).all():
        return np.broadcast_to(np.True_, shape)
    match node:
        case Linear():
            reached = np.any(events, axis=-1, keepdims=True)
        case Conv():
            reached = _conv(node, events)
        case Pool():
            reached = _slide(events, windows(node))
        case _:
            reached = events
    if bias is not None and bias.any():
        reached = reached | (bias != 0)
    return np.broadcast_to(reached, shape)


def how_many(mask: Mask) -> int:
    """Count the set elements of a mask; broadcast axes are multiplied, not walked."""
    # [T, B, C] with strides [8, 2, 0]: every C alike, so one of them is counted and multiplied
    stored = tuple(slice(None) if stride else slice(0, 1) for stride in mask.strides)
    copies = prod(size for size, stride in zip(mask.shape, mask.strides, strict=True) if not stride)
    return int(np.count_nonzero(mask[stored]) * copies)


def _conv(node: Conv, events: Mask) -> Mask:
    steps, batch, _, *space = events.shape
    by_group = np.any(events.reshape(steps, batch, node.groups, -1, *space), axis=3)
    reached = _slide(by_group, windows(node))
    return reached if node.groups == 1 else np.repeat(reached, node.shape[0] // node.groups, axis=2)


def _slide(events: Mask, axes: tuple[Window, ...]) -> Mask:
    for axis, window in enumerate(axes, start=events.ndim - len(axes)):
        lead = (slice(None),) * axis
        reached = np.zeros((*events.shape[:axis], window.outputs, *events.shape[axis + 1 :]), np.bool_)
        for k in range(window.kernel):
            outputs, inputs = window.meeting(k)
            reached[(*lead, outputs)] |= events[(*lead, inputs)]
        events = reached
    return events


def arrived(program: Program, node: Node, of_feeders: Mapping[str, Mask]) -> Mask:
    """Mark where an event arrives at ``node``'s input. of_feeders: the `arrivals` of its `feeders`."""
    masks = [delayed(_leaving(program, source, of_feeders), source.delay) for source in node.operands]
    if len(masks) == 1:
        return masks[0]
    if node.combine == "flat":
        reached: Mask = np.logical_or.reduce(np.broadcast_arrays(*masks))
        return reached
    return np.concatenate(masks, axis=2) if node.combine == "each" else np.logical_or.reduce(masks)


def _leaving(program: Program, source: Operand, of_feeders: Mapping[str, Mask]) -> Mask:
    """Mark where an event leaves a source: a feeder, or a node that passes on what arrives at it."""
    node = program.by_name[source.node]
    if not passes_on(node):
        return of_feeders[node.name]
    mask = arrived(program, node, of_feeders)
    if isinstance(node, Delay):
        return _per_element(mask, np.broadcast_to(node.steps, node.shape))
    if isinstance(node, MaxPool):
        return _slide(mask, windows(node))
    if isinstance(node, Gather):
        places = node.indices.reshape(-1)
        moved = mask.reshape(*mask.shape[:2], -1)[:, :, places] & (places >= 0)
        return moved.reshape(*mask.shape[:2], *node.shape)
    return mask.reshape(*mask.shape[:2], *node.shape)


def _per_element(mask: Mask, steps: NDArray[np.int64]) -> Mask:
    moved = np.zeros(mask.shape, np.bool_)
    for wait in np.unique(steps):
        chosen = steps == wait
        moved[..., chosen] = delayed(mask[..., chosen], int(wait))
    return moved
