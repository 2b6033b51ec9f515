"""Make the table of what targets hold, from what `check` finds: ``python docs/by_target.py`` writes it to its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.config.options import CheckOptions
from stl_deploy.graph import program as ir
from stl_deploy.pipeline.check import check
from stl_deploy.pipeline.spiking_graph import SpikingGraph

PAGE = Path(__file__).with_name("before-you-train.md")
BEGIN, END = "<!-- made by docs/by_target.py -->", "<!-- end -->"
TARGETS = {
    "onnx": "ONNX",
    "netx": "netx",
    "c": "C",
    "verilog": "Verilog",
    "norse": "Norse",
    "snntorch": "snnTorch",
    "spikingjelly": "SpikingJelly",
    "sinabs": "Sinabs",
}
F = np.float32
Fields = dict[str, Any]
Wiring = list[ir.Node]


def dense(*, between: Wiring | None = None, late: Wiring | None = None, **fields: Any) -> ir.Program:
    """Return two layers of neurons behind weights; fields: of the first neurons; between: nodes behind these."""
    nodes: Wiring = [ir.Input(name="input", shape=(4,), operands=())]
    nodes += [_linear("fc1", "input", 4, 4), _neuron("lif1", "fc1", (4,), **fields), *(between or [])]
    nodes += [_linear("fc2", nodes[-1].name, 4, 4), _neuron("lif2", "fc2", (4,)), *(late or [])]
    return _program(nodes)


def images(*, pools: Wiring | None = None, **fields: Any) -> ir.Program:
    """Return a convolution and its neurons, pools, and a dense layer with neurons."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 1, 3, 3)).astype(F)
    same: Fields = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1, "bias": None}
    nodes: Wiring = [ir.Input(name="input", shape=(1, 4, 4), operands=())]
    operands = (ir.Operand("input"),)
    nodes.append(ir.Conv(name="conv", shape=(2, 4, 4), operands=operands, weight=weight, input_shape=(1, 4, 4), **same))
    nodes += pools or [_neuron("lif1", "conv", (2, 4, 4), **fields)]
    before = nodes[-1]
    size = int(np.prod(before.shape))
    operands = (ir.Operand(before.name),)
    nodes.append(ir.Reshape(name="flat", shape=(size,), operands=operands, input_shape=before.shape))
    nodes += [_linear("fc2", "flat", size, 4), _neuron("lif2", "fc2", (4,))]
    return _program(nodes)


def _program(nodes: Wiring) -> ir.Program:
    end = ir.Output(name="output", shape=nodes[-1].shape, operands=(ir.Operand(nodes[-1].name),))
    return ir.Program((*nodes, end), 1e-4, {"input": {"coding": "spikes"}})


def _linear(name: str, before: str, inputs: int, outputs: int) -> ir.Linear:
    weight = np.random.default_rng(len(name)).normal(size=(outputs, inputs)).astype(F)
    operands = (ir.Operand(before),)
    return ir.Linear(name=name, shape=(outputs,), operands=operands, weight=weight, bias=None, input_shape=(inputs,))


def _neuron(name: str, before: str, shape: tuple[int, ...], *more: ir.Operand, **fields: Any) -> ir.Neuron:
    plain: Fields = {"decay": F(0.5), "threshold": F(1), "compare": "gt", **fields}
    return ir.Neuron(name=name, shape=shape, operands=(ir.Operand(before), *more), **plain)


def _pool(name: str, before: str, kind: Any = ir.Pool, **fields: Any) -> ir.Node:
    geometry: Fields = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "input_shape": (2, 4, 4)}
    pool: ir.Node = kind(name=name, shape=(2, 2, 2), operands=(ir.Operand(before),), **geometry, **fields)
    return pool


def _each(*shape: int) -> Any:
    return np.random.default_rng(1).uniform(0.4, 0.8, shape).astype(F)


def rows() -> dict[str, ir.Program]:
    """Return a network for each property."""
    spikes, currents = _neuron("lif1", "conv", (2, 4, 4)), _neuron("lif1", "pool", (2, 2, 2))
    average, greatest = (_pool("pool", "lif1", divisor=divisor) for divisor in (4, 1))
    of_spikes = _neuron("max", "pool", (2, 2, 2), decay=None, threshold=F(0.5))
    late = [_neuron("lif3", "fc3", (4,), ir.Operand("lif1"))]
    several: Fields = {"multi_spike": True, "cap": 7, "reset": "subtract"}
    return {
        "hard reset, to 0": dense(),
        "to another value": dense(v_reset=F(-0.5)),
        "reset by subtraction": dense(reset="subtract"),
        "the same a step late": dense(reset="subtract_delayed"),
        "a decay for each neuron": dense(decay=_each(4)),
        "a threshold for each neuron": dense(threshold=_each(4)),
        "for each channel": images(threshold=_each(2, 1, 1)),
        "for each pixel": images(threshold=_each(2, 4, 4)),
        "a lower bound, `v_min`": dense(v_min=F(-1)),
        "a drive, `v_leak`": dense(offset=F(0.25)),
        "another start than 0": dense(v_start=F(0.25)),
        "several spikes a step": dense(**several),
        "an adapting threshold": dense(adaptation=ir.Adaptation(decay=F(0.75), jump=F(0.5))),
        "synaptic current": dense(synapse=ir.Synapse("euler", F(0.5), None)),
        "max pooling of spikes": images(pools=[spikes, greatest, of_spikes]),
        "max pooling of currents": images(pools=[_pool("pool", "conv", ir.MaxPool), currents]),
        "average pooling of spikes": images(pools=[spikes, average]),
        "average pooling of currents": images(pools=[_pool("pool", "conv", divisor=4), currents]),
        "skips": dense(late=[_linear("fc3", "lif2", 4, 4), *late]),
        "loops": dense(between=[_linear("back", "lif1", 4, 4), _neuron("lif3", "back", (4,), ir.Operand("lif3", 1))]),
        "delays of each input": dense(
            between=[ir.Delay(name="late", shape=(4,), operands=(ir.Operand("lif1"),), steps=np.array([0, 1, 2, 3]))]
        ),
    }


def cell(program: ir.Program, target: str) -> str:
    """Return ``yes``, ``fold`` where each remedy is a fold, or ``no``."""
    report = check(SpikingGraph(program), [target], CheckOptions())
    errors = [each for each in report.findings if each.severity == "error"]
    if not errors:
        return "yes"
    return "fold" if all("net.fold(" in each.remedy for each in errors) else "no"


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| | " + " | ".join(TARGETS.values()) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    for name, program in rows().items():
        lines.append(f"| {name} | " + " | ".join(cell(program, target) for target in TARGETS) + " |")
    return "\n".join(lines)


def main() -> None:
    """Rewrite the page's table."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
