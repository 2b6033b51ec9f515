"""Neurons of known forms stay Neurons beside a layer of another kind, which alone becomes a Cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.cell import Cell
from tests.tracing.neurons import KINDS, Kind, N

X = (torch.rand(16, 3, 8, generator=torch.Generator().manual_seed(5)) < 0.5).float()
UNSEEN = torch.rand(24, 4, 8, generator=torch.Generator().manual_seed(6)) * 1.5


class Between(nn.Module):
    """Leaky neurons before and after a layer of another kind; each layer feeds back to the one before it, if asked."""

    def __init__(self, kind: Kind, *, feedback: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kind, self.feedback = kind, feedback
        self.first, self.fc, self.last = nn.Linear(8, 10), nn.Linear(10, N), nn.Linear(N, 6)
        self.to_first, self.to_kind = nn.Linear(N, 10), nn.Linear(6, N)
        self.alpha, self.beta = (nn.Parameter(torch.rand(N) * 0.2 + low) for low in (0.6, 0.7))
        self.a, self.b = nn.Parameter(torch.rand(N) * 0.5), nn.Parameter(torch.rand(N))

    def forward(self, x: Tensor) -> Tensor:
        samples = x.shape[1]
        states: list[Any] = [torch.zeros(samples, N) + self.kind.starts.get(i, 0.0) for i in range(self.kind.states)]
        inner, last = torch.zeros(samples, N), torch.zeros(samples, 6)
        v, u, out = torch.zeros(samples, 10), torch.zeros(samples, 6), []
        for x_t in x:
            current = self.first(x_t)
            if self.feedback:
                current = current + self.to_first(inner)
            v = 0.8 * v + current
            s = (v > 0.3).float()
            v = v - 0.3 * s
            current = self.fc(s)
            if self.feedback:
                current = current + self.to_kind(last)
            inner, *states = self.kind.step(self, current, *states)
            u = (0.7 * u + self.last(inner)) * (1 - last)
            last = (u > 0.2).float()
            out.append(last)
        return torch.stack(out)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("name", ["adLIF", "ternary", "several thresholds", "refractory", "Izhikevich"])
def test_only_the_other_kind_is_a_cell(name: str, feedback: bool, tmp_path: Path) -> None:
    model = Between(KINDS[name], feedback=feedback)
    net = stl.capture(model, X, progress=False)
    assert [cell.shape for cell in net.program.of(Cell)] == [(N,)]
    assert sorted(neuron.shape for neuron in net.program.spiking) == [(6,), (10,)]
    assert net.proof is not None
    assert {layer.compared for layer in net.proof.layers} == {16 * 3 * size for size in (6, 10, N)}
    assert all(layer.differing == 0 and layer.rate != 0 for layer in net.proof.layers)
    assert net.proof.end_to_end["differing"] == 0
    expected = net.simulate(UNSEEN.numpy(), record=True)
    np.testing.assert_array_equal(expected.y, model(UNSEEN).detach().numpy())
    stream = net.stream()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in UNSEEN.numpy()]), expected.y)
    export_onnx(net.program, tmp_path / "net.onnx")
    np.testing.assert_array_equal(OnnxModel.load(tmp_path / "net.onnx").run(UNSEEN.numpy()).y, expected.y)


class FedBack(nn.Module):
    """Leaky neurons that read the scaled spikes of a deeper adLIF layer, one step late and without weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(8, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        v = u = w = z = torch.zeros(x.shape[1], 10)
        found = []
        for x_t in x:
            v = 0.8 * v + self.first(x_t) + 0.25 * (2 * z)
            s = (v > 0.3).float()
            v = v - 0.3 * s
            w = 0.9 * w + 0.2 * u + 0.1 * z
            u = 0.75 * (u - z) + 0.5 * (self.second(s) - w)
            z = (u > 0.1).float()
            found.append(z)
        return torch.stack(found)


def test_neurons_read_scaled_spikes_of_a_cell() -> None:
    model = FedBack()
    net = stl.capture(model, X, progress=False)
    assert len(list(net.program.of(Cell))) == 1
    np.testing.assert_array_equal(net.simulate(UNSEEN.numpy()).y, model(UNSEEN).detach().numpy())


def test_a_target_of_neurons_names_the_cell_alone(tmp_path: Path) -> None:
    net = stl.capture(Between(KINDS["adLIF"], feedback=False), X, progress=False)
    (cell,) = net.program.of(Cell)
    found = [finding.node for finding in net.check("nir").findings if finding.slug == "kind-not-taken"]
    assert found == [cell.name]
