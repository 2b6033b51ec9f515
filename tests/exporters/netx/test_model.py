"""netx on the one integer model gives what the model of its own gave (`tests.oracles.integers`), to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_deploy.errors import InputError, StlDeployError, UnsupportedError
from stl_deploy.exporters.netx.convert import run_file, to_file, to_graph
from stl_deploy.exporters.netx.layers import (
    NO_NEURON,
    ConvLayer,
    DenseLayer,
    FlattenLayer,
    InputLayer,
    Layer,
    NetxFile,
    same_file,
)
from stl_deploy.exporters.netx.model import quantise, run_model
from stl_deploy.graph.program import Neuron, Operand, Program
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.net import IntegerNeuron, Ints, same
from stl_deploy.integers.ranges import ranges
from stl_deploy.integers.real_weights import to_integers
from tests.exporters.netx.nets import Case, random_case, special_cases
from tests.exporters.netx.programs import Builder, F
from tests.oracles.integers import quantise as old_quantise
from tests.oracles.integers import ranges as old_ranges
from tests.oracles.integers import simulate as old_simulate

Rng = np.random.Generator


def _program(rng: Rng, image: bool) -> Program:
    """A dense chain, or one that begins with a convolution and a max pool; every field of neurons that netx holds."""
    build = Builder((2, 8, 8) if image else (24,))
    if image:
        build.conv("c1", rng.standard_normal((5, 2, 3, 3)) * 0.4, rng.standard_normal(5) * 0.05, ((1, 1), (1, 1)))
        _neuron(rng, build, "n1", _thresholds(rng, (5, 1, 1)))
        build.max_pool("p").flatten("f")
    first = rng.standard_normal((16, build.shape[0])) * 0.4
    if rng.integers(3) == 0:
        first = -np.abs(first)
    build.linear("l1", first, rng.standard_normal(16) * 0.3 + 0.3)
    _neuron(rng, build, "n2", _thresholds(rng, (16,)))
    build.linear("l2", rng.standard_normal((10, 16)) * 0.7)
    _neuron(rng, build, "n3", _thresholds(rng, () if rng.integers(2) else (10,)))
    if rng.integers(2):
        build.linear("vote", np.repeat(np.eye(5), 2, axis=1) / 2)
    return build.program()


def _thresholds(rng: Rng, shape: tuple[int, ...]) -> Any:
    return (0.3 + rng.random(shape)).astype(F)


def _neuron(rng: Rng, build: Builder, name: str, theta: Any) -> None:
    fields: dict[str, Any] = [{}, {"gain": np.asarray(0.6, F)}, {"offset": np.asarray(0.03, F)}][int(rng.integers(3))]
    beta = float(rng.choice([0, 0.5, 0.9, 0.77, 1]))
    build.lif(name, theta, beta=beta, compare=str(rng.choice(["gt", "ge"])), **fields)


@pytest.mark.parametrize("form", ["folded", "per-layer", "per-neuron", "projected", "unrolled"])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_integers_ranges_and_runs_of_programs_are_those_of_the_old_model(form: Any, image: bool, scale: float) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        program = _program(rng, image)
        if image and form in ("projected", "unrolled"):
            program = _per_pixel(rng, program)
        x = np.round(rng.random((6, 40, *program.inputs[0].shape)) * scale) / scale
        x = np.asarray(x if scale > 1 else x < 0.4, F)
        old = old_quantise.quantise(program, x, input_scale=scale, thresholds=form)
        new = quantise(program, x, input_scale=scale, thresholds=form)
        assert same_file(new.file, old.net)
        assert (new.keys, same(new.host, old.host)) == (old.keys, True)
        assert new.integers is not None
        assert {name: rows.tolist() for name, rows in new.integers.row_scales.items()} == {
            name: rows.tolist() for name, rows in old.scales.items()
        }
        assert [(fit.node, fit.spikes_differing, fit.spikes_compared) for fit in new.integers.fits] == [
            (fit.node, fit.spikes_differing, fit.spikes_compared) for fit in old.fits
        ]
        whole = to_integers(x, scale)
        _assert_same_ranges(new.file, whole)
        _assert_same_run(new.file, whole)
        spikes = run_model(new, x, record=True).spikes
        assert {name: s.shape[2:] for name, s in spikes.items()} == {n.name: n.shape for n in program.spiking}


def _per_pixel(rng: Rng, program: Program) -> Program:
    first = program.by_name["n1"]
    assert isinstance(first, Neuron)
    grown = replace(first, threshold=_thresholds(rng, first.shape))
    return replace(program, nodes=tuple(grown if node is first else node for node in program.nodes))


def _assert_same_run(net: NetxFile, x: Any) -> int:
    old, new = old_simulate.simulate(net, x, record=True), run_file(net, x, record=True)
    assert old.spikes.keys() == new.spikes.keys()
    for key, spikes in old.spikes.items():
        np.testing.assert_array_equal(new.spikes[key], spikes, err_msg=key)
    np.testing.assert_array_equal(new.y, old.y)
    return sum(int(spikes.sum()) for spikes in new.spikes.values())


def _assert_same_ranges(net: NetxFile, x: Any) -> None:
    old, new = old_ranges.measure_ranges(net, x), ranges(to_graph(net), x)
    assert [(r.key, r.u_worst, r.v_worst, r.u_seen, r.v_seen) for r in old] == [
        (r.node, r.u_worst, r.v_worst, r.u_seen, r.v_seen) for r in new
    ]


def _of_lava_dl(seed: int) -> Case | None:
    """What lava-dl's own files hold and ours do not; None for one that netx would not run."""
    rng = np.random.default_rng(seed)
    own, image = bool(rng.integers(2)), bool(rng.integers(2))
    shape = (2, 6, 5) if image else (12,)
    layers: list[Layer] = []
    if image or own or rng.integers(2):
        layers.append(InputLayer(shape=shape, neuron=_any_neuron(rng, ()) if own else None))
    inputs = 12
    if image:
        layers += [_any_conv(rng, shape), FlattenLayer()]
        inputs = 90
    for place in range(2):
        layers.append(_any_dense(rng, inputs, bare=place == 1 and rng.integers(3) == 0))
        inputs = 9
    try:
        net = NetxFile(tuple(layers))
    except StlDeployError:
        return None
    return net, rng.integers(0, 200 if own else rng.choice([2, 6]), (12, 7, *net.input_shape)).astype(np.int32)


def _int32(values: Any) -> Ints:
    return np.asarray(values, np.int32)


def _any_neuron(rng: Rng, shape: tuple[int, ...]) -> IntegerNeuron:
    threshold = rng.integers(0, 400, shape) if rng.integers(2) else rng.integers(1, 300)
    decays = int(rng.choice([0, 128, 2048, 4096])), int(rng.choice([0, 409, 1024, 4096]))
    return IntegerNeuron(v_decay=decays[0], i_decay=decays[1], threshold=_int32(threshold))


def _any_conv(rng: Rng, shape: tuple[int, ...]) -> ConvLayer:
    bias = _int32(rng.integers(-40, 80, (3, 6, 5))) if rng.integers(2) else None
    weight = _int32(rng.integers(-127, 128, (3, 2, 3, 3)))
    return ConvLayer(weight=weight, input_shape=shape, padding=(1, 1), bias=bias, neuron=_any_neuron(rng, (3, 6, 5)))


def _any_dense(rng: Rng, inputs: int, bare: bool) -> DenseLayer:
    low, high = [(-256, 255), (-256, 0), (-255, 0), (0, 256), (-127, 128)][int(rng.integers(5))]
    weight = rng.integers(low, high, (9, inputs))
    if weight.min() < 0 < weight.max():
        weight = np.clip(weight, -256, 254)
    if weight.max() == 0:
        weight = np.maximum(weight, -128)
    weight[0, 0] = weight[0, 0] or -1
    return DenseLayer(
        weight=_int32(weight),
        delay=_int32(rng.integers(0, 5, weight.shape)) if rng.integers(2) else None,
        bias=_int32(rng.integers(-30, 60, 9)) if rng.integers(2) else None,
        neuron=NO_NEURON if bare else _any_neuron(rng, (9,)),
    )


def test_files_of_lava_dl_run_as_before() -> None:
    """Input neurons, delays, weights that Lava truncates, biases and thresholds by pixel, layers without neurons."""
    cases = [case for case in map(_of_lava_dl, range(120)) if case is not None]
    assert len(cases) > 90
    assert sum(_assert_same_run(*case) for case in cases) > 10_000


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_files_of_any_shape_run_as_before_and_reach_as_far(seed: int) -> None:
    net, x = random_case(seed)
    _assert_same_run(net, x)
    if not any(isinstance(layer, DenseLayer) and layer.delay is not None for layer in net.layers):
        _assert_same_ranges(net, x)


def test_a_file_comes_back_from_its_graph() -> None:
    """Where Lava sums the weights as they are written; elsewhere the graph holds those that Lava makes of them."""
    count = 0
    for net, _ in [random_case(seed) for seed in range(40)] + list(special_cases().values()):
        graph = to_graph(net)
        if any(not np.array_equal(graph.by_name[f"{key}.weights"].weight, layer.weight) for key, layer in net.spiking):  # type: ignore[attr-defined]
            continue
        for held, back in zip(net.layers, to_file(graph).layers, strict=True):
            if isinstance(back, InputLayer):
                assert back.shape == net.input_shape
            else:
                assert same(back if isinstance(back, FlattenLayer) else replace(back, node=None), held)
        count += 1
    assert count > 40


def test_weights_that_lava_has_changed_are_not_written_as_if_they_were_the_files() -> None:
    graph = to_graph(special_cases()["weight_rule"][0])
    with pytest.raises(UnsupportedError, match="its weights are as Lava stores them") as error:
        to_file(graph)
    assert error.value.node == "layer1.weights"


def test_a_graph_that_is_no_chain_has_no_file() -> None:
    graph = to_graph(random_case(1)[0])
    last = graph.populations[-1]
    looped = replace(last, operands=(*last.operands, Operand(last.name, 1)))
    nodes = tuple(looped if node is last else node for node in graph.nodes)
    with pytest.raises(UnsupportedError, match="does not read the node before it alone") as error:
        to_file(IntegerGraph(nodes, graph.accumulator))
    assert (error.value.node, error.value.slug) == (last.name, "skip-connection")


def test_input_wider_than_the_bias_of_input_neurons_is_refused() -> None:
    entry = InputLayer(shape=(2,), neuron=IntegerNeuron(v_decay=0, threshold=_int32(5)), scale=64)
    net = NetxFile((entry, DenseLayer(weight=_int32([[1, 2]]), neuron=_any_neuron(np.random.default_rng(0), ()))))
    with pytest.raises(InputError, match="expected input from -4096 to 4095, the bias of the input layer's neurons"):
        run_file(net, np.full((1, 1, 2), 5000))
