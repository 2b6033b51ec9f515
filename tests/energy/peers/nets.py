"""One net with borders, stride, groups, a bias and zero weights, for every framework; three kinds of input.

Weights are eighths, inputs quarters, and the threshold is so far off their grid that no potential equals it even
after four resets: all frameworks fire alike whether they compare > or >=.
"""

from __future__ import annotations

import numpy as np

from stl_deploy.graph.program import Neuron, Operand, Program, Reshape
from tests.energy.nets import conv, f32, linear, program, start

CASES = ("spikes", "analog", "whole")
STEPS, BATCH, THRESHOLD = 4, 3, 1 + 1 / 256


def arrays(case: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)

    def eighths(*shape: int) -> np.ndarray:
        return f32(rng.integers(-3, 7, shape) / 8)

    weights = {"w1": eighths(4, 1, 3, 3), "w2": eighths(6, 2, 3, 3), "b2": eighths(6), "w3": eighths(10, 96)}
    values = {"spikes": [0.0, 0.0, 1.0], "analog": [0.0, 0.5, 0.25], "whole": [0.0, 0.0, 2.0]}[case]
    x = rng.choice(f32(values), (STEPS, BATCH, 1, 8, 8))
    return {**weights, "x": x, "threshold": f32(THRESHOLD)}


LOIHI = "dense"
"""The case for SANA-FE: two dense layers, each a step later than what feeds it."""


def loihi_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = f32(rng.integers(0, 2, (8, 1, 12)))
    w1, w2 = f32(rng.integers(-3, 7, (20, 12)) / 8), f32(rng.integers(-3, 7, (10, 20)) / 8)
    return {"x": x, "w1": w1, "w2": w2, "threshold": f32(THRESHOLD)}


def loihi_net() -> Program:
    a = loihi_arrays()

    def cell(name: str, source: str, size: int) -> Neuron:
        common = {**vars(_if(name, source, (size,))), "reset": "value", "v_reset": f32(0)}
        return Neuron(**common)

    hidden, out = cell("hidden", "w1", 20), cell("out_", "w2", 10)
    return program(
        start((12,)), linear("w1", "in", a["w1"], delay=1), hidden, linear("w2", "hidden", a["w2"], delay=1), out
    )


def _if(name: str, source: str, shape: tuple[int, ...]) -> Neuron:
    return Neuron(
        name=name,
        shape=shape,
        operands=(Operand(source),),
        decay=f32(1),
        threshold=f32(THRESHOLD),
        compare="gt",
        reset="subtract",
    )


def net(case: str) -> Program:
    a = arrays(case)
    return program(
        start((1, 8, 8)),
        conv("conv1", "in", a["w1"], (1, 8, 8), stride=(2, 2), padding=((1, 1), (1, 1))),
        _if("if1", "conv1", (4, 4, 4)),
        conv("conv2", "if1", a["w2"], (4, 4, 4), padding=((1, 1), (1, 1)), groups=2, bias=a["b2"]),
        _if("if2", "conv2", (6, 4, 4)),
        Reshape(name="flat", shape=(96,), operands=(Operand("if2"),), input_shape=(6, 4, 4)),
        linear("fc", "flat", a["w3"]),
        _if("if3", "fc", (10,)),
    )
