"""The normal form of elementwise code has its values, and equal code has equal forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stl_deploy.tracing.recognition.lowering import NoFormError
from stl_deploy.tracing.recognition.normal_form import NormalForm, Polynomial, Symbol
from stl_deploy.tracing.unrolling.layout import BATCH
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal
from tests.drawn import examples

V, X, S = (
    Signal(Node(name, None, (), {}, ((BATCH,),), dtype))
    for name, dtype in (("v", torch.float32), ("x", torch.float32), ("s", torch.bool))
)
SYMBOLS = {V: Symbol(), X: Symbol(), S: Symbol(binary=True)}
VALUES = {V: torch.tensor([0.7, -1.3, 2.2]), X: torch.tensor([1.1, 0.4, -0.6]), S: torch.tensor([True, False, True])}


def made(name: str, call: object, *args: Signal | float, dtype: torch.dtype = torch.float32) -> Signal:
    node = Node(name, call, (), {}, ((BATCH,),), dtype, pointwise=True)  # type: ignore[arg-type]
    return Signal(node, args=tuple(Ref(arg, 0) if isinstance(arg, Signal) else arg for arg in args))


def form(signal: Signal, **options: Any) -> Polynomial:
    return NormalForm(lambda s, lag: Polynomial.of(SYMBOLS[s]) if s in SYMBOLS else None, **options)(signal, 0)


def value(signal: Signal) -> Tensor:
    if signal in VALUES:
        return VALUES[signal]
    args = [value(arg.signal) if isinstance(arg, Ref) else arg for arg in signal.args]
    return signal.node.call(*args)  # type: ignore[misc]


aten = torch.ops.aten
UNARY = {"neg": aten.neg}
BINARY = {"add": aten.add, "sub": aten.sub, "mul": aten.mul}


def signals(depth: int) -> st.SearchStrategy[Signal]:
    leaf = st.sampled_from([V, X, made("_to_copy", lambda s: s.float(), S)])
    if not depth:
        return leaf
    inner = signals(depth - 1)
    two = st.builds(lambda n, a, b: made(n, BINARY[n], a, b), st.sampled_from(sorted(BINARY)), inner, inner)
    scaled = st.builds(lambda a, k: made("mul", aten.mul, a, k), inner, st.sampled_from([0.5, -2.0, 0.3]))
    chosen = st.builds(lambda a, b: made("where", aten.where, S, a, b), inner, inner)
    return st.one_of(leaf, two, scaled, chosen, st.builds(lambda a: made("neg", aten.neg, a), inner))


@examples(200)
@given(signals(3))
def test_a_form_has_the_values_of_the_code(signal: Signal) -> None:
    numbers = {SYMBOLS[s]: Polynomial.number(v.double().numpy()) for s, v in VALUES.items()}
    found = form(signal).at(numbers).constant
    assert found is not None
    np.testing.assert_allclose(np.broadcast_to(found, 3), value(signal).double().numpy(), rtol=1e-4, atol=1e-4)


def leaky(v: Signal, x: Signal) -> Signal:
    return made("add", aten.add, v, made("div", aten.div, made("sub", aten.sub, x, v), 2.0))


def lerped(v: Signal, x: Signal) -> Signal:
    return made("lerp", aten.lerp, v, x, 0.5)


def summed(v: Signal, x: Signal) -> Signal:
    return made("add", aten.add, made("mul", aten.mul, v, 0.5), made("mul", aten.mul, x, 0.5))


@pytest.mark.parametrize("update", [leaky, lerped, summed])
def test_three_ways_to_write_a_leak(update: Callable[[Signal, Signal], Signal]) -> None:
    found = form(update(V, X))
    assert found.is_affine({SYMBOLS[V], SYMBOLS[X]})
    assert (found[SYMBOLS[V],], found[SYMBOLS[X],], found[()]) == (0.5, 0.5, 0)


def test_a_spike_squared_is_the_spike() -> None:
    spike = made("_to_copy", lambda s: s.float(), S)
    assert form(made("mul", aten.mul, spike, spike)).terms == form(spike).terms
    assert form(made("gt", aten.gt, spike, 0.5, dtype=torch.bool)).terms == form(spike).terms
    assert form(made("clamp", aten.clamp, spike, 0, 1)).terms == form(spike).terms


def test_a_bound_is_a_symbol_unless_it_is_left_out() -> None:
    bounded = made("clamp", aten.clamp, V, -1, 1)
    (symbol,) = form(bounded).symbols
    assert symbol.op == "min"
    assert form(bounded, unbounded=True).symbols == {SYMBOLS[V]}
    within = {SYMBOLS[V]: (np.float64(-1), np.float64(1))}
    assert form(bounded, ranges=within).symbols == {SYMBOLS[V]}


def test_what_is_no_elementwise_arithmetic_has_no_form() -> None:
    layer = Signal(Node("mm", None, (), {}, ((BATCH,),), torch.float32), args=(Ref(V, 0),))
    with pytest.raises(NoFormError, match="mm"):
        form(layer)
