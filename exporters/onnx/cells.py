"""Emit one step of a Cell: one operator for each of its operations, in the Program's order."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from stl_deploy.exporters.onnx.scope import Scope
from stl_deploy.exporters.onnx.states import States
from stl_deploy.graph.cell import Cell, Operation, State

_OPERATORS = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "abs": "Abs",
    "min": "Min",
    "max": "Max",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "lt": "Less",
    "le": "LessOrEqual",
    "eq": "Equal",
    "and": "And",
    "or": "Or",
    "xor": "Xor",
    "not": "Not",
    "where": "Where",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "erf": "Erf",
    "pow": "Pow",
}
OPERATORS = frozenset(_OPERATORS.values())
_TYPES = {
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


def cell_step(scope: Scope, cell: Cell, x: str, states: States, output: str | None = None) -> str:
    """Add one step on the operands ``x``, flat (one alone: in its shape); return the name of the outputs.

    States are float32 tensors, which hold bools, or int64 ones.
    """
    values = _operands(scope, cell, x)
    values |= {
        constant.name: scope.weight(f"{cell.name}.{constant.name}", constant.value) for constant in cell.constants
    }
    for state in cell.states:
        held = _held(state)
        before = states.open(cell.name, state.name, state.shape, state.start.astype(held))
        values[state.name] = _cast(scope, f"{cell.name}/{state.name}", before, held, state.start.dtype.name)
    for operation in cell.operations:
        values[operation.name] = _operation(scope, cell, operation, values)
    for state in cell.states:
        label = f"{cell.name}/{state.name}"
        after = _cast(scope, label, values[state.next], state.start.dtype.name, _held(state))
        if cell.values[state.next].shape != state.shape or cell.values[state.next].steady:
            after = scope.op("Expand", [after, scope.op("Shape", [values[state.name]], f"{label}_shape")], label)
        states.close(cell.name, state.name, after)
    return _outputs(scope, cell, values, x, output)


def _held(state: State) -> str:
    return "int64" if np.issubdtype(state.start.dtype, np.integer) else "float32"


def _operands(scope: Scope, cell: Cell, x: str) -> dict[str, str]:
    """Return each operand's value by its name, cut from the flat ones."""
    if len(cell.names) == 1:
        return {cell.names[0]: x}
    values, at = {}, 0
    for name, shape in zip(cell.names, cell.operand_shapes, strict=True):
        size = int(np.prod(shape))
        ends = [scope.integers(at), scope.integers(at + size), scope.integers(1)]
        part = scope.op("Slice", [x, *ends], f"{cell.name}/{name}_flat")
        values[name] = scope.op("Reshape", [part, scope.integers(0, *shape)], f"{cell.name}/{name}")
        at += size
    return values


def _outputs(scope: Scope, cell: Cell, values: dict[str, str], x: str, output: str | None) -> str:
    """Return the value of the outputs, flattened and concatenated if there are several."""
    made = []
    for name, shape in zip(cell.outputs, cell.output_shapes, strict=True):
        value = values[name]
        if cell.values[name].shape != shape or cell.values[name].steady:
            batch = scope.op("Shape", [x], f"{cell.name}/batch", start=0, end=1)
            whole = scope.op("Concat", [batch, scope.integers(*shape)], f"{cell.name}/{name}_shape", axis=0)
            value = scope.op("Expand", [value, whole], f"{cell.name}/{name}_whole")
        made.append(value)
    if len(made) == 1:
        return scope.op("Identity", made, f"{cell.name}/out", output=output)
    flat = [scope.op("Reshape", [value, scope.integers(0, -1)], f"{cell.name}/flat") for value in made]
    return scope.op("Concat", flat, f"{cell.name}/out", output=output, axis=1)


def _cast(scope: Scope, label: str, value: str, given: str, wanted: str) -> str:
    return value if given == wanted else scope.op("Cast", [value], label, to=_TYPES[wanted])


def _operation(scope: Scope, cell: Cell, operation: Operation, values: dict[str, str]) -> str:
    args, label = [values[name] for name in operation.args], f"{cell.name}/{operation.name}"

    def one() -> str:
        return scope.number("one", np.float32(1))

    match operation.op:
        case "ne":
            return scope.op("Not", [scope.op("Equal", args, label)], label)
        case "cast":
            return scope.op("Cast", args, label, to=_TYPES[operation.dtype])
        case "fma":
            return _fused(scope, label, args)
        case "trunc":
            size = scope.op("Floor", [scope.op("Abs", args, label)], label)
            return scope.op("Mul", [size, scope.op("Sign", args, label)], label)
        case "log1p":
            return scope.op("Log", [scope.op("Add", [*args, one()], label)], label)
        case "expm1":
            return scope.op("Sub", [scope.op("Exp", args, label), one()], label)
    return scope.op(_OPERATORS[operation.op], args, label)


def _fused(scope: Scope, label: str, args: list[str]) -> str:
    """Add a·b + c, rounded once, as `stl_deploy.graph.cell.fused` computes it."""

    def op(kind: str, *of: str) -> str:
        return scope.op(kind, list(of), label)

    def to(kind: int, value: str) -> str:
        return scope.op("Cast", [value], label, to=kind)

    a, b, addend = (to(TensorProto.DOUBLE, value) for value in args)
    product = op("Mul", a, b)
    total = op("Add", product, addend)
    rounded = to(TensorProto.FLOAT, total)
    back = op("Sub", total, product)
    error = op("Add", op("Sub", product, op("Sub", total, back)), op("Sub", addend, back))
    wide = to(TensorProto.DOUBLE, rounded)
    rest = op("Sub", total, wide)
    beyond = op("Add", op("Add", wide, rest), rest)
    other = to(TensorProto.FLOAT, beyond)
    is_float = op("Equal", to(TensorProto.DOUBLE, other), beyond)
    outward = op("Greater", op("Mul", rest, error), to(TensorProto.DOUBLE, scope.number("zero", np.float32(0))))
    return op("Where", op("And", is_float, outward), other, rounded)
