"""A Cell as a trainable torch module: its operations one by one, forward to the bit.

Bools and integers are floats that hold them: float32 for bools, float64 for integers, up to 2^53. A comparison of
floats has the surrogate's gradient at its distance, a rounding passes its gradient straight through, and what is chosen
by ``where`` gives the condition none, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stl_deploy.graph.cell import Cell, Operation
from stl_deploy.nn.layers import straight_through
from stl_deploy.nn.node_layer import NodeLayer, as_array
from stl_deploy.nn.surrogate import Derivative, Surrogate, surrogate_of

States = dict[str, Tensor]


class _Compared(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, compare: Callable[[Tensor, Tensor], Tensor], derivative: Derivative
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.derivative, ctx.sign = derivative, 1 if compare in (torch.gt, torch.ge) else -1
        return compare(a, b).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, b = ctx.saved_tensors
        grad = ctx.sign * ctx.derivative(a - b) * grad
        return grad.sum_to_size(a.shape), -grad.sum_to_size(b.shape), None, None


def _straight(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: straight_through(x, run(x))


def _flag(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: run(a, b).to(a.dtype)


_COMPARISONS = {"gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le}
_RUN: Mapping[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "abs", "sqrt", "exp", "log", "pow")},
    **{name: getattr(torch, name) for name in ("sin", "cos", "tanh", "sigmoid", "erf", "log1p", "expm1")},
    **{name: _straight(getattr(torch, name)) for name in ("floor", "ceil", "round", "trunc", "sign")},
    **{name: _flag(run) for name, run in _COMPARISONS.items()},
    "eq": _flag(torch.eq),
    "ne": _flag(torch.ne),
    "fma": lambda a, b, c: torch.addcmul(c, a, b),
    "min": torch.minimum,
    "max": torch.maximum,
    "where": lambda where, one, other: torch.where(where > 0.5, one, other),
    "cast": lambda x: x,
    "and": torch.mul,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: a + b - 2 * a * b,
    "not": lambda a: 1 - a,
}


_INTEGERS = {"int32", "int64"}


def _held(dtype: str) -> str:
    """Return the type of the floats that hold values of a type."""
    return "float64" if dtype in _INTEGERS else "float32"


class CellLayer(NodeLayer):
    """A Cell. Its float arrays are parameters, its numbers are not."""

    node: Cell

    def __init__(self, node: Cell, surrogate: str | Surrogate) -> None:
        super().__init__(node)
        constants = {f"constant_{number}": constant.value for number, constant in enumerate(node.constants)}
        starts = {f"start_{number}": state.start for number, state in enumerate(node.states)}
        self.learned = tuple(key for key, array in constants.items() if array.ndim and array.dtype == np.float32)
        arrays = (constants | starts).items()
        self.hold(**{key: array.astype(_held(array.dtype.name)) for key, array in arrays})
        self._derivative = surrogate_of(surrogate)
        self._types = {name: value.dtype for name, value in node.values.items()}

    def _constant(self, number: int) -> Tensor:
        return cast(Tensor, getattr(self, f"constant_{number}"))

    def restored(self) -> Cell:
        """Return the node with the present numbers."""
        constants = list(self.node.constants)
        for number, constant in enumerate(constants):
            if f"constant_{number}" in self.learned:
                constants[number] = replace(constant, value=as_array(self._constant(number)))
        return replace(self.node, constants=tuple(constants))

    def rest(self, x: Tensor) -> States:
        """Return the states before the first step, for operands ``[B, values]``."""
        starts = ((state, self.get_buffer(f"start_{number}")) for number, state in enumerate(self.node.states))
        return {state.name: start.expand(len(x), *state.shape) for state, start in starts}

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs ``[T, B, *shape]`` of flat operands ``[T, B, values]``, from rest."""
        states = self.rest(x[0])
        return torch.stack([self.step(now, states) for now in x.unbind(0)])

    def step(self, x: Tensor, states: States) -> Tensor:
        """Step operands ``[B, values]`` to outputs; changes ``states``."""
        node, at = self.node, 0
        values = {constant.name: self._constant(number) for number, constant in enumerate(node.constants)} | states
        for name, shape in zip(node.names, node.operand_shapes, strict=True):
            values[name] = x[:, at : at + prod(shape)].reshape(-1, *shape)
            at += prod(shape)
        for operation in node.operations:
            values[operation.name] = self._run(operation, [values[name] for name in operation.args])
        for state in node.states:
            states[state.name] = values[state.next].expand(len(x), *state.shape)
        shapes = zip(node.outputs, node.output_shapes, strict=True)
        made = [values[name].expand(len(x), *shape).flatten(1) for name, shape in shapes]
        return torch.cat(made, 1).reshape(-1, *node.shape)

    def _run(self, operation: Operation, args: list[Tensor]) -> Tensor:
        compare = _COMPARISONS.get(operation.op)
        if compare is not None and self._types[operation.args[0]] == "float32":
            made: Tensor = _Compared.apply(*args, compare, self._derivative)  # type: ignore[no-untyped-call]
            return made
        if operation.op == "cast" and operation.dtype == "bool":
            return (args[0] != 0).float()  # 2 and -1 are true, which is 1
        made = _RUN[operation.op](*args)
        known = {self._types[name] for name in (*operation.args, operation.name)}
        return made.to(getattr(torch, _held(operation.dtype))) if known & _INTEGERS else made
