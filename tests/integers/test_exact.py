"""Networks that integers hold without rounding: every spike is the reference's, ties and gains of each pixel too."""

from __future__ import annotations

import itertools
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import C, CFormat
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Neuron, Program, Synapse
from stl_deploy.graph.run import run
from stl_deploy.integers.net import same
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from tests.drawn import examples
from tests.exporters.netx.programs import Builder, F
from tests.graph.nets import bare, chain, full, lif

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())
AT_OR_ABOVE = Dialect(compare="ge")


def agrees(program: Program, calibration: Any, x: Any) -> Any:
    """Integers chosen by ``calibration`` spike on ``x`` as the reference does."""
    graph = choose(program, calibration).graph
    found = simulate(graph, to_integers(x, graph.input.scale), record=True)
    expected = run(program, x, record=list(found.spikes))
    for name, spikes in found.spikes.items():
        np.testing.assert_array_equal(spikes, expected.recorded[name])
    return graph


def neurons(build: Builder, name: str, theta: Any, **fields: Any) -> Builder:
    threshold = np.asarray(theta, F)
    decay = fields.pop("decay", np.ones((), F))
    build.nodes.append(Neuron(threshold=threshold, decay=decay, **fields, **build._common(name, build.shape)))
    return build


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1),
    compare=st.sampled_from(["ge", "gt"]),
    reset=st.sampled_from(["value", "subtract", "subtract_delayed"]),
    grid=st.sampled_from([1, 4]),
    decay=st.sampled_from([1.0, 0.0]),
)
def test_whole_weights_without_a_leak_lose_no_tie(seed: int, compare: Any, reset: Any, grid: int, decay: float) -> None:
    """Weights, biases and thresholds are multiples of 1 or 1/4, so that v meets its threshold exactly and often."""
    rng = np.random.default_rng(seed)
    build = Builder((6,)).linear("fc", rng.integers(-9, 10, (4, 6)) / grid, rng.integers(-2, 3, 4) / grid)
    fields: dict[str, Any] = {"compare": compare, "reset": reset, "decay": np.asarray(decay, F)}
    neurons(build, "a", rng.integers(1, 12, 4) / grid, **fields).linear("fc2", rng.integers(-9, 10, (3, 4)) / grid)
    program = neurons(build, "b", rng.integers(1, 12) / grid, **fields).program()
    agrees(program, rng.integers(0, 2, (2, 1, 6)).astype(F), rng.integers(0, 2, (12, 8, 6)).astype(F))


def test_thresholds_off_the_grid_of_whole_potentials_are_exact_too() -> None:
    """v >= 2.5 is v > 2, v > 2.5 too."""
    for compare in ("ge", "gt"):
        build = neurons(Builder((2,)).linear("fc", [[1, 2], [3, -1]]), "a", [2.5, 2.0], compare=compare)
        graph = agrees(build.program(), np.ones((1, 1, 2), F), np.random.default_rng(0).integers(0, 2, (9, 20, 2)))
        assert graph.populations[0].neuron.threshold.tolist() == ([2, 1] if compare == "ge" else 2)


def test_ties_of_a_leaking_neuron_are_found_by_calibration() -> None:
    """v = v/2 + 3x reaches 4 at 1, 1 only above it, and 3 at once: "at or above 3" is a tie."""
    x = np.array(list(itertools.product((0, 1), repeat=6)), F).T[:, :, None]
    program = neurons(Builder((1,)).linear("fc", [[3.0]]), "a", 3.0, compare="ge", decay=np.full((), 0.5, F)).program()
    agrees(program, x, x)


def gained(gain: Any, tau: float, dialect: Dialect, scaled: Any = 1.0) -> Program:
    """A convolution and neurons with these gains; thresholds and offsets are integers times ``scaled``."""
    rng = np.random.default_rng(1)
    conv = nir.Conv2d((4, 4), rng.integers(-5, 6, (2, 1, 3, 3)).astype(F), 1, 1, 1, 1, np.array([1, -1], F))
    theta, offset = rng.integers(1, 6, (2, 4, 4)) * scaled, rng.integers(-1, 2, (2, 4, 4)) * scaled
    # dt/tau times r is the gain, dt/tau times v_leak the offset
    neuron = lif((2, 4, 4), tau=tau, r=gain * tau / 1e-4, v_leak=offset * tau / 1e-4, theta=theta)
    return lower(chain((1, 4, 4), conv, neuron), dialect)


@pytest.mark.parametrize("compare", ["gt", "ge"])
@needs_compiler
def test_gains_of_each_pixel_divide_thresholds_and_offsets(compare: Any) -> None:
    """Gains are powers of two, thresholds and offsets whole multiples of them: nothing is rounded in C."""
    rng = np.random.default_rng(1)
    gain = 2.0 ** rng.integers(-2, 3, (2, 4, 4))
    program = gained(gain, 1e-4, Dialect(compare=compare), gain)  # memoryless: the leak takes everything
    assert not [one for one in CFormat().check(program) if one.severity == "error"]
    x = rng.integers(0, 2, (6, 5, 1, 4, 4)).astype(F)
    expected = run(program, x, record=["n1"])
    assert 0 < expected.recorded["n1"].mean() < 1
    found = C(program, COptions(calibration=lambda: x)).run(x, record=True)
    np.testing.assert_array_equal(found.recorded["n1"], expected.recorded["n1"])


def test_gains_of_each_pixel_with_a_leak_are_the_integers_of_divided_thresholds() -> None:
    gain = 2.0 ** np.random.default_rng(2).integers(-2, 3, (2, 4, 4))
    x = np.random.default_rng(3).integers(0, 2, (6, 9, 1, 4, 4)).astype(F)
    found = choose(gained(gain, 4e-4, AT_OR_ABOVE, gain), x).graph
    assert same(found.nodes, choose(gained(1.0, 4e-4, AT_OR_ABOVE), x).graph.nodes)
    assert not same(found.nodes, choose(gained(1.0, 4e-4, AT_OR_ABOVE, gain), x).graph.nodes)


@pytest.mark.parametrize("gain", [0.0, -1.0])
def test_a_gain_of_a_pixel_that_is_not_above_0_is_refused(gain: float) -> None:
    """Dividing by it would turn the comparison round."""
    gains = np.ones((2, 4, 4))
    gains[1, 2, 3] = gain
    program = gained(gains, 1e-4, AT_OR_ABOVE)
    found = [one for one in CFormat().check(program) if one.severity == "error"]
    assert [(one.node, one.slug) for one in found] == [("n1", "gain-per-pixel")]
    with pytest.raises(UnsupportedError, match="differs between pixels and is not above 0 everywhere"):
        choose(program, np.ones((1, 1, 1, 4, 4), F))


def test_an_offset_of_each_pixel_is_a_bias_of_each_pixel() -> None:
    leak = np.arange(-2, 2, dtype=np.float32).reshape(1, 2, 2) * 2
    conv = nir.Conv2d((2, 2), full((1, 1, 1, 1), 1), 1, 0, 1, 1, full((1,), 0))
    program = lower(chain((1, 2, 2), conv, lif((1, 2, 2), tau=2e-4, r=2.0, v_leak=leak, theta=2.0)))
    x = np.random.default_rng(0).integers(0, 2, (5, 9, 1, 2, 2)).astype(F)
    graph = agrees(program, x, x)
    np.testing.assert_array_equal(graph.populations[0].bias / graph.populations[0].bias[0, 1, 1], leak / 2)


CURRENT = bare(nir.I, r=full((3,), 1.0))
LEAKY = bare(nir.LI, tau=full((3,), 2e-4), r=full((3,), 1.0), v_leak=full((3,), 0.0))
EYE = nir.Linear(np.eye(3, dtype=F))


@pytest.mark.parametrize("nodes", [(EYE, CURRENT, lif((3,))), (LEAKY, lif((3,))), (EYE, LEAKY, CURRENT)])
def test_a_potential_before_neurons_is_refused_by_check_and_by_export(nodes: Any) -> None:
    """The second was quantised as if its integrator were not there."""
    program = lower(chain((3,), EYE, lif((3,)), *nodes))
    name = f"n{len(nodes) + 1}"
    assert [(one.node, one.slug) for one in CFormat().check(program) if one.severity == "error"] == [
        (name, "potential")
    ]
    with pytest.raises(UnsupportedError, match="it reads the potential of"):
        choose(program, np.ones((1, 1, 3), F))


def test_the_remedy_for_a_potential_before_neurons() -> None:
    """The filter as the neuron's synapse: the same spikes."""
    x = np.random.default_rng(0).integers(0, 2, (6, 9, 3)).astype(F)
    filtered = lower(chain((3,), EYE, LEAKY, lif((3,))))
    build = Builder((3,)).linear("n0", np.eye(3))
    (li, neuron) = filtered.of(Neuron)
    synapse = Synapse(rule="euler", decay=li.decay, gain=li.gain)
    one = neurons(build, "n2", 1.0, decay=neuron.decay, gain=neuron.gain, synapse=synapse).program()
    expected = run(filtered, x, record=["n2"]).recorded["n2"]
    np.testing.assert_array_equal(run(one, x, record=["n2"]).recorded["n2"], expected)
    assert not [found for found in CFormat().check(one) if found.severity == "error"]


@pytest.mark.parametrize("place", ["first", "between", "behind spikes", "last"])
def test_uniform_delays_are_exported_to_c(place: str, tmp_path: Any) -> None:
    """One number of steps for all is 0-dimensional, which JSON did not take."""
    delay = nir.Delay(full((3,), 2e-4))
    nodes = {
        "first": (delay, EYE, lif((3,))),
        "between": (EYE, delay, lif((3,))),
        "behind spikes": (EYE, lif((3,)), delay, EYE, lif((3,))),
        "last": (EYE, lif((3,)), delay),
    }[place]
    program = lower(chain((3,), *nodes))
    x = np.random.default_rng(0).integers(0, 2, (6, 9, 3)).astype(F)
    CFormat().write(program, tmp_path / "net", COptions(x=x))
    runner = CFormat().load(tmp_path / "net")
    expected = run(program, x).y
    if find_compiler() is not None:
        np.testing.assert_array_equal(runner.run(x).y, expected)
