"""Emit products of two signals and rearranged values in C (spiking attention)."""

from __future__ import annotations

import math

import numpy as np

from stl_deploy.exporters.c.plan import Value
from stl_deploy.exporters.c.populations import Populations
from stl_deploy.integers.graph import GatherNode, ProductNode


class Products(Populations):
    """Add products, and the order of their operands."""

    def _gather(self, node: GatherNode) -> None:
        """Rearrange values: where each is read once, only their order changes; they are copied by the next reader."""
        value = self._read(node, node.operands[0])
        indices, positions = node.indices.reshape(-1), np.arange(len(value.order))
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

    def _product(self, node: ProductNode) -> None:
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

    def _operand(self, node: ProductNode, at: int) -> Value:
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
