"""Map linear paths from a source to a layer to taps: convolutions, dense layers and pools by rows and columns.

Everything between two populations is linear. What has the form of a product of rows and columns is read from its
layers (`separable`); everything else is taken apart into blocks of weights, word by word, from the response to one
event at a time (`unrolled`), which any order of axes, delay or pool has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import row_values
from stl_deploy.exporters.verilog.plan import Lanes, Layout, Map, Taps
from stl_deploy.graph.program import Node, Reshape
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.graph import ConvNode, DelayNode, DenseNode, GainNode, MaxPoolNode, SumPoolNode

HERE: Taps = (((0, 0),),)
"""One row, or column, with one tap."""
Reaches = list[list[tuple[int, int]]]
"""For each place of an axis: (tap of the kernel, place that it reaches)."""
MOST_UNROLLED = 2**26
"""Numbers in the response of ways that have no rows and columns."""


def separable(ways: Sequence[Node], source: Layout, to: Layout, *, spikes: bool) -> Map | None:
    """Return the map of layers ``ways`` between two layouts, or None if it has not this form. spikes: not the input."""
    nodes = [node for node in ways if not (isinstance(node, Reshape) and node.shape == node.input_shape)]
    pools: list[SumPoolNode] = []
    # Pools of sums before weights are extra taps of these, so that no pooled values are kept.
    while nodes and isinstance(nodes[0], SumPoolNode):
        pools.append(nodes[0])
        del nodes[0]
    if nodes and isinstance(nodes[-1], DenseNode) and to.height == to.width == 1:
        if len(nodes) == 2 and isinstance(nodes[0], Reshape) and len(nodes[0].shape) == 1:
            del nodes[0]
        if len(nodes) == 1:
            assert isinstance(nodes[0], DenseNode)
            return _dense(nodes[0], pools, source, to, spikes=spikes)
    if len(nodes) == 1 and isinstance(nodes[0], ConvNode):
        node = nodes[0]
        return _conv(node.weight.astype(np.int64), node.groups, _axes(node), pools, source, to, spikes=spikes)
    if not nodes or (len(nodes) == 1 and isinstance(nodes[0], GainNode)):
        weight = np.ones(1, np.int64) if not nodes else _by_channel(nodes[0], to)
        if weight is not None and to.channels == source.channels:
            kernel = np.broadcast_to(weight, to.channels).reshape(-1, 1, 1, 1)
            same = (_Axis(1, 1, 0, to.height), _Axis(1, 1, 0, to.width))
            return _conv(kernel, to.channels, same, pools, source, to, spikes=spikes)
    return None


class _Axis(NamedTuple):
    """One axis of a convolution; before: its padding at the start."""

    stride: int
    dilation: int
    before: int
    outputs: int


def _axes(node: ConvNode) -> tuple[_Axis, _Axis]:
    height = node.shape[1] if len(node.shape) == 3 else 1
    rows = _Axis(node.stride[0], node.dilation[0], node.padding[0][0], height)
    return rows, _Axis(node.stride[1], node.dilation[1], node.padding[1][0], node.shape[-1])


def _by_channel(node: Node, to: Layout) -> NDArray[np.int64] | None:
    """Return a gain's weights by channel, or None if they differ over an image."""
    assert isinstance(node, GainNode)
    weight = np.broadcast_to(node.weight, node.shape).astype(np.int64)
    return row_values(weight) if to.channels == node.shape[0] else None


def _pooled(size: int, pools: Sequence[SumPoolNode | MaxPoolNode], axis: int) -> list[list[int]]:
    """Return the places behind the pools that each place of an axis reaches, with repetitions."""
    reached = [[place] for place in range(size)]
    for pool in pools:
        kernel, stride, before = pool.kernel[axis], pool.stride[axis], pool.padding[axis][0]
        outputs = range(pool.shape[axis - 2])
        # Window `out` begins at out·stride - before: with 3 places every 2, place 2 lies in windows 0 and 1.
        reached = [
            [out for place in places for out in outputs if 0 <= place + before - out * stride < kernel]
            for places in reached
        ]
    return reached


def max_pool(pools: Sequence[SumPoolNode | MaxPoolNode], source: Layout, to: Layout) -> Map | None:
    """Return the windows of a max pool, as words of the source; None if a window has no place in it."""
    rows, columns = (
        _windows(_pooled(size, pools, axis), outputs)
        for axis, (size, outputs) in enumerate(((source.height, to.height), (source.width, to.width)))
    )
    if not all(rows) or not all(columns):
        return None
    return Map(
        rows=tuple(tuple((0, row * source.width * source.groups) for row in window) for window in rows),
        columns=tuple(tuple((0, column * source.groups) for column in window) for window in columns),
        weights=np.zeros((0, to.lanes), np.int64),
        words=source.groups,
        word_step=1,
    )


def _windows(reached: list[list[int]], outputs: int) -> list[list[int]]:
    """Return the places that each output of a pool reads."""
    return [[place for place, outs in enumerate(reached) if output in outs] for output in range(outputs)]


def _reaches(pooled: list[list[int]], kernel: int, axis: _Axis) -> Reaches:
    """Return the places that each place of an axis reaches behind pools and a convolution."""
    reaches: Reaches = []
    for places in pooled:
        taps = []
        for place in places:
            for tap in range(kernel):
                out, rest = divmod(place + axis.before - tap * axis.dilation, axis.stride)
                if rest == 0 and 0 <= out < axis.outputs:
                    taps.append((tap, out))
        reaches.append(taps)
    return reaches


def _dense(node: DenseNode, pools: Sequence[SumPoolNode], source: Layout, to: Layout, *, spikes: bool) -> Map:
    """Map a dense layer: a convolution whose kernel is as large as its image."""
    height, width = pools[-1].shape[1:] if pools else (source.height, source.width)
    kernel = node.weight.astype(np.int64).reshape(to.channels, source.channels, height, width)
    rows = [[(place, 0) for place in places] for places in _pooled(source.height, pools, 0)]
    columns = [[(place, 0) for place in places] for places in _pooled(source.width, pools, 1)]
    return _whole(kernel, rows, columns, source, to, spikes=spikes)


def _conv(
    kernel: NDArray[np.int64],
    groups: int,
    axes: tuple[_Axis, _Axis],
    pools: Sequence[SumPoolNode],
    source: Layout,
    to: Layout,
    *,
    spikes: bool,
) -> Map | None:
    rows = _reaches(_pooled(source.height, pools, 0), kernel.shape[2], axes[0])
    columns = _reaches(_pooled(source.width, pools, 1), kernel.shape[3], axes[1])
    if groups == 1:
        return _whole(kernel, rows, columns, source, to, spikes=spikes)
    return _grouped(kernel, groups, rows, columns, source, to) if spikes else None


def _whole(
    kernel: NDArray[np.int64], rows: Reaches, columns: Reaches, source: Layout, to: Layout, *, spikes: bool
) -> Map:
    """Map every channel to every channel; kernel ``[out, in, height, width]``."""
    outs, ins, height, width = kernel.shape
    lanes, words = to.lanes, source.groups
    # One word to one word: lanes of the source that hold no neuron need no weights.
    each = ins if words == to.groups == 1 else lanes
    inner = words * each if spikes else 1
    padded = np.zeros((to.groups * lanes, words * each if spikes else ins, height, width), np.int64)
    padded[:outs, :ins] = kernel
    if spikes:  # [row, column, word of the source, word of the layer, lane of the source, lane of the layer]
        parts = padded.reshape(to.groups, lanes, words, each, height, width).transpose(4, 5, 2, 0, 3, 1)
    else:  # [channel of the input, row, column, word of the layer, lane of the layer]
        parts = padded.reshape(to.groups, lanes, ins, height, width).transpose(2, 3, 4, 0, 1)
    tap = to.groups * inner
    return Map(
        rows=tuple(tuple((out * to.width * to.groups, k * width * tap) for k, out in taps) for taps in rows),
        columns=tuple(tuple((out * to.groups, k * tap) for k, out in taps) for taps in columns),
        weights=parts.reshape(-1, lanes),
        groups=to.groups,
        outers=1 if spikes else ins,
        outer_step=0 if spikes else height * width * to.groups,
        words=words if spikes else 1,
        word_step=to.groups * lanes if spikes else 0,
    )


def _grouped(
    kernel: NDArray[np.int64], groups: int, rows: Reaches, columns: Reaches, source: Layout, to: Layout
) -> Map:
    """Map each word of the source to some words of the layer: its columns are words, not places."""
    outs, ins, height, width = kernel.shape
    lanes, words = to.lanes, source.groups
    full = np.zeros((to.groups * lanes, words * lanes, height, width), np.int64)
    for group in range(groups):
        to_channels = slice(group * (outs // groups), (group + 1) * (outs // groups))
        full[to_channels, group * ins : (group + 1) * ins] = kernel[to_channels]
    blocks = full.reshape(to.groups, lanes, words, lanes, height, width).transpose(4, 5, 2, 0, 3, 1)
    pairs = [(z, g) for z in range(words) for g in range(to.groups) if blocks[:, :, z, g].any()]
    chosen = (
        np.stack([blocks[:, :, z, g] for z, g in pairs], 2) if pairs else np.zeros((height, width, 0, lanes, lanes))
    )
    tap = len(pairs) * lanes
    # For each word of the source, the words it reaches and where their weights lie in a tap.
    reached = [[(g, index * lanes) for index, (z, g) in enumerate(pairs) if z == word] for word in range(words)]
    return Map(
        rows=tuple(tuple((out * to.width * to.groups, k * width * tap) for k, out in taps) for taps in rows),
        columns=tuple(
            tuple((out * to.groups + g, k * tap + at) for k, out in taps for g, at in of_word)
            for taps in columns
            for of_word in reached
        ),
        weights=np.asarray(chosen, np.int64).reshape(-1, lanes),
    )


def unrolled(matrix: NDArray[np.int64], source: Layout | None, to: Layout, weight_bits: int) -> Iterator[Map]:
    """Return maps whose sum is ``matrix`` ``[from, to]``, in torch's order. source: None: the input, value by value."""
    lanes = to.lanes
    for shift, part in chunks(matrix, weight_bits):
        wide = np.zeros((len(matrix), to.words * lanes), np.int64)
        wide[:, to.place()] = part
        if source is None:
            rows = wide.reshape(len(matrix), 1, to.words, lanes)
        else:
            rows = np.zeros((source.words * lanes, to.words, lanes), np.int64)
            rows[source.place()] = wide.reshape(len(matrix), to.words, lanes)
            rows = rows.reshape(source.words, lanes, to.words, lanes)
        yield _blocks(rows, shift)


def _blocks(rows: NDArray[np.int64], shift: int) -> Map:
    """Return words of the source ``[N, lanes of the source, words, lanes]`` as columns; equal blocks are kept once."""
    known: dict[bytes, int] = {}
    kept: list[Lanes] = []
    columns = []
    for block in rows:
        taps = []
        for word in np.flatnonzero(block.any(axis=(0, 2))):
            part = np.ascontiguousarray(block[:, word])
            if part.tobytes() not in known:
                known[part.tobytes()] = len(kept)
                kept.append(part)
            taps.append((int(word), known[part.tobytes()] * len(part)))
        columns.append(tuple(taps))
    lanes = rows.shape[-1]
    weights = np.concatenate(kept) if kept else np.zeros((1, lanes), np.int64)
    return Map(rows=HERE, columns=tuple(columns), weights=weights, shift=shift)


def constant(values: NDArray[np.int64], to: Layout, weight_bits: int) -> Iterator[Map]:
    """Return maps of a source that always fires, whose weights' sum is ``values`` in torch's order."""
    for shift, part in chunks(values, weight_bits):
        words = to.spread(part)
        places = words.reshape(to.height * to.width, to.groups, to.lanes)
        if (places == places[0]).all():
            yield Map(
                rows=(tuple((row * to.width * to.groups, 0) for row in range(to.height)),),
                columns=(tuple((column * to.groups, 0) for column in range(to.width)),),
                weights=places[0],
                groups=to.groups,
                shift=shift,
            )
            continue
        taken = np.flatnonzero(words.any(axis=1))
        columns = tuple((int(word), index) for index, word in enumerate(taken))
        yield Map(rows=HERE, columns=(columns,), weights=words[taken], shift=shift)


def chunks(values: NDArray[np.int64], width: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Split signed numbers into (shift, part), each part within ``width`` bits, that sum to ``values``.

    As few parts as that takes, with the smallest shifts: these decide how wide the engine multiplies.
    """
    parts: list[tuple[int, NDArray[np.int64]]] | None = None
    count = 0
    while parts is None:
        count += 1
        tried = (_split(values.astype(np.int64), count, step, width) for step in range(1, width + 1))
        parts = next((split for split in tried if split is not None), None)
    yield from ((shift, part) for shift, part in parts if part.any())


def _split(values: NDArray[np.int64], count: int, step: int, width: int) -> list[tuple[int, NDArray[np.int64]]] | None:
    """``count`` parts, each ``step`` bits above the one before; None if the last takes more than ``width`` bits."""
    parts, left, half = [], values, 1 << (step - 1)
    for index in range(count - 1):
        part = (left + half) % (2 * half) - half  # 300 in steps of 8 bits: 44, and 1 times 256
        parts.append((index * step, part))
        left = (left - part) >> step
    if left.size and not -(1 << (width - 1)) <= left.min() <= left.max() < 1 << (width - 1):
        return None
    return [*parts, ((count - 1) * step, left)]


def words_of(numbers: Lanes, width: int, count: int) -> Lanes:
    """Split numbers ``[N, lanes]`` into ``count`` words of ``width`` bits, the lowest first: ``[N·count, lanes]``."""
    parts = [(numbers >> (width * i)) & ((1 << width) - 1) for i in range(count)]
    return np.stack(parts, 1).reshape(-1, numbers.shape[1])


def require_unrolled(nodes: Sequence[Node], count: int, layer: Node) -> int:
    """Return the steps of a way's response to ``count`` values; raise UnsupportedError if that is too large."""
    steps = 1 + sum(int(node.steps.max()) for node in nodes if isinstance(node, DelayNode))
    size = steps * count * max(count, *(math.prod(node.shape) for node in (*nodes, layer)))
    if size > MOST_UNROLLED:
        refuse(
            layer,
            "irregular-way",
            f"the path to it by {', '.join(node.name for node in nodes) or 'itself'} is no product of rows and "
            f"columns, and has {size:,} numbers",
            "put the pool or the flatten right before the weights, or use one gain for each channel",
        )
    return steps


def input_shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape that a node of a way reads."""
    if isinstance(node, DenseNode):
        return (node.weight.shape[1],)
    if isinstance(node, ConvNode):
        return (node.input_shape[0], node.input_shape[2]) if len(node.shape) == 2 else node.input_shape
    shape: tuple[int, ...] = getattr(node, "input_shape", node.shape)
    return shape


def uniform_delay(node: Node) -> int | None:
    """Return the steps of a uniform delay; None for another node."""
    if isinstance(node, DelayNode) and (node.steps == node.steps.flat[0]).all():
        return int(node.steps.flat[0])
    return None
