"""Write Cells without states as sums and ReLUs with or without a cap, however the user wrote those.

Each value of a Cell is a piecewise-linear function of a sum x of its operands, in exact arithmetic (`Piecewise`). One
without knots is an affine sum. A continuous one is a constant and a ReLU for each part with a slope, with a cap where
that part ends on both sides: ReLU6 and h·(h > 0) are one ReLU, a leaky ReLU is two. One that is rounded to integers
from 0 to a cap is a count already, as quantisation-aware training writes it. Others are refused, by operation and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from math import floor, prod, trunc
from typing import Any, NamedTuple

import numpy as np

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import OPERATIONS, Cell, Constant, Operation
from stl_deploy.graph.neuron_cells import as_cell
from stl_deploy.passes.base import Nodes, bypassed, with_nodes
from stl_deploy.passes.permutations import keeps_order
from stl_deploy.passes.piecewise import (
    EXACT,
    IDENTITY,
    NO_RAMP,
    TRUNCATED,
    NotPiecewiseError,
    Piecewise,
    Ramp,
    clipped,
    constant,
)


def ramps_for_cells(program: ir.Program) -> ir.Program:
    """Return the Program with a ReLU, a cap or a sum for each part of its Cells; raise UnsupportedError for others."""
    nodes: Nodes = {}
    instead: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for node in program.nodes:
        operands = tuple(ir.Operand(instead.get(each.node, each.node), each.delay) for each in node.operands)
        node = replace(node, operands=operands)
        reading = _Reading(node) if isinstance(node, Cell) else _gated(node, nodes)
        if reading is not None:
            instead[node.name], *others = reading.outputs
            nodes |= reading.made
            several |= {reading.outputs[0]: reading.outputs} if others else {}
        elif isinstance(node, ir.Gather) and operands[0].node in several:
            output = _of_one_output(node, nodes, several[operands[0].node])
            if output.shape == output.input_shape and keeps_order(output):
                instead[node.name] = output.operands[0].node
            else:
                nodes[node.name] = output
        else:
            nodes[node.name] = node
    read = {each.node for node in nodes.values() for each in node.operands}
    for gate in [name for name in nodes if name not in read and program.readers.get(name)]:
        del nodes[gate]
    return with_nodes(program, nodes)


def _gated(product: ir.Node, nodes: Nodes) -> _Reading | None:
    """Read a value times whether it is above a threshold; None for others."""
    if not isinstance(product, ir.Product) or product.matrices:
        return None
    for value, factor in (product.operands, product.operands[::-1]):
        gate = nodes[factor.node]
        if isinstance(gate, ir.Neuron) and gate.operands == (value,) and not (cell := as_cell(gate)).states:
            times = Operation("gated", "mul", (*cell.names, *cell.outputs), "float32")
            whole = replace(cell, name=product.name, operations=(*cell.operations, times), outputs=(times.name,))
            with suppress(UnsupportedError):
                return _Reading(whole)
    return None


def _of_one_output(node: ir.Gather, nodes: Nodes, outputs: Sequence[str]) -> ir.Gather:
    """Return a Gather from a Cell's outputs, which lie one after another, as one from the node of the one it takes."""
    shape, indices = nodes[outputs[0]].shape, node.indices
    number = int(indices.max()) // prod(shape)
    own = np.where(indices < 0, -1, indices - number * prod(shape))
    return replace(node, operands=(ir.Operand(outputs[number]),), indices=own, input_shape=shape)


def caps(program: ir.Program) -> Mapping[str, ir.Floats]:
    """Return the cap ``[C]`` or ``[1]`` of each ReLU that has one, by its name."""
    return {cell.operands[0].node: np.float32(cell.constants[0].value).reshape(-1) for cell in program.of(Cell)}


def without_caps(program: ir.Program) -> ir.Program:
    """Return the Program without caps, for neurons whose counts are bounded."""
    return with_nodes(program, bypassed(program.by_name, [cell.name for cell in program.of(Cell)]))


@dataclass(frozen=True, eq=False)
class _Rounding:
    """gain·x + offset rounded to integers; numbers broadcast to the shape."""

    gain: ir.Floats
    offset: ir.Floats
    rule: ir.Rounding


class _Root(NamedTuple):
    """The sum of operands that values are functions of, or that sum rounded."""

    operands: tuple[ir.Operand, ...]
    rounding: _Rounding | None = None


class _Value(NamedTuple):
    """A function of a root for each distinct set of constants (see `_Reading.numbers`)."""

    root: _Root
    functions: Sequence[Piecewise]


_ROUNDINGS: Mapping[str, tuple[Callable[[Fraction], int], ir.Rounding]] = {
    "round": (round, "half_even"),
    "floor": (floor, "down"),
    "trunc": (trunc, "down"),
}


def _unless(values: ir.Floats, neutral: float) -> ir.Floats | None:
    return None if (values == neutral).all() else values


class _Reading:
    """Reads the operations of one Cell. made: the nodes in its place. outputs: the last one of each output.

    Constants that are equal in every respect give equal functions, so each distinct set is read once: its first place
    is in ``first``, and ``inverse`` has the set of each place.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.made: Nodes = {}
        self.numbers: dict[str, Any] = {each.name: each.value for each in cell.constants}
        self.places = np.broadcast_shapes((), *(each.shape for each in self.numbers.values()))
        columns = [np.broadcast_to(each, self.places).ravel() for each in (np.zeros(()), *self.numbers.values())]
        _, self.first, inverse = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True)
        self.inverse = inverse.reshape(self.places)
        self.values: dict[str, _Value] = {}
        for name, operand in zip(cell.names, cell.operands, strict=True):
            self.values[name] = _Value(_Root((operand,)), [IDENTITY] * len(self.first))
        for operation in cell.operations:
            if cell.values[operation.name].steady:
                self.numbers[operation.name] = self._number(operation)
            else:
                self.values[operation.name] = self._value(operation)
        name, several = cell.name, len(cell.outputs) > 1
        self.outputs = [
            self._whole(value, f"{name}_{value}" if several else name, cell.operations[-1]) for value in cell.outputs
        ]

    def _number(self, operation: Operation) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(OPERATIONS[operation.op].run(*(self.numbers[name] for name in operation.args)))

    def _functions(self, name: str) -> Sequence[Piecewise]:
        """Return the functions of a value, of a number constant ones."""
        if name in self.values:
            return self.values[name].functions
        return [constant(each) for each in np.broadcast_to(self.numbers[name], self.places).ravel()[self.first]]

    def _array(self, numbers: Iterable[Fraction | int | None]) -> ir.Floats:
        """Return an array of numbers, one for each set of constants, where they stand; None is infinite."""
        with np.errstate(over="ignore"):
            values = np.array([np.inf if each is None else float(each) for each in numbers]).astype(np.float32)
        return values[0] if (values == values[0]).all() else values[self.inverse]

    def _value(self, operation: Operation) -> _Value:
        op, signals = operation.op, [name for name in operation.args if name in self.values]
        roots = {self.values[name].root for name in signals}
        try:
            if op in ("round", "floor", "trunc"):
                return self._rounded(operation)
            if len(roots) > 1:
                return self._sum(operation)
            (root,) = roots
            functions = zip(*map(self._functions, operation.args), strict=True)
            return _Value(root, [EXACT[op](*args) for args in functions])
        except (NotPiecewiseError, KeyError):
            raise self._refusal(operation) from None

    def _sum(self, operation: Operation) -> _Value:
        """Return the sum of two values of different roots."""
        if operation.op not in ("add", "sub"):
            raise NotPiecewiseError
        left, right = operation.args
        if operation.op == "sub":
            negative = f"{right}_negative"
            root, functions = self.values[right]
            self.values[negative], right = _Value(root, [EXACT["neg"](each) for each in functions]), negative
        operands = self._terms(left, operation) + self._terms(right, operation)
        return _Value(_Root(operands), [IDENTITY] * len(self.first))

    def _rounded(self, operation: Operation) -> _Value:
        """Return a value rounded by ``round``, ``floor`` or ``trunc``; floor(v + 1/2) rounds halves up.

        Bounds are rounded apart from what they bound.
        """
        (name,) = operation.args
        root, functions = self.values[name]
        if root.rounding is not None:
            root, functions = _Root(self._terms(name, operation)), [IDENTITY] * len(self.first)
        lines, bounds = zip(*(each.bounded_line() for each in functions), strict=True)
        to_integer, rule = _ROUNDINGS[operation.op]
        offset = self._array(line.offset for line in lines)
        if operation.op == "floor" and (offset == 0.5).all():
            offset, rule = np.zeros((), np.float32), "half_up"
        made = _Root(root.operands, _Rounding(self._array(line.slope for line in lines), offset, rule))
        whole = TRUNCATED if operation.op == "trunc" else IDENTITY
        return _Value(made, [clipped(whole, *map(to_integer, pair)) for pair in bounds])

    def _terms(self, name: str, operation: Operation) -> tuple[ir.Operand, ...]:
        """Return a value as a sum of operands, put out by a node if it is none."""
        root, functions = self.values[name]
        if root.rounding is None and all(each == IDENTITY for each in functions):
            return root.operands
        return (ir.Operand(self._whole(name, f"{self.cell.name}_{name}", operation)),)

    def _whole(self, value: str, name: str, operation: Operation) -> str:
        """Put out a value by nodes; return the name of the last one."""
        cell, shape = self.cell, self.cell.output_shapes[0]
        if value not in self.values or {*cell.operand_shapes, *cell.output_shapes} != {shape}:
            raise self._refusal(operation)
        root, functions = self.values[value]
        if not all(each.is_continuous for each in functions):
            raise self._refusal(operation)
        if root.rounding is None and not any(each.knots for each in functions):
            lines = [each.parts[0] for each in functions]
            gain, offset = (self._array(each[k] for each in lines) for k in range(2))
            return self._affine(name, root.operands, gain, offset)
        ramps, constants = zip(*(each.ramps() for each in functions), strict=True)
        rows = enumerate(zip_longest(*ramps, fillvalue=NO_RAMP))
        operands = tuple(self._ramp(root, row, f"{name}_{k + 1}" if k else name, operation) for k, row in rows)
        offset = self._array(constants)
        if len(operands) == 1 and not offset.any():
            return operands[0].node
        return self._affine(f"{name}_sum", operands, np.ones((), np.float32), offset)

    def _affine(self, name: str, operands: tuple[ir.Operand, ...], gain: ir.Floats, offset: ir.Floats) -> str:
        own: Any = {"name": name, "shape": self.cell.output_shapes[0], "operands": operands}
        if offset.any():
            made: ir.Node = ir.Neuron(**own, decay=None, threshold=None, gain=_unless(gain, 1), offset=offset)
        else:
            made = ir.Scale(**own, scale=gain)
        self.made[name] = made
        return name

    def _ramp(self, root: _Root, row: Sequence[Ramp], name: str, operation: Operation) -> ir.Operand:
        """Put out a ramp, or a count in its place."""
        shape, operands, zero = self.cell.output_shapes[0], root.operands, np.zeros((), np.float32)
        gain, offset, high, sign = (self._array(each[k] for each in row) for k in range(4))
        own: dict[str, Any] = {"threshold": None, "v_min": zero}
        if root.rounding is not None:
            first, levels, sign = -offset / gain, np.unique(high / gain), sign * gain
            if (
                len(levels) > 1
                or not (gain > 0).all()
                or not all(float(each).is_integer() for each in (*levels, *np.unique(first)))
            ):
                raise self._refusal(operation)
            own = {"threshold": np.ones((), np.float32), "cap": int(levels[0]), "multi_spike": True}
            own["rounding"] = root.rounding.rule
            gain, offset, high = root.rounding.gain, root.rounding.offset - first, zero + np.inf
        if not (gain > 0).all():
            operands = (ir.Operand(self._affine(f"{name}_input", operands, gain, zero)),)
            gain = zero + 1
        own |= {"gain": _unless(gain, 1), "offset": _unless(offset, 0)}
        self.made[name] = ir.Neuron(name=name, shape=shape, operands=operands, decay=None, **own)
        if (high < np.inf).any():
            capped = _cap(name, shape, high)
            self.made[capped.name], name = capped, capped.name
        return ir.Operand(
            self._affine(f"{name}_scaled", (ir.Operand(name),), sign, zero) if (sign != 1).any() else name
        )

    def _refusal(self, operation: Operation) -> UnsupportedError:
        line = f" ({operation.line})" if operation.line else ""
        return UnsupportedError(
            f"'{operation.op}'{line} makes no ReLU with or without a cap, and conversion quantises those",
            node=self.cell.name,
            slug="no-relu",
            remedy="train with ReLU or ReLU6 in its place, or with BatchNorm where it is a norm",
        )


def _cap(relu: str, shape: ir.Shape, high: Any) -> Cell:
    """Return min(x, cap) of a ReLU."""
    return Cell(
        name=f"{relu}_cap",
        shape=shape,
        operands=(ir.Operand(relu),),
        names=("x",),
        operand_shapes=(shape,),
        states=(),
        constants=(Constant("cap", np.asarray(high)),),
        operations=(Operation("y", "min", ("x", "cap"), "float32"),),
        outputs=("y",),
        output_shapes=(shape,),
    )
