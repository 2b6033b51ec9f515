"""Networks of many layers: one Scan for all, so that checking and loading take time in proportion to the nodes."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.exporters.onnx.export import MOST_SCANS
from stl_deploy.exporters.onnx.scope import SMALL
from stl_deploy.graph.program import Delay, Operand
from stl_deploy.graph.run import run
from tests.exporters.onnx.nets import F, chain, linear, neuron


def deep(layers, width=3):
    rng = np.random.default_rng(0)
    makers = [linear(rng.integers(0, 3, (4, width)), name="in")]
    for i in range(layers):
        makers += [neuron(f"lif{i}", threshold=F(1 + i % 2)), linear(rng.integers(0, 3, (4, 4)), name=f"fc{i}")]
    return chain((width,), *makers)


def scans(path):
    return [node for node in onnx.load(path).graph.node if node.op_type == "Scan"]


@pytest.mark.parametrize("extra", [0, 1])
def test_many_layers_are_one_scan_and_the_same_network(extra, tmp_path, monkeypatch):
    """As many Scans as are allowed, then one more. Large weights stay outside: one layer's are."""
    monkeypatch.setattr("stl_deploy.exporters.onnx.export.MOST_SCANS", 5)
    program = deep(5 + extra, width=SMALL // 16 + 1)
    x = np.random.default_rng(1).integers(0, 2, (7, 2, *program.inputs[0].shape)).astype(F)
    x *= np.random.default_rng(2).random(x.shape) < 0.001
    export_onnx(program, tmp_path / "net.onnx")
    names = [node.name for node in program.spiking]
    expected = run(program, x, record=names)
    found = OnnxModel.load(tmp_path / "net.onnx").run(x, record=names)
    np.testing.assert_array_equal(found.y, expected.y)
    for name in names:
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name])
    assert 0 < expected.recorded["lif4"].mean() < 1
    assert len(scans(tmp_path / "net.onnx")) == (1 if extra else 5)
    kept = {tensor.name for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert "in.weight" in kept
    assert ("fc0.weight" in kept) == (not extra)


def test_delays_loops_and_late_edges_in_one_scan(tmp_path, monkeypatch):
    monkeypatch.setattr("stl_deploy.exporters.onnx.export.MOST_SCANS", 1)
    program = deep(4)
    changed = []
    for node in program.nodes:
        if node.name == "lif1":
            node = replace(node, operands=(*node.operands, Operand("lif3", 1), Operand("in", 2)))
        if node.name == "fc2":
            delay = Delay(name="late", shape=(4,), operands=node.operands, steps=np.array([0, 1, 2, 3]))
            changed.append(delay)
            node = replace(node, operands=(Operand("late"),))
        changed.append(node)
    program = replace(program, nodes=tuple(changed))
    x = np.random.default_rng(1).integers(0, 2, (9, 3, 3)).astype(F)
    export_onnx(program, tmp_path / "net.onnx")
    assert len(scans(tmp_path / "net.onnx")) == 1
    found = OnnxModel.load(tmp_path / "net.onnx").run(x, record=["lif3"])
    np.testing.assert_array_equal(found.recorded["lif3"], run(program, x, record=["lif3"]).recorded["lif3"])


def test_a_network_of_a_thousand_layers_has_one_scan(tmp_path):
    """Each Scan was checked against every value before it: 1,000 layers took 19 s, 5,000 more than 125 s."""
    assert MOST_SCANS < 1000
    export_onnx(deep(1000), tmp_path / "net.onnx", record=False)
    (scan,) = scans(tmp_path / "net.onnx")
    assert len(scan.input) < 1100  # states and input; weights and parameters are in the body
