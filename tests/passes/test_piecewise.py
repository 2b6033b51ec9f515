"""Piecewise-linear functions: equal functions have equal forms, and sums of ramps are the functions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import OPERATIONS
from stl_deploy.graph.run import run
from stl_deploy.passes.piecewise import EXACT, IDENTITY, NotPiecewiseError, Piecewise, constant
from stl_deploy.passes.ramps_for_cells import ramps_for_cells
from tests.energy.nets import f32, program, start
from tests.graph.cells import cell

RANDOM = np.random.default_rng(0)
POINTS = [Fraction(k, 8) for k in range(-80, 81)]


def drawn() -> tuple[Piecewise, Any]:
    """Draw operations on one number and constants in quarters; return them as a function, and as numpy runs them."""
    x = np.array([float(each) for each in POINTS])
    values: list[tuple[Piecewise, Any]] = [(IDENTITY, x)]
    values += [(constant(each), each + 0 * x) for each in RANDOM.integers(-16, 17, 4) / 4]
    for op in RANDOM.choice(["add", "sub", "neg", "abs", "max", "min", "mul", "where", "sign", "fma"], 6):
        chosen = [values[k] for k in RANDOM.integers(0, len(values), OPERATIONS[op].arity)]
        if op == "where":
            a, b = chosen[:2]
            compare = str(RANDOM.choice(["gt", "ge", "lt", "le", "eq", "ne"]))
            chosen[0] = EXACT[compare](a[0], b[0]), OPERATIONS[compare].run(a[1], b[1])
        functions, arrays = zip(*chosen, strict=True)
        run_it = (lambda a, b, c: a * b + c) if op == "fma" else OPERATIONS[op].run
        try:
            values.append((EXACT[op](*functions), run_it(*arrays)))
        except NotPiecewiseError:
            continue
    return values[-1]


@pytest.mark.parametrize("_", range(60))
def test_functions_have_the_values_of_their_operations_also_at_knots(_: int) -> None:
    function, values = drawn()
    assert [function.part(x).at(x) for x in POINTS] == [Fraction(float(each)) for each in values]
    assert list(function.knots) == sorted(set(function.knots))
    if function.is_continuous:
        ramps, offset = function.ramps()
        assert [offset + sum(ramp.at(x) for ramp in ramps) for x in POINTS] == [Fraction(float(v)) for v in values]


def test_spellings_of_one_function_have_one_form() -> None:
    x, zero, six, half = IDENTITY, constant(0), constant(6), constant(0.5)
    apply = lambda op, *args: EXACT[op](*args)  # noqa: E731
    relu = apply("max", x, zero)
    others = [
        apply("mul", x, apply("gt", x, zero)),
        apply("mul", x, apply("ge", x, zero)),
        apply("mul", half, apply("add", x, apply("abs", x))),
        apply("where", apply("lt", x, zero), zero, x),
        apply("sub", x, apply("min", x, zero)),
        apply("min", relu, constant(np.inf)),
        apply("max", relu, constant(-np.inf)),
    ]
    assert others == [relu] * len(others)
    assert relu.ramps() == ([(1, 0, None, 1)], 0)
    relu6 = apply("min", relu, six)
    assert apply("sub", six, apply("max", apply("sub", six, relu), zero)) == relu6
    assert apply("sub", relu, apply("max", apply("sub", x, six), zero)) == relu6
    assert relu6.ramps() == ([(1, 0, 6, 1)], 0)


def test_a_step_is_not_continuous_and_a_square_not_piecewise() -> None:
    assert not EXACT["gt"](IDENTITY, constant(0)).is_continuous
    assert not EXACT["where"](EXACT["eq"](IDENTITY, constant(0)), constant(1), IDENTITY).is_continuous
    with pytest.raises(NotPiecewiseError):
        EXACT["mul"](IDENTITY, IDENTITY)


def test_each_channel_has_ramps_of_its_own() -> None:
    """Slopes of 0 and 1 and a falling one beside others, bounds that are infinite in a channel."""
    numbers = [("a", f32([0, 1, -0.5, 0.25])[:, None]), ("top", f32([1, np.inf, 2, 0.5])[:, None]), ("zero", f32(0))]
    operations = [
        "below = min x zero",
        "part = mul below a",
        "above = max x zero",
        "y = add above part",
        "m = min y top",
    ]
    net = program(
        start((4, 3)), cell("c", [("x", ir.Operand("in"), (4, 3))], operations, constants=numbers, outputs="m")
    )
    x = (RANDOM.integers(-64, 65, (1, 50, 4, 3)) / 16).astype(np.float32)
    made = ramps_for_cells(net)
    assert not any(node.name == "c_3" for node in made.nodes)
    np.testing.assert_array_equal(run(made, x).y, run(net, x).y)
