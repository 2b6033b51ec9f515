"""Ranges of u and v: by hand, as bounds that random inputs never pass, and as the refusal of an overflow."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.netx.convert import to_graph
from stl_deploy.exporters.netx.model import export_netx, quantise
from stl_deploy.exporters.netx.target import Loihi, Netx, NetxOptions
from stl_deploy.graph.run import run
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.quantise import quantise as choose_integers
from stl_deploy.integers.ranges import ranges
from stl_deploy.integers.simulate import simulate
from tests.drawn import examples
from tests.exporters.netx.nets import chain, dense, neuron, random_case
from tests.exporters.netx.programs import Builder, F
from tests.refusals import refuses


def test_by_hand() -> None:
    """w = (3, -5), bias 2, threshold 10, decay 1/2, inputs up to 2, 3 steps."""
    net = chain((2,), dense([[3, -5]], bias=[2], neuron=neuron(2048, 10)))
    x = np.array([[[2, 0]], [[2, 0]], [[0, 2]]])
    (found,) = ranges(to_graph(net), x)
    assert found.u_worst == (-10 * 64, 6 * 64)
    # Down: -8 each step, which comes to 8·(1 + 1/2 + 1/4); up: half the threshold, 6 and the bias.
    assert found.v_worst == (-14 * 64, (5 + 8) * 64)
    assert found.u_seen == (-10 * 64, 6 * 64)
    # 8, then 12 which fires and resets, then -8.
    assert found.v_seen == (-8 * 64, 12 * 64)
    assert found.holds


@examples(25)
@given(st.integers(0, 10_000))
def test_nothing_seen_passes_the_worst_case(seed: int) -> None:
    net, x = random_case(seed)
    for found in ranges(to_graph(net), x):
        assert found.u_worst[0] <= found.u_seen[0] <= found.u_seen[1] <= found.u_worst[1]
        assert found.v_worst[0] <= found.v_seen[0] <= found.v_seen[1] <= found.v_worst[1]


def test_what_only_other_input_could_overflow_is_said_and_written(tmp_path: Path) -> None:
    """2,000 weights of 127 and inputs up to 1: 64 * 254,000 is past 2^23, and 64 * 127 * 20 is not."""
    program = Builder((2000,)).linear("fc", np.ones((1, 2000))).lif("a", 5.0).program()
    x = np.zeros((3, 2, 2000), F)
    x[:, :, :20] = 1
    said = StringIO()
    Netx().write(program, tmp_path / "a.net", NetxOptions(calibration=lambda: x, say=Console(stream=said)))
    assert "'a': no overflow on calibration data (u (0, " in " ".join(said.getvalue().split())
    other = Builder((2000,)).linear("fc", np.ones((1, 2000))).lif("b", 5.0).program()
    with pytest.raises(InputError, match=r"a\.net: expected layers b; found a; name the graph that it was made from"):
        Loihi(tmp_path / "a.net", NetxOptions()).of(other).run(x)


def test_an_overflow_is_refused_by_node(tmp_path: Path) -> None:
    build = Builder((2000,)).linear("fc", np.ones((2, 2000))).lif("a", 1500.0)
    x = np.ones((3, 4, 2000), F)
    with pytest.raises(UnsupportedError, match="u runs from 0 to") as error:
        export_netx(build.program(), tmp_path / "a.net", calibration=x * 255, input_scale=1)
    assert (error.value.node, error.value.slug) == ("a", "u-overflow")
    assert not (tmp_path / "a.net").exists()
    assert "(as x / 250 or a larger divisor, rounded, here and in training)" in str(error.value)
    export_netx(build.program(), tmp_path / "a.net", calibration=np.round(x * 255 / 250), input_scale=1)


def test_weights_are_chosen_smaller_where_sums_overflow(tmp_path: Path) -> None:
    """Weights of 8 bits overflow here: it refused, chose larger ones once x was divided, and refused again."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(-0.3, 0.3, (32, 12)).astype(F)
    program = Builder((12,)).linear("fc", weight).lif("a", 20.0).program()
    x = rng.integers(0, 1600, (6, 8, 12)).astype(F)
    widest = ranges(to_graph(quantise(program, x).file), x.astype(np.int32))
    held = export_netx(program, tmp_path / "a.net", calibration=x).ranges
    assert [layer.u_seen[1] >= 2**23 for (layer,) in (widest, held)] == [True, False]


def test_weights_are_chosen_smaller_for_c_and_verilog_too() -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(-0.3, 0.3, (32, 12)).astype(F)
    x = rng.integers(0, 100_000, (6, 8, 12)).astype(F)
    program = Builder((12,)).linear("fc", weight).lif("a", 1_000.0).program()
    with refuses("sums-too-large", where="fc"):
        choose_integers(program, x)
    spikes = simulate(choose(program, x).graph, x.astype(np.int32)).y
    assert spikes.any()
    assert (spikes == next(iter(run(program, x).outputs.values()))).mean() > 0.98
    trained = Builder((12,)).linear("fc", np.trunc(weight * 400)).lif("a", 1_000.0).program()
    with refuses("sums-too-large", where="fc"):
        choose(trained, x)


def test_the_table_of_forms_says_which_form_overflows(tmp_path: Path) -> None:
    """It names no share of a file that is refused."""
    program = Builder((2000,)).linear("fc", np.ones((2, 2000))).lif("a", 1500.0).program()
    said, x = StringIO(), np.full((3, 4, 2000), 255, F)
    options = NetxOptions(x=x, calibration=lambda: x, say=Console(stream=said))
    with refuses("u-overflow", where="a"):
        Netx().write(program, tmp_path / "b.net", options)
    assert "0 of" not in said.getvalue()
    assert "'a': u runs from 0 to" in " ".join(said.getvalue().split())
