"""Wiring: branches, loops, delays, several ends, nested graphs."""

from dataclasses import replace

import nir
import numpy as np
import pytest

from stl_deploy.errors import GraphError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Operand, Output, Program
from stl_deploy.graph.run import run
from tests.graph.nets import a, bare, chain, graph, iff, steps

IDENTITY = np.eye(1, dtype=np.float32)


def series(program, *drive, output=None):
    outputs = run(program, steps(*([value] for value in drive))).outputs
    return outputs[output or "output"][:, 0, 0].tolist()


def test_affine_adds_its_bias_each_step():
    program = lower(chain([2], nir.Affine(np.array([[1, 2], [3, 4]], np.float32), a(0.5, -1))))
    assert run(program, steps([1, 1], [0, 2])).y[:, 0].tolist() == [[3.5, 6], [4.5, 7]]


def test_scale_flatten_and_threshold():
    program = lower(
        chain(
            [1, 2, 2],
            nir.Scale(a(1, 2, 3, 4).reshape(1, 2, 2)),
            nir.Flatten({"input": None}, 0, -1),
            nir.Linear(np.ones((1, 4), np.float32)),
        )
    )
    assert run(program, np.ones((1, 1, 1, 2, 2), np.float32)).y.ravel().tolist() == [10]


def test_a_node_behind_its_undelayed_reader_is_refused():
    """A recurrent layer behind its neuron ran as if it had no weights, without a word."""
    program = lower(chain([1], iff((1,), theta=0.5), rec=nir.Linear(IDENTITY), extra=[("n0", "rec"), ("rec", "n0")]))
    nodes = {node.name: node for node in program.nodes}
    late = replace(nodes["rec"], operands=(Operand("n0", 1),))
    reader = replace(nodes["n0"], operands=(Operand("input"), Operand("rec")))
    program = Program((nodes["input"], late, reader, nodes["output"]), 1.0)
    assert series(program, 0, 1, 0, 0) == [0, 1, 1, 1]
    with pytest.raises(GraphError) as refused:
        replace(program, nodes=(nodes["input"], reader, late, nodes["output"]))
    assert (refused.value.slug, refused.value.node) == ("order", "n0")


def test_an_edge_that_closes_a_loop_is_one_step_late():
    # The neuron excites itself with weight 1: one push keeps it firing, each time by the last step's spike.
    program = lower(chain([1], iff((1,), theta=0.5), rec=nir.Linear(IDENTITY), extra=[("n0", "rec"), ("rec", "n0")]))
    assert [s.delay for s in program.by_name["n0"].operands] == [0, 1]
    assert series(program, 0, 1, 0, 0) == [0, 1, 1, 1]


def test_a_self_edge_is_one_step_late():
    program = lower(chain([1], iff((1,), theta=0.5), extra=[("n0", "n0")]))
    assert program.by_name["n0"].operands == (Operand("input"), Operand("n0", 1))
    assert series(program, 0, 1, 0, 0) == [0, 1, 1, 1]


def test_a_recurrent_bias_acts_from_the_second_step():
    # The returning edge carries nothing at t = 0, so rec's bias first arrives at t = 1.
    rec = nir.Affine(IDENTITY, a(0.25))
    program = lower(chain([1], bare(nir.I, r=a(1)), rec=rec, extra=[("n0", "rec"), ("rec", "n0")]), Dialect(dt=1.0))
    assert series(program, 1, 0, 0) == [1, 2.25, 4.75]


def test_delays_add_whole_steps():
    program = lower(chain([2], nir.Delay(a(0, 3e-4))))
    assert run(program, steps([1, 1], [2, 2], [0, 0], [0, 0], [0, 0])).y[:, 0].tolist() == [
        [1, 0],
        [2, 0],
        [0, 0],
        [0, 1],
        [0, 2],
    ]


def test_a_delay_in_a_loop_adds_to_the_loops_own_step():
    program = lower(chain([1], iff((1,), theta=0.5), late=nir.Delay(a(2e-4)), extra=[("n0", "late"), ("late", "n0")]))
    assert series(program, 1, 0, 0, 0, 0, 0, 0) == [1, 0, 0, 1, 0, 0, 1]


def test_branches_are_added_up():
    program = lower(chain([1], nir.Scale(a(2)), skip=nir.Scale(a(10)), extra=[("input", "skip"), ("skip", "output")]))
    assert series(program, 1, 3) == [12, 36]


def test_several_inputs_and_outputs():
    nodes = {
        "left": nir.Input(np.array([1])),
        "right": nir.Input(np.array([2])),
        "sum": nir.Linear(np.ones((1, 2), np.float32)),
        "double": nir.Scale(a(2)),
        "one": nir.Output(np.array([1])),
        "two": nir.Output(np.array([1])),
    }
    edges = [("right", "sum"), ("left", "double"), ("sum", "one"), ("double", "one"), ("double", "two")]
    program = lower(graph(nodes, edges))
    result = run(program, {"left": steps([1], [2]), "right": steps([3, 4], [5, 6])})
    assert {k: v[:, 0, 0].tolist() for k, v in result.outputs.items()} == {"one": [9, 15], "two": [2, 4]}


def inner(*nodes):
    return chain([1], *nodes)


def test_nested_graphs_are_opened():
    nested = inner(nir.Scale(a(3)), inner(nir.Scale(a(5))))
    program = lower(chain([1], nested, nir.Scale(a(2))))
    assert series(program, 1, 2) == [30, 60]
    assert "n0.n1.n0" in program.by_name
    assert [node.name for node in program.of(Output)] == ["output"]


def test_a_loop_through_a_nested_graph():
    program = lower(chain([1], inner(iff((1,), theta=0.5)), extra=[("n0", "n0")]))
    assert series(program, 0, 1, 0) == [0, 1, 1]


def test_recording_and_chunks_change_nothing():
    program = lower(chain([1], iff((1,), theta=0.5), nir.Scale(a(2))))
    x = np.random.default_rng(0).integers(0, 2, (5, 4, 1))
    whole = run(program, x, record=["n0", "n1"])
    parts = run(program, x, record=["n0", "n1"], chunk=3)
    np.testing.assert_array_equal(whole.recorded["n0"] * 2, whole.y)
    for name in ("n0", "n1"):
        np.testing.assert_array_equal(whole.recorded[name], parts.recorded[name])


def test_observers_see_what_arrives_and_leaves_in_loops_too():
    program = lower(chain([1], iff((1,), theta=0.5), extra=[("n0", "n0")]))
    seen = {}
    run(program, steps([0], [1], [0]), observe=lambda node, x, y: seen.update({node.name: (x.ravel(), y.ravel())}))
    assert seen["n0"][0].tolist() == [0, 1, 1]
    assert seen["n0"][1].tolist() == [0, 1, 1]
    assert set(seen) == {"input", "n0", "output"}


@pytest.mark.parametrize(
    ("shape", "flatten", "expected"),
    [
        ([784], None, (784,)),
        ([1, 784], None, (784,)),
        ([8, 784], None, (784,)),
        ([1, 28, 28], (0, -1), (1, 28, 28)),
        ([1, 28, 28], (1, -1), (1, 28, 28)),
        ([8, 1, 28, 28], (1, -1), (1, 28, 28)),
        ([8, 1, 28, 28], (-3, -1), (1, 28, 28)),
    ],
)
def test_batch_sizes_in_shapes_and_in_flatten_axes(shape, flatten, expected):
    nodes = [] if flatten is None else [nir.Flatten({"input": None}, *flatten)]
    program = lower(chain(shape, *nodes, nir.Linear(np.ones((10, 784), np.float32)), iff((10,))))
    assert program.inputs[0].shape == expected
    assert program.outputs[0].shape == (10,)


def test_parameters_by_channel_after_a_convolution():
    conv = bare(
        nir.Conv2d, weight=np.ones((2, 1, 1, 1), np.float32), bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    neuron = iff((2,))
    neuron.v_threshold = a(0.5, 1.5)
    program = lower(chain([1, 2, 2], conv, neuron))
    y = run(program, np.ones((1, 1, 1, 2, 2), np.float32)).y[0, 0]
    assert y.tolist() == [[[1, 1], [1, 1]], [[0, 0], [0, 0]]]


def test_a_loop_may_be_late_where_spikes_leave_the_neuron():
    # Then rec's bias of 0.25 is there at t = 0 already.
    rec = nir.Affine(IDENTITY, a(0.25))
    net = chain([1], bare(nir.I, r=a(1)), rec=rec, extra=[("n0", "rec"), ("rec", "n0")])
    program = lower(net, Dialect(dt=1.0, loop="neuron_output"))
    assert series(program, 1, 0, 0) == [1.25, 2.75, 5.75]
    assert program.by_name["rec"].operands == (Operand("n0", 1),)
    names = [node.name for node in program.nodes]
    assert names.index("rec") < names.index("n0")


def test_a_loop_delay_stays_where_the_way_back_serves_others_too():
    # rec is read outside the loop as well, where it must not become late.
    rec = nir.Affine(IDENTITY, a(0.25))
    net = chain([1], bare(nir.I, r=a(1)), rec=rec, extra=[("n0", "rec"), ("rec", "n0"), ("rec", "output")])
    dialects = [Dialect(dt=1.0, loop=loop) for loop in ("closing_edge", "neuron_output")]
    first, second = (series(lower(net, dialect), 1, 0, 0) for dialect in dialects)
    assert first == second == [2.25, 4.75, 9.75]


def test_late_spikes_close_a_loop_without_another_step():
    late = Dialect(emit="next_step")
    program = lower(chain([1], iff((1,), theta=0.5), extra=[("n0", "n0")]), late)
    assert series(program, 1, 0, 0) == [0, 1, 1]
    rec = nir.Linear(IDENTITY)
    program = lower(chain([1], iff((1,), theta=0.5), rec=rec, extra=[("n0", "rec"), ("rec", "n0")]), late)
    assert series(program, 1, 0, 0) == [0, 1, 1]


@pytest.mark.parametrize(("loop_input", "expected"), [("as_written", [3, 12, 48]), ("neuron", [1, 4, 16])])
def test_input_may_pass_by_the_weights_of_a_loop(loop_input, expected):
    weights = nir.Linear(3 * IDENTITY)
    net = chain([1], weights, bare(nir.I, r=a(1)), extra=[("n1", "n0")])
    assert series(lower(net, Dialect(dt=1.0, loop_input=loop_input)), 1, 0, 0) == expected
    net = chain([1], weights, bare(nir.I, r=a(1)), extra=[("n1", "n0"), ("input", "n1")])
    assert series(lower(net, Dialect(dt=1.0, loop_input=loop_input)), 1) == [4]


def test_samples_within_a_number_of_spikes():
    program = lower(chain([2], iff((2,)), nir.Linear(np.ones((3, 2), np.float32)), iff((3,))))
    assert program.samples_within(75, 5) == 3
    assert program.samples_within(74, 5) == 2
    assert program.samples_within(24, 5) == 1
    assert lower(chain([2], nir.Linear(np.eye(2, dtype=np.float32)))).samples_within(7, 5) == 7
