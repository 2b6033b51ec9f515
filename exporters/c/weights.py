"""Emit layers of weights in C: rows in the order in which events add them, and initial sums."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.placing import Placing, over_axes
from stl_deploy.exporters.c.plan import Order, Value, channels_last
from stl_deploy.graph.program import Node, Shape
from stl_deploy.integers.graph import ConvNode, DenseNode, GainNode, Weighted
from stl_deploy.integers.net import Ints

LISTED = 256
"""Spikes of a dense layer that are listed at once; the sums of as many weights fit in 16 bits."""
MOST_OUTPUTS = 4096
"""Of a dense layer of paired weights: rows of more are too long for places of 16 bits to say where they begin."""
SLACK = 8
"""Places after a list: two that end it, and what is written eight at a time."""
FEW_CHANNELS = 8
"""With fewer, each input adds its kernel: a window would see too few spikes to be worth listing."""


class Weights(Placing):
    """Add up inputs."""

    def _accumulate(self, consumer: Node, sums: str, ctype: str, order: Order, into: Node) -> None:
        """Add every source of ``consumer`` to ``sums``, which hold their start already."""
        for source in consumer.operands:
            node = self.graph.by_name[source.node]
            if isinstance(node, Weighted) and self._waits(node):
                self._weights(node, sums, ctype, order)
            else:
                value = self._in_order(into, self._read(consumer, source), order)
                self._do("add", sums=sums, from_=value.at, count=len(order), form=(value.ctype, ctype))

    def _weights(self, node: Weighted, sums: str, ctype: str, order: Order) -> None:
        """Add the output of a layer of weights."""
        value = self._read(node, node.operands[0])
        share = self._share(node)
        shape = " x ".join(str(n) for n in node.weight.shape)
        if isinstance(node, DenseNode):
            tokens = math.prod(node.shape[:-1])
            if over_axes(node):
                value = self._in_order(node, value, np.arange(len(value.order)))
                weight = node.weight.T
            else:
                weight = node.weight[order][:, value.order].T
            ins, outs = weight.shape
            share.synops = tokens * node.weight.size
            given, pairs = value.ctype, 0
            if value.binary and in_pairs(outs) and outs < MOST_OUTPUTS:
                given, pairs = "spikes", self._pairs(outs, LISTED + SLACK)
                table = self._table(node, "weight", paired(weight), f"{shape}, by input, in pairs", "uint16_t")
            else:
                table = self._table(node, "weight", weight, f"{shape}, by input", "int8_t")
            to = {"sums": sums, "ins": ins, "outs": outs, "pairs": pairs, "tokens": tokens, "form": (given, ctype)}
            self._do("dense", from_=value.at, weight=table.name, **to)
        elif isinstance(node, GainNode):
            full = np.broadcast_to(node.weight, node.shape).reshape(-1)[order]
            count = len(full)
            value = self._in_order(node, value, order)
            row = self._row(node)
            if (full.reshape(-1, row) == full[:row]).all():
                full = full[:row]
            table = self._table(node, "weight", full, shape, "int8_t")
            share.synops = count
            self._do(
                "gain",
                sums=sums,
                from_=value.at,
                weight=table.name,
                row=len(full),
                rows=count // len(full),
                form=(value.ctype, ctype),
            )
        else:
            self._conv(node, value, sums, ctype, order)

    def _pairs(self, outs: int, listed: int) -> int:
        """Return the words in a row of pairs; reserve room for a list of spikes."""
        self.made.pairs.add(pairs_of(outs))
        self.made.padding = max(self.made.padding, 2 * pairs_of(outs) - outs)
        self.made.listed = max(self.made.listed, listed)
        return pairs_of(outs)

    def _conv(self, node: ConvNode, value: Value, sums: str, ctype: str, order: Order) -> None:
        value = self._in_order(node, value, channels_last(node.input_shape))
        assert np.array_equal(order, channels_last(node.shape))
        outs, ins, height, width = node.weight.shape
        _, in_height, in_width = _image(node.input_shape)
        grouped = node.weight.reshape(node.groups, outs // node.groups, ins, height, width)
        by_input = grouped.transpose(0, 2, 3, 4, 1)
        shape, pairs, given = " x ".join(str(n) for n in node.weight.shape), 0, value.ctype
        if value.binary and in_pairs(outs) and _gathers(node):
            kind, given = "conv_window", "spikes"
            pairs = self._pairs(outs, height * in_width * ins + SLACK)
            self.made.starts = max(self.made.starts, in_width + 1)
            rows = paired(by_input[0].transpose(2, 1, 0, 3))
            table = self._table(node, "weight", rows, f"{shape}, by tap and input channel, in pairs", "uint16_t")
        elif in_pairs(outs) and self._takes_levels(node, ctype):
            kind, given = "conv_levels", "levels"
            pairs = self._pairs(outs, 2 * height * in_width * ins)
            self.made.starts = max(self.made.starts, in_width + 1)
            rows = paired(by_input[0].transpose(2, 1, 0, 3))
            table = self._table(node, "weight", rows, f"{shape}, by tap and input channel, in pairs", "uint16_t")
        elif node.stride == node.dilation == (1, 1) and node.groups == 1:
            kind, comment = "conv", f"{shape}, by input channel, columns last to first"
            table = self._table(node, "weight", by_input[:, :, :, ::-1], comment, "int8_t")
            if value.binary and in_width * ins < 2**16 - 1:
                given = "spikes"
                self.made.listed = max(self.made.listed, in_width * ins + SLACK)
        else:
            kind = "conv_any"
            table = self._table(node, "weight", by_input, f"{shape}, by input channel", "int8_t")
        fan_out = conv_fan_out(node)
        self._share(node).synops = int(fan_out.sum()) * node.input_shape[0]
        _, out_height, out_width = _image(node.shape)
        self._do(
            kind,
            line=out_width * outs,
            sums=sums,
            from_=value.at,
            weight=table.name,
            layer=f"{self.ids[node.name]}_shape",
            numbers={
                "channels": node.input_shape[0],
                "height": in_height,
                "width": in_width,
                "out_channels": outs,
                "pairs": pairs,
                "out_height": out_height,
                "out_width": out_width,
                "kernel_height": height,
                "kernel_width": width,
                "top": node.padding[0][0],
                "left": node.padding[1][0],
                "stride_rows": node.stride[0],
                "stride_columns": node.stride[1],
                "dilation_rows": node.dilation[0],
                "dilation_columns": node.dilation[1],
                "groups": node.groups,
            },
            form=(given, ctype),
        )

    def _takes_levels(self, node: ConvNode, ctype: str) -> bool:
        """Return whether every output adds its inputs from one list of places and values, exactly in 16 bits."""
        low, high = self.known[node.operands[0].node].values
        _, channels, height, width = node.weight.shape
        # Halves are added modulo 2^16: exact where the sum has 16 bits, or no more levels arrive than LISTED spikes.
        exact = ctype == "int16_t" or channels * height * width * high <= LISTED
        return low == 0 and high <= 255 and not node.operands[0].delay and exact and _windowed(node, 2)

    def _start(self, node: Node, sums: str, ctype: str, order: Order, bias: Ints | None) -> None:
        """Initialise ``sums``: the biases, or 0."""
        total = None if bias is None else np.broadcast_to(bias, node.shape).astype(np.int64)
        for source in node.operands:
            inner = self.graph.by_name[source.node]
            if isinstance(inner, DenseNode | ConvNode) and self._waits(inner) and inner.bias is not None:
                own = inner.bias if over_axes(inner) else inner.bias.reshape(-1, *(1,) * (len(node.shape) - 1))
                total = (np.zeros(node.shape, np.int64) if total is None else total) + own
        count, lines = len(order), _image(node.shape)[1] if len(node.shape) > 1 else 1
        if total is None or not total.any():
            self._do("clear", to=sums, count=count, lines=lines, ctype=ctype, form=(ctype,))
            return
        flat = total.reshape(-1)[order]
        row = self._row(node)
        if (flat.reshape(-1, row) == flat[:row]).all():
            flat = flat[:row]
        table = self._table(node, "bias", flat, "added in every step", ctype)
        rows = count // len(flat)
        self._do("fill", to=sums, bias=table.name, row=len(flat), rows=rows, lines=lines, form=(ctype,), ctype=ctype)

    def _set_aside(self, ctype: str, count: int) -> None:
        """Reserve the current layer's sums."""
        self.made.sums[ctype] = max(self.made.sums.get(ctype, 0), count)

    def _own_sums(self, node: Weighted) -> None:
        """Place a layer's sums in a buffer of its own, if a reader is no population."""
        self._head(node)
        value = self._own(node)
        order = value.order
        name = self._buffer(node, "values", value.ctype, len(order) + _padding(node), "sums")
        bias = None if isinstance(node, GainNode) or node.bias is None else node.bias
        if bias is not None and not over_axes(node):
            bias = bias.reshape(-1, *(1,) * (len(node.shape) - 1))
        self._start(replace(node, operands=()), name, value.ctype, order, bias)
        self._weights(node, name, value.ctype, order)
        self.values[node.name] = replace(value, order=order)


def _image(shape: Shape) -> tuple[int, int, int]:
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def conv_fan_out(node: ConvNode) -> NDArray[np.int64]:
    """Return the taps inside the output from each input position ``(H, W)``, of one channel."""
    _, out_height, out_width = _image(node.shape)
    ways = []
    for axis, size in ((0, out_height), (1, out_width)):
        reached = np.zeros(node.input_shape[1 + axis], np.int64)
        for tap in range(node.weight.shape[2 + axis]):
            at = np.arange(size) * node.stride[axis] - node.padding[axis][0] + tap * node.dilation[axis]
            np.add.at(reached, at[(at >= 0) & (at < len(reached))], 1)
        ways.append(reached)
    return np.outer(*ways) * (len(node.weight) // node.groups)


def _gathers(node: ConvNode) -> bool:
    """Return whether every output adds its spikes from one list: several channels, windows without holes."""
    return node.weight.shape[1] >= FEW_CHANNELS and _windowed(node, 1)


def _windowed(node: ConvNode, each: int) -> bool:
    """Return whether windows have no holes and no groups, and a list of ``each`` words per row is short enough."""
    _, channels, height, width = node.weight.shape
    inside = all(max(padding) < size for padding, size in zip(node.padding, (height, width), strict=True))
    places = _image(node.input_shape)[2] * channels * height
    blocks = (places if each > 1 else channels * height) * (pairs_of(len(node.weight)) // 8)
    listed = max(each * places, blocks) < 2**16 - 1
    return node.groups == 1 and node.dilation == (1, 1) and inside and listed


def pairs_of(outs: int) -> int:
    """Return the words of two weights in a row, in blocks of 8 words."""
    return -(-outs // 16) * 8


def _padding(node: Weighted) -> int:
    """Return the places after its sums that the last row of a layer's weights may add 0 to."""
    outs = 0 if isinstance(node, GainNode) else len(node.weight)
    return 2 * pairs_of(outs) - outs if in_pairs(outs) else 0


def in_pairs(outs: int) -> bool:
    """Return whether rows are stored in pairs: not if more than three eighths of a row would be padding."""
    return 5 * 2 * pairs_of(outs) <= 8 * outs


def paired(weight: Ints) -> NDArray[np.uint16]:
    """Return rows ``[..., outs]`` as words: weight i + 128 and 256 times weight pairs + i + 128; padding weighs 0."""
    pairs = pairs_of(weight.shape[-1])
    rows = np.zeros((*weight.shape[:-1], 2 * pairs), np.int64)
    rows[..., : weight.shape[-1]] = weight
    words: NDArray[np.int64] = rows[..., :pairs] + 128 + 256 * (rows[..., pairs:] + 128)
    return words.astype(np.uint16)


def scratch(ctype: str) -> str:
    """Return the place of the current layer's sums."""
    return "s->scratch.s16" if ctype == "int16_t" else "s->scratch.s32"
