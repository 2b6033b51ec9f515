"""A Cell: states, and a straight line of elementwise operations, as a neuron's step was recorded.

One step evaluates the operations once, in order; then each state takes the value that its ``next`` names. Resets,
refractory times, adaptation, ternary spikes and gates are operations. Every backend computes each operation by itself,
in its own type, so the operations of `OPERATIONS` that are ``exact`` give the same bits everywhere. The others (exp,
tanh, sqrt, ...) round otherwise from library to library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from math import inf, prod, tanh
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.graph.program import Combine, Floats, Node, Shape

Dtype = Literal["float32", "bool", "int32", "int64"]
Array = NDArray[np.float32] | NDArray[np.bool_] | NDArray[np.int64]
Price = Literal["mul", "div", "add", "compare", "lookup", "free"]
"""Kind of an operation by its cost: a multiplication, a division, an addition, a comparison, a look-up, or nothing."""
MOST_VALUES = 2**28
"""The most values that the operations of one step of one sample may make."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that is the same at every step and for every sample; broadcasts to the shapes that it meets."""

    name: str
    value: Array


@dataclass(frozen=True, eq=False)
class State:
    """A value ``[B, *shape]`` that passes to the next step.

    next: the value that it takes after a step. start: before the first step; broadcasts to ``shape``.
    """

    name: str
    next: str
    shape: Shape
    start: Array


@dataclass(frozen=True, eq=False)
class Operation:
    """``name = op(*args)``, a value of type ``dtype``; line: of the user's code, with its file, if known."""

    name: str
    op: str
    args: tuple[str, ...]
    dtype: Dtype
    line: str = field(default="", compare=False)


@dataclass(frozen=True)
class Value:
    """Type and shape of a value of one sample; ``steady``: made of constants alone."""

    dtype: str
    shape: Shape
    steady: bool = False


class Range(NamedTuple):
    """Lowest and highest value, and whether all are integers.

    jumps: whether a value changes nowhere but where a comparison or a rounding does, as the amplitudes of spikes.
    """

    low: float
    high: float
    whole: bool
    jumps: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Cell(Node):
    """A recurrent, elementwise computation. Each operand arrives by itself, ``[B, *operand_shapes[i]]``.

    names: of the operands, for the operations. outputs: names of the values that others read. With one output, its
    shape is the node's; several are flattened and put out one after another, ``output_shapes[i]`` each.
    """

    combine: ClassVar[Combine] = "flat"
    names: tuple[str, ...]
    operand_shapes: tuple[Shape, ...]
    states: tuple[State, ...]
    constants: tuple[Constant, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    output_shapes: tuple[Shape, ...]

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Type and shape of each value by its name; raises GraphError where operations and values do not fit."""
        return _values(self)

    @cached_property
    def binary(self) -> NDArray[np.bool_]:
        """Whether each value of the flat output is 0 or 1 by the operations alone: see `Node`."""
        return self._of_outputs(lambda of: of.whole and of.low >= 0 and of.high <= 1)

    @cached_property
    def ternary(self) -> NDArray[np.bool_]:
        """Whether each value of the flat output is -1, 0 or 1 by the operations alone: see `Node`."""
        return self._of_outputs(lambda of: of.whole and of.low >= -1 and of.high <= 1)

    @cached_property
    def fires(self) -> NDArray[np.bool_]:
        """Whether each value of the flat output is spikes, counts or amplitudes of them: see `Node` and `Range`."""
        return self._of_outputs(lambda of: of.jumps)

    def _of_outputs(self, holds: Callable[[Range], bool]) -> NDArray[np.bool_]:
        sizes = [prod(shape) for shape in self.output_shapes]
        return np.repeat([holds(self.ranges[name]) for name in self.outputs], sizes)

    @cached_property
    def ranges(self) -> Mapping[str, Range]:
        """Bounds of each value by its name, from the operations alone, whatever arrives."""
        return _ranges(self)

    @cached_property
    def gradients(self) -> Mapping[str, str]:
        """The spikes ``s`` by the name of a straight-through gradient, ``(s - b) + b``, that is s in every bit."""
        made = {operation.name: operation for operation in self.operations}
        shown = ((o.name, _straight_through(o, made, self.ranges)) for o in self.operations)
        return {name: spikes for name, spikes in shown if spikes is not None}

    @property
    def inexact(self) -> Iterator[Operation]:
        """The operations on signals that libraries round otherwise."""
        return (o for o in self.operations if not OPERATIONS[o.op].exact and not self.values[o.name].steady)


@dataclass(frozen=True)
class Kind:
    """One operation of the closed set.

    takes: types of the arguments: ``float32``; ``number`` (one type, no bool); ``bool``; ``choice`` (a bool, then two
    of one type); ``any``. gives: the type of the result; ``same``: that of the last argument.
    """

    run: Callable[..., Any]
    arity: int
    takes: Literal["float32", "number", "bool", "choice", "any"]
    gives: Literal["same", "bool", "any"]
    price: Price
    exact: bool = True


def fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """Return a·b + c, rounded once.

    The product is exact in float64. Its sum is rounded there, so that a tie of float32 may only seem to be one: then
    the error of that rounding decides.
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = product + addend
    rounded = total.astype(np.float32)
    back = total - product
    error = (product - (total - back)) + (addend - back)
    rest = total - rounded
    other = (rounded + 2 * rest).astype(np.float32)
    misjudged = (rest * error > 0) & (other == rounded + 2 * rest)
    return np.where(misjudged, other, rounded).astype(np.float32)


def _sigmoid(x: Floats) -> Any:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _erf(x: Floats) -> Any:
    from scipy.special import erf

    return erf(x)


def _compare(run: Any) -> Kind:
    return Kind(run, 2, "number", "bool", "compare")


def _logic(run: Any, arity: int = 2) -> Kind:
    return Kind(run, arity, "bool", "same", "free")


def _rounding(run: Any) -> Kind:
    return Kind(run, 1, "float32", "same", "free")


def _lookup(run: Any, arity: int = 1) -> Kind:
    return Kind(run, arity, "float32", "same", "lookup", exact=False)


OPERATIONS: Mapping[str, Kind] = {
    "add": Kind(np.add, 2, "number", "same", "add"),
    "sub": Kind(np.subtract, 2, "number", "same", "add"),
    "mul": Kind(np.multiply, 2, "number", "same", "mul"),
    "div": Kind(np.divide, 2, "float32", "same", "div"),
    "fma": Kind(fused, 3, "float32", "same", "mul"),
    "neg": Kind(np.negative, 1, "number", "same", "free"),
    "abs": Kind(np.abs, 1, "number", "same", "free"),
    "min": Kind(np.minimum, 2, "number", "same", "compare"),
    "max": Kind(np.maximum, 2, "number", "same", "compare"),
    "gt": _compare(np.greater),
    "ge": _compare(np.greater_equal),
    "lt": _compare(np.less),
    "le": _compare(np.less_equal),
    "eq": _compare(np.equal),
    "ne": _compare(np.not_equal),
    "and": _logic(np.logical_and),
    "or": _logic(np.logical_or),
    "xor": _logic(np.logical_xor),
    "not": _logic(np.logical_not, 1),
    "where": Kind(np.where, 3, "choice", "same", "free"),
    "cast": Kind(lambda x: x, 1, "any", "any", "free"),
    "floor": _rounding(np.floor),
    "ceil": _rounding(np.ceil),
    "round": _rounding(np.rint),
    "trunc": _rounding(np.trunc),
    "sign": _rounding(np.sign),
    "sqrt": _lookup(np.sqrt),
    "exp": _lookup(np.exp),
    "log": _lookup(np.log),
    "sin": _lookup(np.sin),
    "cos": _lookup(np.cos),
    "tanh": _lookup(np.tanh),
    "sigmoid": _lookup(_sigmoid),
    "erf": _lookup(_erf),
    "log1p": _lookup(np.log1p),
    "expm1": _lookup(np.expm1),
    "pow": _lookup(np.power, 2),
}
"""The closed set, halves rounded to even; ``cast`` takes floats without a fraction to integers."""


def _values(cell: Cell) -> dict[str, Value]:
    known: dict[str, Value] = {}

    def add(name: str, value: Value) -> None:
        if name in known:
            raise GraphError(f"two of its values are called '{name}'", node=cell.name)
        if value.dtype not in get_args(Dtype):
            raise GraphError(f"'{name}': expected {', '.join(get_args(Dtype))}; found {value.dtype}", node=cell.name)
        known[name] = value

    rank = len(cell.operand_shapes[0]) if cell.operand_shapes else 0
    for name, shape in zip(cell.names, cell.operand_shapes, strict=True):
        add(name, Value("float32", shape))
    for state in cell.states:
        add(state.name, Value(state.start.dtype.name, state.shape))
        if not broadcasts(state.start.shape, state.shape):
            raise GraphError(f"state '{state.name}' does not start in its shape", node=cell.name)
    for constant in cell.constants:
        add(constant.name, Value(constant.value.dtype.name, constant.value.shape, steady=True))
    if any((len(value.shape) != rank and not value.steady) or len(value.shape) > rank for value in known.values()):
        raise GraphError("expected operands and states with one number of axes; found others", node=cell.name)
    made = sum(prod(state.shape) for state in cell.states)
    for operation in cell.operations:
        value = _result(cell, operation, known)
        add(operation.name, value)
        made += prod(value.shape)
        if made > MOST_VALUES:
            raise GraphError(f"its operations make more than {MOST_VALUES:,} values of one sample", node=cell.name)
    for state in cell.states:
        after = known.get(state.next)
        fits = after is not None and after.dtype == state.start.dtype.name and broadcasts(after.shape, state.shape)
        if not fits:
            raise GraphError(f"state '{state.name}' takes no value of its type and shape", node=cell.name)
    for name, shape in zip(cell.outputs, cell.output_shapes, strict=True):
        if name not in known or known[name].dtype != "float32" or not broadcasts(known[name].shape, shape):
            raise GraphError(f"output '{name}' is no float32 value of its shape", node=cell.name)
    whole = cell.output_shapes[0] if len(cell.outputs) == 1 else (sum(map(prod, cell.output_shapes)),)
    if not cell.names or cell.shape != whole:
        raise GraphError("expected operands, and outputs that make up its shape; found others", node=cell.name)
    return known


def _result(cell: Cell, operation: Operation, known: Mapping[str, Value]) -> Value:
    kind = OPERATIONS.get(operation.op)
    if kind is None or len(operation.args) != kind.arity or not all(name in known for name in operation.args):
        raise GraphError(
            f"'{operation.name}' is no operation on values before it: '{operation.op[:60]}'", node=cell.name
        )
    args = [known[name] for name in operation.args]
    types = [arg.dtype for arg in args]
    same = types[1:] if kind.takes == "choice" else types
    taken = {
        "float32": types[0] == "float32",
        "number": types[0] != "bool",
        "bool": types[0] == "bool",
        "choice": types[0] == "bool",
        "any": True,
    }[kind.takes]
    given = {"same": types[-1], "bool": "bool", "any": operation.dtype}[kind.gives]
    try:
        shape = np.broadcast_shapes(*(arg.shape for arg in args))
    except ValueError:
        taken, shape = False, ()
    if not taken or len(set(same)) > 1 or given != operation.dtype:
        raise GraphError(
            f"'{operation.op}' takes no {', '.join(types)} to make {operation.dtype} ('{operation.name}')",
            node=cell.name,
        )
    return Value(operation.dtype, shape, all(arg.steady for arg in args))


def broadcasts(shape: Shape, whole: Shape) -> bool:
    """Return whether an array of a shape broadcasts to a whole."""
    sizes = zip(reversed(shape), reversed(whole), strict=False)
    return len(shape) <= len(whole) and all(size in (1, of) for size, of in sizes)


_ANY, _BOOL = Range(-inf, inf, False), Range(0, 1, True, True)
_FIRED = Range(1, 1, True)
_ROUNDINGS = ("floor", "ceil", "round", "trunc")
_SLACK = 2.0**-20
"""Relative distance that the roundings of a few operations may move the end of a range; 0 stays 0."""
_SETTLING = 3
"""Rounds after which a state whose bounds still grow has none."""


def _ranges(cell: Cell) -> Mapping[str, Range]:
    states = {state.name: _BOOL if state.start.dtype == bool else _of_array(state.start) for state in cell.states}
    for number in count():
        known = _bounded(cell, states)
        after = {state.name: _hull(states[state.name], known[state.next]) for state in cell.states}
        if after == states:
            break
        if number >= _SETTLING:
            after = {name: of if of == states[name] else Range(-inf, inf, of.whole) for name, of in after.items()}
        states = after
    return known


def _bounded(cell: Cell, states: Mapping[str, Range]) -> dict[str, Range]:
    # a trace of spikes is computed from them alone, and is none
    known = {**dict.fromkeys(cell.names, _ANY), **{name: of._replace(jumps=of.whole) for name, of in states.items()}}
    known |= {constant.name: _of_array(constant.value) for constant in cell.constants}
    made = {operation.name: operation for operation in cell.operations}
    for operation in cell.operations:
        of = _range(operation, [known[name] for name in operation.args])
        jumps = of.whole or all(known[name].jumps for name in operation.args)
        spikes = _straight_through(operation, made, known)
        known[operation.name] = of._replace(jumps=jumps) if spikes is None else known[spikes]
    return known


def _straight_through(operation: Operation, made: Mapping[str, Operation], known: Mapping[str, Range]) -> str | None:
    """Return the spikes ``s`` of a straight-through gradient, ``(s - b) + b``, if that is s in every bit.

    It is where s rounds b, for then ``s - b`` is exact; where s is 0; and where ``s - b`` is at most the power of two
    at or below s: its error, at most half a unit below that power, is rounded away.
    """
    args, order = operation.args, 1 if operation.op == "add" else -1  # b - (b - s) is the same number
    for less, b in {"add": (args, args[::-1]), "sub": (args[::-1],)}.get(operation.op, ()):
        s, other = made[less].args[::order] if less in made and made[less].op == "sub" else ("", "")
        if other != b:
            continue
        if s in made and made[s].op in _ROUNDINGS and made[s].args == (b,):
            return s
        levels = _levels(s, made, known)
        if levels and all(_is_rounded_away(of, _range_where(b, at, lies, made, known)) for of, at, lies in levels):
            return s
    return None


def _levels(name: str, made: Mapping[str, Operation], known: Mapping[str, Range]) -> list[tuple[Range, str, Range]]:
    """Return the values of spikes but 0, each with a value that then lies in a range; nothing if they are unknown."""
    operation = made.get(name)
    op, args = ("", ()) if operation is None else (operation.op, operation.args)
    match op:
        case "cast":
            return _levels(args[0], made, known)
        case "gt" | "ge":
            return [(_FIRED, args[0], Range(known[args[1]].low, inf, False))]
        case "sign":
            return [(_FIRED, args[0], Range(0, inf, False)), (Range(-1, -1, True), args[0], Range(-inf, 0, False))]
        case "where" if known[args[1]][:2] == (0, 0):
            return _levels(args[2], made, known)
        case "where" if known[args[2]][:2] == (0, 0):
            return _levels(args[1], made, known)
        case "mul":
            spikes, size = args if known[args[1]].low > 0 else args[::-1]
            levels = _levels(spikes, made, known) if known[size].low > 0 else []
            return [(_range(made[name], [of, known[size]]), at, lies) for of, at, lies in levels]
    low, high, whole, _ = known[name]
    return [(_FIRED, name, _FIRED)] if whole and low >= 0 and high <= 1 else []


def _range_where(b: str, name: str, lies: Range, made: Mapping[str, Operation], known: Mapping[str, Range]) -> Range:
    """Return the range of ``b`` where another value lies in a range, too."""
    low, high, whole = known[name][:3]
    changed = {name: Range(max(low, lies.low), min(high, lies.high), whole)}
    for operation in made.values():
        if b in changed or operation.name not in known:
            break
        if operation.name != name and not changed.keys().isdisjoint(operation.args):
            changed[operation.name] = _range(operation, [changed.get(arg, known[arg]) for arg in operation.args])
    return changed.get(b, known[b])


def _is_rounded_away(s: Range, b: Range) -> bool:
    most = 2.0 ** np.floor(np.log2(min(abs(s.low), abs(s.high))))
    gaps = (s.high - b.low, b.low), (b.high - s.low, b.high)
    return all(gap <= most * (1 - _SLACK * (end != 0)) for gap, end in gaps)


def _of_array(array: Array) -> Range:
    return Range(float(array.min()), float(array.max()), bool((array == np.rint(array)).all()), True)


def _hull(one: Range, other: Range) -> Range:
    return Range(min(one.low, other.low), max(one.high, other.high), one.whole and other.whole)


def _range(operation: Operation, args: list[Range]) -> Range:
    if operation.dtype == "bool":
        return _BOOL
    first, (low, high, whole, _) = args[-2:][0], args[-1]
    both = whole and first.whole
    match operation.op:
        case "add":
            return Range(first.low + low, first.high + high, both)
        case "sub":
            return Range(first.low - high, first.high - low, both)
        case "mul":
            # 0 times an unbounded value is 0 here: infinities are bounds, not values.
            corners = [x * y if x and y else 0 for x in first[:2] for y in (low, high)]
            return Range(min(corners), max(corners), both)
        case "min":
            return Range(min(first.low, low), min(first.high, high), both)
        case "max":
            return Range(max(first.low, low), max(first.high, high), both)
        case "where":
            return _hull(first, args[-1])
        case "neg":
            return Range(-high, -low, whole)
        case "abs":
            return Range(0, max(abs(low), abs(high)), whole)
        case "cast":
            return Range(low, high, whole or operation.dtype != "float32")
        case "div" if low > 0:
            return _range(replace(operation, op="mul"), [first, Range(1 / high, 1 / low, False)])
        case "sign":
            return Range(np.sign(low), np.sign(high), True)
        case "tanh":
            return Range(tanh(low), tanh(high), False)
        case "sigmoid":
            return Range((1 + tanh(low / 2)) / 2, (1 + tanh(high / 2)) / 2, False)
        case rounding if rounding in _ROUNDINGS:
            return Range(np.floor(low), np.ceil(high), True)
    return _ANY


class CellState:
    """The states of one Cell for a batch."""

    def __init__(self, cell: Cell, batch: int) -> None:
        self.cell = cell
        self._constants = {constant.name: constant.value for constant in cell.constants}
        self.states = {s.name: np.broadcast_to(s.start, (batch, *s.shape)) for s in cell.states}

    def evaluate(self, x: Floats) -> dict[str, NDArray[Any]]:
        """Return every value of the next step by name; x: all operands, flat, ``[B, values]``."""
        values: dict[str, NDArray[Any]] = {**self._constants, **self.states}
        at, flat = 0, x.reshape(len(x), -1)
        for name, shape in zip(self.cell.names, self.cell.operand_shapes, strict=True):
            values[name] = flat[:, at : at + prod(shape)].reshape(len(x), *shape)
            at += prod(shape)
        with np.errstate(all="ignore"):
            for operation in self.cell.operations:
                args = [values[name] for name in operation.args]
                values[operation.name] = np.asarray(OPERATIONS[operation.op].run(*args), operation.dtype)
        return values

    def advance(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Pass the states of an evaluated step to the next."""
        self.states = {s.name: np.broadcast_to(values[s.next], self.states[s.name].shape) for s in self.cell.states}

    def put_out(self, values: Mapping[str, NDArray[Any]], out: Floats) -> None:
        """Write the outputs of an evaluated step into ``out`` ``[B, *shape]``."""
        cell, batch = self.cell, len(out)
        flat = out.reshape(batch, -1)
        at = 0
        for name, shape in zip(cell.outputs, cell.output_shapes, strict=True):
            flat[:, at : at + prod(shape)] = np.broadcast_to(values[name], (batch, *shape)).reshape(batch, -1)
            at += prod(shape)

    def step(self, x: Floats, out: Floats) -> None:
        """Advance one time step with operands ``x``; write the outputs into ``out`` ``[B, *shape]``."""
        values = self.evaluate(x)
        self.put_out(values, out)
        self.advance(values)

    def require_finite(self) -> None:
        """Raise GraphError if a state has left float32's range."""
        for name, state in self.states.items():
            if not np.isfinite(state).all():
                raise GraphError(
                    f"its state '{name}' leaves float32's range; the network diverges",
                    node=self.cell.name,
                    slug="diverges",
                )


def sequence(cell: Cell, x: Floats) -> Floats:
    """Return the outputs ``[T, B, *shape]`` for operands ``[T, B, ...]``, from rest."""
    state, out = CellState(cell, x.shape[1]), np.empty((*x.shape[:2], *cell.shape), np.float32)
    for t in range(len(x)):
        state.step(x[t], out[t])
    state.require_finite()
    return out
