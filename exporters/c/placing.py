"""Assign C storage to the values of an `IntegerGraph`: tables, buffers, and readers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.names import identifiers, in_comment
from stl_deploy.exporters.c.plan import (
    Buffer,
    Order,
    Plan,
    Recorded,
    Share,
    Step,
    Table,
    Value,
    channels_last,
    narrowest,
    table_type,
)
from stl_deploy.graph.program import Node, Operand, Reshape
from stl_deploy.integers import graph as int_ir
from stl_deploy.integers.bounds import bounds, require_sums

_KINDS: dict[type[Node], str] = {
    int_ir.IntegerInput: "input",
    int_ir.DenseNode: "dense",
    int_ir.ConvNode: "convolution",
    int_ir.GainNode: "gain",
    int_ir.SumPoolNode: "sum pooling",
    int_ir.MaxPoolNode: "max pooling",
    Reshape: "sum",
    int_ir.GatherNode: "rearranging",
    int_ir.ProductNode: "product",
    int_ir.DelayNode: "delay",
    int_ir.IntegerLIF: "neurons",
    int_ir.IntegerLI: "integrators",
    int_ir.IntegerOutput: "output",
}


class Placing:
    """A graph, and the values already placed."""

    def __init__(self, graph: int_ir.IntegerGraph) -> None:
        require_sums(graph)
        self.graph, self.known = graph, bounds(graph)
        self.ids = identifiers(node.name for node in graph.nodes)
        self.made = Plan(graph)
        self.values: dict[str, Value] = {}
        self.place = {node.name: i for i, node in enumerate(graph.nodes)}
        self.readers: dict[str, list[tuple[Node, Operand]]] = {node.name: [] for node in graph.nodes}
        for node in graph.nodes:
            for source in node.operands:
                self.readers[source.node].append((node, source))
        self.fused: set[str] = set()
        self.rows_last: set[str] = set()
        for node in graph.nodes:
            if self._has_rows_last(node):
                self.rows_last.add(node.name)

    def _has_rows_last(self, node: Node) -> bool:
        """Return whether a node's values stand in torch's order, for their rows (of tokens) are the last axis."""
        if isinstance(node, int_ir.GatherNode | int_ir.ProductNode) or over_axes(node):
            return True
        before = [self.graph.by_name[operand.node] for operand in node.operands]
        if (
            not isinstance(node, int_ir.GainNode | int_ir.DelayNode | Reshape | int_ir.IntegerLIF | int_ir.IntegerLI)
            or not before
        ):
            return False
        return all(not isinstance(each, int_ir.ConvNode) for each in before) and before[0].name in self.rows_last

    def _order(self, node: Node) -> Order:
        """Return the torch position of each place of a node's values."""
        return np.arange(math.prod(node.shape)) if node.name in self.rows_last else channels_last(node.shape)

    def _row(self, node: Node) -> int:
        """Return how many places a row of a node's values has."""
        if len(node.shape) == 1:
            return node.shape[0]
        return node.shape[-1] if node.name in self.rows_last else node.shape[0]

    def _delayed(self, name: str) -> bool:
        """Return whether a node's values are read a step later, possibly in another shape."""
        return any(
            source.delay or (isinstance(reader, Reshape) and len(reader.operands) == 1 and self._delayed(reader.name))
            for reader, source in self.readers[name]
        )

    def _only_reader(self, node: Node) -> Node | None:
        """Return the only reader of a node in the same step, or None."""
        readers = self.readers[node.name]
        return readers[0][0] if len(readers) == 1 and not readers[0][1].delay else None

    def _waits(self, node: Node) -> bool:
        """Return whether the only reader of a layer of weights adds it up."""
        reader = self._only_reader(node)
        if over_axes(node) and reader is not None and reader.name not in self.rows_last:
            return False
        return isinstance(node, int_ir.Weighted) and isinstance(
            reader, int_ir.IntegerLIF | int_ir.IntegerLI | int_ir.IntegerOutput
        )

    def _share(self, node: Node) -> Share:
        if node.name not in self.made.shares:
            shape = " x ".join(str(n) for n in node.shape)
            kind = _KINDS[type(node)]
            self.made.shares[node.name] = Share(in_comment(node.name), f"{kind}, {shape}")
        return self.made.shares[node.name]

    def _do(self, kind: str, **fields: Any) -> None:
        self.made.steps.append(Step(kind, fields))

    def _head(self, node: Node) -> None:
        share = self._share(node)
        number = sum(step.kind == "head" for step in self.made.steps)
        self._do("head", node=share.node, what=share.what, number=number)

    def _table(self, node: Node, what: str, values: NDArray[Any], comment: str, ctype: str = "") -> Table:
        flat = np.ascontiguousarray(values).reshape(-1)
        table = Table(f"{self.ids[node.name]}_{what}", ctype or table_type(flat), flat, comment)
        self._share(node).tables.append(table)
        return table

    def _buffer(self, node: Node, what: str, ctype: str, count: int, comment: str) -> str:
        buffer = Buffer(f"{self.ids[node.name]}_{what}", ctype, count, comment)
        self._share(node).buffers.append(buffer)
        return buffer.at

    def _at(self, node: Node, what: str) -> str:
        """Return a node's buffer; create it if need be."""
        return f"s->{self.ids[node.name]}_{what}"

    def _spikes_of(self, node: int_ir.IntegerLIF, count: int) -> str:
        comment = "1 where a neuron fired" if node.neuron.cap == 1 else "how often each neuron fired"
        return self._buffer(node, "spikes", "uint8_t", count, comment)

    def _record(self, node: Node, order: Order) -> int:
        offset = sum(math.prod(population.shape) for population in self.made.recorded)
        self.made.recorded.append(Recorded(node.name, node.shape, offset, tuple(int(i) for i in order)))
        return offset

    def _read(self, reader: Node, source: Operand) -> Value:
        """Return a source's values, of this step or of the one before."""
        if not source.delay:
            return self.values[source.node]
        node = self.graph.by_name[source.node]
        if source.node in self.values:  # already written in this step: keep what was there
            return self._kept(node, self.values[source.node])
        if isinstance(node, Reshape) and len(node.operands) == 1:
            inner = node.operands[0]
            if inner.delay:  # two steps before
                return self._kept(node, self._read(node, inner))
            # What it passes on may be written already, though the node itself stands later in the step.
            return self._read(node, Operand(inner.node, 1))
        value = self._promised(node)
        # These pass values on without a copy, also to readers behind the node, which writes its place anew.
        return self._kept(node, value) if isinstance(reader, Reshape | int_ir.GatherNode) else value

    def _kept(self, node: Node, value: Value) -> Value:
        """Return a node's values of the step before, from a copy that each step makes at its end."""
        name, count = self._at(node, "before"), math.prod(node.shape)
        if not any(buffer.at == name for buffer in self._share(node).buffers):
            self._buffer(node, "before", value.ctype, count, "of the step before")
            copy = Step("keep", {"to": name, "from_": value.at, "count": count, "ctype": value.ctype})
            # A copy of a copy, two steps before, is made before that is overwritten.
            self.made.last.insert(0 if value.at.endswith("_before") else len(self.made.last), copy)
        return replace(value, at=name)

    def _promised(self, node: Node) -> Value:
        """Return the storage of a node later in the step; until then it holds the previous step."""
        if isinstance(node, int_ir.IntegerLIF):
            return Value(self._at(node, "spikes"), "uint8_t", node.neuron.cap == 1, self._order(node))
        return self._own(node)

    def _own(self, node: Node) -> Value:
        ctype = self._type(node)
        return Value(self._at(node, "values"), ctype, False, self._order(node))

    def _type(self, node: Node) -> str:
        if isinstance(node, int_ir.DelayNode | int_ir.MaxPoolNode | int_ir.GatherNode):  # values that are moved alone
            return self._type(self.graph.by_name[node.operands[0].node])
        if isinstance(node, int_ir.Weighted):
            return narrowest(self.known[node.name].values, "int16_t", "int32_t")
        return narrowest(self.known[node.name].values)

    def _in_order(self, node: Node, value: Value, order: Order) -> Value:
        """Return the values in another order, copied if need be."""
        if np.array_equal(value.order, order):
            return value
        inverse = np.empty(len(order), np.int64)
        inverse[value.order] = np.arange(len(order))
        number = sum(step.kind == "reorder" for step in self.made.steps)
        table = self._table(node, f"order_{number}", inverse[order], "where each value comes from")
        name = self._buffer(node, f"moved_{number}", value.ctype, len(order), "in the order of channels last")
        self._do(
            "reorder", to=name, from_=value.at, table=table.name, count=len(order), form=(value.ctype, table.ctype)
        )
        return Value(name, value.ctype, value.binary, order)


def over_axes(node: Node) -> bool:
    """Return whether a node is a dense layer over several axes, each token for itself."""
    return isinstance(node, int_ir.DenseNode) and len(node.shape) > 1
