"""The least f so that all values are multiples of 2^-f, against its definition in whole fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stl_deploy.graph.exact import fraction_bits

FLOATS = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda kind: arrays.arrays(
        kind,
        st.integers(0, 5),
        elements=st.one_of(
            st.floats(width=32 if kind == np.float32 else 64, allow_nan=False, allow_infinity=False),
            st.integers(-40, 40).map(lambda exponent: float(np.ldexp(1.0, exponent))),
        ),
    )
)
"""Among them zeros of both signs, subnormal numbers and powers of two."""


@given(FLOATS)
def test_it_is_the_least_such_f(values: np.ndarray) -> None:
    f = fraction_bits(values)
    scaled = [Fraction(float(value)) * Fraction(2) ** f for value in values]
    assert all(one.denominator == 1 for one in scaled)
    if any(scaled):
        assert any(one.numerator % 2 for one in scaled)  # 2^-(f-1) would be too coarse
    else:
        assert f == 0


@pytest.mark.parametrize(
    ("values", "f"),
    [([0.375, -2], 3), ([-0.0], 0), ([], 0), ([12, 20], -2), ([2.0**-149], 149), ([2.0**127], -127)],
)
def test_by_hand(values: list[float], f: int) -> None:
    for kind in (np.float32, np.float64):
        assert fraction_bits(np.array(values, kind)) == f


def test_of_integers_of_every_order_and_beyond_what_is_read_at_once() -> None:
    assert fraction_bits(np.array([[8, 12], [4, 16]], np.int16).T) == -2
    values = np.zeros(200_000, np.float32)
    values[150_001] = 0.125
    assert fraction_bits(values) == 3


@given(FLOATS, st.integers(-10, 60))
def test_what_is_enough_ends_the_search_above_it_alone(values: np.ndarray, enough: int) -> None:
    whole, early = fraction_bits(values), fraction_bits(values, enough)
    assert early == whole if whole <= enough else enough < early <= whole


def test_values_behind_what_is_enough_are_not_read() -> None:
    values = np.ones(200_000, np.float32)
    values[0], values[-1] = 0.125, 2.0**-20
    assert [fraction_bits(values, enough) for enough in (2, 3)] == [3, 20]
