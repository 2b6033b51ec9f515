"""Sums in float64, rounded once: against Python's exact fsum, and where float32 gets it wrong."""

import math

import numpy as np
import pytest

from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.program import Conv, Input, Linear, Operand, Output, Pool, Program
from stl_deploy.graph.run import run

F = np.float32


def _net(node):
    return Program(
        (
            Input(name="input", shape=node.input_shape, operands=()),
            node,
            Output(name="output", shape=node.shape, operands=(Operand(node.name),)),
        ),
        1.0,
        {"input": {"fraction_bits": 0, "max": 1}},
    )


def _conv(rng):
    return Conv(
        name="conv",
        shape=(4, 3, 5),
        operands=(Operand("input"),),
        weight=rng.normal(0, 1, (4, 3, 2, 3)).astype(F),
        bias=rng.normal(0, 1, 4).astype(F),
        stride=(2, 1),
        padding=((1, 0), (2, 1)),
        dilation=(1, 2),
        groups=2,
        input_shape=(6, 5, 6),
    )


def test_a_convolution_is_the_correctly_rounded_sum():
    rng = np.random.default_rng(0)
    node = _conv(rng)
    x = rng.integers(0, 2, (1, 2, 6, 5, 6)).astype(F)
    y = run(_net(node), x, double=True).y
    padded = np.pad(x[0], ((0, 0), (0, 0), (1, 0), (2, 1))).astype(float)
    for b, o, i, j in np.ndindex(2, 4, 3, 5):
        group = o // 2
        patch = padded[b, 3 * group : 3 * group + 3, 2 * i : 2 * i + 2, j : j + 5 : 2]
        terms = (patch * node.weight[o].astype(float)).ravel()
        assert y[0, b, o, i, j] == F(math.fsum([*terms, float(node.bias[o])]))


def test_float32_loses_what_float64_keeps():
    weight = np.array([[2.0**24, 1, -(2.0**24)] * 20], F)
    node = Linear(
        name="fc", shape=(1,), operands=(Operand("input"),), weight=weight, bias=np.array([0.5], F), input_shape=(60,)
    )
    ones = np.ones((1, 1, 60), F)
    assert run(_net(node), ones).y.item() != 20.5
    assert run(_net(node), ones, double=True).y.item() == 20.5
    (single,) = prove_exact(_net(node))
    assert not single.exact
    assert "float32 holds 24" in single.reason


@pytest.mark.parametrize(("divisor", "expected"), [(1, 2.0**24 + 2), (4, 2.0**22 + 0.5)])
def test_pooling(divisor, expected):
    node = Pool(
        name="pool",
        shape=(1, 1, 1),
        operands=(Operand("input"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0), (0, 0)),
        divisor=divisor,
        input_shape=(1, 2, 2),
    )
    x = np.array([2.0**24, 1, 0, 1], F).reshape(1, 1, 1, 2, 2)
    assert run(_net(node), x, double=True).y.item() == expected
    assert run(_net(node), x).y.item() != expected


def test_dense_weights_converted_in_parts_give_the_same_sums():
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(0, 1, (600, 700)).astype(F), rng.normal(0, 1, 600).astype(F)
    node = Linear(name="fc", shape=(600,), operands=(Operand("input"),), weight=weight, bias=bias, input_shape=(700,))
    x = rng.integers(0, 2, (2, 3, 700)).astype(F)
    y = run(_net(node), x, double=True).y
    for sample in (0, 2):
        for row in (0, 373, 374, 599):  # the part of 2^18 weights ends after row 373
            terms = [*weight[row][x[1, sample] > 0].astype(float), float(bias[row])]
            assert y[1, sample, row] == pytest.approx(math.fsum(terms), rel=2**-23)
