"""Folding any NIR graph: same spikes with every threshold 1, weights on exact grids, or a refusal with its reason."""

import nir
import numpy as np
import pytest

from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import ParityError, UnsupportedError
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect
from stl_deploy.exporters.nir.lower import METADATA_KEY, lower, own_metadata
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.run import run
from stl_deploy.passes import FOREIGN, apply, exact_grids, fold_scales, fold_thresholds
from stl_deploy.passes.base import LayerGrid
from stl_deploy.passes.equivalence import require_equivalent
from stl_deploy.pipeline import fold as folding
from tests.fold.passed import passed
from tests.graph.nets import a, bare, chain, full, graph, iff, lif
from tests.passes.test_checked import caught

RNG = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def _drawn_anew() -> None:
    """Let each test draw the same numbers, alone or among others."""
    RNG.bit_generator.state = np.random.default_rng(6).bit_generator.state


def fold_graph(net, dialect, **options):
    return to_graph(folding.fold(lower(net, dialect), FoldOptions(**options)).program).graph


def _affine(outputs, inputs):
    return nir.Affine(
        RNG.normal(0, 1, (outputs, inputs)).astype(np.float32), RNG.normal(0, 0.2, outputs).astype(np.float32)
    )


def _spikes(found, dialect, x):
    program = lower(found, dialect)
    return run(program, x, record=[node.name for node in program.spiking]).recorded


def _events(*shape):
    return (np.random.default_rng(1).random((12, 20, *shape)) < 0.4).astype(np.float32)


def _with_power_thresholds(neuron, size):
    neuron.v_threshold = RNG.choice(a(0.25, 0.5, 1, 2, 4), size)
    return neuron


@pytest.mark.parametrize("preset", ["spec", "snntorch", "sinabs", "spikingjelly", "rockpool"])
def test_powers_of_two_go_into_weights_without_moving_a_spike(preset) -> None:
    first = _with_power_thresholds(lif((6,), v_leak=0.25, tau=2.0 if preset == "sinabs" else 2e-4), 6)
    second = _with_power_thresholds(iff((3,), r=1e4 if preset != "sinabs" else 1.0), 3)
    net = chain([4], _affine(6, 4), first, _affine(3, 6), second)
    folded = fold_graph(net, PRESETS[preset], thresholds="weights", exact_grid=False)
    for name in ("n1", "n3"):
        assert (folded.nodes[name].v_threshold == 1).all() or PRESETS[preset].compare == "gt"
    before, after = (_spikes(g, PRESETS[preset], _events(4)) for g in (net, folded))
    assert sum(s.sum() for s in before.values()) > 0
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert own_metadata(folded)["thresholds"] == "weights"
    assert net.nodes["n1"].v_threshold[0] != 1 or (net.nodes["n1"].v_threshold != 1).any()  # the given graph stays


def test_a_reset_value_is_scaled_by_hand() -> None:
    net = chain([1], nir.Linear(a([3.0])), iff((1,), theta=4.0, v_reset=2.0))
    folded = fold_graph(net, PRESETS["stl"], thresholds="weights", exact_grid=False)
    assert folded.nodes["n0"].weight.tolist() == [[0.75]]
    assert folded.nodes["n1"].v_reset.tolist() == [0.5]
    x = np.ones((6, 1, 1), np.float32)
    assert _spikes(folded, PRESETS["stl"], x)["n1"].ravel().tolist() == [0, 1, 1, 1, 1, 1]  # 3 6→2 5→2 ...


def test_a_tie_at_a_round_threshold_stays_a_tie() -> None:
    """θ' = 3 stored as the float below it: dividing by that float would leave 2.9999998/3·... below 1."""
    stored = np.nextafter(np.float32(3), np.float32(0))
    net = chain([1], nir.Linear(a([3.0])), iff((1,), theta=stored))
    folded = fold_graph(net, Dialect(), thresholds="weights")
    assert folded.nodes["n0"].weight.tolist() == [[1.0]]
    assert _spikes(folded, Dialect(), np.ones((2, 1, 1)))["n1"].ravel().tolist() == [1, 1]


def test_thresholds_per_channel_behind_a_convolution() -> None:
    theta = np.broadcast_to(a(0.5, 2.0).reshape(2, 1, 1), (2, 3, 3)).copy()
    conv = nir.Conv2d((5, 5), RNG.normal(0, 1, (2, 1, 3, 3)).astype(np.float32), 1, 0, 1, 1, a(0.125, 0.25))
    neuron = lif((2, 3, 3))
    neuron.v_threshold = theta
    net = chain([1, 5, 5], conv, neuron)
    folded = fold_graph(net, Dialect(), thresholds="weights", exact_grid=False)
    np.testing.assert_array_equal(folded.nodes["n0"].weight[0], conv.weight[0] * 2)
    np.testing.assert_array_equal(folded.nodes["n0"].bias, a(0.25, 0.125))
    before, after = (_spikes(g, Dialect(), _events(1, 5, 5))["n1"] for g in (net, folded))
    assert before.any()
    np.testing.assert_array_equal(before, after)


def test_a_loop_is_scaled_with_the_rest() -> None:
    neuron = _with_power_thresholds(lif((3,)), 3)
    net = chain([2], _affine(3, 2), neuron, loop=_affine(3, 3), extra=[("n1", "loop"), ("loop", "n1")])
    folded = fold_graph(net, Dialect(), thresholds="weights", exact_grid=False)
    before, after = (_spikes(g, Dialect(), _events(2))["n1"] for g in (net, folded))
    assert before.any()
    np.testing.assert_array_equal(before, after)


def test_weights_go_onto_grids_on_which_every_sum_is_exact() -> None:
    net = chain([4], _affine(6, 4), lif((6,)), _affine(3, 6), iff((3,)))
    assert not all(proof.exact for proof in prove_exact(lower(net)))
    folded = fold_graph(net, Dialect(), input_grid=0)
    assert all(proof.exact for proof in prove_exact(lower(folded)))
    assert set(own_metadata(folded)["grid"]) == {"n0", "n2"}
    assert np.abs(folded.nodes["n0"].weight - net.nodes["n0"].weight).max() < 1e-5


def test_without_an_input_grid_only_what_reads_spikes_is_rounded() -> None:
    net = chain([4], _affine(6, 4), lif((6,)), _affine(3, 6), iff((3,)))
    folded = fold_graph(net, Dialect())
    assert set(own_metadata(folded)["grid"]) == {"n2"}
    np.testing.assert_array_equal(folded.nodes["n0"].weight, net.nodes["n0"].weight)


def test_graphs_inside_graphs_keep_their_names() -> None:
    inner = graph(
        {
            "input": nir.Input(np.array([2])),
            "w": nir.Linear(a([2.0, 4.0], [1.0, 1.0])),
            "n": iff((2,), theta=2.0),
            "output": nir.Output(np.array([2])),
        },
        [("input", "w"), ("w", "n"), ("n", "output")],
    )
    net = graph(
        {"input": nir.Input(np.array([2])), "block": inner, "output": nir.Output(np.array([2]))},
        [("input", "block"), ("block", "output")],
    )
    folded = fold_graph(net, Dialect(), thresholds="weights")
    assert folded.nodes["block"].nodes["w"].weight.tolist() == [[1, 2], [0.5, 0.5]]
    assert inner.nodes["w"].weight.tolist() == [[2, 4], [1, 1]]


def test_the_rest_of_the_metadata_stays() -> None:
    net = chain([1], nir.Linear(a([3.0])), iff((1,)))
    net.metadata = {"author": "someone", METADATA_KEY: {"decision": "max"}}
    folded = fold_graph(net, Dialect())
    assert folded.metadata["author"] == "someone"
    assert own_metadata(folded)["decision"] == "max"


def test_maxima_of_spikes_keep_their_threshold() -> None:
    pool = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    conv = nir.Conv2d((2, 2), full((1, 1, 1, 1), 1), 1, 0, 1, 1, a(0))
    net = chain([1, 2, 2], conv, iff((1, 2, 2), theta=0.5), pool, nir.Threshold(full((1, 1, 1), 0.5)))
    folded = fold_graph(net, PRESETS["stl"], thresholds="weights")
    assert folded.nodes["n3"].threshold.tolist() == [[[0.5]]]
    assert folded.nodes["n0"].weight.tolist() == [[[[2]]]]
    before, after = (_spikes(found, PRESETS["stl"], _events(1, 2, 2))["n3"] for found in (net, folded))
    assert before.any()
    np.testing.assert_array_equal(before, after)


def _summed_scale():
    same = np.eye(2, dtype=np.float32)
    net = chain([2], nir.Linear(same), nir.Scale(a(2, 4)), iff((2,)), other=nir.Linear(same))
    net.edges += [("input", "other"), ("other", "n1")]
    return net


def _late_scale():
    """A scale in a loop: its neuron takes it a step later."""
    same = np.eye(2, dtype=np.float32)
    loop = {"loop": nir.Linear(same), "scale": nir.Scale(a(0.5, 0.25))}
    back = [("n1", "loop"), ("loop", "scale"), ("scale", "n1")]
    return chain([2], nir.Linear(same), iff((2,), theta=0.5), extra=back, **loop)


@pytest.mark.parametrize(("net", "scale"), [(_summed_scale(), "n1"), (_late_scale(), "scale")])
def test_a_scale_that_weights_cannot_take_in_stays(net, scale) -> None:
    """Of a sum, or taken a step late."""
    merged, _ = passed(fold_scales.PASS, net, PRESETS["stl"])
    assert (set(merged.nodes), set(merged.edges)) == (set(net.nodes), set(net.edges))
    np.testing.assert_array_equal(merged.nodes[scale].scale, net.nodes[scale].scale)


def _per_pixel():
    neuron = lif((1, 3, 3))
    neuron.v_threshold = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3)
    return chain([1, 5, 5], nir.Conv2d((5, 5), full((1, 1, 3, 3), 1), 1, 0, 1, 1, a(0)), neuron)


def _shared():
    net = chain([2], nir.Linear(a([1, 1], [0, 1])), iff((2,), theta=2.0), other=iff((2,)))
    net.edges += [("n0", "other"), ("other", "output")]
    return net


@pytest.mark.parametrize(
    ("net", "dialect", "node", "reason"),
    [
        (_per_pixel(), Dialect(), "n1", "9 thresholds, one per pixel, behind the convolution 'n0'"),
        (_shared(), Dialect(), "n1", "its weights 'n0' are read by 'other' too"),
        (chain([2], iff((2,), theta=2.0)), Dialect(), "n0", r"'input' \(Input\) reaches it without weights"),
        (chain([1], nir.Linear(a([1])), iff((1,), theta=2.0)), Dialect(v_min=-1.0), "n1", "bounded below by -1"),
        (
            chain([3, 2], nir.Linear(np.eye(2, dtype=np.float32)), iff((3, 2), theta=2.0)),
            Dialect(),
            "n1",
            r"its shape is \[3, 2\], and its rows \(tokens\) share the weights of 'n0'",
        ),
    ],
    ids=["per pixel", "shared weights", "no weights", "bounded", "rows"],
)
def test_refusals(net, dialect, node, reason) -> None:
    with pytest.raises(UnsupportedError, match=reason) as caught:
        fold_graph(net, dialect, thresholds="weights")
    assert (caught.value.node, caught.value.slug) == (node, "threshold-not-absorbable")
    assert caught.value.remedy.endswith("; or fold with thresholds 'keep', the default")


def test_a_scale_behind_weights_goes_into_them() -> None:
    """4·(0.5·x) against θ = 2 is 1·x against 1."""
    scaled = nir.Scale(a([4.0]))
    net = chain([1], nir.Linear(a([0.5])), scaled, iff((1,), theta=2.0))
    folded = fold_graph(net, PRESETS["stl"], thresholds="weights", exact_grid=False)
    assert not any(isinstance(node, nir.Scale) for node in folded.nodes.values())
    assert folded.nodes["n0"].weight.tolist() == [[1.0]]
    x = np.ones((4, 1, 1), np.float32)
    assert (
        _spikes(folded, PRESETS["stl"], x)["n2"].ravel().tolist()
        == _spikes(net, PRESETS["stl"], x)["n2"].ravel().tolist()
    )


@pytest.mark.parametrize("one", [fold_scales.PASS, fold_thresholds.PASS, exact_grids.PASS], ids=lambda one: one.name)
def test_what_fold_returns_is_run_against_what_it_was_given(one) -> None:
    """A pass that gets a weight wrong is caught by the run, not by its reader."""
    scale = nir.Scale(RNG.normal(1, 0.1, 6).astype(np.float32))
    net = chain([8], _affine(6, 8), scale, lif((6,), theta=0.7))
    net.metadata = {METADATA_KEY: {"input": {"fraction_bits": 0, "max": 1.0}}}
    caught(one, lower(net, Dialect()), FOREIGN, FoldOptions(thresholds="weights"))
    apply(lower(net, Dialect()), FOREIGN, FoldOptions(thresholds="weights"))


def _slow_synapse(weight):
    fields = dict(tau_syn=0.01, tau_mem=2e-4, r=1, w_in=100, v_leak=0, v_threshold=3.95, v_reset=0)
    return chain([1], nir.Linear(a([weight])), bare(nir.CubaLIF, **{name: full(1, v) for name, v in fields.items()}))


def _pool(weight):
    conv = nir.Conv2d((4, 4), full((1, 1, 1, 1), weight), 1, 0, 1, 1, a(0))
    pool = nir.SumPool2d(np.array([4, 4]), np.array([4, 4]), np.array([0, 0]))
    return chain([1, 4, 4], conv, pool, iff((1, 1, 1), theta=26.6))


def _scale(weight):
    return chain([1], nir.Linear(a([weight])), nir.Scale(a(32)), iff((1,), theta=63.6))


@pytest.mark.parametrize("net", [_slow_synapse, _pool, _scale])
def test_what_rounded_weights_move_is_followed_to_the_neuron(net) -> None:
    """A spike that 2^-6 less of a weight of 1 costs, which what is between the two makes more of, is no fault."""
    given, rounded = lower(net(1.0), Dialect()), lower(net(1 - 2.0**-6), Dialect())
    require_equivalent(given, rounded, by="mine", exactness="grid", grids=[LayerGrid("n0", 6, 7, 2.0**-6)])
    with pytest.raises(ParityError, match="pass mine: neuron"):
        require_equivalent(given, rounded, by="mine", exactness="grid", grids=[LayerGrid("n0", 6, 7, 2.0**-14)])
