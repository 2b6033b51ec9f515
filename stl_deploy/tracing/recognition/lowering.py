"""Lower elementwise ATen operations to those of a Cell: the same bits, in the same types.

A number beside a tensor takes the tensor's type, as in torch's kernels. ``add`` with alpha, ``addcmul`` and ``lerp``
round once on the CPU, so they are fused products and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from stl_deploy.graph.cell import OPERATIONS, Dtype
from stl_deploy.tracing.recording.operations import COMPARES
from stl_deploy.tracing.recording.remedies import no_form
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref

_TYPES: Mapping[torch.dtype, Dtype] = {
    torch.float32: "float32",
    torch.bool: "bool",
    torch.int64: "int64",
    torch.int32: "int32",
}


class NoFormError(Exception):
    """A Cell has no form for an operation; the message says why."""


def dtype_of(node: Node) -> Dtype:
    """Return a node's type; raises NoFormError for one that Cells do not have."""
    if node.dtype not in _TYPES:
        dtype = str(node.dtype).removeprefix("torch.")
        raise NoFormError(f"expected float32, bool, int32 or int64; found '{node.called}' in {dtype}")
    return _TYPES[node.dtype]


class Writer(Protocol):
    """Takes down the operations of a Cell."""

    def op(self, op: str, *args: str, dtype: Dtype) -> str:
        """Add an operation; return its name."""

    def constant(self, value: Any, dtype: Dtype) -> str:
        """Return the name of a constant."""


@dataclass(frozen=True)
class Call:
    """One ATen operation. read: gives the name of an argument's value; dtype, type_of_node: its type, a tensor's."""

    writer: Writer
    node: Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    read: Callable[[Any], str]
    dtype: Dtype
    type_of_node: Callable[[Node], Dtype] = dtype_of

    @property
    def types(self) -> list[Dtype]:
        """Types of the tensors among the arguments."""
        return [self.type_of(arg) for arg in self.args if isinstance(arg, Ref | Node)]

    @property
    def computed(self) -> Dtype:
        """The type that arguments are converted to: the result's, or of a comparison the arguments' own."""
        if self.dtype != "bool":
            return self.dtype
        numbers = [arg for arg in self.args if isinstance(arg, float) and not isinstance(arg, bool)]
        order: list[Dtype] = ["float32", "int64", "int32"]
        of_bools: Dtype = "int32" if self.node.name in COMPARES else "bool"  # Cells compare numbers
        return "float32" if numbers else next((dtype for dtype in order if dtype in self.types), of_bools)

    def type_of(self, arg: Ref | Node) -> Dtype:
        """Return the type of a tensor."""
        return self.type_of_node(arg.signal.node if isinstance(arg, Ref) else arg)

    def put(self, op: str, *args: str, dtype: Dtype | None = None) -> str:
        """Add an operation, of the result's type."""
        return self.writer.op(op, *args, dtype=dtype or self.dtype)

    def number(self, value: float) -> str:
        """Return a constant of the type that is computed in."""
        return self.writer.constant(value, self.computed)

    def arg(self, item: Any, dtype: Dtype | None = None) -> str:
        """Return an argument in the type that is computed in, or in another one."""
        wanted = dtype or self.computed
        if isinstance(item, bool | int | float):
            return self.writer.constant(item, wanted)
        if not isinstance(item, Ref | Node):
            raise NoFormError(f"'{self.node.called}' is called with {type(item).__name__}")
        return self.converted(self.read(item), self.type_of(item), wanted)

    def converted(self, value: str, given: Dtype, wanted: Dtype) -> str:
        """Return a value in another type; floats to integers toward 0."""
        if given == wanted:
            return value
        if wanted == "bool":
            return self.writer.op("ne", value, self.writer.constant(0, given), dtype="bool")
        if given == "float32":
            value = self.writer.op("trunc", value, dtype="float32")
        return self.writer.op("cast", value, dtype=wanted)

    def option(self, place: int, name: str, default: Any) -> Any:
        """Return an argument given by place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


def lower(call: Call) -> str:
    """Add the operations of one call; return the name of its value; raises NoFormError."""
    name = call.node.name
    form = _FORMS.get(name)
    if form is not None:
        return form(call)
    logical = name.startswith("logical_") or (name.startswith("bitwise_") and set(call.types) == {"bool"})
    op = _RENAMED.get(name, name.split("_")[-1] if logical else name)
    if op not in OPERATIONS or name in ("cast", "fma"):
        raise NoFormError(no_form(name))
    if op in _OF_BOOLS and call.dtype == "bool":
        op, logical = _OF_BOOLS[op], True
    tensors = [arg for arg in call.args if isinstance(arg, Ref | Node | int | float)]
    return call.put(op, *(call.arg(arg, "bool" if logical else None) for arg in tensors))


_RENAMED = {"maximum": "max", "minimum": "min", "sgn": "sign"}
_OF_BOOLS = {"mul": "and", "min": "and", "max": "or"}


def _copy(call: Call) -> str:
    return call.converted(call.read(call.args[0]), call.type_of(call.args[0]), call.dtype)


def _sum(call: Call) -> str:
    left, right = call.arg(call.args[0]), call.arg(call.args[1])
    minus = call.node.name != "add"
    if call.node.name == "rsub":
        left, right = right, left
    factor = call.option(2, "alpha", 1)
    if factor == 1:
        return call.put("sub" if minus else "add", left, right)
    if call.dtype != "float32":
        raise NoFormError(f"'{call.node.called}' with alpha computes in {call.dtype}")
    return call.put("fma", call.number(-factor if minus else factor), right, left)


def _quotient(call: Call) -> str:
    return call.put("div", call.arg(call.args[0]), call.arg(call.args[1]))


def _clamped(call: Call) -> str:
    value = call.arg(call.args[0])
    low: Any
    high: Any
    match call.node.name:
        case "relu":
            low, high = 0, None
        case "hardtanh":
            low, high = call.option(1, "min_val", -1), call.option(2, "max_val", 1)
        case "clamp_max":
            low, high = None, call.option(1, "max", None)
        case _:
            low, high = call.option(1, "min", None), call.option(2, "max", None)
    if low is not None:
        value = call.put("max", value, call.arg(low))
    return value if high is None else call.put("min", value, call.arg(high))


def _where(call: Call) -> str:
    where, one, other = call.args
    if call.node.name == "masked_fill":
        other, where, one = call.args
    return call.put("where", call.arg(where, "bool"), call.arg(one), call.arg(other))


def _heaviside(call: Call) -> str:
    x, at_zero = call.arg(call.args[0]), call.arg(call.args[1])
    zero = call.number(0)
    above = call.put("cast", call.put("gt", x, zero, dtype="bool"))
    return call.put("where", call.put("eq", x, zero, dtype="bool"), at_zero, above)


def _power(call: Call) -> str:
    base, exponent = call.args[0], 2 if call.node.name == "square" else call.args[1]
    x = call.arg(base)
    if exponent in (2, 3):
        square = call.put("mul", x, x)
        return square if exponent == 2 else call.put("mul", square, x)
    if exponent == 0.5:
        return call.put("sqrt", x)
    if exponent == -1:
        return call.put("div", call.number(1), x)
    return call.put("pow", x, call.arg(exponent))


def _inverse(call: Call) -> str:
    x = call.arg(call.args[0])
    return call.put("div", call.number(1), call.put("sqrt", x) if call.node.name == "rsqrt" else x)


def _added_product(call: Call) -> str:
    total, one, other = map(call.arg, call.args[:3])
    factor = call.kwargs.get("value", 1)
    if factor != 1:
        one = call.put("mul", call.number(factor), one)
    if call.node.name == "addcdiv":
        return call.put("add", total, call.put("div", one, other))
    return call.put("fma", one, other, total)


def _between(call: Call) -> str:
    start, end, weight = call.args
    a, b = call.arg(start), call.arg(end)
    step = call.put("sub", b, a)
    w = call.arg(weight)
    near = call.put("fma", w, step, a)
    far = call.put("fma", call.put("sub", w, call.number(1)), step, b)
    small = call.put("lt", call.put("abs", w), call.number(0.5), dtype="bool")
    return call.put("where", small, near, far)


def _softplus(call: Call) -> str:
    x, beta = call.arg(call.args[0]), call.option(1, "beta", 1)
    scaled = x if beta == 1 else call.put("mul", x, call.number(beta))
    large = call.put("gt", scaled, call.number(call.option(2, "threshold", 20)), dtype="bool")
    soft = call.put("log1p", call.put("exp", scaled))
    return call.put("where", large, x, soft if beta == 1 else call.put("div", soft, call.number(beta)))


def _silu(call: Call) -> str:
    x = call.arg(call.args[0])
    return call.put("div", x, call.put("add", call.number(1), call.put("exp", call.put("neg", x))))


def _leaky_relu(call: Call) -> str:
    x, slope = call.arg(call.args[0]), call.option(1, "negative_slope", 0.01)
    above = call.put("gt", x, call.number(0), dtype="bool")
    return call.put("where", above, x, call.put("mul", x, call.number(slope)))


_FORMS: Mapping[str, Callable[[Call], str]] = {
    **dict.fromkeys(("_to_copy", "clone", "alias", "detach", "lift_fresh", "positive"), _copy),
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "relu", "hardtanh"), _clamped),
    **dict.fromkeys(("where", "masked_fill"), _where),
    **dict.fromkeys(("pow", "square"), _power),
    **dict.fromkeys(("reciprocal", "rsqrt"), _inverse),
    **dict.fromkeys(("addcmul", "addcdiv"), _added_product),
    "div": _quotient,
    "heaviside": _heaviside,
    "lerp": _between,
    "softplus": _softplus,
    "silu": _silu,
    "leaky_relu": _leaky_relu,
}
"""Forms of ATen operations that are not one operation of the same name."""
LOWERED = frozenset((*OPERATIONS, *_RENAMED, *_FORMS))
"""Names of the operations that Cells have."""
