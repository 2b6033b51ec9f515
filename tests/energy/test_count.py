"""Counts against hand-worked nets, and against a walk over explicit synapse lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.energy.counts.count import ActivityCounter, nonzero_by_sample
from stl_deploy.energy.counts.neuron_ops import layer_ops
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models.memory import memory_of
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Conv, Linear, MaxPool, Neuron, Operand, Output, Pool, Program, Reshape, Scale
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.energy.brute import Walk
from tests.energy.nets import conv, f32, inputs, lif, linear, pool, program, programs, start


def count(net: Program, x: np.ndarray, coding: str = "spikes", chunk: int | None = None) -> Counts:
    counter = ActivityCounter(net, coding)  # type: ignore[arg-type]
    run(net, x, observe=counter, chunk=chunk)
    return counter.counts()


@given(st.data())
@examples(100)
def test_counts_equal_a_walk_over_explicit_synapses(data: st.DataObject) -> None:
    net = data.draw(programs())
    x = data.draw(inputs(net))
    coding = data.draw(st.sampled_from(["spikes", "graded", "analog"]))
    walk = Walk(net, x, coding)
    counted = count(net, x, coding, chunk=data.draw(st.sampled_from([None, 1, 2])))
    expected = {n.name: n for n in net.nodes if isinstance(n, Linear | Conv | Scale | Pool | MaxPool | Neuron)}
    assert list(counted.layers) == list(expected)
    for name, node in expected.items():
        assert counted.layers[name].as_dict() == walk.layer(node), name
    accesses = memory_of(net, counted)
    for name, node in expected.items():
        if isinstance(node, MaxPool):
            assert name not in accesses
            continue
        assert accesses[name].as_dict() == walk.memory(node), name
        if isinstance(node, Neuron):
            assert layer_ops(node, counted.neurons[name]) == walk.operations(node), name


def test_a_padded_strided_convolution_by_hand() -> None:
    # 4x4 image, 3x3 kernel, stride 2, padding 1: outputs at rows and columns 0 and 2 (centres).
    net = program(
        start((1, 4, 4)),
        conv("c", "in", np.ones((2, 1, 3, 3)), (1, 4, 4), stride=(2, 2), padding=((1, 1), (1, 1)), bias=[0, 1]),
        lif("n", "c", (2, 2, 2)),
    )
    x = np.zeros((3, 1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0, 0] = 1  # seen by output (0, 0) only: 2 channels -> 2 synops
    x[1, 0, 0, 1, 1] = 1  # in the windows of all 4 outputs: 8 synops
    x[2, 0, 0, 3, 3] = 1  # seen by output (1, 1) only: 2 synops
    layers = count(net, x).layers
    assert layers["c"].as_dict() == {
        "in_nonzero": 3,
        "binary_input": True,
        "synops": 12,
        "synops_nonzero_w": 12,
        "synapses": 2 * (2 + 3) * (2 + 3),  # per axis the two windows hold 2 and 3 positions
        "dense_macs_exact": 150,
        "dense_macs_nominal": 2 * 4 * 9 * 3,
        "bias_adds": 24,
        "op": "AC",
        # 1 + 4 + 1 of the 9 positions of each of 2 kernels; the first meets (1, 1), the second four others
        "weights_per_step": 12,
        "weights_nonzero_per_step": 12,
        "weights_per_inference": 10,
        "weights_nonzero_per_inference": 10,
    }
    # channel 1 has a bias: touched always (4 x 3); channel 0 only where an event arrives (1 + 4 + 1).
    assert layers["n"].as_dict()["neuron_updates_touched"] == 12 + 6


def test_zero_weights_are_synapses_but_not_among_nonzero_w() -> None:
    net = program(start((3,)), linear("l", "in", [[0, 1, 0], [0, 2, 3]]), lif("n", "l", (2,)))
    layer = count(net, f32([[[1, 1, 1]], [[0, 1, 0]]])).weighted["l"]
    assert (layer.synops, layer.synops_nonzero_w, layer.synapses) == (8, 5, 6)


def test_a_touched_neuron_needs_a_tap_not_a_weight() -> None:
    net = program(start((2,)), linear("l", "in", [[0, 0], [0, 0]]), lif("n", "l", (2,)))
    counts = count(net, f32([[[0, 1]], [[0, 0]], [[1, 1]]]))
    assert counts.neurons["n"].neuron_updates_touched == 4
    assert counts.totals.neuron_updates == 6


def test_a_negative_bias_touches_at_every_step() -> None:
    net = program(start((1,)), linear("l", "in", [[1], [1]], bias=[-1, 0]), lif("n", "l", (2,)))
    assert count(net, f32([[[0]], [[0]], [[1]]])).neurons["n"].neuron_updates_touched == 3 + 1


def test_a_pool_read_with_delay_is_not_folded() -> None:
    late = conv("c", "p", np.ones((1, 1, 1, 1)), (1, 2, 2))
    net = program(
        start((1, 4, 4)), pool("p", "in", (1, 4, 4)), Conv(**{**vars(late), "operands": (Operand("p", delay=1),)})
    )
    assert count(net, np.ones((2, 1, 1, 4, 4), np.float32)).weighted["c"].synops_pool_folded is None


def test_recurrent_events_arrive_one_step_later() -> None:
    cell = lif("n", "l", (1,), threshold=1.0)
    net = program(
        start((1,)),
        linear("l", "in", [[1]]),
        Neuron(**{**vars(cell), "operands": (Operand("l"), Operand("back", delay=1))}),
        linear("back", "n", [[0]]),
    )
    counts = count(net, f32([[[1]], [[0]], [[0]]]))
    assert counts.neurons["n"].spikes == 1
    assert counts.weighted["back"].synops == 1
    assert counts.neurons["n"].neuron_updates_touched == 2  # the input at step 0, its echo at step 1


def test_recurrent_events_of_the_last_step_are_read_by_nothing() -> None:
    cell = lif("n", "l", (2,), threshold=1.0)
    back = linear("back", "n", np.ones((2, 2)), bias=[0, 0])
    net = program(
        start((2,)),
        linear("l", "in", 2 * np.eye(2)),
        Neuron(**{**vars(cell), "operands": (Operand("l"), Operand("back", delay=1))}),
        back,
    )
    net = replace(net, nodes=(*net.nodes[:-1], Output(name="out", shape=(2,), operands=(Operand("n"),))))
    x = f32(np.ones((3, 1, 2)))  # both neurons fire at each of 3 steps
    counted = count(net, x).weighted["back"]
    assert (counted.synops, counted.bias_adds) == (2 * 4, 2 * 2)
    back = replace(back, operands=(Operand("n", delay=1),))
    cell = replace(net.nodes[2], operands=(Operand("l"), Operand("back")))
    late = replace(net, nodes=(*net.nodes[:2], back, cell, net.nodes[-1]))
    assert count(late, x).weighted["back"].synops == counted.synops  # the delay stands elsewhere, the work is the same


def max_pooled() -> Program:
    return program(
        start((1, 4, 4)),
        pool("p", "in", (1, 4, 4)),
        lif("m", "p", (1, 2, 2), decay=None),
        Reshape(name="f", shape=(4,), operands=(Operand("m"),), input_shape=(1, 2, 2)),
        linear("l", "f", np.ones((3, 4))),
        lif("n", "l", (3,)),
    )


def test_after_sum_or_average_pooling_mac_after_max_pooling_ac() -> None:
    def summed(divisor: int) -> Program:
        return program(
            start((1, 4, 4)),
            pool("p", "in", (1, 4, 4), divisor=divisor),
            conv("c", "p", np.ones((2, 1, 1, 1)), (1, 2, 2)),
            lif("n", "c", (2, 2, 2)),
        )

    x = np.zeros((1, 1, 1, 4, 4), np.float32)
    assert count(summed(1), x).weighted["c"].op == "MAC"
    assert count(summed(4), x).weighted["c"].op == "MAC"
    after_max = count(max_pooled(), x)
    assert after_max.weighted["l"].op == "AC"
    assert after_max.pools["p"].op == "AC"


def test_events_into_a_pool_cost_their_folded_fan_out() -> None:
    net = program(
        start((1, 4, 4)),
        lif("a", "in", (1, 4, 4)),
        pool("p", "a", (1, 4, 4)),
        lif("m", "p", (1, 2, 2), decay=None),
        Reshape(name="f", shape=(4,), operands=(Operand("m"),), input_shape=(1, 2, 2)),
        linear("l", "f", np.ones((3, 4))),
        lif("n", "l", (3,)),
    )
    x = np.zeros((1, 1, 1, 4, 4), np.float32)
    x[0, 0, 0, :2, :2] = 1  # four events in one window: one spike leaves the max pool
    layer = count(net, x).weighted["l"]
    assert layer.synops == 3
    assert layer.synops_pool_folded == 12


def test_pools_are_counted_apart_from_synapses() -> None:
    x = np.ones((2, 3, 1, 4, 4), np.float32)
    totals = count(max_pooled(), x).totals
    assert totals.pool_events == 16 * 6
    assert totals.synops == totals.synops_AC == 4 * 3 * 6
    assert totals.dense_macs_exact == 12 * 6
    assert totals.ann_macs_exact == 12 * 3


@given(st.data())
@examples(40)
def test_op_depends_on_structure_and_coding_never_on_the_batch(data: st.DataObject) -> None:
    net = data.draw(programs())
    coding = data.draw(st.sampled_from(["spikes", "graded", "analog"]))
    first, second = (count(net, data.draw(inputs(net)), coding) for _ in range(2))

    def ops(counts: Counts) -> list[str]:
        return [c.op for c in (*counts.weighted.values(), *counts.pools.values())]

    assert ops(first) == ops(second)


def test_binary_input_is_what_the_data_showed() -> None:
    net = program(start((2,)), linear("l", "in", [[1, 1]]))
    assert count(net, f32([[[0, 1]]]), "analog").weighted["l"].binary_input
    counts = count(net, f32([[[0, 1]], [[1, 2]]]), "analog", chunk=1)
    assert not counts.weighted["l"].binary_input
    assert counts.weighted["l"].op == "MAC"


def test_several_spikes_per_step_are_counted_and_make_macs() -> None:
    many = Neuron(name="n", shape=(1,), operands=(Operand("in"),), decay=None, threshold=f32(1), multi_spike=True)
    counts = count(program(start((1,)), many, linear("l", "n", [[1]])), f32([[[3.5]]]), "analog")
    assert counts.neurons["n"].spikes == 3
    assert counts.weighted["l"].op == "MAC"


def test_more_rows_than_a_byte_can_hold() -> None:
    events = np.ones((600, 2, 3), np.bool_)
    assert nonzero_by_sample(events).tolist() == [[600] * 3] * 2
    assert nonzero_by_sample(events[:255]).tolist() == [[255] * 3] * 2


def test_a_counter_that_saw_nothing_says_so() -> None:
    counter = ActivityCounter(program(start((1,))), "spikes")
    with pytest.raises(InputError, match="no activity was recorded"):
        counter.counts()
