"""Placing: which graphs fit on the chip, how late each population is, and one sentence for each that does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.xylo.choose import choose
from stl_deploy.exporters.xylo.quantise import order
from stl_deploy.exporters.xylo.runner import XyloOptions
from stl_deploy.exporters.xylo.structure import refusals, structure
from stl_deploy.exporters.xylo.target import XyloFormat
from stl_deploy.graph.program import Input, Linear, Node, Operand, Output, Pool, Program, Reshape, Scale, Synapse
from tests.exporters.xylo.nets import F, chain, changed, counts, linear, neuron


def slugs(program: Program, **about: Any) -> list[str]:
    """Errors and warnings, but for the rounding of every population."""
    found = [finding for finding in XyloFormat().check_for(program, XyloOptions(**about)) if finding.severity != "info"]
    assert all(finding.remedy for finding in found)
    return [finding.slug for finding in found if finding.slug != "quantisation"]


def with_edge(source: str, target: str, delay: int) -> Program:
    """A chain of three hidden layers, with one more edge of weights."""
    program = chain((4, 5, 5, 5, 2), recurrent=False)
    by_name = program.by_name
    size = by_name[source].shape[0]
    extra = linear("extra", np.ones((by_name[target].shape[0], size)), (Operand(source, delay),))
    nodes: list[Node] = []
    for node in program.nodes:
        if node.name == target:
            nodes.append(extra)
            node = changed(program, target, operands=(*node.operands, Operand("extra"))).by_name[target]
        nodes.append(node)
    return Program(tuple(nodes), program.dt, program.metadata)


def test_each_population_is_one_step_later_than_the_one_before() -> None:
    assert {one.name: one.depth for one in structure(chain((4, 5, 6, 7, 2))).populations} == {
        "lif1": 0,
        "lif2": 1,
        "lif3": 2,
        "lif4": 3,
    }


@pytest.mark.parametrize(
    ("source", "target", "delay", "slug"),
    [
        ("lif1", "lif1", 1, None),  # recurrence within a layer
        ("lif2", "lif1", 2, None),  # feedback to the layer before
        ("lif3", "lif1", 3, None),
        ("lif1", "lif3", 0, "paths-of-different-length"),  # a skip
        ("lif2", "lif1", 1, "paths-of-different-length"),  # NIR's loop over two layers
        ("lif1", "lif1", 2, "paths-of-different-length"),
        ("input", "lif2", 0, "paths-of-different-length"),
        ("input", "lif1", 1, "paths-of-different-length"),
        ("input", "lif4", 0, "output-reads-input"),
        ("lif4", "lif4", 1, "output-is-read"),
    ],
)
def test_which_edges_fit(source: str, target: str, delay: int, slug: str | None) -> None:
    assert slugs(with_edge(source, target, delay)) == ([] if slug is None else [slug])


def test_memoryless_nodes_become_weights() -> None:
    rng = np.random.default_rng(0)
    pooled = Pool(
        name="pool",
        shape=(1, 2, 2),
        operands=(Operand("input"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0), (0, 0)),
        divisor=4,
        input_shape=(1, 4, 4),
    )
    nodes = (
        Input(name="input", shape=(1, 4, 4), operands=()),
        pooled,
        Reshape(name="flat", shape=(4,), operands=(Operand("pool"),), input_shape=(1, 2, 2)),
        Scale(name="scale", shape=(4,), operands=(Operand("flat"),), scale=F(2)),
        linear("linear", rng.integers(-3, 4, (3, 4)), (Operand("scale"), Operand("flat"))),
        neuron("lif1", 3, (Operand("linear"),)),
        linear("linear2", np.eye(3), (Operand("lif1"),)),
        neuron("lif2", 3, (Operand("linear2"),), multi_spike=False),
        Output(name="output", shape=(3,), operands=(Operand("lif2"),)),
    )
    (edge,) = structure(Program(nodes, 1e-3)).hidden[0].edges
    x = rng.integers(0, 9, (1, 4, 4)).astype(F)
    means = x.reshape(2, 2, 2, 2).mean(axis=(1, 3)).reshape(4)
    weight = nodes[4].weight
    assert np.allclose(edge.weight @ x.reshape(-1), weight @ (3 * means))


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("lif1", {"reset": "value"}, "no-hard-reset"),
        ("lif1", {"reset": "subtract_delayed"}, "no-hard-reset"),
        ("lif1", {"synapse": None}, "input-always-filtered"),
        ("lif1", {"decay": None, "synapse": None}, "no-memoryless-neurons"),
        ("lif1", {"multi_spike": False}, "one-spike-hidden"),
        ("lif1", {"cap": 3}, "one-spike-hidden"),
        ("lif1", {"threshold": None}, "hidden-without-spikes"),
        ("lif3", {"multi_spike": True}, "several-spikes-out"),
        ("lif1", {"v_min": F(0)}, "v-min"),
        ("lif1", {"v_start": F(1)}, "v-start"),
        ("lif1", {"decay": F(0.9)}, "decay-is-no-shift"),
        ("lif1", {"synapse": Synapse("exp_add", F(0.6), None)}, "decay-is-no-shift"),
        ("linear1", {"bias": np.ones(8, F)}, "bias-before-a-synapse"),
        ("lif2", {"offset": F(1)}, "early-bias"),
        ("lif1", {"offset": F(1)}, None),
        ("lif1", {"cap": 31}, None),
        ("lif1", {"cap": 40}, None),
        ("lif3", {"multi_spike": True, "cap": 1}, None),
    ],
)
def test_what_a_neuron_may_be(name: str, fields: dict[str, Any], expected: str | None) -> None:
    found = slugs(changed(chain(), name, **fields))
    assert found == ([] if expected is None else [expected])


def test_an_output_that_no_population_reaches_is_refused() -> None:
    whole = chain((4, 5, 2), recurrent=False)
    (output,) = whole.outputs
    past = linear("past", np.ones((2, 4)), (Operand(whole.inputs[0].name),))
    nodes = [node for node in whole.nodes if node is not output]
    program = Program(
        (*nodes, past, Output(name="output", shape=(2,), operands=(Operand("past"),))), whole.dt, whole.metadata
    )
    assert "no-output-neurons" in slugs(program)


def test_ends() -> None:
    alone = chain((4, 3))
    assert [error.slug for error in refusals(alone)] == ["no-hidden-neurons"]
    two = chain()
    second = Input(name="more", shape=(2,), operands=())
    assert [e.slug for e in refusals(Program((*two.nodes, second), 1e-3))] == ["several-inputs"]
    biased = chain()
    vote = Linear(
        name="vote",
        shape=(1,),
        operands=(Operand("lif3"),),
        weight=np.ones((1, 3), F),
        bias=np.ones(1, F),
        input_shape=(3,),
    )
    out = Output(name="output", shape=(1,), operands=(Operand("vote"),))
    assert [e.slug for e in refusals(Program((*biased.nodes[:-1], vote, out), 1e-3))] == ["host-is-not-linear"]
    large = Input(name="input", shape=(5000,), operands=())
    assert "too-large" in [e.slug for e in refusals(Program((large, *biased.nodes[1:]), 1e-3))]


@pytest.mark.parametrize(
    ("sizes", "device", "expected"),
    [
        ((16, 64, 8), "audio2", []),
        ((17, 64, 8), "audio2", ["too-many-input-channels"]),
        ((16, 64, 9), "audio2", ["too-many-output-neurons"]),
        ((16, 64, 16), "audio3", []),
        (
            (16, 129, 16),
            "imu",
            ["too-many-hidden-neurons-that-read-the-input", "too-many-hidden-neurons-that-outputs-read"],
        ),
        ((16, 129, 16), "audio2", ["too-many-output-neurons"]),
        ((4, 65, 65, 3), "audio2", ["too-many-targets-of-one-hidden-neuron"]),
        ((4, 120, 260, 120, 3), "imu", ["too-many-hidden-neurons", "too-many-recurrent-weights"]),
    ],
)
def test_limits(sizes: tuple[int, ...], device: str, expected: list[str]) -> None:
    assert slugs(chain(sizes, recurrent=False), device=device) == expected


def test_everything_is_said_at_once() -> None:
    """Neurons, decays, biases, input and sizes, of one network on one chip."""
    program = chain((17, 65, 65, 9), recurrent=False)
    program = changed(program, "lif1", reset="value", decay=F(0.9))
    program = changed(program, "linear2", bias=np.ones(65, F))
    program = changed(program, "lif3", multi_spike=True)
    program = Program(program.nodes, program.dt, {"input": {"coding": "analog"}})
    assert slugs(program, device="audio2") == [
        "no-hard-reset",
        "several-spikes-out",
        "bias-before-a-synapse",
        "analog-input",
        "decay-is-no-shift",
        "too-many-input-channels",
        "too-many-output-neurons",
        "too-many-targets-of-one-hidden-neuron",
    ]


def test_a_decay_that_is_no_shift_is_said_of_a_neuron_without_a_current_too() -> None:
    program = changed(chain(), "lif1", synapse=None, decay=F(0.9))
    assert slugs(program) == ["input-always-filtered", "decay-is-no-shift"]


def test_an_output_that_is_late_is_one_refusal() -> None:
    program = chain()
    late = changed(program, "output", operands=(Operand("lif3", 1),))
    assert slugs(late) == ["host-is-not-linear"]


def test_whether_outputs_count_is_told() -> None:
    assert slugs(chain((4, 64, 8)), device="audio2") == ["fan-out-with-outputs"]


def test_the_first_chip_that_holds_it_is_chosen() -> None:
    program = chain((8, 96, 96, 10), recurrent=False)
    assert not slugs(program)
    assert choose(program, counts(program, batch=1)).device.name == "audio3"
    with pytest.raises(UnsupportedError, match="Xylo Audio 2 holds 8"):
        choose(program, counts(program), device="audio2")
    with pytest.raises(InputError, match="device: expected one of"):
        list(XyloFormat().check_for(program, XyloOptions(device="audio4")))
    with pytest.raises(InputError, match=r"found 'imuu' \(did you mean 'imu'\?\)"):
        XyloOptions(device="imuu")


def test_those_that_read_the_input_come_first_and_those_that_are_read_last() -> None:
    placed = order(structure(chain((4, 5, 6, 7, 2), recurrent=False)))
    assert placed.numbers["lif1"] == tuple(range(5))
    assert placed.numbers["lif2"] == tuple(range(5, 11))
    assert placed.numbers["lif3"] == tuple(range(11, 18))
    assert (placed.hear, placed.heard) == (5, 7)
    one = order(structure(chain((4, 5, 2))))
    assert (one.hear, one.heard) == (5, 5)
