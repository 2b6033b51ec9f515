"""The C by compiler and flags: drawn nets of few channels whose spikes gcc 12 and 13 once made wrong."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.c_compilers import FORMS, compilers, differing, draw, flags
from stl_deploy.integers.simulate import simulate
from tests.exporters.c.graphs import Grower

pytestmark = pytest.mark.skipif(not compilers(), reason="neither gcc nor clang is installed")
DRAWN = [(9, 5, "subtract"), (2, 6, "value"), (11, 7, "subtract_delayed"), (8, 3, "adapting"), (0, 3, "several")]
"""Seed, channels and reset."""


@pytest.mark.push(7)
@pytest.mark.parametrize("compiler", compilers())
@pytest.mark.parametrize(("seed", "channels", "reset"), DRAWN)
def test_few_channels_are_the_integer_models(compiler: str, seed: int, channels: int, reset: str) -> None:
    graph, x = draw(seed, channels, reset)
    assert 0.02 < simulate(graph, x).y.mean() < 4
    for form in FORMS:
        assert differing(graph, x, compiler, (*flags()[-1].split(), *form)) == 0


@pytest.mark.push(2)
@pytest.mark.parametrize("compiler", compilers())
def test_no_compiler_warns_of_a_list_of_spikes(compiler: str) -> None:
    """Graph 76: 7 inputs behind blocks of 256, which gcc 13 and 14 took for a loop without end."""
    graph, x = Grower(76).grow()
    assert differing(graph, np.asarray(x), compiler, ("-O3", "-march=native")) == 0
