"""Published neurons outside the known forms are captured as Cells: proved, streamed, and in both ONNX forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stl_deploy as stl
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream
from stl_deploy.graph.cell import Cell
from tests.tracing.neurons import KINDS, Net

X = (torch.rand(16, 3, 8, generator=torch.Generator().manual_seed(5)) < 0.5).float()
UNSEEN = torch.rand(24, 4, 8, generator=torch.Generator().manual_seed(6)) * 1.5
CASES = [(name, recurrent) for name in KINDS for recurrent in (False, True)]


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "recurrent"), CASES, ids=[f"{n}{', recurrent' * r}" for n, r in CASES])
def test_a_published_neuron(name: str, recurrent: bool, tmp_path: Path) -> None:
    kind = KINDS[name]
    model = Net(kind, recurrent=recurrent)
    net = stl.capture(model, X, progress=False)
    cells = list(net.program.of(Cell))
    assert cells
    assert not net.program.spiking
    proof = net.proof
    assert proof is not None
    assert proof.replay_differing == 0
    assert proof.end_to_end["differing"] == 0
    layers = [each for each in proof.layers if each.compared]
    assert len(layers) == kind.fires
    assert all(layer.rate != 0 and layer.differing == 0 for layer in layers)
    assert any(each.measured for each in proof.layers) == kind.inexact
    x = UNSEEN.numpy()
    expected = net.simulate(x, record=True)
    close(expected.y, model(UNSEEN).detach().numpy())
    names = [node.name for node in net.program.compared]
    assert len(names) == kind.fires
    stream = net.stream()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), expected.y)
    for form in ("sequence", "step"):
        export_onnx(net.program, tmp_path / f"{form}.onnx", form=form)  # type: ignore[arg-type]
    whole = OnnxModel.load(tmp_path / "sequence.onnx").run(x, record=names)
    steps = OnnxStream(OnnxModel.load(tmp_path / "step.onnx"), record=names)
    by_step = [steps.step(x_t) for x_t in x]
    for node in names:
        np.testing.assert_array_equal(whole.recorded[node], expected.spikes[node])
        np.testing.assert_array_equal(np.stack([each.recorded[node] for each in by_step]), expected.spikes[node])
    close(whole.y, expected.y)


def test_verify_and_check_and_files(tmp_path: Path) -> None:
    net = stl.capture(Net(KINDS["adLIF"], recurrent=False), X, progress=False)
    net.export(tmp_path / "net.onnx")
    net.verify(tmp_path / "net.onnx", X.numpy()).require()
    net.export(tmp_path / "net.program")
    np.testing.assert_array_equal(stl.read(tmp_path / "net.program").simulate(X.numpy()).y, net.simulate(X.numpy()).y)
    for target in ("nir", "c", "verilog"):
        findings = [found for found in net.check(target).findings if found.slug == "kind-not-taken"]
        assert {found.node for found in findings} == {node.name for node in net.program.of(Cell)}
        assert all("neurons.py:" in found.reason for found in findings)
        with pytest.raises(UnsupportedError):
            net.export(tmp_path / ("net.nir" if target == "nir" else target), to=target)
    assert net.energy(X.numpy()).as_dict()["quoted"] is not None
