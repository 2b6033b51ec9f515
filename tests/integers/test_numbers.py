"""Integers that enter, and sums of them: what is refused, in one sentence, before it would wrap or be rounded."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import nir
import numpy as np
import pytest

from stl_deploy.config.options import ThresholdForm
from stl_deploy.errors import InputError
from stl_deploy.exporters.integer_runner import IntegerRunner, calibration
from stl_deploy.exporters.netx.convert import run_file, to_graph
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.targets import Options
from stl_deploy.graph.program import Neuron, Node, Operand, Reshape
from stl_deploy.graph.run import run
from stl_deploy.integers.bounds import bounds, weighted
from stl_deploy.integers.graph import (
    ConvNode,
    GainNode,
    IntegerGraph,
    IntegerInput,
    IntegerLIF,
    IntegerOutput,
    SumPoolNode,
)
from stl_deploy.integers.net import WIDE, IntegerNeuron
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.ranges import ranges
from stl_deploy.integers.real_population import real_population
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.scales import candidates
from stl_deploy.integers.simulate import as_integers, simulate
from tests.exporters.netx.nets import chain as net
from tests.exporters.netx.nets import dense, neuron
from tests.exporters.netx.programs import Builder, F
from tests.graph.nets import bare, chain, lif


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((2, 1, 4)), r"expected input \[T, B, 3\]; found \[2, 1, 4\]"),
        (np.zeros(3), r"expected input \[T, B, 3\]; found \[3\]"),
        (np.zeros((0, 1, 3)), r"expected input \[T, B, 3\]; found \[0, 1, 3\]"),
        (np.zeros((2, 1, 3), complex), "expected integer or bool input; found complex128"),
        (np.full((2, 1, 3), 0.5), "found fractions or NaN; multiply by the input scale"),
        (np.full((2, 1, 3), np.nan), "found fractions or NaN"),
        (np.full((2, 1, 3), -(2.0**31)), "expected input within 32 bits; found larger values; use a coarser grid"),
    ],
)
def test_other_input_than_integers_is_refused(x: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        as_integers(x, (3,))


def test_real_input_beyond_32_bits_is_refused() -> None:
    assert to_integers(np.array([2.0**30]), 1.0).tolist() == [2**30]
    with pytest.raises(InputError, match="expected integer input within 32 bits; found larger values"):
        to_integers(np.array([2.0**30]), 2.0)


def test_sums_that_leave_the_bits_they_are_kept_in_are_refused() -> None:
    """Lava enlarges the weights 2 and -2 by 2^6; with x = 2^24 a sum is 2^32, and 2^23 - 2^23 is none."""
    layer = net((2,), dense([[2, -2]], neuron=neuron(0, 1)))
    assert run_file(layer, np.full((1, 1, 2), 2**24)).y.tolist() == [[[0]]]
    with pytest.raises(InputError, match="a synaptic sum reaches 2147483648, beyond Lava's 32 bits; use smaller input"):
        run_file(layer, np.array([[[2**24, 0]]]))
    huge = np.full((1, 1, 2**16), 2**31 - 1)
    with pytest.raises(InputError, match=r"synaptic sums may reach \d+, beyond 2\^53; use smaller input values"):
        run_file(net((2**16,), dense(np.full((1, 2**16), 254), neuron=neuron(0, 1))), huge)


def test_ranges_of_many_samples_are_those_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = net((1,), dense([[3], [-2]], neuron=neuron(0, 100)))
    x = np.array([1, 5, 2, 4]).reshape(1, 4, 1)
    (whole,) = ranges(to_graph(layer), x)
    monkeypatch.setattr("stl_deploy.integers.ranges.VALUES_AT_ONCE", 1)
    assert ranges(to_graph(layer), x) == (whole,)
    assert whole.u_seen == (-10 * 64, 15 * 64)


def _later(*ways: Node, last: str) -> dict[str, Any]:
    """Bounds where the population "a" reads ``last`` of the step before; ways: what stands behind it."""
    neuron = IntegerNeuron(v_decay=2048, threshold=np.array(9, np.int32))
    entry = IntegerInput(name="in", shape=(1, 2, 2), operands=(), low=0, high=1, scale=1.0)
    sources = (Operand("in"), Operand(last, 1))
    spiking = IntegerLIF(name="a", shape=(1, 2, 2), operands=sources, neuron=neuron, bias=None)
    end = IntegerOutput(name="out", shape=(1, 2, 2), operands=(Operand("a"),), unit=1.0)
    return bounds(IntegerGraph((entry, spiking, *ways, end)))


def _same(name: str, *sources: Operand) -> Reshape:
    return Reshape(name=name, shape=(1, 2, 2), operands=sources, input_shape=(1, 2, 2))


def test_what_comes_back_is_bounded_by_what_it_is_made_of() -> None:
    """A spike and a window of four, twice as heavy, with a bias of -1 are 1 + 0…8 - 1."""
    window: dict[str, Any] = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "input_shape": (1, 2, 2)}
    pool = SumPoolNode(
        name="pool", shape=(1, 2, 2), operands=(Operand("a"),), kernel=(2, 2), stride=(1, 1), padding=((1, 0), (1, 0)),
        input_shape=(1, 2, 2),
    )  # fmt: skip
    conv = ConvNode(
        name="conv", shape=(1, 2, 2), operands=(Operand("pool"),), weight=np.full((1, 1, 1, 1), 2, np.int32),
        bias=np.array([-1], np.int32), padding=((0, 0), (0, 0)), **window,
    )  # fmt: skip
    assert _later(_same("b", Operand("a")), last="b")["a"].sums == (0, 2)
    assert _later(_same("b", Operand("a"), Operand("a")), last="b")["a"].sums == (0, 3)
    assert _later(pool, last="pool")["a"].sums == (0, 5)
    assert _later(pool, conv, last="conv")["a"].sums == (-1, 9)


@pytest.mark.parametrize("form", ["per-neuron", "folded", "per-layer"])
def test_bounds_of_a_candidate_hold_for_those_at_smaller_scales(form: ThresholdForm) -> None:
    """The choice of scales relies on it: it bounds sums at the largest scale alone."""
    rng = np.random.default_rng(3)
    real = real_population(
        Neuron(name="n", shape=(6,), operands=(), decay=None, threshold=rng.uniform(0.5, 2, 6).astype(F)),
        [rng.normal(size=(6, 40))],
        rng.normal(size=6),
    )
    pairs = 0
    tried = list(candidates(real, form))
    for larger, smaller in itertools.product(tried, tried):
        if (smaller.scale <= larger.scale).all():
            outer, inner = (weighted(chosen.weights[0], chosen.bias, (-3, 5)) for chosen in (larger, smaller))
            assert outer[0] <= inner[0] <= inner[1] <= outer[1]
            pairs += 1
    assert pairs > len(tried)


def test_what_nothing_bounds_may_be_anything() -> None:
    """A stranger's loop without neurons, and one that is longer than is followed."""
    anything = WIDE.v_top - 1
    assert _later(_same("b", Operand("b", 1)), last="b")["a"].sums == (-anything, 1 + anything)
    chain = [_same(f"b{i}", Operand(f"b{i - 1}" if i else "a")) for i in range(2000)]
    assert _later(*chain, last="b1999")["a"].sums == (-anything, 1 + anything)


def test_integers_are_chosen_by_input_and_for_one_network() -> None:
    program = Builder((2,)).linear("fc", np.eye(2)).lif("a", 1.0).program()
    with pytest.raises(InputError, match="expected input to choose integers by; found none; give x="):
        calibration(program, Options(), None)
    graph = choose(program, np.ones((1, 1, 2), F)).graph
    other = Builder((2,)).linear("fc", np.eye(2)).lif("b", 1.0).program()
    with pytest.raises(InputError, match="expected integers that spike in b; found a; name the graph"):
        IntegerRunner(program, Options(), graph=graph).of(other)


def _agrees(program: Any, x: Any) -> Any:
    graph = choose(program, x).graph
    found = simulate(graph, to_integers(x, graph.input.scale), record=True)
    np.testing.assert_array_equal(found.y * graph.output.unit, run(program, x).y)
    return graph


def test_a_convolution_over_one_axis_gets_a_height_of_one() -> None:
    build = Builder((2, 6)).conv("c", np.ones((3, 2, 2)), np.ones(3), ((1, 0),), stride=(2,), dilation=(1,))
    x = np.random.default_rng(0).integers(0, 2, (4, 3, 2, 6)).astype(F)
    graph = _agrees(build.lif("a", 3.0).program(), x)
    (conv,) = [node for node in graph.nodes if isinstance(node, ConvNode)]
    assert (conv.weight.shape, conv.stride, conv.padding) == ((3, 2, 1, 2), (1, 2), ((0, 0), (1, 0)))


def test_a_scale_of_each_channel_is_a_layer_of_weights() -> None:
    scale = nir.Scale(np.array([2, 3, 4], np.float32))
    x = np.random.default_rng(0).integers(0, 2, (4, 3, 3)).astype(F)
    graph = _agrees(lower(chain((3,), scale, lif((3,), theta=3.0))), x)
    assert len([node for node in graph.nodes if isinstance(node, GainNode)]) == 1


def test_a_readout_of_nothing_but_zeros_keeps_its_biases() -> None:
    build = Builder((2,)).linear("fc", np.eye(2)).lif("a", 1.0).linear("end", np.zeros((2, 2)), [1, -3])
    _agrees(build.program(), np.ones((2, 1, 2), F))


@pytest.mark.parametrize(
    ("bias", "unit", "kept"),
    [
        ([2, -3], 1, [2, -3]),
        ([0.25, -1.5], 1 / 4, [0.25, -1.5]),
        # 63 is the most that 8 bits hold of weights up to 2; a third of it and a hundredth, rounded
        ([1 / 3, 0.01], 1 / 63, [21 / 63, 1 / 63]),
    ],
)
def test_biases_of_a_readout_are_as_fine_as_8_bits_allow(bias: Any, unit: float, kept: Any) -> None:
    """Weights of 1 and -2 alone would be whole at a scale of 1, and a bias of a quarter 0."""
    program = Builder((2,)).linear("fc", np.eye(2)).lif("a", 1.0).linear("end", [[1, -2], [2, 1]], bias).program()
    graph = choose(program, np.ones((2, 1, 2), F)).graph
    y = simulate(graph, np.zeros((1, 1, 2), np.int32)).y
    assert graph.output.unit == unit
    np.testing.assert_allclose(y[0, 0] * graph.output.unit, kept, rtol=1e-12)


def test_a_bias_that_an_offset_takes_back_is_none() -> None:
    build = Builder((2,)).linear("fc", np.eye(2), [0.5, -0.25]).lif("a", 1.0, offset=np.array([-0.5, 0.25], F))
    graph = _agrees(build.program(), np.ones((3, 1, 2), F))
    assert graph.populations[0].bias is None


def test_what_a_readout_gains_at_every_step_is_a_bias() -> None:
    """v = v / 2 + x + 2, from an offset of 4 that a time constant of two steps halves."""
    ones = np.ones(3, np.float32)
    readout = bare(nir.LI, tau=2e-4 * ones, r=2 * ones, v_leak=4 * ones)
    eye = nir.Linear(np.eye(3, dtype=np.float32))
    _agrees(lower(chain((3,), eye, lif((3,)), eye, readout)), np.zeros((1, 2, 3), F))


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int8])
def test_input_of_a_byte_a_value_is_widened_a_part_at_a_time(kind: type) -> None:
    """134 MB of bool took 2.2 GB: three arrays in float64."""
    x = np.random.default_rng(0).random((5, 40, 20_000)) < 0.1
    program = Builder((20_000,)).linear("fc", np.ones((1, 20_000))).lif("a", 1.0).program()
    graph = choose(program, x[:, :2].astype(np.float32)).graph
    wide = simulate(graph, to_integers(x.astype(np.float32), graph.input.scale))
    tracemalloc.start()
    narrow = simulate(graph, to_integers(x.astype(kind), graph.input.scale))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(narrow.y, wide.y)
    assert peak < 12 * x.nbytes  # 4 of them the copy, 16 and more before


def test_a_run_widens_its_input_a_few_samples_at_a_time() -> None:
    x = np.random.default_rng(0).random((5, 40, 20_000)) < 0.1
    program = Builder((20_000,)).linear("fc", np.ones((1, 20_000))).lif("a", 1.0).program()
    wide = run(program, x.astype(np.float32), chunk=4).y
    tracemalloc.start()
    narrow = run(program, x, chunk=4).y
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(narrow, wide)
    assert peak < 2 * x.nbytes  # 4 of them the copy before
