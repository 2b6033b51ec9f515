"""Published neurons outside the known forms are captured as Cells: proved, streamed, and in both ONNX forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream
from stl_deploy.graph.cell import Cell
from stl_deploy.tracing import layers
from stl_deploy.tracing.layers.cells import CellBuilder
from tests.tracing.more_neurons import MORE
from tests.tracing.neurons import KINDS, Kind, Net, fires
from tests.tracing.structures import IMAGES, STRUCTURES, X

UNSEEN = torch.rand(24, 4, 8, generator=torch.Generator().manual_seed(6)) * 1.5


def _between(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    v = p.beta * v + i
    s = fires(v - 0.5 * (v.max(1, keepdim=True).values + v.min(1, keepdim=True).values) - 0.1)
    return s, v * (1 - s)


def _all_rest(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    v = p.beta * v + i
    return fires(v - 0.1), torch.where((v > -0.3).all(1, keepdim=True), torch.zeros_like(v), v)


def _any_resets(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    v = p.beta * v + i
    s = fires(v - 0.1)
    return s, torch.where(s.bool().any(1)[:, None], torch.zeros_like(v), v)


EXTREMES = {"largest and least": _between, "none fires": _all_rest, "any fires": _any_resets}
CASES = [(name, recurrent) for name in KINDS for recurrent in (False, True)]


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.push(12)
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


@pytest.mark.push(6)
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_published_structure(name: str) -> None:
    model, x = STRUCTURES[name]().eval(), IMAGES if name.startswith("residual") else X
    net = stl.capture(model, x, progress=False)
    proof = net.proof
    assert proof is not None
    assert proof.replay_differing == proof.end_to_end["differing"] == 0
    assert any(layer.compared and layer.rate for layer in proof.layers)
    close(net.simulate(x.numpy()).y, model(x).detach().numpy())
    assert net.energy(x.numpy()).as_dict()["quoted"] is not None


@pytest.mark.parametrize("name", ["winner takes all", "largest and least", "none fires", "any fires"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_an_extreme_over_neurons(name: str, recurrent: bool) -> None:
    kind = Kind(EXTREMES[name], 1) if name in EXTREMES else MORE[name]
    model = Net(kind, recurrent=recurrent)
    net = stl.capture(model, X, progress=False)
    assert net.proof is not None
    assert net.proof.replay_differing == net.proof.end_to_end["differing"] == 0
    assert 0 < max(layer.rate for layer in net.proof.layers if layer.compared) < 1
    close(net.simulate(UNSEEN.numpy()).y, model(UNSEEN).detach().numpy())


def test_gates_in_a_part_of_a_tensor_round_as_the_module_does() -> None:
    """`nn.GRU` writes its gates in place, into parts of a row, where a kernel's last few values round otherwise."""

    class Whole(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.enter, self.layer, self.out = nn.Linear(8, 12), getattr(nn, kind)(12, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.layer(self.enter(x))[0])

    for kind in ("GRU", "LSTM"):
        proof = stl.capture(Whole(kind), X, progress=False).proof
        assert proof is not None
        assert proof.replay_differing == 0


def test_a_matrix_over_time_whose_rows_differ_is_refused() -> None:
    class Masked(nn.Module):
        """Masked PSN with weights of its own for each step."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.enter, self.weight = nn.Linear(8, 12), nn.Parameter(torch.rand(16, 16).tril())

        def forward(self, x: Tensor) -> Tensor:
            i = self.enter(x)
            return ((self.weight @ i.flatten(1)).view(i.shape) > 0.3).float()

    with pytest.raises(CaptureError, match="a matrix whose rows differ"):
        stl.capture(Masked(), X, progress=False)


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


class Layers(nn.Module):
    """Layers of balanced resonators, which no neuron of the Program is."""

    def __init__(self, count: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            v = w = torch.zeros(x.shape[1], 8)
            spikes = []
            for current in layer(x):
                v, w = 0.9 * v - 0.3 * w + 3 * current, 0.3 * v + 0.9 * w
                spikes.append(fires(v - 0.2))
            x = torch.stack(spikes)
        return x


def test_all_cells_of_a_network_are_told_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    class Counted(CellBuilder):
        def build(self) -> Any:
            built.append(len(self.apart))
            return super().build()

    monkeypatch.setattr(layers, "CellBuilder", Counted)
    net = stl.capture(Layers(12), X[:10], progress=False)
    assert len([*net.program.of(Cell)]) == 12
    assert len(built) == 1
