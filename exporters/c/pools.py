"""Pool in C: sums over windows, and max pooling as OR, alone or with the neurons before it."""

from __future__ import annotations

import math
from typing import Any

from stl_deploy.exporters.c.plan import Order, Value, channels_last
from stl_deploy.exporters.c.rule import kept
from stl_deploy.exporters.c.weights import Weights
from stl_deploy.graph.program import Node
from stl_deploy.integers.graph import IntegerLIF, MaxPoolNode, SumPoolNode


class Pools(Weights):
    """Add pools."""

    def _or_pooled(self, node: SumPoolNode) -> bool:
        """Return whether the only reader fires at the first spike of a window, which needs no sums."""
        reader = self._only_reader(node)
        return reader is not None and is_or(reader) and self._spikes_arrive(node)

    def _spikes_arrive(self, node: SumPoolNode) -> bool:
        source = node.operands[0]
        inner = self.graph.by_name[source.node]
        return not source.delay and isinstance(inner, IntegerLIF) and inner.neuron.cap == 1

    def _sum_pool(self, node: SumPoolNode) -> None:
        if self._or_pooled(node):
            return
        self._head(node)
        value = self._in_order(node, self._read(node, node.operands[0]), channels_last(node.input_shape))
        made = self._own(node)
        count = len(made.order)
        name = self._buffer(node, "values", made.ctype, count, "sums")
        self._share(node).synops = count * math.prod(node.kernel)
        self._do(
            "sum_pool",
            to=name,
            from_=value.at,
            layer=f"{self.ids[node.name]}_shape",
            numbers=_pool_numbers(node),
            count=count,
            form=(value.ctype, made.ctype),
        )
        self.values[node.name] = made

    def _max_pool(self, node: MaxPoolNode) -> None:
        self._head(node)
        inner = self._read(node, node.operands[0])
        value = self._in_order(node, inner, channels_last(self.graph.by_name[node.operands[0].node].shape))
        order = self._of_largest(node, node)
        name = self._buffer(node, "values", value.ctype, len(order), "largest values")
        self._do(
            "max_pool",
            to=name,
            from_=value.at,
            layer=f"{self.ids[node.name]}_shape",
            numbers=_pool_numbers(node),
            count=len(order),
            form=(value.ctype,),
        )
        self.values[node.name] = Value(name, value.ctype, value.binary, order)

    def _of_largest(self, node: Node, pool: MaxPoolNode | SumPoolNode) -> Order:
        """Account for the largest values of a pool's windows, which a node puts out; return its order."""
        order, share = channels_last(node.shape), self._share(node)
        share.what += f", largest of {pool.kernel[0]} x {pool.kernel[1]}"
        share.synops = len(order) * math.prod(pool.kernel)
        return order

    def _or_pool(self, node: IntegerLIF, pool: SumPoolNode) -> None:
        self._head(node)
        value = self._in_order(pool, self._read(pool, pool.operands[0]), channels_last(pool.input_shape))
        order = self._of_largest(node, pool)
        name = self._spikes_of(node, len(order))
        self._do(
            "or_pool",
            to=name,
            from_=value.at,
            layer=f"{self.ids[pool.name]}_shape",
            numbers=_pool_numbers(pool),
            count=len(order),
            record=self._record(node, order),
        )
        self.values[node.name] = Value(name, "uint8_t", True, order)

    def _fusable(self, node: IntegerLIF) -> tuple[SumPoolNode, IntegerLIF] | None:
        """Return the max pool that alone reads a population, with disjoint windows inside the borders."""
        pool = self._only_reader(node)
        if not isinstance(pool, SumPoolNode) or not self._or_pooled(pool):
            return None
        if pool.padding != ((0, 0), (0, 0)) or pool.kernel != pool.stride or len(node.shape) != 3:
            return None
        if any(size % window for size, window in zip(node.shape[1:], pool.kernel, strict=True)) or node.shape[2] == 1:
            return None
        reader = self._only_reader(pool)
        assert isinstance(reader, IntegerLIF)
        return pool, reader

    def _fuse(
        self, node: IntegerLIF, fused: tuple[SumPoolNode, IntegerLIF], values: dict[str, Any], record: int
    ) -> None:
        pool, reader = fused
        self.fused |= {pool.name, reader.name}
        channels, height, width = node.shape
        out_width = reader.shape[2]
        order = self._of_largest(reader, pool)
        name = self._spikes_of(reader, len(order))
        self.made.rows = max(self.made.rows, width * channels)
        self._do(
            "neurons_pooled",
            **values,
            to=name,
            record=record,
            pooled=self._share(reader).node,
            count_out=len(order),
            height=height,
            width=width,
            channels=channels,
            kernel=pool.kernel,
            out_width=out_width,
            record_out=self._record(reader, order),
        )
        self.values[reader.name] = Value(name, "uint8_t", True, order)


def is_or(node: Node) -> bool:
    """Return whether a population fires on any positive input and keeps no state."""
    return (
        isinstance(node, IntegerLIF)
        and node.bias is None
        and len(node.operands) == 1
        and kept(node.neuron.v_decay) == 0
        and kept(node.neuron.i_decay) == 0
        and node.neuron.reset == "value"
        and node.neuron.cap == 1
        and node.neuron.adaptation is None
        and node.neuron.v_start is None
        and not node.neuron.threshold.any()
    )


def _pool_numbers(node: SumPoolNode | MaxPoolNode) -> dict[str, int]:
    _, *out = (node.shape[0], 1, node.shape[1]) if len(node.shape) == 2 else node.shape
    return {
        "channels": node.shape[0],
        "height": node.input_shape[1],
        "width": node.input_shape[2],
        "out_height": out[0],
        "out_width": out[1],
        "kernel_height": node.kernel[0],
        "kernel_width": node.kernel[1],
        "top": node.padding[0][0],
        "left": node.padding[1][0],
        "stride_rows": node.stride[0],
        "stride_columns": node.stride[1],
    }
