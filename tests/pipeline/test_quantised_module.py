"""A captured net trains on as Loihi's integers, and its files spike exactly as the module does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import UnsupportedError


class Net(nn.Module):
    """A loop over time with a reset to 0, a threshold for each channel, max pooling of spikes, and a readout."""

    def __init__(self, *, soft: bool = False, head: bool = False) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(36, 3)
        self.theta = nn.Parameter(torch.linspace(0.3, 0.5, 4)[:, None, None])
        self.soft, self.head = soft, nn.Linear(3, 2) if head else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        v = u = torch.zeros(())
        out = []
        for step in x:
            v = 0.75 * v + self.conv(step)
            z = (v > self.theta).float()
            v = v - z * self.theta if self.soft else v * (1 - z)
            u = 0.75 * u + self.fc(nn.functional.max_pool2d(z, 2).flatten(1))
            y = (u > 0.1).float()
            u = u * (1 - y)
            out.append(self.head(y))
        return torch.stack(out).mean(0)


def captured(x: Tensor, **options: bool) -> stl.SpikingGraph:
    torch.manual_seed(0)
    return stl.capture(Net(**options), x)


def test_a_graph_is_a_module_that_trains_on() -> None:
    """It spikes as the graph does, learns every weight and threshold, and its Program is the trained graph."""
    x = torch.rand(6, 8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    net = captured(x)
    module = net.module(surrogate="sigmoid")
    y = module(x)
    np.testing.assert_allclose(y.detach().numpy(), net.simulate(x).y, atol=1e-5)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    torch.nn.functional.cross_entropy(y.mean(0), torch.arange(8) % 3).backward()
    optimiser.step()
    moved = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("weight" in name for name in moved)
    assert any("threshold" in name for name in moved)
    trained = stl.SpikingGraph(module.program(), readout=net.readout)
    np.testing.assert_allclose(trained.simulate(x.numpy()).y, module(x).detach().numpy(), atol=1e-5)
    assert trained.program.digest() != net.program.digest()


def events(levels: int = 1) -> Tensor:
    """Integers over ``levels``, as float32: 0 and 1, or a grid."""
    rng = np.random.default_rng(0)
    return torch.from_numpy((rng.integers(0, levels + 1, (6, 4, 1, 8, 8)) / levels).astype(np.float32))


def train(module: nn.Module, x: Tensor) -> tuple[float, float]:
    """The loss before and after a few steps."""
    labels, losses = torch.tensor([0, 1, 1, 0]), []
    optimiser = torch.optim.Adam(module.parameters(), lr=0.03)
    module.train()
    for _ in range(12):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(5 * module(x).mean(0), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    module.eval()
    return losses[0], losses[-1]


@pytest.mark.parametrize(("levels", "head"), [(1, False), (64, False), (1, True)])
def test_it_trains_and_its_files_spike_exactly_as_it_does(levels: int, head: bool, tmp_path: Path) -> None:
    x = events(levels)
    net = captured(x, head=head)
    module = net.fold(input_grid=0 if levels == 1 else 6).quantised()
    before, after = train(module, x)
    assert after < before
    with torch.no_grad():
        expected = module(x).numpy()
    graph = module.graph()
    assert str(graph.readout) == "mean over time"
    assert all(float(node.threshold) == int(node.threshold) for node in graph.program.spiking if node.decay is not None)
    np.testing.assert_allclose(graph.simulate(x).y, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(graph.simulate(x, backend="loihi").y, expected, rtol=1e-6, atol=1e-6)
    for name, target in (("net.net", "netx"), ("net_c", "c")):
        if head and target == "c":
            continue  # a readout in float32 is no integer program
        graph.export(tmp_path / name, to=target)
        (run, *_) = graph.verify(tmp_path / name).report.runs
        assert (run.differing, run.compared) == (0, 6 * 4 * (4 * 36 + 36 + 3))


def test_input_beyond_24_bits_gets_the_integers_of_c() -> None:
    """Loihi's wrapped where C's do not: 30 of 480 outputs of module and C differed, in silence."""
    spikes = (torch.rand(6, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    x = spikes * 20_000
    net = captured(x)
    with pytest.warns(UserWarning, match=r"those of C and Verilog, for netx will refuse this input: .* 24 bits hold"):
        module = net.quantised().eval()
    spikes = module(x).detach()
    assert spikes.any()
    np.testing.assert_array_equal(spikes, module.graph().simulate(x, backend="c").y)


def test_sums_that_training_brings_beyond_24_bits_are_warned_of() -> None:
    """The module wraps there, as Loihi does, and C does not."""
    spikes = (torch.rand(6, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    x = spikes * 300
    net = captured(x)
    with pytest.warns(UserWarning, match="weights are integers up to 63, so that sums of this input fit into Loihi's"):
        module = net.quantised().eval()
    module.graph()
    with torch.no_grad():
        module.layers["conv"].weight.mul_(4)
    for call in (lambda: module(x), lambda: module.train().graph()):
        with pytest.warns(UserWarning, match=r"quantised: 'lif1' goes beyond Loihi's 24 bits .*; C's do not"):
            call()
    assert module.training


def test_a_soft_reset_is_refused_with_what_to_train_with() -> None:
    with pytest.raises(UnsupportedError, match="train with hard reset"):
        captured(events(), soft=True).quantised()


def test_a_module_of_integers_without_a_grid_takes_integers_alone() -> None:
    """It rounded fractions in silence, which its own graph does not: both differed."""
    spikes = (torch.rand(6, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    net = captured(spikes)
    module = net.quantised().eval()
    np.testing.assert_array_equal(module(spikes).detach(), module.graph().simulate(spikes, backend="c").y)
    np.testing.assert_array_equal(module(spikes.bool()).detach(), module(spikes).detach())
    with pytest.raises(stl.InputError, match=r"found fractions; declare one: net.fold\(input_grid=BITS\).quantised"):
        module(spikes * 0.7)
    net.fold(input_grid=8).quantised()(spikes * 0.7)
    with pytest.warns(UserWarning, match=r"x goes beyond 1, for which .*; choose them on such input"):
        net.fold(input_grid=8).quantised()(spikes * 3)
    net.fold(input_grid=8).quantised(spikes * 3)(spikes * 3)
    with pytest.raises(TypeError, match=r"quantised\(\) has no keyword 'input_grid'; it takes x"):
        net.quantised(input_grid=8)
