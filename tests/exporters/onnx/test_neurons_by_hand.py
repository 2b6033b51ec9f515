"""Potentials and spikes worked out on paper, in both forms."""

import numpy as np
import pytest

from stl_deploy.graph.program import Adaptation, Input, Neuron, Operand, Output, Program, Synapse
from tests.exporters.onnx.nets import F, chain, neuron, write

CASES = {
    # v: 1 -> fires at >=, reset to 0 | .5 | .25+1 fires
    "hard reset, ge": (neuron(compare="ge"), [1, 0.5, 1], [1, 0, 1]),
    # v: 1 no (not above) | .5+.5 = 1 no | .5+1 = 1.5 fires
    "hard reset, gt": (neuron(), [1, 0.5, 1], [0, 0, 1]),
    # v: 2 fires -> reset to -1 | -.5+1 = .5 | .25+1 fires
    "reset to a value": (neuron(v_reset=-1.0), [2, 1, 1], [1, 0, 1]),
    # v: 3 fires -> 2 | 1+0 = 1 no (gt) | .5+1 fires -> .5 | .25
    "soft reset": (neuron(reset="subtract"), [3, 0, 1, 0], [1, 0, 1, 0]),
    # v: 3 fires | 1.5-1 = .5 | .25+1 fires | .625+1-1 = .625
    "soft reset a step later": (neuron(reset="subtract_delayed"), [3, 0, 1, 1], [1, 0, 1, 0]),
    # v: 3 fires | held at 0 | 1.25 fires | held
    "hard reset a step later": (neuron(reset="value_delayed"), [3, 5, 1.25, 5], [1, 0, 1, 0]),
    # v: 3 fires | held at .75 | .375+1 fires
    "reset to a value a step later": (neuron(reset="value_delayed", v_reset=0.75), [3, 5, 1], [1, 0, 1]),
    # v: 3 fires three times | held at 0 | 2 fires twice
    "several spikes, held a step later": (neuron(reset="value_delayed", multi_spike=True), [3, 5, 2], [3, 0, 2]),
    # v: 2 fires and stays | 1 | 1.5 fires
    "no reset": (neuron(reset="none"), [2, 0, 1], [1, 0, 1]),
    # v: 3.5 -> 2.5 | 1.25+.5-1 = .75 -> 1.75 | .875+1.25-1 fires, kept | .5625+.25-1 -> .8125 | .40625+.75 fires
    "soft reset of snnTorch at once": (
        neuron(reset="snntorch_subtract_now"),
        [3.5, 0.5, 1.25, 0.25, 0.75],
        [1, 0, 1, 0, 1],
    ),
    # v: 3.5 -> 3 spikes, left .5 | .25-2 -> none | v = -.875+4 = 3.125 -> 3
    "several spikes": (neuron(reset="subtract", multi_spike=True), [3.5, -2, 4], [3, 0, 3]),
    # v: 2.5 -> 2 spikes, reset to 0 | 1 -> 1 (trunc(1/1))
    "several spikes, hard reset": (neuron(multi_spike=True), [2.5, 1], [2, 1]),
    # v: max(-4, -.5) = -.5 | -.25+1.5 = 1.25 fires
    "lower bound": (neuron(v_min=-0.5), [-4, 1.5], [0, 1]),
    # v: 1.5 fires | max(.75-.75-1, 0) = 0 | 1.25 fires
    "the bound comes after the reset": (neuron(v_min=0.0, reset="subtract_delayed"), [1.5, -0.75, 1.25], [1, 0, 1]),
    # θ 1, v 2 fires | a 1, v 1.5 under 2 | a .5, v .75+1.5 fires | a .25+1, v 1.5 under 2.25
    "adapting, hard reset": (neuron(adaptation=Adaptation(F(0.5), F(1))), [2, 1.5, 1.5, 1.5], [1, 0, 1, 0]),
    # v 3 fires -> 2 | θ 2, v 1+1 no | θ 1.5, v 1+2 fires -> 2 | θ 2.25, v 1
    "adapting, soft reset": (
        neuron(reset="subtract", adaptation=Adaptation(F(0.5), F(1))),
        [3, 1, 2, 0],
        [1, 0, 1, 0],
    ),
    # v 3 fires -> 2 | θ 2, v 1+2 fires -> 1 | θ 2.5, v .5+2 no | θ 1.75, v 1.25+2 fires
    "adapting, reset by the threshold as it is": (
        neuron(reset="subtract", adaptation=Adaptation(F(0.5), F(1), "adapted")),
        [3, 2, 2, 2],
        [1, 1, 0, 1],
    ),
    # v 3 fires | θ 2, v 1.5+2-2 no | θ 1.5, v .75+2 fires | θ 2.25, v 1.375+4-2.25 fires
    "adapting, reset a step later": (
        neuron(reset="subtract_delayed", adaptation=Adaptation(F(0.5), F(1), "adapted")),
        [3, 2, 2, 4],
        [1, 0, 1, 1],
    ),
    # From a = 2: v 2 under 2 no | θ 1.5, v 1+1 fires | θ 2.25, v 2 no; from -4: θ -1, v -.5 fires | θ 1, v 1 no
    "adapting, from above": (
        neuron(adaptation=Adaptation(F(0.5), F(1), start=F(2))),
        [2, 1, 2],
        [0, 1, 0],
    ),
    "adapting, from below": (
        neuron(adaptation=Adaptation(F(0.5), F(1), start=F(-4))),
        [-0.5, 1],
        [1, 0],
    ),
    # v starts at 2: 1+0 = 1 no | .5 + 1 fires
    "start": (neuron(v_start=2.0), [0, 1], [0, 1]),
    # v: 2*.25+.25 = .75 | .375+.5+.25 = 1.125 fires
    "gain and offset": (neuron(gain=2.0, offset=0.25), [0.25, 0.25], [0, 1]),
    "memoryless": (neuron(decay=None, offset=0.5), [0.5, 0.75, -1], [0, 1, 0]),
    # v is put out: 1, .5+1, .75
    "no threshold": (neuron(threshold=None), [1, 1, 0], [1, 1.5, 0.75]),
    # i: 2*1 | 1+0 | .5;  v: 2 fires -> 0 | 1 no | .5+.5 no
    "current, euler": (neuron(synapse=Synapse("euler", F(0.5), F(2))), [1, 0, 0], [1, 0, 0]),
    # i: (0+4)*.5 = 2 | 1 | .5;  v: 2 fires -> 0 | 1 | 1
    "current, exp_add": (neuron(synapse=Synapse("exp_add", F(0.5), None)), [4, 0, 0], [1, 0, 0]),
}


@pytest.mark.parametrize("form", ["sequence", "step"])
@pytest.mark.parametrize("name", CASES)
def test_one_neuron(name, form, tmp_path):
    make, x, expected = CASES[name]
    model = write(chain((1,), make), tmp_path, form)
    y = model.run(np.array(x, F)[:, None, None]).y
    assert y[:, 0, 0].tolist() == expected


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_self_edge_brings_the_last_steps_spike(form, tmp_path):
    # with +1 from its own last spike, one spike keeps it firing; a second neuron is silent
    nodes = (
        Input(name="input", shape=(2,), operands=()),
        Neuron(
            name="lif",
            shape=(2,),
            operands=(Operand("input"), Operand("lif", 1)),
            decay=F(0.5),
            threshold=F(1),
            compare="ge",
        ),
        Output(name="output", shape=(2,), operands=(Operand("lif"),)),
    )
    x = np.array([[0, 0], [1, 0], [0, 0], [0, 0.5]], F)[:, None]
    y = write(Program(nodes, 1.0), tmp_path, form).run(x).y
    assert y[:, 0].tolist() == [[0, 0], [1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize("form", ["sequence", "step"])
@pytest.mark.parametrize("delay", [1, 2, 9])
def test_an_edge_with_a_delay_longer_than_the_sequence_too(delay, form, tmp_path):
    nodes = (
        Input(name="input", shape=(1,), operands=()),
        Output(name="output", shape=(1,), operands=(Operand("input", delay),)),
    )
    x = np.arange(1, 5, dtype=F)[:, None, None]
    y = write(Program(nodes, 1.0), tmp_path, form).run(x).y
    assert y[:, 0, 0].tolist() == ([0] * delay + [1, 2, 3, 4])[:4]
