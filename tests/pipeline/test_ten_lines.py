"""The ten lines that the front page shows, on a residual net of one's own: from a torch module to files and a bill."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import stl_deploy as stl


class Residual(nn.Module):
    """Convolution, a block whose spikes are added to what enters it, pooling and a linear readout: [T, B, 2, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first = stl.LIF((6, 8, 8), threshold=0.6, granularity="channel")
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.second = stl.LIF((6, 8, 8), threshold=0.5, granularity="channel")
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(6 * 16, 3)
        self.out = stl.LIF((3,), threshold=0.7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.first(_apart(lambda y: self.norm(self.stem(y)), x))
        s = s + self.second(_apart(self.conv, s))
        y = _apart(lambda y: self.head(self.pool(y).flatten(1)), s)
        return self.out(y).mean(0)


def _apart(layer, x):
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _events(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes of sequences [N, T, 2, 8, 8]: where in the picture most events are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    rates = torch.full((count, 1, 2, 8, 8), 0.1)
    for label in range(3):
        rates[labels == label, :, :, 2 * label : 2 * label + 3] = 0.7
    return (torch.rand((count, 6, 2, 8, 8), generator=generator) < rates).float(), labels


def _trained() -> Residual:
    torch.manual_seed(0)
    model, (x, y) = Residual(), _events(48)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(12):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x.transpose(0, 1)) * 5, y).backward()
        optimiser.step()
    return model


def test_ten_lines_on_a_residual_net_of_one_s_own(tmp_path: Path) -> None:
    model, (inputs, labels) = _trained(), _events(60)
    x = inputs[:12].transpose(0, 1)

    net = stl.capture(model, x)
    net.check("onnx").raise_if_unsupported()
    folded = net.fold(thresholds="weights")
    folded.export(tmp_path / "net.onnx", x=x)
    result = folded.simulate(x, backend="onnx")
    folded.verify(tmp_path / "net.onnx", x).require()
    bill = folded.energy(x)
    bill.to_html(tmp_path / "energy.html")

    assert net.proof.replay_differing == 0
    assert net.readout.over_time == "mean"
    assert {float(t) for node in folded.program.spiking for t in np.unique(node.threshold)} <= {
        1.0,
        float(np.nextafter(np.float32(1), np.float32(0))),
    }
    assert result.readout.shape == (12, 3)
    assert bill.totals["spikes"] == sum(int(s.sum()) for s in result.spikes.values()) > 0
    assert (tmp_path / "energy.html").stat().st_size > 10_000

    loader = DataLoader(TensorDataset(inputs, labels), batch_size=20)
    found = net.evaluate(loader)
    assert found.samples == 60
    assert found.accuracy > 0.8
    assert found.module_accuracy == found.accuracy
    assert found.compared == 60 * 6 * (2 * 6 * 64 + 3)
    assert found.differing <= found.compared / 1000  # a folded norm rounds, which may move a spike
    with torch.no_grad():
        own = model.eval()(x)
    np.testing.assert_allclose(net.simulate(x).readout.argmax(1), own.argmax(1))

    stream = net.stream()
    steps = np.stack([stream.step(x_t) for x_t in x])
    np.testing.assert_array_equal(steps, net.simulate(x).y)


def test_a_batch_that_could_be_read_either_way_is_turned_the_module_s_way() -> None:
    """As many samples as steps: of a Dataset the batch is stacked first, and the module takes time first."""
    inputs, labels = _events(6)
    net = stl.capture(Residual(), inputs.transpose(0, 1), verify=False)
    assert net.evaluate(TensorDataset(inputs, labels), batch_size=6).differing == 0
