"""Lay a Program out as C with float32: a buffer for each node's output, and the statements of one step.

Weights are read for inputs that are not 0 alone, so that spikes cost what they reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.floats.cells import TYPES, Memory, cell_loop, place, whole_of
from stl_deploy.exporters.c.names import identifiers
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Array, Cell
from stl_deploy.graph.neuron_cells import as_cell

ALIASES = (ir.Reshape, ir.Output)
"""Nodes that put out what they get: it is not copied."""


@dataclass(frozen=True)
class Member:
    """An array of the state, of a node. starts: the `Table` of its values before the first step, if they are not 0."""

    node: str
    ctype: str
    name: str
    size: int
    about: str
    starts: str = ""


@dataclass(frozen=True)
class Table:
    """A constant array of a node."""

    node: str
    ctype: str
    name: str
    values: NDArray[np.generic]


@dataclass
class Layout:
    """The C of a Program: what its state holds, its constants, and the statements of one step.

    kernels: names of the functions that the statements call. outputs: what a step copies into y, with sizes. recorded:
    where the output of each compared node lies.
    """

    members: list[Member] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    recorded: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def flash(self) -> Counter[str]:
        """Bytes of constants by node."""
        sizes = Counter[str]()
        for table in self.tables:
            sizes[table.node] += table.values.nbytes
        return sizes

    @property
    def largest(self) -> str:
        """The node with the largest constants; of a network without any, the one with the largest state."""
        return (self.flash or self.ram).most_common(1)[0][0]

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, whose largest members come first."""
        largest = max(_BYTES[member.ctype] for member in self.members)
        return -(-self.ram.total() // largest) * largest

    @property
    def ram(self) -> Counter[str]:
        """Bytes of the state by node, without padding."""
        sizes = Counter[str]()
        for member in self.members:
            sizes[member.node] += member.size * _BYTES[member.ctype]
        return sizes


_BYTES = {"float": 4, "uint8_t": 1, "int32_t": 4, "int64_t": 8}
_TABLES = TYPES | {"float64": "double"}


def lay_out(program: ir.Program) -> Layout:
    """Return the C of a Program; raise UnsupportedError for a Cell without one loop over its elements."""
    return _Writer(program).layout


class _Writer:
    def __init__(self, program: ir.Program) -> None:
        self.program, self.layout = program, Layout()
        self.names = identifiers(node.name for node in program.nodes)
        self.place: dict[str, str] = {}
        at = 0
        for given in program.inputs:
            self.place[given.name] = f"(x + {at})" if at else "x"
            at += prod(given.shape)
        self.depth: dict[str, int] = {}
        for node in program.nodes:
            for operand in node.operands:
                self.depth[operand.node] = max(self.depth.get(operand.node, 0), operand.delay)
        late = {name: depth for name, depth in self.depth.items() if depth}
        for name, depth in late.items():
            self.at = name
            self._history(self.names[name], depth, prod(program.by_name[name].shape), name)
        for node in program.nodes:
            if not isinstance(node, ir.Input):
                self.layout.statements.append(f"/* {self.names[node.name]} */")
                self.at = node.name
                self._node(node)
        for name, depth in late.items():
            self._remember(self.names[name], depth, self.place[name], prod(program.by_name[name].shape))
        if not self.layout.members:  # C has no empty struct
            self._put(f"(void){self._member('uint8_t', 'none', 1, 'nothing')};")
        self.layout.members.sort(key=lambda member: -_BYTES[member.ctype])
        self.layout.outputs = [(self.place[node.name], prod(node.shape)) for node in program.outputs]
        self.layout.recorded = {node.name: (self.place[node.name], prod(node.shape)) for node in program.compared}

    def _member(self, ctype: str, name: str, size: int, about: str, starts: str = "") -> str:
        self.layout.members.append(Member(self.at, ctype, name, size, about, starts))
        return f"s->{name}"

    def _table(self, name: str, values: NDArray[np.generic]) -> str:
        ctype = _TABLES[values.dtype.name]
        self.layout.tables.append(Table(self.at, ctype, name, np.ascontiguousarray(values).reshape(-1)))
        return name

    def _put(self, *lines: str) -> None:
        self.layout.statements.extend(lines)

    def _call(self, kernel: str, *args: object) -> None:
        self.layout.kernels.add(kernel)
        self._put(f"{kernel}({', '.join(map(str, args))});")

    def _history(self, name: str, depth: int, size: int, of: str) -> None:
        """Hold the values of the last ``depth`` steps, in a ring."""
        self._member("float", f"{name}_past", depth * size, f"the last {depth} steps of {of}")
        if depth > 1:
            self._member("int32_t", f"{name}_at", 1, "place of the oldest of them")

    def _past(self, name: str, depth: int, delay: str, size: int) -> str:
        if depth == 1:
            return f"s->{name}_past"
        return f"(s->{name}_past + (s->{name}_at[0] + {depth} - {delay}) % {depth} * {size})"

    def _remember(self, name: str, depth: int, source: str, size: int) -> None:
        at = "" if depth == 1 else f" + s->{name}_at[0] * {size}"
        self._put(f"memcpy(s->{name}_past{at}, {source}, {size} * sizeof(float));")
        if depth > 1:
            self._put(f"s->{name}_at[0] = (s->{name}_at[0] + 1) % {depth};")

    def _read(self, operand: ir.Operand) -> str:
        if not operand.delay:
            return self.place[operand.node]
        size = prod(self.program.by_name[operand.node].shape)
        return self._past(self.names[operand.node], self.depth[operand.node], str(operand.delay), size)

    def _arriving(self, node: ir.Node) -> list[str]:
        """Return what arrives at a node: the sum of its sources, or each of them."""
        parts = [self._read(operand) for operand in node.operands]
        if node.combine != "add" or len(parts) == 1:
            return parts
        size = prod(self.program.by_name[node.operands[0].node].shape)
        total = self._member("float", f"{self.names[node.name]}_in", size, f"the sum that arrives at {node.name}")
        terms = " + ".join(f"{part}[i]" for part in parts)
        self._put(f"for (int32_t i = 0; i < {size}; i++)", f"    {total}[i] = {terms};")
        return [total]

    def _node(self, node: ir.Node) -> None:
        if isinstance(node, ir.Neuron):
            node = as_cell(node)
        arriving = self._arriving(node)
        if isinstance(node, ALIASES) and not any(operand.delay for operand in node.operands):
            self.place[node.name] = arriving[0]
            return
        name, size = self.names[node.name], prod(node.shape)
        out = self._member("float", f"{name}_out", size, f"output of {node.name}")
        self.place[node.name] = out
        match node:
            case ir.Reshape() | ir.Output():  # of a step before, whose place this step writes anew at its end
                self._put(f"memcpy({out}, {arriving[0]}, {size} * sizeof(float));")
            case Cell():
                self._cell(node, arriving, out)
            case ir.Linear():
                weight = self._table(f"{name}_weight", node.weight.T)
                rows = size // len(node.weight)
                self._call("linear", *arriving, out, weight, self._bias(name, node.bias), rows, *node.weight.T.shape)
            case ir.Conv():
                self._conv(node, arriving[0], out)
            case ir.Pool() | ir.MaxPool():
                self._pool(node, arriving[0], out)
            case ir.Scale():
                scale = f"{self._table(f'{name}_scale', node.scale)}[{place(node.scale.shape, node.shape)}]"
                self._each(size, f"{out}[i] = {arriving[0]}[i] * {scale};")
            case ir.Norm():
                self._norm(node, arriving[0], out)
            case ir.Gather():
                index = self._table(f"{name}_index", node.indices.astype(np.int32))
                self._each(size, f"{out}[i] = {index}[i] < 0 ? 0.0f : {arriving[0]}[{index}[i]];")
            case ir.Delay():
                self._delay(node, arriving[0], out)
            case ir.Concat():
                self._concat(node, arriving, out)
            case ir.Product():
                self._product(node, arriving, out)

    def _each(self, size: int, line: str) -> None:
        self._put(f"for (int32_t i = 0; i < {size}; i++)", f"    {line}")

    def _bias(self, name: str, bias: ir.Floats | None) -> str:
        return "NULL" if bias is None else self._table(f"{name}_bias", bias)

    def _cell(self, cell: Cell, arriving: Sequence[str], out: str) -> None:
        name = self.names[cell.name]
        held = {}
        whole = whole_of(cell)
        for number, state in enumerate(cell.states):
            size, ctype = prod(state.shape), TYPES[state.start.dtype.name]
            starts = ""
            if state.start.any():
                full = np.broadcast_to(state.start, state.shape)
                starts = self._table(f"{name}_start{number}", full)
            held[state.name] = self._member(ctype, f"{name}_state{number}", size, f"{cell.name}: {state.name}", starts)
            if state.shape != whole:
                self._member(ctype, f"{name}_state{number}_next", size, f"{cell.name}: {state.name} of the next step")

        def constant(value: Array) -> str:
            return self._table(f"{name}_c{len(self.layout.tables)}", value)

        self._put(*cell_loop(cell, Memory(arriving, held, out, constant)))

    def _conv(self, node: ir.Conv, x: str, out: str) -> None:
        name = self.names[node.name]
        groups, channels = node.groups, node.input_shape[0]
        high = (1,) * (2 - len(node.weight.shape[2:]))
        kernel = high + node.weight.shape[2:]
        size_in, size_out = (high + shape[1:] for shape in (node.input_shape, node.shape))
        stride, dilation = high + node.stride, high + node.dilation
        before = (0,) * len(high) + tuple(ends[0] for ends in node.padding)
        per_group = len(node.weight) // groups
        weight = node.weight.reshape(groups, per_group, channels // groups, -1).transpose(0, 2, 3, 1)
        dims = (groups, channels // groups, per_group, *size_in, *size_out, *kernel, *stride, *before, *dilation)
        geometry = self._table(f"{name}_dims", np.array(dims, np.int32))
        self._call("convolve", x, out, self._table(f"{name}_weight", weight), self._bias(name, node.bias), geometry)

    def _pool(self, node: ir.Pool | ir.MaxPool, x: str, out: str) -> None:
        high = (1,) * (2 - len(node.kernel))
        planes = prod(node.shape[: -len(node.kernel)])
        rank = len(node.kernel)
        sizes = [high + shape[-rank:] for shape in (node.input_shape, node.shape)]
        before = (0,) * len(high) + tuple(ends[0] for ends in node.padding)
        dims = (planes, *sizes[0], *sizes[1], *high, *node.kernel, *high, *node.stride, *before)
        geometry = self._table(f"{self.names[node.name]}_dims", np.array(dims, np.int32))
        if isinstance(node, ir.MaxPool):
            self._call("largest", x, out, geometry)
        else:
            self._call("pool", x, out, geometry, f"{node.divisor}.0f")

    def _norm(self, node: ir.Norm, x: str, out: str) -> None:
        name, whole = self.names[node.name], node.shape
        inner = (1,) * (len(whole) - 1) if node.axis == 0 else ()
        at = place((len(node.scale), *inner), whole)
        mean = "" if node.mean is None else f" - {self._table(f'{name}_mean', node.mean)}[{at}]"
        scale, shift = (self._table(f"{name}_{part}", getattr(node, part)) for part in ("scale", "shift"))
        self._put(
            f"for (int32_t i = 0; i < {prod(whole)}; i++) {{",
            f"    const double centred = (double){x}[i]{mean};",
            f"    const double scaled = centred * {scale}[{at}];",
            f"    {out}[i] = (float)(scaled + {shift}[{at}]);",
            "}",
        )

    def _delay(self, node: ir.Delay, x: str, out: str) -> None:
        name, size, most = self.names[node.name], prod(node.shape), int(node.steps.max(initial=0))
        if not most:
            self._put(f"memcpy({out}, {x}, {size} * sizeof(float));")
            return
        steps = self._table(f"{name}_steps", np.broadcast_to(node.steps, node.shape).astype(np.int32))
        self._history(f"{name}_X", most, size, f"{node.name}'s input")
        past = self._past(f"{name}_X", most, f"{steps}[i]", size)
        self._each(size, f"{out}[i] = {steps}[i] == 0 ? {x}[i] : {past}[i];")
        self._remember(f"{name}_X", most, x, size)

    def _concat(self, node: ir.Concat, arriving: Sequence[str], out: str) -> None:
        at, inner = 0, prod(node.shape[1:])
        for part, length in zip(arriving, node.sizes, strict=True):
            self._put(f"memcpy({out} + {at}, {part}, {length * inner} * sizeof(float));")
            at += length * inner

    def _product(self, node: ir.Product, arriving: Sequence[str], out: str) -> None:
        left, right = node.operand_shapes
        a, b = arriving
        if not node.matrices:
            terms = [f"{part}[{place(shape, node.shape)}]" for part, shape in ((a, left), (b, right))]
            self._each(prod(node.shape), f"{out}[i] = {' * '.join(terms)};")
            return
        (m, k), n, planes = left[-2:], right[-1], node.shape[:-2]
        self.layout.kernels.add("multiply")
        at = [f"({place(shape[:-2], planes)}) * {size}" for shape, size in ((left, m * k), (right, k * n))]
        self._each(prod(planes), f"multiply({a} + {at[0]}, {b} + {at[1]}, {out} + i * {m * n}, {m}, {k}, {n});")
