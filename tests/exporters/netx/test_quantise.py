"""A Program in integers: what is refused and why, what is exact, and that the search finds the agreement there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stl_deploy as stl
from stl_deploy.config.options import ThresholdForm
from stl_deploy.errors import InputError, ParityError, UnsupportedError
from stl_deploy.exporters.netx import model as netx_model
from stl_deploy.exporters.netx.chain import read_chain, refusals
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.netx.layers import ConvLayer, DenseLayer, NetxFile
from stl_deploy.exporters.netx.model import export_netx, layer_facts, quantise, run_model
from stl_deploy.graph.program import Delay, Neuron, Operand, Program, Scale, Synapse
from stl_deploy.graph.run import run
from stl_deploy.integers import scales
from stl_deploy.integers.fields import unread
from tests.exporters.netx.programs import Builder, F, conv_net, events

FORMS: tuple[ThresholdForm, ...] = ("folded", "per-neuron", "per-layer")


def disagreement(program: Program, x: Any, **kwargs: Any) -> dict[str, float]:
    model = quantise(program, x, **kwargs)
    ours = run_model(model, x, record=True)
    names = [node.name for node in program.spiking]
    wanted = run(program, x, record=names).recorded
    assert list(ours.spikes) == names
    return {name: float(np.mean(ours.spikes[name] != wanted[name])) for name in names}


@pytest.mark.parametrize("form", FORMS)
def test_integers_are_exact_ties_included(form: ThresholdForm) -> None:
    """A memoryless net of small whole weights needs no rounding: v >= θ becomes v > θ - 1."""
    rng = np.random.default_rng(0)
    net = Builder((12,)).linear("fc", rng.integers(-3, 4, (9, 12)), rng.integers(-2, 3, 9)).lif("lif", 2.0, beta=None)
    x = events(rng, 6, 40, 12)
    currents = run(net.program(), x, record=["fc"]).recorded["fc"]
    assert (currents == 2).any()
    assert disagreement(net.program(), x, thresholds=form) == {"lif": 0.0}


def test_folding_power_of_two_thresholds_is_exact() -> None:
    rng = np.random.default_rng(1)
    theta = 2.0 ** rng.integers(-2, 2, 9)
    net = Builder((12,)).linear("fc", rng.integers(-3, 4, (9, 12)) / 4).lif("lif", theta, beta=None)
    x = events(rng, 6, 40, 12)
    assert disagreement(net.program(), x) == {"lif": 0.0}


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_any_decay(beta: float) -> None:
    rng = np.random.default_rng(2)
    net = Builder((20,)).linear("fc", rng.normal(0, 0.4, (15, 20)), rng.normal(0, 0.1, 15)).lif("lif", 1.0, beta=beta)
    x = events(rng, 20, 30, 20)
    assert disagreement(net.program(), x)["lif"] < 0.02
    model = quantise(net.program(), x)
    assert layer_facts(model, net.program())[0]["beta_held"] == pytest.approx(beta, abs=1 / 8192)


@pytest.mark.parametrize("form", ["folded", "per-neuron"])
def test_a_convolutional_net_keeps_its_spikes(form: ThresholdForm) -> None:
    rng = np.random.default_rng(3)
    program, x = conv_net(rng), events(rng, 8, 60, 1, 6, 6, top=16)
    assert max(disagreement(program, x, input_scale=16, thresholds=form).values()) < 0.03


def test_one_threshold_per_layer_loses_more_than_folding() -> None:
    rng = np.random.default_rng(4)
    program, x = conv_net(rng), events(rng, 8, 60, 1, 6, 6)
    folded, layer = (disagreement(program, x, thresholds=form)["lif1"] for form in ("folded", "per-layer"))
    assert layer > 3 * folded


def test_the_forms_hold_what_they_say() -> None:
    rng = np.random.default_rng(5)
    program, x = conv_net(rng), events(rng, 4, 20, 1, 6, 6)
    for form in FORMS:
        model = quantise(program, x, thresholds=form)
        shapes = [layer.neuron.threshold.shape for _, layer in model.file.spiking]
        assert shapes == ([(4, 6, 6), (), (10,)] if form == "per-neuron" else [(), (), ()])
        assert all(np.abs(layer.weight).max() <= 128 for _, layer in model.file.spiking)


def test_the_search_takes_the_candidate_with_the_fewest_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    program, x = conv_net(rng), events(rng, 6, 40, 1, 6, 6)
    best = disagreement(program, x)["lif1"]
    for ratio in (0.05, 0.3, 1.0):
        monkeypatch.setattr(scales, "RATIOS", np.array([ratio]))
        assert disagreement(program, x)["lif1"] >= best


def test_trying_on_a_few_samples_first_finds_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    program, x = conv_net(rng), events(rng, 6, 256, 1, 6, 6)
    shortened = disagreement(program, x)
    monkeypatch.setattr(scales, "SHORTLIST", 1000)
    assert disagreement(program, x) == shortened


def test_gain_and_leak_go_into_weights_and_bias() -> None:
    rng = np.random.default_rng(7)
    gain = np.array([1.0, 2, 0.5, 4, 1, 1, 2, 0.25], F)
    net = Builder((10,)).linear("fc", rng.integers(-4, 5, (8, 10)))
    net.lif("lif", 2.0, beta=None, gain=gain, offset=np.asarray(0.25, F))
    assert disagreement(net.program(), events(rng, 5, 40, 10)) == {"lif": 0.0}


def test_names_follow_the_nodes_and_the_readout_is_the_hosts(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    program, x = conv_net(rng), events(rng, 5, 30, 1, 6, 6)
    model = export_netx(program, tmp_path / "net.net", calibration=x)
    assert model.keys == {"lif1": "layer1", "pool": "layer2", "lif2": "layer4"}
    assert [node.name for node in model.host] == ["vote"]
    ours = run_model(model, x, record=True)
    assert ours.y.shape == (5, 30, 2)
    votes = ours.spikes["lif2"].reshape(5, 30, 2, 5).sum(-1) * F(0.2)
    np.testing.assert_allclose(ours.y, votes, rtol=1e-6)
    raw = run_file(read_netx(tmp_path / "net.net"), x)
    np.testing.assert_array_equal(raw.y, ours.spikes["lif2"])


def test_max_pooling_is_exact_given_its_input() -> None:
    rng = np.random.default_rng(9)
    build = Builder((2, 6, 6)).conv("conv", np.eye(2)[:, :, None, None]).lif("lif", 1.0, beta=None).max_pool("pool", 3)
    assert disagreement(build.program(), events(rng, 4, 20, 2, 6, 6)) == {"lif": 0.0, "pool": 0.0}


def test_a_flat_input_from_an_image_keeps_its_order() -> None:
    rng = np.random.default_rng(10)
    build = Builder((2, 3, 4)).flatten("flat").linear("fc", rng.integers(-3, 4, (7, 24))).lif("lif", 2.0, beta=None)
    assert disagreement(build.program(), events(rng, 4, 30, 2, 3, 4)) == {"lif": 0.0}


def test_asymmetric_kernels_on_wide_images() -> None:
    rng = np.random.default_rng(11)
    build = Builder((2, 5, 9)).conv(
        "conv", rng.integers(-3, 4, (4, 1, 2, 3)), rng.integers(-1, 2, 4), ((1, 1), (0, 0)), stride=(1, 2), groups=2
    )
    program = build.lif("lif", 2.0, beta=None).program()
    assert disagreement(program, events(rng, 4, 30, 2, 5, 9)) == {"lif": 0.0}


def test_input_off_the_grid() -> None:
    program = Builder((3,)).linear("fc", np.ones((2, 3))).lif("lif", 1.0).program()
    x = np.full((2, 4, 3), 0.3, F)
    with pytest.raises(InputError, match="expected input on the grid of 1/16"):
        quantise(program, x, input_scale=16)
    with pytest.raises(
        InputError, match=r"thresholds: expected one of folded, per-neuron, per-layer, .*; found 'soft'"
    ):
        quantise(program, np.ones_like(x), thresholds="soft")  # type: ignore[arg-type]


def test_a_file_that_comes_back_different_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(path: Path) -> NetxFile:
        net = read_netx(path)
        first, last = net.layers
        assert isinstance(last, DenseLayer)
        return NetxFile((first, replace(last, weight=last.weight[:, ::-1])))

    monkeypatch.setattr(netx_model, "read_netx", other)
    program = Builder((3,)).linear("fc", [[1, 2, 3]]).lif("lif", 1.0).program()
    with pytest.raises(ParityError, match="read back differs"):
        export_netx(program, tmp_path / "a.net", calibration=np.ones((2, 4, 3), F))


def small() -> Builder:
    return Builder((3,)).linear("fc", [[1, 2, 3], [4, 5, 6]])


def image() -> Builder:
    return Builder((2, 4, 4)).conv("conv", np.ones((2, 2, 1, 1)))


def add(build: Builder, node: type[Any], **kwargs: Any) -> Builder:
    build.nodes.append(node(name="odd", shape=build.shape, operands=(Operand(build.nodes[-1].name),), **kwargs))
    return build


def skip() -> Program:
    program = small().lif("a", 1.0).linear("fc2", np.eye(2)).lif("b", 1.0).program()
    nodes = [replace(n, operands=(Operand("a"), Operand("fc2"))) if n.name == "b" else n for n in program.nodes]
    return Program(nodes=tuple(nodes), dt=1e-4)


def loop() -> Program:
    program = small().lif("a", 1.0).linear("fc2", np.eye(2)).lif("b", 1.0).program()
    nodes = [replace(n, operands=(Operand("a"), Operand("b", 1))) if n.name == "fc2" else n for n in program.nodes]
    return Program(nodes=tuple(nodes), dt=1e-4)


CURRENT = Synapse("euler", np.asarray(0.5, F), None)

REFUSED: dict[str, tuple[Callable[[], Program], str, str]] = {
    "skip": (skip, "a", "skip-connection"),
    "loop": (loop, "fc2", "recurrent"),
    "soft reset": (lambda: small().lif("a", 1.0, reset="subtract").program(), "a", "soft-reset"),
    "reset a step late": (lambda: small().lif("a", 1.0, reset="value_delayed").program(), "a", "delayed-reset"),
    "many": (lambda: small().lif("a", 1.0, multi_spike=True).program(), "a", "several-spikes"),
    "v_reset": (lambda: small().lif("a", 1.0, v_reset=np.asarray(0.5, F)).program(), "a", "v-reset"),
    "v_start": (lambda: small().lif("a", 1.0, v_start=np.asarray(0.5, F)).program(), "a", "v-start"),
    "i_start": (lambda: small().lif("a", 1.0, synapse=CURRENT, i_start=np.asarray(0.5, F)).program(), "a", "i-start"),
    "v_min": (lambda: small().lif("a", 1.0, v_min=np.asarray(0, F)).program(), "a", "v-min"),
    "current": (lambda: small().lif("a", 1.0, synapse=CURRENT).program(), "a", "synaptic-current"),
    "decays": (
        lambda: add(small(), Neuron, decay=np.array([0.1, 0.5], F), threshold=np.asarray(1, F)).program(),
        "odd", "decay",
    ),
    "theta": (lambda: small().lif("a", -1.0).program(), "a", "threshold-not-positive"),
    "potential": (
        lambda: add(small(), Neuron, decay=None, threshold=None).program(), "odd", "no-threshold",
    ),
    "scale": (lambda: add(small(), Scale, scale=np.ones(2, F)).lif("a", 1.0).program(), "odd", "scale"),
    "delay": (lambda: add(Builder((2,)), Delay, steps=np.array(1)).linear("fc", np.eye(2)).lif("a", 1.0).program(),
              "odd", "delay"),
    "two synapses": (lambda: small().linear("fc2", np.eye(2)).lif("a", 1.0).program(), "fc", "no-neuron"),
    "no synapse": (lambda: Builder((3,)).lif("a", 1.0).program(), "a", "no-synapse"),
    "silent": (lambda: small().program(), "in", "no-neurons"),
    "average": (
        lambda: image().lif("a", 1.0).sum_pool("p", divisor=4).lif("b", 0.2, None).program(), "p", "graded-pool",
    ),
    "sum": (lambda: image().lif("a", 1.0).sum_pool("p").lif("b", 2.0, None).program(), "p", "graded-pool"),
    "leaky pool": (lambda: image().lif("a", 1.0).sum_pool("p").lif("b", 0.5).program(), "p", "graded-pool"),
    "uneven padding": (
        lambda: Builder((1, 4, 4)).conv("c", np.ones((1, 1, 2, 2)), None, ((0, 1), (0, 1))).lif("a", 1.0).program(),
        "c", "asymmetric-padding",
    ),
    "reshape": (lambda: image().lif("a", 1.0).reshape("r", (4, 8)).linear("l", np.ones((2, 8))).lif("b", 1.0).program(),
                "r", "reshape"),
    "uneven padding of a pool": (
        lambda: image().lif("a", 1.0).sum_pool("p", padding=((0, 2), (0, 0))).lif("b", 1.0, None).program(),
        "p", "asymmetric-padding",
    ),
    "one axis": (
        lambda: Builder((2, 5)).conv("c", np.ones((1, 2, 3)), None, ((0, 0),), stride=(1,), dilation=(1,))
        .lif("a", 1.0).program(), "c", "conv1d",
    ),
    "axes": (lambda: Builder((4, 8)).linear("l", np.ones((2, 8))).lif("b", 1.0).program(), "l", "linear-over-axes"),
    "readout": (lambda: image().lif("a", 1.0).sum_pool("p").program(), "p", "host-readout"),
    "pixels": (lambda: conv_net(np.random.default_rng(0), "pixel"), "lif1", "per-pixel-threshold"),
    "zero": (lambda: Builder((3,)).linear("fc", np.zeros((2, 3))).lif("a", 1.0).program(), "a", "all-zero-layer"),
}  # fmt: skip


def test_a_pool_before_weights_names_the_command_that_merges_it() -> None:
    program = (
        image().lif("a", 1.0).sum_pool("p").reshape("r", (8,)).linear("l", np.ones((2, 8))).lif("b", 1.0).program()
    )
    (found,) = [error for error in refusals(program) if error.slug == "no-neuron"]
    assert (found.node, "fold(merge_pools=True)" in found.remedy) == ("p", True)


def test_a_pool_before_the_readout_names_the_call_that_merges_it() -> None:
    program = image().lif("a", 1.0).sum_pool("p").reshape("r", (8,)).linear("l", np.ones((2, 8))).program()
    (found,) = [error for error in refusals(program) if error.slug == "host-readout"]
    assert (found.node, found.remedy) == ("p", "put it into the weights behind it (net.fold(merge_pools=True))")
    assert not refusals(stl.SpikingGraph(program).fold(merge_pools=True).program)


def test_one_input_and_one_output_are_expected() -> None:
    program = small().lif("a", 1.0).program()
    several = replace(program, nodes=(replace(program.inputs[0], name="in2"), *program.nodes))
    assert [(found.node, found.slug) for found in refusals(several)] == [("out", "several-ends")]


@pytest.mark.parametrize("name", REFUSED)
def test_what_loihi_cannot_hold_is_refused_by_node(name: str) -> None:
    build, node, slug = REFUSED[name]
    program = build()
    with pytest.raises(UnsupportedError) as error:
        quantise(program, np.ones((2, 3, *program.inputs[0].shape), F))
    assert (error.value.node, error.value.slug) == (node, slug)
    assert error.value.remedy
    assert "\n" not in str(error.value)


def test_a_readout_over_axes_is_the_hosts() -> None:
    """The host computes it as the reference does, so check has nothing to refuse."""
    program = image().lif("a", 1.0).linear("l", np.arange(12.0).reshape(3, 4)).program()
    assert refusals(program) == []
    x = np.ones((2, 3, *program.inputs[0].shape), F)
    found, expected = run_model(quantise(program, x), x), run(program, x)
    assert found.y.shape == expected.y.shape
    assert found.y.any()
    np.testing.assert_array_equal(found.y, expected.y)


@pytest.mark.parametrize("name", REFUSED)
def test_export_refuses_what_check_found_first(name: str) -> None:
    program = REFUSED[name][0]()
    for found in refusals(program)[:1]:
        with pytest.raises(UnsupportedError) as error:
            read_chain(program)
        assert (error.value.node, error.value.slug) == (found.node, found.slug)


def test_a_cap_of_several_spikes_is_refused_once() -> None:
    capped = small().lif("a", 1.0, multi_spike=True, cap=4).program().spiking[0]
    assert list(unread(capped, {"decay", "threshold", "reset", "compare"})) == ["multi_spike"]
    assert list(unread(replace(capped, multi_spike=False), {"decay", "threshold", "reset", "compare"})) == ["cap"]


def test_thresholds_per_pixel_fit_the_array_form() -> None:
    rng = np.random.default_rng(12)
    program, x = conv_net(rng, "pixel"), events(rng, 6, 40, 1, 6, 6)
    assert disagreement(program, x, thresholds="per-neuron")["lif1"] < 0.03
    layer = quantise(program, x, thresholds="per-neuron").file.layers[1]
    assert isinstance(layer, ConvLayer)
    assert len(np.unique(layer.neuron.threshold[0])) > 10


@dataclass(frozen=True, eq=False, kw_only=True)
class Refractory(Neuron):
    """A neuron with a field that Loihi's code has never heard of."""

    rest: Any = None


def refractory(program: Program, value: Any) -> Program:
    def grown(node: Any) -> Any:
        values = {field.name: getattr(node, field.name) for field in fields(node)}
        return Refractory(**values, rest=value) if isinstance(node, Neuron) else node

    return replace(program, nodes=tuple(grown(node) for node in program.nodes))


@pytest.mark.parametrize("value", [0.5, True, np.zeros(2, F), "on"])
@pytest.mark.parametrize("build", [small().lif("a", 1.0), image().lif("b", 1.0).max_pool("a")])
def test_a_new_field_of_neurons_is_refused_until_it_is_read(build: Builder, value: Any) -> None:
    program = build.program()
    x = np.ones((2, 4, *program.inputs[0].shape), F)
    quantise(refractory(program, None), x)
    with pytest.raises(UnsupportedError, match="it has rest, which this target does not compute") as error:
        quantise(refractory(program, value), x)
    assert error.value.slug == "rest"
