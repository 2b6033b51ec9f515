"""Spikes that carry counts, in the forms that people write: captured with proof, to ONNX, and priced as graded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.graph.program import Neuron
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.tracing.proof import layers_and_ends as proof_module
from stl_deploy.tracing.proof.replay import replay
from tests.tracing.held import require_cell

THETA = 0.75
Fire = Callable[[Tensor], Tensor]


class Rounds(torch.autograd.Function):
    """As I-LIF neurons of spike-driven detectors train: rounded, with a straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cap: int) -> Tensor:
        return torch.round(torch.clamp(x, 0, cap))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def straight_through(v: Tensor) -> Tensor:
    """As SpikingJelly's ILIFNode writes it: a gradient inside a window, by what is 0 in the forward pass."""
    scaled = v / THETA
    window = ((scaled >= 0) & (scaled <= 4)).to(v.dtype) + v * 0.0
    return scaled.clamp(0.0, 4).round() + window * (scaled - scaled.detach())


class Counting(nn.Module):
    """Two layers of leaky neurons that fire counts; late: each is subtracted before the leak of the next step."""

    def __init__(self, fire: Fire, *, beta: float = 0.9, late: bool = False, theta: float = THETA) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.fc1.weight.mul_(4)
            self.fc2.weight.mul_(2)
        self.fire, self.beta, self.late, self.theta = fire, beta, late, theta

    def forward(self, x: Tensor) -> Tensor:
        v, w = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 4)
        s, z = torch.zeros_like(v), torch.zeros_like(w)
        out = []
        for step in x:
            before, after = (s * self.theta, z * self.theta) if self.late else (0.0, 0.0)
            v = self.beta * (v - before) + self.fc1(step)
            s = self.fire(v)
            w = self.beta * (w - after) + self.fc2(s)
            z = self.fire(w)
            if not self.late:
                v, w = v - s * self.theta, w - z * self.theta
            out.append(z)
        return torch.stack(out)


FORMS: dict[str, tuple[Fire, tuple[int | None, str]]] = {
    "trunc": (lambda v: torch.clamp(torch.trunc(v / THETA), min=0), (None, "down")),
    "trunc, with a cap": (lambda v: torch.clamp(torch.trunc(v / THETA), 0, 4), (4, "down")),
    "floor": (lambda v: torch.floor(v / THETA).relu(), (None, "down")),
    "of what is positive": (lambda v: torch.floor(torch.relu(v) / THETA), (None, "down")),
    "clamped before": (lambda v: torch.floor(torch.clamp(v / THETA, 0, 3)), (3, "down")),
    "clamped twice": (lambda v: torch.floor(v / THETA).clamp(min=0).clamp(max=7), (7, "down")),
    "floor of a half more": (lambda v: torch.floor(torch.clamp(v / THETA, 0, 4) + 0.5), (4, "half_up")),
    "round": (lambda v: torch.round(torch.clamp(v / THETA, min=0, max=3)), (3, "half_even")),
    "clamped as a share": (lambda v: 4 * torch.clamp(torch.floor(v / THETA + 0.5) / 4, 0, 1), (4, "half_up")),
    "with a straight-through gradient": (straight_through, (4, "half_even")),
    "where it spikes": (lambda v: (v >= THETA) * torch.floor(v / THETA), (None, "down")),
    "where it is positive": (lambda v: (v > 0).float() * torch.floor(v / THETA), (None, "down")),
    "minimum, maximum": (
        lambda v: torch.minimum(torch.maximum(torch.floor(v / THETA), torch.zeros(())), torch.tensor(5.0)),
        (5, "down"),
    ),
}
X = torch.rand(9, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 0.3


def _counting(net: stl.SpikingGraph) -> list[Neuron]:
    assert net.proof.replay_differing == net.proof.end_to_end["differing"] == 0
    assert all(layer.rate > 0.02 for layer in net.proof.layers)
    assert max(float(s.max()) for s in net.simulate(net.sample).spikes.values()) > 1
    return list(net.program.spiking)


@pytest.mark.push(8)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_count_is_captured(form: tuple[Fire, tuple[int | None, str]], late: bool) -> None:
    neurons = _counting(stl.capture(Counting(form[0], late=late), X))
    assert [(n.multi_spike, n.cap, n.rounding, n.reset) for n in neurons] == [(True, *form[1], "subtract")] * 2


class Scored(Counting):
    """Counts that only hidden layers show: the output is their mean over time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(0)


def test_the_counts_of_hidden_layers_are_replayed() -> None:
    proof = stl.capture(Scored(FORMS["round"][0]), X).proof
    assert proof.replay_compared > 3 * sum(layer.compared for layer in proof.layers) > 0
    nothing = replace(proof, replay_compared=0, layers=(), end_to_end={"compared": 0, "differing": 0})
    assert "replayed: nothing compared (" in str(nothing)
    assert f"layer by layer: {proof.values[0]:,} values differ by at most" in str(nothing)


def test_a_count_that_replays_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(*args: Any) -> dict[Any, list[Tensor]]:
        values = replay(*args)
        return {
            signal: [v + 1 for v in steps] if signal.node.name == "round" else steps for signal, steps in values.items()
        }

    monkeypatch.setattr(proof_module, "replay", one_more)
    with pytest.raises(CaptureError, match="the captured step does not compute what the model does: layer 'lif"):
        stl.capture(Scored(FORMS["round"][0]), X)


@pytest.mark.parametrize("name", ["trunc, with a cap", "floor of a half more", "round"])
def test_onnx_and_torch_count_alike_and_counts_are_graded(name: str, tmp_path: Path) -> None:
    net = stl.capture(Counting(FORMS[name][0]), X)
    expected = net.simulate(net.sample)
    for form in ("sequence", "step"):
        done = net.export(tmp_path / f"{form}.onnx", form=form)
        assert [run["differing"] for run in done["verified"]["runs"]] == [0]
    with torch.no_grad():
        y = ProgramModule(net.program)(torch.from_numpy(net.sample))
    np.testing.assert_array_equal(y.numpy(), expected.y)
    layers = net.energy().as_dict()["layers"]
    assert layers["linear1" if "linear1" in layers else "fc1"]["op"] == "MAC"
    assert layers["fc2"]["op"] == "MAC"
    first = net.program.spiking[0]
    assert layers[first.name]["spikes"] == int(expected.spikes[first.name].sum())
    nearest = first.rounding != "down"
    assert neuron_ops(first).adds == 1 + nearest


@pytest.mark.skipif(find_compiler() is None, reason=why_none())
@pytest.mark.parametrize("name", ["trunc, with a cap", "floor of a half more", "round"])
def test_c_counts_as_its_integers_and_close_to_the_graph(name: str, tmp_path: Path) -> None:
    net = stl.capture(Counting(FORMS[name][0]), X)
    assert ("halves round up to the next count" in str(net.check("c", input_grid=6))) == (name == "round")
    net.export(tmp_path / "c", to="c", input_grid=6)
    ours = net.simulate(net.sample, backend="c", input_grid=6).spikes
    expected = net.simulate(net.sample, input_grid=6).spikes
    net.verify(tmp_path / "c", net.sample, input_grid=6).require()
    for layer, spikes in expected.items():
        assert spikes.max() > 1
        assert np.mean(ours[layer] != spikes) < 0.06


def test_a_detectors_neurons_are_captured() -> None:
    """`mem = (mem - spike) * decay + x` and a rounded clamp of it, in a function with a gradient of its own."""
    model = Counting(lambda v: Rounds.apply(v, 4), beta=0.25, late=True, theta=1.0)
    neurons = _counting(stl.capture(model, X))
    assert [(n.cap, n.rounding, n.reset) for n in neurons] == [(4, "half_even", "subtract")] * 2


def test_a_count_without_memory_is_a_neuron_without_memory() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(Rounds.apply(3 * self.fc1(x), 4))

    net = stl.capture(Quantised(), X)
    (neuron,) = _counting(net)
    assert (neuron.decay, neuron.cap, neuron.rounding) == (None, 4, "half_even")
    assert "no memory, up to 4 spikes, halves to even" in str(net)


def test_nir_holds_those_that_are_rounded_down() -> None:
    assert stl.capture(Counting(FORMS["trunc, with a cap"][0]), X).graph.nodes
    net = stl.capture(Counting(FORMS["round"][0]), X)
    with pytest.raises(UnsupportedError, match="its rounding is read back from NIR as down, meant is half_even"):
        _ = net.graph
    found = net.check("nir", "netx", "onnx", "xylo", "verilog")
    assert {name: found.targets[name] for name in ("nir", "netx", "xylo", "verilog")} == dict.fromkeys(
        ("nir", "netx", "xylo", "verilog"), "unsupported"
    )


OTHERS: dict[str, Fire] = {
    "counts below 0": lambda v: torch.trunc(v / THETA),
    "a cap that is no count": lambda v: torch.round(torch.clamp(v / THETA, 0, 2.5)),
    "a gate above the threshold": lambda v: (v > 2 * THETA) * torch.floor(v / THETA),
}


@pytest.mark.parametrize("form", OTHERS.values(), ids=OTHERS)
def test_what_counts_otherwise_is_a_cell(form: Fire) -> None:
    require_cell(Counting(form), X)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (lambda v: torch.clamp(v // THETA, 0, 4), r"'floor_divide' .*torch\.floor\(v / θ\)"),
        (lambda v: torch.clamp(torch.round(v / THETA, decimals=1), 0, 4), "'round' "),
    ],
    ids=["floor_divide", "decimals"],
)
def test_what_no_cell_counts_is_refused_by_its_line(form: Fire, reason: str) -> None:
    with pytest.raises(CaptureError, match=rf"test_counts\.py:\d+: .*{reason}"):
        stl.capture(Counting(form), X)


def test_spikes_that_subtract_more_than_their_thresholds_are_a_cell() -> None:
    class Square(Counting):
        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1], 8), []
            for step in x:
                v = self.beta * v + self.fc1(step)
                s = torch.clamp(torch.floor(v), 0, 4)
                v = v - s * s
                out.append(s)
            return torch.stack(out)

    require_cell(Square(lambda v: v), X)


def test_counts_that_reset_by_a_product_are_a_cell() -> None:
    """One spike resets to 0 as a binary neuron's does; two turn the potential round."""

    class Product(Counting):
        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1], 8), []
            for step in x:
                v = self.beta * v + self.fc1(step)
                s = torch.clamp(torch.floor(v / 0.1), 0, 3)
                v = v * (1 - s)
                out.append(s)
            return torch.stack(out)

    require_cell(Product(lambda v: v), X)


class Corrected(Counting):
    """Larger counts subtract one threshold less, which the sample's counts do not show."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 8), []
        for step in x:
            v = self.beta * v + self.fc1(step)
            s = self.fire(v)
            v = v - (s - (s > 20).float()) * self.theta
            out.append(self.fc2(s))
        return torch.stack(out)


def test_counts_that_subtract_otherwise_where_they_are_large_are_a_cell() -> None:
    require_cell(Corrected(lambda v: torch.floor(v / THETA).clamp(0, 50)), X)


def test_an_axis_of_one_step_may_stand_before_samples() -> None:
    class OneStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            counts = torch.round(self.enter(x[None]).clamp(0, 4)) / 4
            return self.out(counts)[0]

    x = 4 * torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
    model = OneStep()
    net = stl.capture(model, x, time="none")
    np.testing.assert_allclose(net.simulate(x.numpy()).y[0], model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
