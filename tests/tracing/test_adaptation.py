"""Adapting thresholds as their authors write them, captured; and those that no graph holds, refused by their line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from tests.tracing.held import require_cell, require_held_or_refused
from tests.tracing.test_written_otherwise import numbers

Step = Callable[["Net", Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class Net(nn.Module):
    """Currents, then spikes, potential and adaptation of one step from those of the step before."""

    def __init__(self, step: Step, start: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.start, self.offset = start, 0.3
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 3)
        self.beta, self.rho = nn.Parameter(torch.full((8,), 0.7)), nn.Parameter(torch.linspace(0.8, 0.95, 8))
        self.advance = step

    def forward(self, x: Tensor) -> Tensor:
        z = v = torch.zeros(x.shape[1], 8)
        b = torch.full((x.shape[1], 8), self.start)
        found = []
        for current in self.enter(x) + self.offset:
            z, v, b = self.advance(self, current, z, v, b)
            found.append(self.leave(z))
        return torch.stack(found)


def lsnn(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bellec et al.: the baseline is subtracted a step later; spikes of (v - B) / B."""
    b = net.rho * b + z
    threshold = 0.4 + net.beta * b
    v = 0.9 * v + x - z * 0.4
    return ((v - threshold) / threshold > 0).float(), v, b


def srnn(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Yin et al.: the threshold as it is is subtracted a step later."""
    b = net.rho * b + (1 - net.rho) * z
    threshold = 0.4 + 1.8 * b
    v = v * 0.9 + 0.3 * x - threshold * z
    return (v - threshold > 0).float(), v, b


def norse(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norse's LSNN: reset to 0, the adaptation decays before the comparison and rises behind it."""
    v, b = v + 0.2 * (4 * x - v), b - 0.05 * b
    z = (v - (0.4 + b) > 0).float()
    return z, (1 - z) * v, b + 0.36 * z


def returning(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norse's LSNNCell, version 1.1: the whole threshold is the state, and returns to the baseline."""
    v, b = v + 0.2 * (4 * x - v), b + 0.05 * (0.4 - b)
    z = (v - b > 0).float()
    return z, (1 - z) * v, b + 0.36 * z


def at_once(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v, threshold = 0.9 * v + x, 0.4 + b
    z = (v >= threshold).float()
    return z, v - z * threshold, net.rho * b + 0.2 * z


def integrator(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Without a leak, a reset at once and one a step later differ by the threshold that is subtracted alone."""
    b = 0.9 * b + z
    threshold = 0.4 + 0.3 * b
    v = v + x - z * threshold
    return (threshold < v).float(), v, b


FORMS: dict[str, tuple[Step, str, str]] = {
    "lsnn": (lsnn, "subtract_delayed", "baseline"),
    "srnn": (srnn, "subtract_delayed", "adapted"),
    "norse": (norse, "value", "baseline"),
    "returning": (returning, "value", "baseline"),
    "at once": (at_once, "subtract", "adapted"),
    "integrator": (integrator, "subtract_delayed", "adapted"),
}
X = (numbers(12, 4, 6) > 0.6).float()
STARTS: dict[str, tuple[float, Callable[[float, float], float]]] = {
    "lsnn": (0.3, lambda b, rho: 0.7 * b),
    "srnn": (0.01, lambda b, rho: 1.8 * b),
    "norse": (-0.2, lambda b, rho: b),
    "returning": (0.9, lambda b, rho: b - 0.4),
    "at once": (0.4, lambda b, rho: b / rho),  # compared before it decays
}
"""b at the start, and from it and rho the adaptation before the first step."""


@pytest.mark.push(4)
@pytest.mark.parametrize(("name", "moved"), [*((name, False) for name in FORMS), *((name, True) for name in STARTS)])
def test_forms_of_adaptation(name: str, moved: bool, tmp_path: Path) -> None:
    step, reset, subtracts = FORMS[name]
    rest = 0.4 if name == "returning" else 0.0
    start, before = STARTS[name] if moved else (rest, lambda b, rho: 0.0)
    model = Net(step, start=start)
    net = stl.capture(model, X)
    (neuron,) = net.program.spiking
    assert neuron.adaptation is not None
    if moved:
        expected = np.float32([before(start, rho) for rho in np.linspace(0.8, 0.95, 8)])
        np.testing.assert_allclose(np.broadcast_to(neuron.adaptation.start, 8), expected, rtol=1e-5)
    else:
        assert neuron.adaptation.start is None
    assert (neuron.reset, neuron.adaptation.subtracts) == (reset, subtracts)
    unseen = (numbers(20, 3, 6, seed=2) * 2).float()
    expected = model(unseen).detach().numpy()
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, expected, rtol=1e-4, atol=1e-5)
    assert net.simulate(unseen.numpy()).spikes[neuron.name].any()
    net.export(tmp_path / "net.onnx")
    net.export(tmp_path / "step.onnx", form="step")
    found = net.check("c")
    assert found.ok
    assert "its jumps become integers" in str(found)
    net.export(tmp_path / "c", to="c")
    net.verify(tmp_path / "c", (unseen > 1).float().numpy()).require()
    folded = net.fold(thresholds="weights") if reset == "value" else net
    np.testing.assert_allclose(folded.simulate(unseen.numpy()).y, expected, rtol=1e-4, atol=1e-5)


def test_the_numbers_of_an_adaptation() -> None:
    adaptation = stl.capture(Net(norse), X).program.spiking[0].adaptation
    assert adaptation is not None
    np.testing.assert_allclose(adaptation.decay, 0.95)
    np.testing.assert_allclose(adaptation.jump, 0.36 * 0.95, rtol=1e-6)  # decayed once before it is compared
    adaptation = stl.capture(Net(lsnn), X).program.spiking[0].adaptation
    assert adaptation is not None
    np.testing.assert_allclose(adaptation.decay, np.linspace(0.8, 0.95, 8), rtol=1e-6)
    np.testing.assert_allclose(adaptation.jump, 0.7, rtol=1e-6)


def diverging(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b = 1.1 * b + z
    v = 0.9 * v + x - z * 0.4
    return (v > 0.4 + b).float(), v, b


def driven(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b = 0.9 * b + z + 0.01 * x
    v = 0.9 * v + x - z * 0.4
    return (v > 0.4 + b).float(), v, b


def lowered(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b = 0.9 * b - 0.1 * z
    v = 0.9 * v + x - z * 0.4
    return (v > 0.4 + b).float(), v, b


def on_the_potential(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b = 0.9 * b + z
    v = 0.9 * v + x - b
    return (v > 0.4 + 0.3 * b).float(), v - z * 0.4, b


def of_the_last_spike(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + x - z * 0.4
    return (v > 0.4 + 0.3 * z).float(), v, b


def without_memory(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b = 0.0 * b + z
    v = 0.9 * v + x - z * 0.4
    return (v > 0.4 + 0.3 * b).float(), v, b


def short_memory(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b = 1e-9 * b + z
    v = 0.9 * v + x - z * 0.4
    return (v > 0.4 + 0.3 * b).float(), v, b


def test_a_threshold_of_the_last_spike_is_captured_by_its_remedy() -> None:
    net, unseen = stl.capture(Net(short_memory), X), (numbers(20, 3, 6, seed=2) * 2).float()
    with torch.no_grad():
        expected = Net(of_the_last_spike)(unseen).numpy()
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, expected, rtol=1e-4, atol=1e-5)


WORDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "v >= θ": lambda v, b: (v >= b).float(),
    "where(v < θ, 0, 1)": lambda v, b: torch.where(v < b, 0.0, 1.0),
    "1 - (v < θ)": lambda v, b: 1 - (v < b).float(),
    "~(v < θ)": lambda v, b: (~(v < b)).float(),
    "θ <= v": lambda v, b: (b <= v).float(),
}


@pytest.mark.push(4)
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize(("name", "start"), [*((name, 0.5) for name in WORDS), ("v >= θ", 0.0), ("~(v < θ)", 1.0)])
def test_a_threshold_held_in_one_state(name: str, soft: bool, start: float) -> None:
    """It returns to the baseline 0.5, and a spike subtracts all of it; numbers on a grid meet it."""
    compared: list[Tensor] = []

    def step(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = 0.5 * v + x
        compared.append((v == b).float().mean())
        z = WORDS[name](v, b)
        return z, v - z * b if soft else v * (1 - z), 0.5 * b + 0.25 + 0.25 * z

    model = Net(step, start).eval()
    with torch.no_grad():
        for parameter in (*model.enter.parameters(), *model.leave.parameters()):
            parameter.copy_((parameter * 8).round() / 8)
    model.offset = 0.25
    net = stl.capture(model, (numbers(9, 4, 6) * 4).round())
    for steps, samples, scale in ((1, 3, 4), (5, 1, 4), (12, 5, 8), (9, 2, -4), (9, 2, 0)):
        unseen = (numbers(steps, samples, 6, seed=steps) * scale).round().float()
        with torch.no_grad():
            np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).numpy(), rtol=0, atol=1e-6)
    assert start != 0.5 or max(compared) > 0


@pytest.mark.parametrize("step", [of_the_last_spike, without_memory, diverging, driven, lowered, on_the_potential])
def test_other_adaptations_are_cells(step: Step) -> None:
    require_cell(Net(step), X)


def test_a_start_of_the_threshold_is_the_adaptations() -> None:
    rising = Net(integrator, start=0.1)
    net, unseen = stl.capture(rising, X), (numbers(20, 3, 6, seed=2) * 2).float()
    assert [neuron.adaptation is not None for neuron in net.program.spiking] == [True]
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, rising(unseen).detach().numpy(), rtol=1e-4, atol=1e-5)

    def greater(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b = 0.9 * b + z
        threshold = 0.4 + 0.3 * b
        v = v + x - z * threshold
        return (v > threshold).float(), v, b

    model = Net(greater, start=0.5)
    net = stl.capture(model, X)
    (neuron,) = net.program.spiking
    assert (neuron.reset, neuron.adaptation.subtracts) == ("subtract_delayed", "adapted")  # type: ignore[union-attr]
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_every_target_holds_the_adaptation_or_refuses_by_node(tmp_path: Path) -> None:
    net = stl.capture(Net(norse), X)
    require_held_or_refused(net, X, tmp_path, {"onnx", "program", "c", "c_floats"})


@pytest.mark.parametrize(
    ("target", "field"),
    [*product(("snntorch", "norse", "spikingjelly", "sinabs"), ("adapting-threshold", "start"))],
)
def test_readers_of_nir_refuse_what_they_would_read_without(target: str, field: str) -> None:
    """Everything else of the neuron is theirs, in the form that this target holds."""
    kept: dict[str, Any] = {"decay": np.array(1, np.float32), "reset": "value"}
    if field == "start":
        kept["i_start"] = np.array(0.5, np.float32)
    else:
        kept["adaptation"] = ir.Adaptation(np.array(0.9, np.float32), np.array(0.5, np.float32))
    x = ir.Input(name="input", shape=(2,), operands=())
    fc = ir.Linear(
        name="fc",
        shape=(3,),
        operands=(ir.Operand("input"),),
        weight=np.ones((3, 2), np.float32),
        bias=None,
        input_shape=(2,),
    )
    lif = ir.Neuron(name="if", shape=(3,), operands=(ir.Operand("fc"),), threshold=np.array(1, np.float32), **kept)
    output = ir.Output(name="output", shape=(3,), operands=(ir.Operand("if"),))
    refused = stl.SpikingGraph(ir.Program((x, fc, lif, output), 1e-3)).check(target)
    assert [each.slug for each in refused.findings if each.severity == "error"] == [field]
    plain = replace(lif, adaptation=None, i_start=None)
    assert stl.SpikingGraph(ir.Program((x, fc, plain, output), 1e-3)).check(target).ok


class Cells(nn.Module):
    """Layers of Norse 1.1's LSNNCell, whose potentials read the current of the step before; a leaky readout."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.ModuleList([nn.Linear(20, 20) for _ in range(layers)])
        self.leave = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        v, i, b = ([torch.full((x.shape[1], 20), start)] * len(self.enter) for start in (0.0, 0.0, 1.0))
        potential, found = torch.zeros(x.shape[1], 5), []
        for z in x:
            for k, layer in enumerate(self.enter):
                v[k], i[k] = v[k] + 0.1 * (i[k] - v[k]), i[k] - 0.2 * i[k] + layer(z)
                b[k] = b[k] + 0.02 * (1 - b[k])
                z = (v[k] - b[k] > 0).float()
                v[k], b[k] = (1 - z) * v[k], b[k] + 0.4 * z
            potential = potential + 0.1 * (self.leave(z) - potential)
            found.append(potential)
        return torch.stack(found)


@pytest.mark.parametrize("layers", [1, 2])
def test_late_currents_before_a_leaky_readout(layers: int, tmp_path: Path) -> None:
    """Before input arrives, biases alone move the readout."""
    model, x = Cells(layers), torch.rand(20, 3, 20) * 80
    net = stl.capture(model, x)
    assert all(layer.rate for layer in net.proof.layers)
    unseen = torch.rand(25, 2, 20, generator=torch.Generator().manual_seed(3)) * 90
    expected = model(unseen).detach().numpy()
    assert np.unique(expected[:, 0, 0]).size == len(expected)
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, expected, rtol=1e-5, atol=1e-6)
    net.export(tmp_path / "net.onnx")
    net.export(tmp_path / "step.onnx", form="step")
    net.export(tmp_path / "c", to="c", input_grid=2)
    net.verify(tmp_path / "c", x.numpy()[:, ::-1].copy(), input_grid=2).require()


def _bounded(
    threshold: Callable[[Tensor], Tensor] = lambda b: 0.3 + b,
    compared: Callable[[Tensor], Tensor] = lambda v: v,
    kept: Callable[[Tensor], Tensor] = lambda b: b,
) -> Step:
    """An adaptation up to 3, with something that none of the sample's values meets."""

    def step(net: Net, x: Tensor, z: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = 0.8 * v + x
        z = (compared(v) > threshold(b)).float()
        return z, v - 0.3 * z, kept(0.9 * b + 0.3 * z)

    return step


BOUNDED = {
    "clamp": _bounded(lambda b: (0.3 + b).clamp(max=2.9)),
    "minimum": _bounded(lambda b: 0.3 + torch.minimum(b, torch.tensor(2.5))),
    "where": _bounded(lambda b: torch.where(b > 2.6, 2.9, 0.3 + b)),
    "hardtanh": _bounded(lambda b: nn.functional.hardtanh(0.3 + b, -5, 3)),
    "state": _bounded(kept=lambda b: b.clamp(max=2.9)),
    "bent state": _bounded(kept=lambda b: b - 0.2 * torch.relu(b - 2.5)),
    "potential": _bounded(lambda b: 0.3 + 2 * b, compared=lambda v: v.clamp(max=5.0)),
    "far below": _bounded(compared=lambda v: (v + 3).abs() - 3),
}


@pytest.mark.parametrize("step", BOUNDED.values(), ids=BOUNDED)
def test_a_cell_holds_bounds_that_the_sample_does_not_reach(step: Step) -> None:
    """Probes of numbers up to 2.3 met none of them: up to 23 % of unseen spikes differed, and the proof said 0."""
    model = Net(step)
    net = stl.capture(model, X)
    assert any(net.program.of(Cell))
    unseen = (numbers(30, 3, 6, seed=2) * 6).float()
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_thresholds_in_loihi_s_range_are_captured() -> None:
    """Rounding of numbers of 2^23 was taken for a bound."""
    model = Net(_bounded(lambda b: 2.0**23 + b, kept=lambda b: b))
    with torch.no_grad():
        model.enter.weight *= 2.0**24
    net = stl.capture(model, X)
    assert float(np.max(net.program.spiking[0].threshold)) == 2.0**23  # type: ignore[arg-type]


def test_a_bound_beyond_what_spikes_raise_an_adaptation_to_is_none() -> None:
    model = Net(_bounded(lambda b: (0.3 + b).clamp(-9, 9), kept=lambda b: b.clamp(-9, 9)))
    net = stl.capture(model, X)
    unseen = (numbers(40, 3, 6, seed=2) * 9).float()
    with torch.no_grad():
        np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).numpy(), rtol=0, atol=1e-5)
