"""The structure of a weighted or pooling node: which input position reaches how many outputs.

A *tap* is one (input position, output position) pair inside the borders that the node connects.
Everything here is integer arithmetic on shapes; values never enter. Windows are products of one
window per axis, so a node's fan-out is an outer product of the fan-outs per axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.program import (
    Conv,
    Linear,
    MaxPool,
    Node,
    Pool,
    Product,
    Program,
    Reshape,
    Scale,
    Shape,
    is_spike_max_pool,
)

Ints = NDArray[np.int64]
Weighted = Linear | Conv | Scale
Tapped = Linear | Conv | Scale | Pool
"""The nodes that have taps; a pool's taps carry weight 1."""


@dataclass(frozen=True)
class Window:
    """One axis of a sliding window: output o and kernel cell k meet input ``o·stride - before + k·dilation``."""

    size: int
    outputs: int
    kernel: int
    stride: int
    before: int
    dilation: int

    def meeting(self, k: int) -> tuple[slice, slice]:
        """Return the outputs whose kernel cell ``k`` lies inside the borders, and the inputs that it meets, in step."""
        shift = k * self.dilation - self.before
        # -(shift // stride) is ceil(-shift / stride): the first output whose cell is not before the border
        first = max(0, -(shift // self.stride))
        last = min(self.outputs - 1, (self.size - 1 - shift) // self.stride)
        if last < first:
            return slice(0, 0), slice(0, 0)
        start = first * self.stride + shift
        return slice(first, last + 1), slice(start, last * self.stride + shift + 1, self.stride)

    def reach(self) -> Ints:
        """``[kernel, size]``: 1 where kernel cell k meets input i for some output (at most one), else 0."""
        table = np.zeros((self.kernel, self.size), np.int64)
        for k in range(self.kernel):
            table[k, self.meeting(k)[1]] = 1
        return table


def windows(node: Conv | Pool | MaxPool) -> tuple[Window, ...]:
    """Return the node's windows, one per spatial axis."""
    axes = len(node.stride)
    kernel = node.weight.shape[2:] if isinstance(node, Conv) else node.kernel
    dilation = node.dilation if isinstance(node, Conv) else (1,) * axes
    return tuple(
        Window(*values)
        for values in zip(
            node.input_shape[-axes:],
            node.shape[-axes:],
            kernel,
            node.stride,
            (before for before, _ in node.padding),
            dilation,
            strict=True,
        )
    )


def input_shape(node: Tapped) -> Shape:
    """Return the shape of one sample's input at one step."""
    return node.shape if isinstance(node, Scale) else node.input_shape


def fan_out(node: Tapped) -> Ints:
    """Return the structural taps that leave each input position; int64 of the node's input shape."""
    match node:
        case Linear():
            return np.full(node.input_shape, node.weight.shape[0], np.int64)
        case Scale():
            return np.ones(node.shape, np.int64)
        case Conv() | Pool():
            space = reduce(np.multiply.outer, (w.reach().sum(axis=0) for w in windows(node)))
            per_channel = node.weight.shape[0] // node.groups if isinstance(node, Conv) else 1
            return np.broadcast_to(space * per_channel, node.input_shape)


def fan_out_nonzero(node: Tapped) -> Ints:
    """Return the taps of `fan_out` with a nonzero weight."""
    if isinstance(node, Pool):
        return fan_out(node)
    cells = nonzero_by_cell(node)
    if isinstance(node, Conv):
        for window in windows(node):
            cells = np.tensordot(cells, window.reach(), axes=(1, 0))
        return np.asarray(cells, np.int64)
    return np.broadcast_to(cells, input_shape(node))


def nonzero_by_cell(node: Weighted) -> Ints:
    """Return the nonzero weights of each cell (see `cells_met`)."""
    match node:
        case Linear():
            return np.asarray(np.count_nonzero(node.weight, axis=0), np.int64)
        case Scale():
            return np.asarray(node.scale != 0, np.int64)
        case Conv():
            by_group = (node.weight != 0).reshape(node.groups, -1, *node.weight.shape[1:])
            by_channel: Ints = by_group.sum(axis=1, dtype=np.int64)
            return by_channel.reshape(-1, *node.weight.shape[2:])


def weights_by_cell(node: Weighted) -> int:
    """Return the weights of each cell (see `cells_met`)."""
    if isinstance(node, Scale):
        return 1
    return int(node.weight.shape[0]) // (node.groups if isinstance(node, Conv) else 1)


def cells_met(node: Weighted, events: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the cells of weights that events ``[..., *input shape]`` meet: ``[..., *cells]``.

    A cell is the set of weights that one input feature of a linear layer meets, or one input channel at one kernel
    position; a scale is a weight of its own, met by an event anywhere that it is broadcast to. A weight that no event
    meets is never fetched.
    """
    if isinstance(node, Linear):
        tokens = tuple(range(events.ndim - len(node.input_shape), events.ndim - 1))
        return np.asarray(events.any(axis=tokens), np.bool_)
    if isinstance(node, Scale):
        whole = (1,) * (len(node.shape) - node.scale.ndim) + node.scale.shape
        first = events.ndim - len(node.shape)
        shared = tuple(first + axis for axis, size in enumerate(whole) if size == 1)
        reached = np.asarray(events.any(axis=shared, keepdims=True))
        return np.asarray(reached.reshape((*events.shape[:first], *node.scale.shape)), np.bool_)
    if isinstance(node, Conv):
        for window in windows(node):
            axis = events.ndim - len(node.stride)
            met = [events[(slice(None),) * axis + (window.meeting(k)[1],)] for k in range(window.kernel)]
            events = np.stack([each.any(axis) for each in met], axis=-1)
    return events


def max_compares(node: MaxPool) -> int:
    """Return the comparisons of one step of one sample: values inside the borders less one, per window."""
    met = reduce(np.multiply.outer, (w.reach().sum(axis=0) for w in windows(node)))
    return int(met.sum(dtype=np.int64)) * node.shape[0] - prod(node.shape)


def dense_macs(node: Tapped) -> int:
    """Return the node's structural taps: dense multiply-accumulates of one step of one sample."""
    return int(fan_out(node).sum(dtype=np.int64))


def product_macs(node: Product) -> int:
    """Return the multiply-accumulates of a product of two signals, in one step of one sample."""
    return prod(node.shape) * (node.operand_shapes[0][-1] if node.matrices else 1)


def nominal_macs(node: Tapped) -> int:
    """Return `dense_macs` with padding taps counted too."""
    match node:
        case Linear():
            return prod(node.shape) * int(node.weight.shape[1])
        case Scale():
            return prod(node.shape)
        case Pool():
            return prod(node.shape) * prod(node.kernel)
        case Conv():
            return prod(node.shape) * prod(node.weight.shape[1:])


def bias_of(node: Node) -> NDArray[np.float32] | None:
    """Return the bias, shaped to broadcast over the node's output, or None."""
    if isinstance(node, Linear):
        return node.bias
    if isinstance(node, Conv) and node.bias is not None:
        return node.bias.reshape(-1, *(1,) * len(node.stride))
    return None


@dataclass(frozen=True)
class Folded:
    """A weighted node behind pools, folded into the addressing of its weights.

    A pooling chip (DYNAP-CNN, Speck) has no pooling stage: an event into the pool is addressed straight to the synapses
    of the next layer. Each such event costs the fan-out of the next weights, summed over the windows that hold it.

    pool: the first pool that an event meets; pools: all of them, the nearest to the weights first;
    max_pool: whether one of them is a max pool; fan_out: taps from each input position of ``pool``; nonzero: those of
    them whose weight is not zero.
    """

    pool: str
    pools: tuple[str, ...]
    max_pool: bool
    fan_out: Ints
    nonzero: Ints


def fold_pools(program: Program, node: Weighted) -> Folded | None:
    """Fold every pool directly before ``node`` into it; return None if there is none.

    Between them may stand reshapes, further pools, and the threshold that makes a sum pool a max pool;
    each must be read without delay and be the only source.
    """
    table, nonzero = fan_out(node), fan_out_nonzero(node)
    here: Node = node
    folded: Folded | None = None
    threshold = False
    while len(here.operands) == 1 and not here.operands[0].delay:
        before = program.by_name[here.operands[0].node]
        if isinstance(before, Pool):
            table, nonzero = spread(windows(before), table), spread(windows(before), nonzero)
            pools = (*(folded.pools if folded else ()), before.name)
            maximum = threshold or (folded is not None and folded.max_pool)
            folded = Folded(before.name, pools, maximum, table, nonzero)
        elif is_spike_max_pool(program, before):
            threshold = True
        elif isinstance(before, Reshape):
            table, nonzero = table.reshape(before.input_shape), nonzero.reshape(before.input_shape)
        else:
            break
        here = before
    return folded


def spread(axes: tuple[Window, ...], table: NDArray[Any]) -> NDArray[Any]:
    """Sum ``table`` (per output, its last axes) over the windows that hold each input; of a mask: whether any does."""
    for axis, window in enumerate(axes, start=table.ndim - len(axes)):
        lead = (slice(None),) * axis
        met = np.zeros((*table.shape[:axis], window.size, *table.shape[axis + 1 :]), table.dtype)
        for k in range(window.kernel):
            outputs, inputs = window.meeting(k)
            # inputs are a slice without repeats, so += adds each; on masks it is "or"
            met[(*lead, inputs)] += table[(*lead, outputs)]
        table = met
    return table
