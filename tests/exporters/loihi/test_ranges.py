"""Ranges of u and v: by hand, as bounds that random inputs never pass, and as the refusal of an overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.loihi.export import export_netx
from stl_deploy.exporters.loihi.ranges import measure_ranges
from tests.exporters.loihi.nets import chain, dense, neuron, random_case
from tests.exporters.loihi.programs import Builder, F


def test_by_hand() -> None:
    """w = (3, -5), bias 2, threshold 10, decay 1/2, inputs up to 2, 3 steps."""
    net = chain((2,), dense([[3, -5]], bias=[2], neuron=neuron(2048, 10)))
    x = np.array([[[2, 0]], [[2, 0]], [[0, 2]]])
    (found,) = measure_ranges(net, x)
    assert found.u_worst == (-10 * 64, 6 * 64)
    # Down: -8 each step, which comes to 8·(1 + 1/2 + 1/4); up: half the threshold, 6 and the bias.
    assert found.v_worst == (-14 * 64, (5 + 8) * 64)
    assert found.u_seen == (-10 * 64, 6 * 64)
    # 8, then 12 which fires and resets, then -8.
    assert found.v_seen == (-8 * 64, 12 * 64)
    assert found.holds


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_nothing_seen_passes_the_worst_case(seed: int) -> None:
    net, x = random_case(seed)
    for found in measure_ranges(net, x):
        assert found.u_worst[0] <= found.u_seen[0] <= found.u_seen[1] <= found.u_worst[1]
        assert found.v_worst[0] <= found.v_seen[0] <= found.v_seen[1] <= found.v_worst[1]


def test_an_overflow_is_refused_by_node(tmp_path: Path) -> None:
    build = Builder((2000,)).linear("fc", np.ones((2, 2000))).lif("a", 1500.0)
    x = np.ones((3, 4, 2000), F)
    with pytest.raises(UnsupportedError, match="u runs from 0 to") as error:
        export_netx(build.program(), tmp_path / "a.net", calibration=x * 255, input_scale=1)
    assert (error.value.node, error.value.slug) == ("a", "u-overflow")
    assert not (tmp_path / "a.net").exists()
