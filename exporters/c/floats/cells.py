"""Write a Cell's step as C: one loop over its elements, in which each operation is a statement of its own.

One operation a statement, without contraction of products and sums (``-ffp-contract=off``), gives the bits of the
reference run. ``exp``, ``tanh`` and the like are those of the C library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from stl_deploy.graph.cell import Array, Cell, Operation
from stl_deploy.graph.program import Shape
from stl_deploy.integers.fields import refusal

TYPES = {"float32": "float", "bool": "uint8_t", "int32": "int32_t", "int64": "int64_t"}
"""C's types of values."""
_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "gt": ">",
    "ge": ">=",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "and": "&&",
    "or": "||",
    "xor": "!=",
}
_FUNCTIONS = {
    **{name: f"{name}f" for name in ("floor", "ceil", "trunc", "sqrt", "exp", "log", "sin", "cos", "tanh", "erf")},
    **{name: f"{name}f" for name in ("log1p", "expm1", "pow")},
    "round": "rintf",
    "fma": "fmaf",
}
_WRITTEN: Mapping[str, Callable[..., str]] = {
    "neg": lambda a: f"-{a}",
    "abs": lambda a: f"{a} > 0 ? {a} : 0 - {a}",  # 0 of -0.0
    "min": lambda a, b: f"{a} < {b} || {a} != {a} ? {a} : {b}",  # NaN of either is kept
    "max": lambda a, b: f"{a} > {b} || {a} != {a} ? {a} : {b}",
    "not": lambda a: f"!{a}",
    "where": lambda c, a, b: f"{c} ? {a} : {b}",
    "sign": lambda a: f"{a} != {a} ? {a} : (float)(({a} > 0) - ({a} < 0))",
    "sigmoid": lambda a: f"1.0f / (1.0f + expf(-{a}))",
}


@dataclass(frozen=True)
class Memory:
    """Where the values of a Cell lie: C's expressions for the arrays of its operands, states and outputs.

    constant: declares an array and returns its name.
    """

    operands: Sequence[str]
    states: Mapping[str, str]
    output: str
    constant: Callable[[Array], str]


def whole_of(cell: Cell) -> Shape:
    """Return the shape of a Cell's loop; raise UnsupportedError for values that do not broadcast to one shape."""
    try:
        return np.broadcast_shapes(*(value.shape for value in cell.values.values()), *cell.output_shapes)
    except ValueError:
        raise refusal(
            cell,
            "several-shapes",
            "expected values that broadcast to one shape; found several in one step",
            "export it to ONNX",
        ) from None


def cell_loop(cell: Cell, memory: Memory) -> list[str]:
    """Return the lines of one step; raises as `whole_of`."""
    whole = whole_of(cell)
    late = [state for state in cell.states if state.shape != whole]
    lines = [f"for (int32_t i = 0; i < {prod(whole)}; i++) {{"]
    lines += [f"    {line}" for line in _element(cell, memory, whole)]
    lines.append("}")
    for state in late:  # read by several elements of the loop: all of them read the value before this step
        held = memory.states[state.name]
        lines.append(f"memcpy({held}, {held}_next, sizeof {held});")
    return lines


def _element(cell: Cell, memory: Memory, whole: Shape) -> Iterator[str]:
    """Yield the lines of one element ``i`` of the shape ``whole``."""
    names = {name: f"v{number}" for number, name in enumerate(cell.values)}

    def declared(name: str, value: str) -> str:
        return f"const {TYPES[cell.values[name].dtype]} {names[name]} = {value};"

    read = _read(cell)
    for name, array, shape in zip(cell.names, memory.operands, cell.operand_shapes, strict=True):
        if name in read:
            yield declared(name, f"{array}[{place(shape, whole)}]")
    for state in cell.states:
        if state.name in read:
            yield declared(state.name, f"{memory.states[state.name]}[{place(state.shape, whole)}]")
    for constant in cell.constants:
        if constant.name in read:
            yield declared(constant.name, _constant(constant.value, memory, whole))
    for operation in cell.operations:
        if operation.name in read:
            yield declared(operation.name, _expression(operation, [names[arg] for arg in operation.args]))
    yield ""
    for state in cell.states:
        held = memory.states[state.name] + ("" if state.shape == whole else "_next")
        yield f"{held}[{place(state.shape, whole)}] = {names[state.next]};"
    at = 0
    for name, shape in zip(cell.outputs, cell.output_shapes, strict=True):
        index = place(shape, whole)
        yield f"{memory.output}[{f'{at} + {index}' if at else index}] = {names[name]};"
        at += prod(shape)


def _read(cell: Cell) -> set[str]:
    """Return the values that the next states and the outputs are made of: compilers warn of others."""
    read = {*cell.outputs, *(state.next for state in cell.states)}
    for operation in reversed(cell.operations):
        if operation.name in read:
            read.update(operation.args)
    return read


def _constant(value: Array, memory: Memory, whole: Shape) -> str:
    if value.size == 1:
        return literal(value.reshape(-1)[0])
    return f"{memory.constant(value)}[{place(value.shape, whole)}]"


def _expression(operation: Operation, args: Sequence[str]) -> str:
    op = operation.op
    if op == "cast" and operation.dtype == "bool":
        return f"{args[0]} != 0"
    if op == "cast":
        return f"({TYPES[operation.dtype]}){args[0]}"
    if op in _INFIX:
        return f"{args[0]} {_INFIX[op]} {args[1]}"
    if op in _FUNCTIONS:
        return f"{_FUNCTIONS[op]}({', '.join(args)})"
    return _WRITTEN[op](*args)


def place(shape: Shape, whole: Shape) -> str:
    """Return C's index of an array of ``shape`` for the element ``i`` of the shape ``whole``, to which it broadcasts.

    Examples:
        >>> place((3, 1, 1), (3, 4, 4)), place((4,), (3, 4)), place((3, 4), (3, 4)), place((1,), (4,))
        ('i / 16', 'i % 4', 'i', '0')
    """
    sizes = (1,) * (len(whole) - len(shape)) + shape
    runs: list[list[int]] = []  # [first, last] of neighbouring axes along which the array is not repeated
    for axis, (size, of) in enumerate(zip(sizes, whole, strict=True)):
        if size != of or of == 1:
            continue
        if runs and prod(whole[runs[-1][1] + 1 : axis]) == 1:
            runs[-1][1] = axis
        else:
            runs.append([axis, axis])
    terms = []
    for first, last in runs:
        inner, size, stride = prod(whole[last + 1 :]), prod(whole[first : last + 1]), prod(sizes[last + 1 :])
        index = "i" if inner == 1 else f"i / {inner}"
        if prod(whole[:first]) > 1:
            index = f"{index} % {size}"
        terms.append(index if stride == 1 else f"{index} * {stride}")
    return " + ".join(terms) or "0"


def literal(value: np.generic) -> str:
    """Return a number as C writes it: nine digits, from which a float32 is read back, or seventeen, for a float64."""
    if not isinstance(value, np.floating):
        return str(int(value))
    if np.isinf(value):
        return "-INFINITY" if value < 0 else "INFINITY"
    single = value.dtype == np.float32
    text = f"{float(value):.{9 if single else 17}g}"
    return (text if {*".e"} & {*text} else f"{text}.0") + ("f" if single else "")
