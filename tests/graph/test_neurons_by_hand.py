"""Each neuron type and each dialect option against numbers worked out by hand."""

import nir
import numpy as np
import pytest

from stl_deploy.errors import GraphError
from stl_deploy.exporters.nir.dialect import PRESETS, Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.neurons import NeuronState
from stl_deploy.graph.run import run
from tests.graph.nets import a, bare, chain, full, graph, iff, lif, steps

HALF = Dialect(dt=1e-4)


def out(node, drive, dialect=HALF):
    """What one neuron puts out, step by step."""
    x = steps(*([value] for value in drive))
    return run(lower(chain([1], node), dialect), x).y[:, 0, 0].tolist()


def test_lif_leaks_fires_above_threshold_and_resets():
    # decay 0.5, gain 0.5·r = 1 with r = 2: v = 0.75, 1.125 (fires, reset), 0.25, 1.0 (not above 1), 1.125
    assert out(lif((1,), r=2), [0.75, 0.75, 0.25, 0.875, 0.625]) == [0, 1, 0, 0, 1]


def test_greater_or_equal_fires_at_a_tie():
    assert out(lif((1,), r=2), [1.0, 0.0]) == [0, 0]
    assert out(lif((1,), r=2), [1.0, 0.0], Dialect(compare="ge")) == [1, 0]


def test_gain_is_dt_over_tau_times_r():
    assert out(lif((1,), r=1, theta=0.25), [0.5, 0.75]) == [0, 1]


def test_leak_potential_pulls_towards_v_leak():
    # v <- 0.5 v + 0.5·4: 2, 3, 3.5 (fires above 3.25, to 0), 2
    assert out(lif((1,), v_leak=4, theta=3.25), [0, 0, 0, 0]) == [0, 0, 1, 0]


def test_reset_to_a_value():
    # after the first spike v = 0.75, so 0.375 + 0.6875 > 1 fires again
    assert out(lif((1,), r=2, v_reset=0.75), [1.25, 0.6875]) == [1, 1]
    assert out(lif((1,), r=2), [1.25, 0.6875]) == [1, 0]


def test_reset_by_subtraction_keeps_what_is_over():
    # 2.5 fires, 1.5 left; 0.75 + 0.5 = 1.25 fires, 0.25 left; 0.125
    assert out(lif((1,), r=2), [2.5, 0.5, 0.0], Dialect(reset="subtract")) == [1, 1, 0]


def test_delayed_subtraction_comes_after_the_leak():
    # 2.5 fires; 0.5·2.5 + 0.5 - 1 = 0.75; 0.375 + 0.75 = 1.125 fires; 0.5625 + 0 - 1 = -0.4375
    dialect = Dialect(reset="subtract_delayed")
    assert out(lif((1,), r=2), [2.5, 0.5, 0.75, 0.0], dialect) == [1, 0, 1, 0]
    assert out(lif((1,), r=2), [2.5, 0.5, 0.75, 0.0], Dialect(reset="subtract")) == [1, 1, 0, 0]


def test_a_delayed_reset_to_a_value_loses_what_arrives_after_the_spike():
    # 2 fires; held at 0 whatever arrives; 0 + 1.25 fires; held
    drive, dialect = [2.0, 5.0, 1.25, 5.0], Dialect(reset="value_delayed")
    assert out(lif((1,), r=2), drive, dialect) == [1, 0, 1, 0]
    assert out(lif((1,), r=2), drive, Dialect()) == [1, 1, 1, 1]
    # held at v_reset 0.75: 0.375 + 0.6875 fires at once after
    assert out(lif((1,), r=2, v_reset=0.75), [1.25, 5.0, 0.6875], dialect) == [1, 0, 1]


def test_a_current_goes_on_while_the_potential_is_held():
    # i: 2, 1, 0.5, 0.25 (gain 1 each); v: 2 fires, held, 0.5, 0.25 + 0.25 ... with a threshold of 0.4
    node = bare(nir.CubaLIF, tau_syn=a(2e-4), tau_mem=a(2e-4), r=a(2), v_leak=a(0), w_in=a(2), v_threshold=a(0.4))
    assert out(node, [2.0, 0, 0, 0], Dialect(reset="value_delayed")) == [1, 0, 1, 0]
    assert out(node, [2.0, 0, 0, 0], Dialect()) == [1, 1, 1, 0]


def test_snntorchs_zero_holds_current_based_and_looped_neurons_only():
    nodes = {
        "input": nir.Input(np.array([1])),
        "plain": lif((1,), r=2),
        "cuba": bare(nir.CubaLIF, tau_syn=a(2e-4), tau_mem=a(2e-4), r=a(2), v_leak=a(0), w_in=a(2), v_threshold=a(1)),
        "looped": lif((1,), r=2),
        "back": bare(nir.Linear, weight=np.ones((1, 1), np.float32)),
        "output": nir.Output(np.array([1])),
    }
    edges = [("input", "plain"), ("plain", "cuba"), ("cuba", "looped"), ("looped", "back"), ("back", "looped")]
    program = lower(graph(nodes, [*edges, ("looped", "output")]), PRESETS["snntorch_zero"])
    assert {node.name: node.reset for node in program.spiking} == {
        "plain": "value",
        "cuba": "value_delayed",
        "looped": "value_delayed",
    }


def test_spyx_takes_the_threshold_off_before_the_leak_in_current_based_neurons_only():
    cuba = bare(nir.CubaLIF, tau_syn=a(2), tau_mem=a(2), r=a(1), v_leak=a(0), w_in=a(1), v_threshold=a(1))
    program = lower(chain([1], lif((1,), tau=2), cuba), PRESETS["spyx"])
    assert [node.reset for node in program.spiking] == ["subtract_delayed", "subtract"]


def test_several_spikes_in_one_step():
    dialect = Dialect(reset="subtract", spikes_per_step="many", compare="ge")
    # 3.5 gives 3, 0.5 left; 0.25 + 1.75 = 2.0 gives 2, 0 left; -4 gives none
    assert out(lif((1,), r=2), [3.5, 1.75, -4.0], dialect) == [3, 2, 0]


@pytest.mark.parametrize(("v_min", "expected"), [(None, 0), (-1.0, 1), ("-threshold", 1)])
def test_the_potential_is_held_above_v_min(v_min, expected):
    # -8 is clipped to -1; then -0.5 + 1.75 = 1.25 fires; unclipped -4 + 1.75 does not
    assert out(lif((1,), r=2), [-8.0, 1.75], Dialect(v_min=v_min)) == [0, expected]


def test_start_at_v_reset():
    assert out(lif((1,), r=2, v_reset=0.75), [0.6875], Dialect(start="v_reset")) == [1]
    assert out(lif((1,), r=2, v_reset=0.75), [0.6875]) == [0]


def test_start_at_v_leak():
    # 0.5·1.5 + 0.5·1.5 + drive: at v_leak without input; from 0 it would be 0.75
    dialect = Dialect(start="v_leak")
    assert out(lif((1,), r=2, v_leak=1.5, theta=1.625), [0.25, 0], dialect) == [1, 0]
    assert out(lif((1,), r=2, v_leak=1.5, theta=1.625), [0.25, 0]) == [0, 0]
    assert out(bare(nir.LI, tau=a(2e-4), r=a(2), v_leak=a(1.5)), [0, 0.5], dialect) == [1.5, 2.0]
    assert out(iff((1,)), [0.75], dialect) == [0]  # integrate-and-fire neurons have none
    jumping = cuba(nir.CubaLIF, v_threshold=a(1.0))
    jumping.v_leak = a(1.5)
    assert out(jumping, [0], Dialect(dt=1, start="v_leak")) == [1]
    assert out(jumping, [0], Dialect(dt=1)) == [0]


def test_a_file_in_millivolts():
    # v from -65: 0.5·-65 + 0.5·-65 + 12 = -53; -59 + 12 = -47 fires, to -70; -67.5
    node = lif((1,), r=2, theta=-50, v_leak=-65, v_reset=-70)
    assert out(node, [12, 12, 0], Dialect(start="v_leak")) == [0, 1, 0]


def test_no_reset_leaves_the_potential():
    # 2, 1 (not above), 0.5 + 1 = 1.5, 0.75
    assert out(lif((1,), r=2), [2, 0, 1, 0], Dialect(reset="none")) == [1, 0, 1, 0]


def test_snntorch_without_delay_fires_again_only_above_twice_the_threshold():
    # 3.5 fires, 2.5 left, above 1: 1.25 + 0.5 - 1 = 0.75 no spike, and the 1 is given back: 1.75 left, above 1;
    # 0.875 + 1.25 - 1 = 1.125 fires, nothing more is taken off; above 1: 0.5625 + 0.25 - 1, and back: 0.8125
    drive = [3.5, 0.5, 1.25, 0.25, 0.75]
    assert out(lif((1,), r=2), drive, Dialect(reset="snntorch_subtract_now")) == [1, 0, 1, 0, 1]
    assert out(lif((1,), r=2), drive, Dialect(reset="subtract")) == [1, 1, 1, 0, 1]


def test_gain_one_minus_decay():
    # decay 0.75: v <- 0.75 v + 0.25 x, whatever r and leak say
    tau = np.float32(-1 / np.log(0.75))
    node = bare(nir.LI, tau=a(tau), r=a(7), v_leak=a(0))
    assert out(node, [4, 0], Dialect(dt=1, leak="exp", gain="one_minus_decay")) == pytest.approx([1, 0.75])
    assert out(bare(nir.LI, tau=a(4), r=a(7), v_leak=a(0)), [4, 0], Dialect(dt=1, gain="one_minus_decay")) == [1, 0.75]
    assert out(iff((1,), r=1), [1.5], Dialect(dt=1, gain="one_minus_decay")) == [1]


@pytest.mark.parametrize(("v_min", "expected"), [({"n0": -1.0}, 1), ({"n0": "-threshold"}, 1), ({}, 0)])
def test_a_bound_for_one_node(v_min, expected):
    assert out(lif((1,), r=2), [-8.0, 1.75], Dialect(v_min=v_min)) == [0, expected]


def test_a_bound_for_integrators_only():
    dialect = Dialect(v_min="-threshold", bounded="if")
    program = lower(chain([1], lif((1,)), iff((1,))), dialect)
    assert [node.v_min for node in program.spiking] == [None, -1]


def test_a_rate_is_computed_as_the_framework_does():
    """The decay of snnTorch's file comes back as it was; Rockpool's is e to the power of (1/τ)·dt in float32."""
    beta = np.random.default_rng(0).uniform(0.5, 0.99, 1000).astype(np.float32)
    tau = 1e-4 / (1 - beta)
    assert tau.dtype == np.float32
    kept = lif((1000,), tau=tau, r=tau / np.float32(1e-4))
    decays = {rate: lower(chain([1000], kept), Dialect(rate=rate)).spiking[0].decay for rate in ("double", "divide")}
    np.testing.assert_array_equal(decays["double"], beta)
    assert (decays["divide"] != beta).any()
    dialect = Dialect(dt=1e-3, leak="exp", rate="reciprocal")
    expected = np.exp(-np.float64(np.float32(1) / tau * np.float32(1e-3))).astype(np.float32)
    np.testing.assert_array_equal(lower(chain([1000], kept), dialect).spiking[0].decay, expected)
    assert PRESETS["rockpool"].rate == "reciprocal"
    assert PRESETS["snntorch"].rate == "double"


def test_an_infinite_time_constant_is_no_leak():
    """snnTorch writes β = 1 as τ = ∞, with r = τ/dt = ∞."""
    infinite = lif((2,), tau=a(np.inf, 2e-4), r=a(np.inf, 2), theta=2)
    y = run(lower(chain([2], infinite), HALF), steps([1.5, 1.5], [1.5, 1.5])).y[:, 0].tolist()
    assert y == [[0, 0], [1, 1]]
    (neuron,) = lower(chain([2], infinite), HALF).spiking
    assert (neuron.decay.tolist(), neuron.gain) == ([1, 0.5], None)
    with pytest.raises(GraphError, match="dt/τ·r in float32: expected finite numbers; found inf"):
        lower(chain([2], lif((2,), r=np.inf)), HALF)


def test_exponential_leak_has_input_gain_one():
    tau = np.float32(1 / np.log(2))
    node = bare(nir.LI, tau=a(tau), r=a(5), v_leak=a(0))
    got = out(node, [1.0, 0.0, 0.0], Dialect(dt=1.0, leak="exp"))
    decay = np.float32(np.exp(-1 / np.float64(tau)))
    assert got == [1.0, float(decay), float(decay * decay)]


def test_exponential_leak_towards_v_leak():
    node = bare(nir.LI, tau=a(1 / np.log(2)), r=a(1), v_leak=a(8))
    assert out(node, [0.0, 0.0], Dialect(dt=1.0, leak="exp")) == pytest.approx([4, 6])


def test_if_integrates_dt_r_x_without_leak():
    assert out(iff((1,), r=1e4, theta=2), [1, 1, 1, 1]) == [0, 0, 1, 0]


def test_integrators_put_out_their_potential():
    assert out(bare(nir.I, r=a(2)), [1, 1, -3], Dialect(dt=0.5)) == [1, 2, -1]
    assert out(bare(nir.LI, tau=a(2), r=a(4), v_leak=a(1)), [1, 0, 0], Dialect(dt=1)) == [2.5, 1.75, 1.375]


def test_threshold_has_no_memory_and_no_reset():
    node = bare(nir.Threshold, threshold=a(1))
    assert out(node, [0.75, 0.75, 1.0, 1.5]) == [0, 0, 0, 1]
    assert out(node, [1.0], Dialect(compare="ge")) == [1]


def cuba(kind=nir.CubaLI, **more):
    return bare(kind, tau_syn=a(2), tau_mem=a(4), r=a(4), v_leak=a(0), w_in=a(2), **more)


def test_cuba_euler_steps_the_current_first():
    # i <- 0.5 i + 0.5·2·x: 1, 0.5, 0.25;  v <- 0.75 v + 1·i: 1, 1.25, 1.1875
    assert out(cuba(), [1, 0, 0], Dialect(dt=1)) == [1, 1.25, 1.1875]


def test_cuba_exp_add_decays_what_has_arrived():
    syn, mem = (np.exp(-1 / tau) for tau in (2, 4))
    i = [2 * syn, 2 * syn**2]
    got = out(cuba(), [1, 0], Dialect(dt=1, synapse="exp_add"))
    assert got == pytest.approx([i[0], i[0] * mem + i[1]], rel=1e-6)


def test_cuba_lif_fires_and_resets_the_potential_only():
    node = cuba(nir.CubaLIF, v_threshold=a(1.125), v_reset=a(0))
    # v: 1, 1.25 (fires, 0), 0.25, 0.3125
    assert out(node, [1, 0, 0, 0], Dialect(dt=1)) == [0, 1, 0, 0]


def test_fields_differ_by_neuron():
    node = lif((3,), tau=a(1e-4, 2e-4, 4e-4), r=a(1, 2, 4), theta=a(1, 0.5, 2), v_reset=a(0, 1, 0))
    y = run(lower(chain([3], node), HALF), steps([1, 1, 1], [1, 0.25, 1], [2, 0, 1])).y[:, 0].tolist()
    # decays 0, 0.5, 0.75; first 1, 1, 2 (fires); second 1 (fires), 0.75 (fires), 0.5; third 1, 1.75, 2.3125 (fires)
    assert y == [[0, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_states_start_anew_for_every_sample_and_run():
    program = lower(chain([1], lif((1,), r=2)), HALF)
    x = np.full((2, 3, 1), 0.75, np.float32)
    for _ in range(2):
        assert run(program, x, chunk=1).y[:, :, 0].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_missing_v_reset_is_zero():
    node = lif((1,), r=2)
    node.v_reset = None
    assert out(node, [1.25, 0.6875]) == [1, 0]


@pytest.mark.parametrize("value", [full((), 2e-4), full((1,), 2e-4), np.float64(2e-4)])
def test_one_value_stands_for_all_neurons(value):
    node = lif((3,), r=2)
    node.tau = value
    assert run(lower(chain([3], node), HALF), steps([1.25, 1, 2])).y[0, 0].tolist() == [1, 0, 1]


def test_cuba_jump_adds_the_whole_input_to_the_current():
    # i <- 0.5 i + 2 x: 2, 1, 0.5;  v <- 0.75 v + 1·i: 2, 2.5, 2.375
    assert out(cuba(), [1, 0, 0], Dialect(dt=1, synapse="jump")) == [2, 2.5, 2.375]


def test_gain_one_ignores_r_and_w_in():
    dialect = Dialect(dt=1, gain="one")
    assert out(bare(nir.LI, tau=a(2), r=a(4), v_leak=a(1)), [1, 0], dialect) == [1.5, 1.25]
    assert out(cuba(), [1, 0], dialect) == [1, 1.25]
    assert out(bare(nir.I, r=a(7)), [1, 1], dialect) == [1, 2]


def test_integrate_r_leaves_dt_out():
    assert out(bare(nir.I, r=a(2)), [1, 1], Dialect(dt=0.5, integrate="r")) == [2, 4]


def test_a_gain_that_rounding_keeps_from_one_is_one():
    tau = np.float32(1e-4) / (1 - np.float32(0.93))
    r = np.nextafter(tau / np.float32(1e-4), np.float32(0))
    assert np.float32(r * (np.float32(1e-4) / tau)) != 1
    assert out(lif((1,), tau=tau, r=r), [1.0], Dialect(compare="ge")) == [1]
    (neuron,) = lower(chain([1], lif((1,), tau=1, r=1.00001)), Dialect(dt=1)).spiking
    assert neuron.gain == np.float32(1.00001)


def test_spikes_that_leave_a_step_later():
    # The neuron itself resets at once; its readers see the spike one step later, memoryless thresholds at once.
    net = chain([1], iff((1,), theta=0.5), bare(nir.Threshold, threshold=a(0.5)))
    result = run(lower(net, Dialect(emit="next_step")), steps([1], [0], [1]), record=["n0"])
    assert result.recorded["n0"].ravel().tolist() == [1, 0, 1]
    assert result.y.ravel().tolist() == [0, 1, 0]


@pytest.mark.parametrize("v_leak", [0.0, 0.25])
@pytest.mark.parametrize("tau", [20e-3, 10e-3, 3.3e-3])
def test_an_integrator_in_norses_order_of_operations_differs_by_rounding_alone(tau, v_leak):
    """Norse: v + dt/tau·((v_leak - v) + i) in float32; a graph: decay·v + gain·i."""
    x = np.random.default_rng(1).normal(size=(1000, 2, 8)).astype(np.float32)
    node = bare(
        nir.LI, tau=np.full(8, tau, np.float32), r=np.ones(8, np.float32), v_leak=np.full(8, v_leak, np.float32)
    )
    y = run(lower(chain([8], node), Dialect(dt=1e-3, start="v_leak")), x).y
    v, rate = np.full((2, 8), np.float32(v_leak)), np.float32(1e-3) / np.float32(tau)
    expected = np.empty_like(x)
    for step, current in enumerate(x):
        v = v + rate * ((np.float32(v_leak) - v) + current)
        expected[step] = v
    assert not np.array_equal(y, expected)
    assert np.abs(y - expected).max() < 1e-6 * np.abs(expected).max()
    assert np.median(np.abs(y - expected) / np.spacing(np.abs(expected))) <= 8


def test_a_reset_to_0_leaves_no_sign_and_no_infinity():
    node = lower(chain([1], lif((1,), r=2)), HALF).spiking[0]
    state = NeuronState(node, 4)
    state.v[:, 0] = -0.5, np.inf, -np.inf, 0.75
    state._to_value(np.array([[1], [1], [1], [0]], np.float32))
    assert state.v.view(np.uint32)[:3].max() == 0
    assert state.v[3] == 0.75
