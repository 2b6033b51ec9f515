"""Delays between two steps, rounded: hand-computed weights, and what has no single delay stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.config.options import FoldOptions
from stl_deploy.graph.program import DT, Input, Linear, Neuron, Operand, Output, Program
from stl_deploy.graph.run import run
from stl_deploy.passes import apply, round_delays


def _program(taps: list[list[float]]) -> Program:
    """One neuron for each row of each tap's weights ``[K, synapses]``, of one input each, k steps late."""
    size = len(taps[0])
    layers = [
        Linear(
            name=f"tap{k}",
            shape=(size,),
            operands=(Operand("input", k),),
            weight=np.diag(np.array(tap, np.float32)),
            bias=np.full(size, 0.5, np.float32) if k == 1 else None,
            input_shape=(size,),
        )
        for k, tap in enumerate(taps)
    ]
    sources = tuple(Operand(layer.name) for layer in layers)
    neuron = Neuron(name="lif", shape=(size,), operands=sources, decay=None, threshold=np.float32(1)[()] + np.zeros(()))
    nodes = (Input(name="input", shape=(size,), operands=()), *layers, neuron)
    return Program((*nodes, Output(name="output", shape=(size,), operands=(Operand("lif"),))), DT)


def test_weights_go_to_the_nearest_step() -> None:
    # Synapse 0: 0.75 at 0 and 0.25 at 1, a mean of 0.25: all at 0. Synapse 1: halves round up, to 2.
    # Synapse 2: two signs. Synapse 3: three taps. Synapse 4: one tap.
    made = apply(
        _program([[0.75, 0, 1, 1, 0], [0.25, 2, -1, 1, 0], [0, 2, 0, 1, 3]]),
        (round_delays.PASS,),
        FoldOptions(delays="steps"),
    )
    weights = [np.diag(node.weight).tolist() for node in made.program.of(Linear)]
    assert weights == [[1, 0, 1, 1, 0], [0, 0, -1, 1, 0], [0, 4, 0, 1, 3]]
    assert made.notes == (
        "delays rounded to steps: 2 synapses, by 0.38 steps on average and 0.5 at most; evaluate the network again",
        "2 synapses have taps at more than two neighbouring steps or of both signs, and stay as they are",
    )


def test_a_layer_that_is_left_without_weights_goes_and_its_bias_stays() -> None:
    made = apply(_program([[3.0, 3.0], [1.0, 1.0]]), (round_delays.PASS,), FoldOptions(delays="steps"))
    (layer,) = made.program.of(Linear)
    assert (layer.name, np.diag(layer.weight).tolist()) == ("tap0", [4, 4])
    assert layer.bias is not None
    assert layer.bias.tolist() == [0.5, 0.5]
    assert [source.node for source in made.program.by_name["lif"].operands] == ["tap0"]


def test_nothing_is_rounded_unasked() -> None:
    program = _program([[0.5], [0.5]])
    assert apply(program, (round_delays.PASS,), FoldOptions()).program.digest() == program.digest()


def test_a_bias_stays_as_late_as_it_is() -> None:
    program = _program([[1.0, 1.0], [0.25, 0.25]])
    neuron = program.by_name["lif"]
    late = replace(neuron, operands=(Operand("tap0"), Operand("tap1", 1)))  # tap1 and its bias
    entered = replace(program.by_name["tap1"], operands=(Operand("input"),))
    program = replace(
        program, nodes=tuple({"lif": late, "tap1": entered}.get(node.name, node) for node in program.nodes)
    )
    made = apply(program, (round_delays.PASS,), FoldOptions(delays="steps")).program
    weights = {node.name: np.diag(node.weight).tolist() for node in made.of(Linear)}
    assert weights == {"tap0": [1.25, 1.25], "tap1": [0, 0]}
    x = np.zeros((3, 1, 2), np.float32)
    potentials = [run(replace_threshold(p), x).y.tolist() for p in (program, made)]
    assert potentials[0] == potentials[1] == [[[0, 0]], [[0.5, 0.5]], [[0.5, 0.5]]]


def replace_threshold(program: Program) -> Program:
    """Put out potentials in place of spikes."""
    return replace(
        program,
        nodes=tuple(replace(node, threshold=None) if isinstance(node, Neuron) else node for node in program.nodes),
    )
