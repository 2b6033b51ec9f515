"""The backend 'torch': the Program as a module, held to the slow oracle and to the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given

import stl_deploy as stl
from stl_deploy.config.options import SimulateOptions
from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.targets import Options
from stl_deploy.graph import program as ir
from stl_deploy.nn.target import Torch
from stl_deploy.pipeline.simulate import simulate as run
from tests.drawn import examples
from tests.program_oracle import Inexact, simulate
from tests.strategies import programs_and_inputs


@pytest.mark.hypothesis
@examples(60, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs(more="all"))
def test_random_programs_spike_as_the_oracle_says(case: tuple[ir.Program, dict[str, Any]]) -> None:
    program, x = case
    assume(len(program.inputs) == len(program.outputs) == 1 and not any(program.of(ir.Norm)))
    try:
        expected = simulate(program, x)
    except Inexact:
        assume(False)
    result = Torch(program, Options()).run(x, record=True)
    assert set(result.recorded) == {node.name for node in program.spiking}
    for name, array in {**result.recorded, **result.outputs}.items():
        np.testing.assert_array_equal(array, expected[name], name)


def network(weight: float = 1.0, outputs: int = 1) -> stl.SpikingGraph:
    x = ir.Input(name="input", shape=(2,), operands=())
    fc = ir.Linear(
        name="fc",
        shape=(3,),
        operands=(ir.Operand("input"),),
        weight=np.full((3, 2), weight, np.float32) + np.eye(3, 2, dtype=np.float32),
        bias=None,
        input_shape=(2,),
    )
    lif = ir.Neuron(
        name="lif",
        shape=(3,),
        operands=(ir.Operand("fc"),),
        decay=np.array(0.5, np.float32),
        threshold=np.array(2, np.float32),
    )
    ends = [ir.Output(name=f"out{i}", shape=(3,), operands=(ir.Operand("lif"),)) for i in range(outputs)]
    return stl.SpikingGraph(ir.Program((x, fc, lif, *ends), 1e-3))


def test_a_soft_reset_subtracts_the_threshold_that_v_must_exceed() -> None:
    """What the first spike leaves lifts the second step above θ."""
    theta = np.float32(0.1)
    neuron = ir.Neuron(
        name="lif",
        shape=(1,),
        operands=(ir.Operand("input"),),
        decay=np.array(1, np.float32),
        threshold=np.array(theta),
        reset="subtract",
    )
    start = ir.Input(name="input", shape=(1,), operands=())
    end = ir.Output(name="out", shape=(1,), operands=(ir.Operand("lif"),))
    net = stl.SpikingGraph(ir.Program((start, neuron, end), 1e-3))
    x = np.array([np.nextafter(theta, np.float32(1)), theta]).reshape(2, 1, 1)
    assert net.simulate(x, backend="torch").y.flatten().tolist() == [1, 1] == net.simulate(x).y.flatten().tolist()


def test_it_simulates_and_evaluates_beside_the_others() -> None:
    """More samples than are run at once; each is decided by its spikes."""
    net, rng = network(), np.random.default_rng(0)
    x, labels = rng.integers(0, 2, (5, 150, 2)).astype(np.float32), rng.integers(0, 3, 150)
    one, other = net.simulate(x, backend="torch"), net.simulate(x)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.spikes["lif"], other.spikes["lif"])
    assert 0.2 < one.y.mean() < 0.8
    found = net.evaluate([(x, labels)], backend=["torch", "onnx"]).backends
    assert [(each.accuracy, each.differing, each.compared) for each in found.values()] == [
        (float((one.y.sum(0).argmax(-1) == labels).mean()), 0, 5 * 150 * 3)
    ] * 2


def test_what_it_does_not_run_is_refused(tmp_path: Path) -> None:
    x = np.ones((2, 1, 2), np.float32)
    with pytest.raises(InputError, match=r"backend torch: expected .* found 1 and 2; use backend reference or onnx"):
        network(outputs=2).simulate(x, backend="torch")
    net = network()
    net.export(tmp_path / "net.onnx", x=x)
    with pytest.raises(InputError, match=r"a backend that reads onnx \(onnx\); found torch"):
        run(tmp_path / "net.onnx", x, "torch", SimulateOptions())
    huge = ir.Neuron(
        name="lif", shape=(3,), operands=(ir.Operand("fc"),), decay=np.array(1, np.float32), threshold=None
    )
    nodes = tuple(huge if node.name == "lif" else node for node in network(3e38).program.nodes)
    with pytest.raises(GraphError, match="beyond float32; the network diverges"):
        stl.SpikingGraph(ir.Program(nodes, 1e-3)).simulate(np.ones((9, 1, 2), np.float32), backend="torch")
