"""Write Cells without states as sums and ReLUs: ReLU6, hardtanh(0, a), clamp(0, a) and what residuals add to them.

Each value of a Cell is read symbolically as a ramp of a sum x of its operands,

    y = min(max(gain·x + offset, low), high)

A choice of x or n by whether x is above n is one of these bounds. A ramp without bounds is a sum. One with low = 0 is a
ReLU; where it has a cap, a Cell that takes the minimum with the cap follows it. One that is rounded to integers from 0
to a cap is a count already, as quantisation-aware training writes it. Other values are refused, by operation and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell, Constant, Operation
from stl_deploy.passes.base import Nodes, bypassed, with_nodes
from stl_deploy.passes.permutations import keeps_order


def ramps_for_cells(program: ir.Program) -> ir.Program:
    """Return the Program with a ReLU, a cap or a sum for each part of its Cells; raise UnsupportedError for others."""
    nodes: Nodes = {}
    instead: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for node in program.nodes:
        operands = tuple(ir.Operand(instead.get(each.node, each.node), each.delay) for each in node.operands)
        node = replace(node, operands=operands)
        if isinstance(node, Cell):
            reading = _Reading(node)
            instead[node.name], *others = outputs = reading.outputs()
            nodes |= reading.made
            several |= {outputs[0]: outputs} if others else {}
        elif isinstance(node, ir.Gather) and operands[0].node in several:
            output = _of_one_output(node, nodes, several[operands[0].node])
            if output.shape == output.input_shape and keeps_order(output):
                instead[node.name] = output.operands[0].node
            else:
                nodes[node.name] = output
        else:
            nodes[node.name] = node
    return with_nodes(program, nodes)


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
class _Ramp:
    """min(max(gain·x + offset, low), high) of the sum x of operands; numbers broadcast to the shape.

    rounding: to integers, if it is rounded.
    """

    operands: tuple[ir.Operand, ...]
    gain: Any = 1.0
    offset: Any = 0.0
    low: Any = -np.inf
    high: Any = np.inf
    rounding: ir.Rounding | None = None

    @property
    def is_free(self) -> bool:
        """Whether it is gain·x + offset."""
        return self.rounding is None and bool(np.all(self.low == -np.inf) and np.all(self.high == np.inf))

    @property
    def is_linear(self) -> bool:
        """Whether it is gain·x."""
        return self.is_free and not np.any(self.offset)

    def times(self, factor: Any) -> _Ramp | None:
        """Return it times a number above 0; None for others."""
        numbers = (each * factor for each in (self.gain, self.offset, self.low, self.high))
        return _Ramp(self.operands, *numbers) if np.all(factor > 0) else None

    def plus(self, number: Any) -> _Ramp:
        """Return it with a number added."""
        return _Ramp(self.operands, self.gain, *(each + number for each in (self.offset, self.low, self.high)))

    def bounded(self, by: np.ufunc, number: Any) -> _Ramp:
        """Return its maximum, or minimum, with a number."""
        return replace(self, low=by(self.low, number), high=by(self.high, number))

    def rounded(self, op: str) -> _Ramp:
        """Return it rounded by ``round``, ``floor`` or ``trunc``; floor(v + 1/2) rounds halves up."""
        rounding: ir.Rounding = "half_even" if op == "round" else "down"
        offset = self.offset
        if op == "floor" and np.all(offset == 0.5):
            rounding, offset = "half_up", 0.0
        bound = np.rint if op == "round" else np.floor
        return replace(self, offset=offset, low=bound(self.low), high=bound(self.high), rounding=rounding)


@dataclass(frozen=True, eq=False)
class _Above:
    """Whether a ramp is above a number, or, if not ``above``, below it: equal ones give the same choice."""

    ramp: _Ramp
    number: Any
    above: bool

    def choice(self, chosen: Any, other: Any) -> _Ramp | None:
        """Return the ramp or the number, whichever is chosen, as a bound of the ramp; None for other values."""
        upper, lower = (chosen, other) if self.above else (other, chosen)
        number = lower if upper is self.ramp else upper
        if self.ramp not in (upper, lower) or not np.array_equal(number, self.number):
            return None
        return self.ramp.bounded(np.maximum if upper is self.ramp else np.minimum, number)


class _Reading:
    """Reads the operations of one Cell. made: the nodes in its place."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.made: Nodes = {}
        self.values: dict[str, Any] = {each.name: np.asarray(each.value, np.float64) for each in cell.constants}
        self.values |= {name: _Ramp((operand,)) for name, operand in zip(cell.names, cell.operands, strict=True)}
        for operation in cell.operations:
            self.values[operation.name] = self._value(operation)

    def outputs(self) -> list[str]:
        """Put out each output by nodes; return the names of their last ones."""
        name, last = self.cell.name, self.cell.operations[-1]
        several = len(self.cell.outputs) > 1
        return [
            self._whole(self.values[value], f"{name}_{value}" if several else name, last) for value in self.cell.outputs
        ]

    def _value(self, operation: Operation) -> _Ramp | _Above:
        op, args = operation.op, [self.values[name] for name in operation.args]
        if op not in ("max", "min"):
            args = [self._unrounded(value, name, operation) for value, name in zip(args, operation.args, strict=True)]
        ramps = [arg for arg in args if isinstance(arg, _Ramp)]
        numbers = [arg for arg in args if isinstance(arg, np.ndarray)]
        made: _Ramp | _Above | None = None
        match op, ramps, numbers:
            case "add", [_, _], []:
                left, right = operation.args
                made = _Ramp(self._terms(left, operation) + self._terms(right, operation))
            case "add", [ramp], [number]:
                made = ramp.plus(number)
            case "sub", [ramp], [number] if args[0] is ramp:
                made = ramp.plus(-number)
            case "mul", [ramp], [number]:
                made = ramp.times(number)
            case "div", [ramp], [number] if args[0] is ramp and np.all(number):
                made = ramp.times(1 / number)
            case "max", [ramp], [number]:
                made = ramp.bounded(np.maximum, number)
            case "min", [ramp], [number]:
                made = ramp.bounded(np.minimum, number)
            case "round" | "floor" | "trunc", [ramp], []:
                made = ramp.rounded(op)
            case "gt" | "ge" | "lt" | "le", [ramp], [number]:
                made = _Above(ramp, number, op.startswith("g") == (args[0] is ramp))
            case "not", [], [] if isinstance(args[0], _Above):
                made = replace(args[0], above=not args[0].above)
            case "where", _, _ if isinstance(args[0], _Above):
                made = args[0].choice(*args[1:])
        if made is None:
            raise self._refusal(operation)
        return made

    def _unrounded(self, value: Any, name: str, operation: Operation) -> Any:
        """Return a value, of a count that of its node."""
        counts = isinstance(value, _Ramp) and value.rounding is not None
        return _Ramp(self._terms(name, operation)) if counts else value

    def _terms(self, name: str, operation: Operation) -> tuple[ir.Operand, ...]:
        """Return a value as a sum of operands, put out by a node if it is none."""
        ramp = self.values[name]
        if isinstance(ramp, _Ramp) and ramp.is_linear and np.all(ramp.gain == 1):
            return ramp.operands
        return (ir.Operand(self._whole(ramp, f"{self.cell.name}_{name}", operation)),)

    def _whole(self, ramp: Any, name: str, operation: Operation) -> str:
        """Put out a ramp by nodes; return the name of the last one."""
        if not isinstance(ramp, _Ramp):
            raise self._refusal(operation)
        cell, gain, offset = self.cell, np.float32(ramp.gain), np.float32(ramp.offset)
        shape = cell.output_shapes[0]
        if {*cell.operand_shapes, *cell.output_shapes} != {shape}:
            raise self._refusal(operation)
        if ramp.is_linear:
            self.made[name] = ir.Scale(name=name, shape=shape, operands=ramp.operands, scale=np.asarray(gain))
            return name
        if not ramp.is_free and (np.any(ramp.low) or not np.all(ramp.high > 0)):
            raise self._refusal(operation)
        own: dict[str, Any] = {"threshold": None, "v_min": None if ramp.is_free else np.zeros((), np.float32)}
        if ramp.rounding is not None:
            (cap, *others) = np.unique(ramp.high)
            if others or not float(cap).is_integer():
                raise self._refusal(operation)
            own = {"threshold": np.ones((), np.float32), "cap": int(cap)}
            own |= {"multi_spike": True, "rounding": ramp.rounding}
        own |= {"gain": None if np.all(gain == 1) else gain, "offset": offset if np.any(offset) else None}
        self.made[name] = ir.Neuron(name=name, shape=shape, operands=ramp.operands, decay=None, **own)
        if ramp.rounding is not None or np.all(ramp.high == np.inf):
            return name
        capped = _cap(name, shape, np.float32(ramp.high))
        self.made[capped.name] = capped
        return capped.name

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
