"""`fold` of scales of sums of scaled sums, captured: equal outputs on fresh input, however they are nested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl

CURRENTS: dict[str, Callable[[_Net, Tensor, Tensor, Tensor], Tensor]] = {
    "a scale of a sum in a scaled sum": lambda m, x, z, _: m.beta * (m.alpha * (m.a(x) + m.b(x)) + m.c(x)),
    "with a skip inside": lambda m, x, z, _: m.beta * (m.alpha * (m.a(x) + z) + m.c(x)),
    "with a late skip outside": lambda m, x, z, late: m.beta * (m.alpha * (m.a(x) + z) + late),
    "a scale of a scale": lambda m, x, z, _: m.beta * (m.alpha * m.a(x)),
    "a scale of a scale in a scaled sum": lambda m, x, z, _: m.beta * (m.alpha * (m.beta * m.a(x)) + m.c(x)),
    "a sum of scales": lambda m, x, z, _: m.beta * (m.alpha * m.a(x) + m.alpha * z),
    "a norm of a sum": lambda m, x, z, _: m.norm(m.a(x) + z),
    "a scale of a norm of a sum": lambda m, x, z, _: m.beta * m.norm(m.a(x) + m.alpha * z + m.c(x)),
    "two of one sum": lambda m, x, z, _: m.beta * (m.a(x) + z) + m.alpha * (m.a(x) + z),
}


class _Net(nn.Module):
    """Two neurons in a row; ``current`` makes the second's input of x and of the first's spikes."""

    def __init__(self, current: Callable[[_Net, Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.current = current
        self.a, self.b, self.d = (nn.Linear(6, 8, bias=False) for _ in range(3))
        self.c, self.out = nn.Linear(6, 8), nn.Linear(8, 4)
        self.norm = nn.BatchNorm1d(8)
        for values in (self.norm.weight.data, self.norm.running_var):
            values.uniform_(0.5, 1.5)
        for values in (self.norm.bias.data, self.norm.running_mean):
            values.normal_(0, 0.2)
        self.alpha, self.beta = torch.linspace(0.3, 0.8, 8), torch.linspace(0.9, 0.4, 8)

    def forward(self, x: Tensor) -> Tensor:
        first = second = last = torch.zeros(x.shape[1], 8)
        outputs = []
        for step in x:
            first = 0.5 * first + self.d(step)
            z = (first > 0.3).float()
            first = first - 0.3 * z
            second = 0.8 * second + self.current(self, step, z, last)
            last = z
            y = (second > 0.5).float()
            second = second - 0.5 * y
            outputs.append(self.out(y))
        return torch.stack(outputs)


@pytest.mark.push(4)
@pytest.mark.filterwarnings("ignore:node .* keeps its thresholds")
@pytest.mark.parametrize("thresholds", ["keep", "weights"])
@pytest.mark.parametrize("current", CURRENTS)
def test_nested_scales_fold_to_the_same_outputs(current: str, thresholds: str) -> None:
    """A scale that read what the same pass had folded was a KeyError, or lost its weights."""
    module = _Net(CURRENTS[current]).eval()
    rng = torch.Generator().manual_seed(1)
    x, fresh = ((torch.rand(12, 8, 6, generator=rng) > 0.5).float() for _ in range(2))
    folded = stl.capture(module, x, progress=False).fold(thresholds=thresholds)
    with torch.no_grad():
        expected = module(fresh).numpy()
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(folded.simulate(fresh).y, expected, atol=1e-5)


class _Late(nn.Module):
    """Two scaled sums, each of weights and of spikes of the step before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.e = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        v = u = p = q = torch.zeros(x.shape[1], 4)
        outputs = []
        for step in x:
            v = 0.8 * v + 0.5 * (self.a(step) + p) + 0.3 * (self.b(step) + q)
            p = (v > 0.3).float()
            v = v - 0.3 * p
            u = 0.7 * u + self.e(step) + 0.5 * p
            q = (u > 0.6).float()
            u = u * (1 - q)
            outputs.append(torch.cat([p, q], 1))
        return torch.stack(outputs)


def test_late_terms_stay_under_their_sums_so_that_nir_holds_the_loop() -> None:
    module = _Late().eval()
    rng = torch.Generator().manual_seed(1)
    x, fresh = ((torch.rand(10, 3, 4, generator=rng) > 0.5).float() for _ in range(2))
    folded = stl.capture(module, x, progress=False).fold()
    with torch.no_grad():
        np.testing.assert_array_equal(folded.simulate(fresh).y, module(fresh).numpy())
    assert folded.graph is not None


class _Residual(nn.Module):
    """Spiking convolutions, the second behind a norm of its sum with the first's spikes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.norm.bias.data.normal_(0, 0.2)
        self.norm.running_var.uniform_(0.2, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        v = u = torch.zeros(x.shape[1], 3, 4, 4)
        outputs = []
        for step in x:
            v = 0.5 * v + self.first(step)
            z = (v > 0.2).float()
            v = v - 0.2 * z
            u = 0.75 * u + 0.25 * self.norm(self.second(z) + z)
            outputs.append((u > 0.1).float())
            u = u - 0.1 * outputs[-1]
        return torch.stack(outputs)


def test_a_norm_of_a_residual_sum_reaches_c(tmp_path: Path) -> None:
    """It stayed a layer of its own behind weighted sums, which C refused, whatever was folded."""
    module = _Residual().eval()
    rng = torch.Generator().manual_seed(1)
    x, fresh = ((torch.rand(8, 4, 2, 4, 4, generator=rng) > 0.5).float() for _ in range(2))
    net = stl.capture(module, x, progress=False)
    with pytest.raises(stl.UnsupportedError, match=r"'norm': it reads weighted sums; fold the network: net.fold\(\)"):
        net.export(tmp_path / "c", to="c")
    folded = net.fold()
    with torch.no_grad():
        expected = module(fresh).numpy()
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(folded.simulate(fresh).y, expected)
    manifest = folded.export(tmp_path / "c", to="c")
    assert [run["differing"] for run in manifest["verified"]["runs"] if run["against"] == "loihi"] == [0]


@pytest.mark.parametrize("target", ["netx", "loihi1"])
def test_netx_names_fold_where_it_takes_a_refusal_away(target: str) -> None:
    """It asked for identity weights and merged layers in front of every norm; the sum itself stays refused."""
    module, x = _Residual().eval(), torch.ones(8, 4, 2, 4, 4)
    module.norm.bias.data.zero_()
    net = stl.capture(module, x, progress=False, verify=False)
    slugs = ("no-neuron", "no-synapse", "scale")
    refused = {(found.node, found.slug): found.remedy for found in net.check(target).findings if found.slug in slugs}
    assert any("net.fold()" in remedy for remedy in refused.values())
    left = {found.node for found in net.fold().check(target).findings if found.slug in slugs}
    for (node, _), remedy in refused.items():
        assert (remedy == "fold the network: net.fold()") == (node not in left)


class _Pixels(nn.Module):
    """Pixels of 0 to 255, divided in forward: a scale of the input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v, outputs = torch.zeros(x.shape[1], 8), []
        for step in x / 255:
            v = 0.5 * v + self.layer(step)
            outputs.append((v > 0.2).float())
            v = v * (1 - outputs[-1])
        return torch.stack(outputs)


def test_the_backend_of_integers_names_the_fold_as_export_does(tmp_path: Path) -> None:
    """It asked for weights before the scale of the input, where there are none."""
    x = torch.randint(0, 2, (8, 4, 6), generator=torch.Generator().manual_seed(1)).float() * 5
    net = stl.capture(_Pixels(), x, progress=False)
    for run in (lambda n: n.simulate(x, backend="loihi"), lambda n: n.export(tmp_path / "n.net", x=x)):
        with pytest.raises(stl.UnsupportedError, match=r"no scale of their own; fold the network: net.fold\(\)"):
            run(net)
        run(net.fold())


class _LateSkip(nn.Module):
    """The second neuron reads scaled spikes of the step before of the first, which has fired already in this step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(6, 8)
        self.back, self.own = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        v = u = last = fired = torch.zeros(x.shape[1], 8)
        outputs = []
        for step in x:
            v = 0.5 * v + self.first(step) + self.back(fired)
            z = (v > 0.25).float()
            v = v * (1 - z)
            u = 0.5 * u + self.second(step) - 0.25 * last + self.own(fired)
            fired, last = (u > 0.125).float(), z
            u = u * (1 - fired)
            outputs.append(z)
        return torch.stack(outputs)


@pytest.mark.parametrize("target", ["c", "verilog"])
def test_scaled_spikes_of_the_step_before_in_integers(tmp_path: Path, target: str) -> None:
    """C read those of this step, as the first neuron had been written over: its export failed."""
    x = (torch.rand(12, 6, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    folded = stl.capture(_LateSkip().eval(), x, progress=False).fold()
    manifest = folded.export(tmp_path / target, to=target)
    assert [run["differing"] for run in manifest["verified"]["runs"] if run["against"] == "loihi"] == [0]
