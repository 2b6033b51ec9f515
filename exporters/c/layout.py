"""Lay an `IntegerGraph` out as a `Plan`, node by node; products (spiking attention) included."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stl_deploy.exporters.c.plan import Plan, Value, channels_last, narrowest
from stl_deploy.exporters.c.populations import Populations
from stl_deploy.exporters.c.weights import scratch
from stl_deploy.graph.program import Node, Operand, Reshape
from stl_deploy.integers import graph as int_ir


class Products(Populations):
    """Add products, and the order of their operands."""

    def _gather(self, node: int_ir.GatherNode) -> None:
        """Rearrange values: where each is read once, only their order changes; they are copied by the next reader."""
        value = self._read(node, node.operands[0])
        indices, positions = node.indices.reshape(-1), np.arange(len(value.order))
        # Not where it is read a step later: the reader stands before it, and knows no place but one of the node's own.
        if not self._delayed(node.name) and np.array_equal(np.sort(indices), positions):
            where = np.empty_like(positions)
            where[indices] = positions
            self.values[node.name] = Value(value.at, value.ctype, value.binary, where[value.order])
            return
        self._head(node)
        places = np.empty_like(positions)
        places[value.order] = positions
        table = self._table(node, "places", np.where(indices < 0, -1, places[indices]), "where each comes from, or -1")
        made = Value(
            self._buffer(node, "values", value.ctype, len(indices), "rearranged"),
            value.ctype,
            value.binary,
            self._order(node),
        )
        self._do("gather", to=made.at, from_=value.at, table=table.name, count=len(indices), some=-1 in indices)
        self.values[node.name] = made

    def _product(self, node: int_ir.ProductNode) -> None:
        """Multiply row by row: every value of the first operand that is not 0 adds its multiple of a row."""
        self._head(node)
        left, right = (self._operand(node, at) for at in (0, 1))
        made = self._own(node)
        self._buffer(node, "values", made.ctype, len(made.order), "sums of products")
        terms = node.operand_shapes[0][-1] if node.matrices else 1
        rows, columns = (node.shape[-2], node.shape[-1]) if node.matrices else (1, len(made.order))
        self._share(node).synops = len(made.order) * terms
        self._do(
            "product" if node.matrices else "multiply",
            to=made.at,
            left=left.at,
            right=right.at,
            batch=math.prod(node.shape[:-2]) if node.matrices else 1,
            rows=rows,
            terms=terms,
            columns=columns,
            count=len(made.order),
            ctype=made.ctype,
            form=(left.ctype, right.ctype, made.ctype),
        )
        self.values[node.name] = made

    def _operand(self, node: int_ir.ProductNode, at: int) -> Value:
        """Return an operand's values in torch's order, repeated along the axes that it has once."""
        value, shape = self._read(node, node.operands[at]), node.operand_shapes[at]
        full = (*node.shape[:-2], *shape[-2:]) if node.matrices else node.shape
        positions = np.arange(math.prod(shape))
        wanted = np.broadcast_to(positions.reshape(shape), full).reshape(-1)
        if np.array_equal(wanted, positions):
            return self._in_order(node, value, positions)
        places = np.empty_like(positions)
        places[value.order] = positions
        table = self._table(node, f"repeat_{at}", places[wanted], "where each value comes from")
        name = self._buffer(node, f"repeated_{at}", value.ctype, len(wanted), "repeated")
        self._do("gather", to=name, from_=value.at, table=table.name, count=len(wanted), some=False)
        return Value(name, value.ctype, value.binary, np.arange(len(wanted)))


def make_plan(graph: int_ir.IntegerGraph) -> Plan:
    """Lay a graph out; raise UnsupportedError (node, reason) if sums do not fit in 32 bits."""
    return _Layout(_with_sums(graph)).plan()


def _with_sums(graph: int_ir.IntegerGraph) -> int_ir.IntegerGraph:
    """Insert an adding node before nodes that read several sources and do not add them."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if len(node.operands) > 1 and not isinstance(
            node, int_ir.ProductNode | int_ir.IntegerLIF | int_ir.IntegerLI | int_ir.IntegerOutput
        ):
            shape = graph.by_name[node.operands[0].node].shape
            total = Reshape(name=f"{node.name}.in", shape=shape, operands=node.operands, input_shape=shape)
            nodes.append(total)
            node = replace(node, operands=(Operand(total.name),))
        nodes.append(node)
    return int_ir.IntegerGraph(tuple(nodes), graph.accumulator)


class _Layout(Products):
    """Lay out every node in order."""

    def plan(self) -> Plan:
        """Lay every node out."""
        for node in self.graph.nodes:
            if self._waits(node) or node.name in self.fused:
                continue
            match node:
                case int_ir.IntegerInput():
                    self._input(node)
                case int_ir.DenseNode() | int_ir.ConvNode() | int_ir.GainNode():
                    self._own_sums(node)
                case int_ir.SumPoolNode():
                    self._sum_pool(node)
                case int_ir.MaxPoolNode():
                    self._max_pool(node)
                case Reshape():
                    self._reshape(node)
                case int_ir.GatherNode():
                    self._gather(node)
                case int_ir.ProductNode():
                    self._product(node)
                case int_ir.DelayNode():
                    self._delay(node)
                case int_ir.IntegerLIF():
                    self._population(node)
                case int_ir.IntegerLI():
                    self._integrator(node)
                case int_ir.IntegerOutput():
                    self._output(node)
        return self.made

    def _input(self, node: int_ir.IntegerInput) -> None:
        self._head(node)
        order = channels_last(node.shape)
        ctype = narrowest((node.low, node.high))
        count = len(order)
        name = self._buffer(node, "values", ctype, count, "channels last")
        channels = node.shape[0] if len(node.shape) > 1 else 1
        self._do(
            "input", to=name, ctype=ctype, channels=channels, positions=count // channels, low=node.low, high=node.high
        )
        self.values[node.name] = Value(name, ctype, node.low >= 0 and node.high <= 1, order)

    def _reshape(self, node: Reshape) -> None:
        if len(node.operands) == 1:
            self.values[node.name] = self._read(node, node.operands[0])
            return
        self._head(node)
        made = self._own(node)
        name = self._buffer(node, "values", made.ctype, len(made.order), "sums")
        self._do("clear", to=name, count=len(made.order), lines=1, ctype=made.ctype, form=(made.ctype,))
        self._accumulate(node, name, made.ctype, made.order, node)
        self.values[node.name] = made

    def _delay(self, node: int_ir.DelayNode) -> None:
        self._head(node)
        value = self._in_order(node, self._read(node, node.operands[0]), self._order(node))
        count = len(value.order)
        steps = np.broadcast_to(node.steps, node.shape).reshape(-1)[value.order]
        length = int(steps.max()) + 1
        name = self._buffer(node, "values", value.ctype, count, "delayed")
        line = self._buffer(node, "line", value.ctype, count * length, f"the last {length} steps")
        now = self._buffer(node, "now", "int32_t", 1, "where this step stands in the line")
        same = int(steps[0]) if (steps == steps[0]).all() else None
        table = None if same is not None else self._table(node, "steps", steps, "steps of delay").name
        kind = "" if table is None else self._share(node).tables[-1].ctype
        self._do(
            "delay",
            to=name,
            from_=value.at,
            line=line,
            now=now,
            length=length,
            count=count,
            same=same,
            table=table,
            form=(value.ctype, kind),
        )
        self.values[node.name] = replace(value, at=name)

    def _output(self, node: int_ir.IntegerOutput) -> None:
        self._head(node)
        if len(node.operands) == 1 and not self._waits(self.graph.by_name[node.operands[0].node]):
            value = self._read(node, node.operands[0])
        else:
            order = self._order(node)
            inner = self.known[node.name].sums
            ctype = narrowest(inner, "int16_t", "int32_t")
            sums = scratch(ctype)
            self._set_aside(ctype, len(order))
            self._start(node, sums, ctype, order, None)
            self._accumulate(node, sums, ctype, order, node)
            value = Value(sums, ctype, False, order)
        plain = np.array_equal(value.order, np.arange(len(value.order)))
        channels = node.shape[0] if len(node.shape) > 1 else 1
        if not plain:
            value = self._in_order(node, value, channels_last(node.shape))
        self._do(
            "output",
            from_=value.at,
            positions=len(value.order) // channels,
            channels=1 if plain else channels,
            count=len(value.order),
        )
