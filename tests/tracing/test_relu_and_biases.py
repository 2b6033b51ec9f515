"""ReLUs of currents before neurons, and biases added once after a sum over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.graph.program import Linear, Neuron
from stl_deploy.passes.base import Rewritten
from stl_deploy.tracing.captured import Fold
from stl_deploy.tracing.trace import Traced


def integrate_and_fire(currents: Tensor) -> Tensor:
    v, out = torch.zeros_like(currents[0]), []
    for current in currents:
        v = v + current
        s = (v > 0.5).float()
        v = v - 0.5 * s
        out.append(s)
    return torch.stack(out)


class Net(nn.Module):
    def __init__(self, body: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.inner, self.leave = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm, self.body = nn.BatchNorm1d(3), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def late_current(net: Net, x: Tensor) -> Tensor:
    """A synaptic current, rectified, and spikes that come back through weights and a ReLU."""
    i = v = s = torch.zeros(x.shape[1], 8)
    out = []
    for step in x:
        i = 0.5 * i + net.enter(step)
        v = v + functional.relu(i) - functional.relu(functional.linear(s, net.inner.weight))
        s = (v > 0.5).float()
        v = v * (1 - s)
        out.append(s)
    return torch.stack(out)


X = torch.rand(6, 3, 6, generator=torch.Generator().manual_seed(1)) * 2
RELUS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "converted": lambda net, x: integrate_and_fire(net.leave(integrate_and_fire(functional.relu(net.enter(x)))).relu()),
    "of a sum": lambda net, x: integrate_and_fire(
        functional.relu(net.inner(integrate_and_fire(net.enter(x))) + net.enter(x))
    ),
    "another bound": lambda net, x: integrate_and_fire(net.enter(x).clamp(min=-0.125)),
    "late": late_current,
    "between layers": lambda net, x: integrate_and_fire(net.leave(functional.relu(net.enter(x)))),
}


def _require_same(net: stl.SpikingGraph, model: Net) -> None:
    unseen = torch.rand(14, 5, 6, generator=torch.Generator().manual_seed(2)) * 5 - 1
    own, made = model(unseen).detach(), net.simulate(unseen.numpy())
    found = made.y if own.dim() == 3 else made.readout
    assert 0 < own.count_nonzero() < own.numel() or own.dim() == 2
    np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RELUS)
def test_relus_are_captured_and_onnx_computes_them(name: str, tmp_path: Path) -> None:
    model = Net(RELUS[name])
    net = stl.capture(model, X)
    _require_same(net, model)
    for form in ("sequence", "step"):
        done = net.export(tmp_path / f"{form}.onnx", form=form)
        assert [run["differing"] for run in done["verified"]["runs"]] == [0]
    net.export(tmp_path / "net.program")
    np.testing.assert_array_equal(stl.read(tmp_path / "net.program").simulate(net.sample).y, net.simulate(net.sample).y)


def test_a_relu_is_one_comparison_without_memory_and_changes_the_spikes() -> None:
    model = Net(lambda net, x: integrate_and_fire(functional.relu(net.enter(x))))
    with torch.no_grad():
        model.enter.weight.zero_()
        model.enter.weight[:, 0] = 1
        model.enter.bias.fill_(-0.25)
    net = stl.capture(model, X)
    relu = next(node for node in net.program.of(Neuron) if not node.spiking)
    assert (relu.decay, relu.v_min) == (None, 0)
    x = np.zeros((5, 1, 6), np.float32)
    x[:, 0, 0] = [0.5, 0, 0.5, 0, 0.75]
    # currents 0.25, -0.25 -> 0, 0.25, 0, 0.5; potentials 0.25, 0.25, 0.5, 0.5, 1 > 0.5. Without the ReLU none fires.
    np.testing.assert_array_equal(net.simulate(x).y[:, 0, 0], [0, 0, 0, 0, 1])
    layer = net.energy(x).as_dict()["layers"][relu.name]
    assert (layer["neuron_updates"], layer["leak_muls"], layer["resets"]) == (5 * 8, 0, 0)
    ops = neuron_ops(relu)
    assert (ops.compares, ops.adds, ops.leak_muls) == (1, 0, 0)


def test_targets_without_relus_refuse_by_node(tmp_path: Path) -> None:
    net = stl.capture(Net(RELUS["converted"]), X)
    found = net.check("nir", "netx", "c", "verilog", "onnx", input_grid=4)
    assert {target for target, state in found.targets.items() if state == "unsupported"} == {
        *("nir", "netx", "c", "verilog"),
    }
    for name, target, remedy in (
        (
            "net.nir",
            "nir",
            r"bounds currents below, as a ReLU does, for which NIR has no node; keep it as a \.program file",
        ),
        (
            "c",
            "c",
            r"lower bound, v_min; train without a bound \(a ReLU before a neuron: leave it out\), or export to onnx",
        ),
    ):
        with pytest.raises(UnsupportedError, match=rf"node '\w+': .*{remedy}"):
            net.export(tmp_path / name, to=target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("neurons_alone")
def test_an_upper_bound_of_a_current_is_refused() -> None:
    with pytest.raises(CaptureError, match="found 'clamp' of a current with an upper bound"):
        stl.capture(Net(lambda net, x: integrate_and_fire(net.enter(x).clamp(0, 6))), X)


ENDS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "a layer": lambda net, s: net.leave(s.sum(0)),
    "two layers": lambda net, s: net.leave(net.inner(s.sum(0))),
    "scaled before and after": lambda net, s: 1 - net.leave(s.sum(0) * 0.25) * 2,
    "scaled by 1 / T of this sample": lambda net, s: net.leave(s.sum(0) / 6),
    "a norm, and a softmax": lambda net, s: net.norm(net.leave(s.sum(0))).softmax(-1),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_bias_after_a_sum_is_added_once_whatever_the_number_of_steps(name: str, tmp_path: Path) -> None:
    model = Net(lambda net, x: ENDS[name](net, integrate_and_fire(net.enter(x)))).eval()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-1, 1)
        model.norm.bias.uniform_(-1, 1)
    net = stl.capture(model, X)
    assert str(net.readout).startswith("last over time")
    _require_same(net, model)
    for form in ("sequence", "step"):
        done = net.export(tmp_path / f"{form}.onnx", form=form)
        assert done["verified"]["runs"]


def test_a_sum_starts_from_the_bias(tmp_path: Path) -> None:
    """y = W Σ s + b of inputs that are spikes: 3 and 2 of them give (3·1 + 2·0.5 + 10, 3·0 - 2·2 - 1)."""
    model = Net(lambda net, x: net.leave((x > 0.5).float().sum(0)))
    model.leave = nn.Linear(2, 2)
    with torch.no_grad():
        model.leave.weight.copy_(torch.tensor([[1, 0.5], [0, -2]]))
        model.leave.bias.copy_(torch.tensor([10.0, -1]))
    net = stl.capture(model, torch.rand(6, 3, 2))
    (total,) = (node for node in net.program.of(Neuron) if not node.spiking)
    assert total.v_start is not None
    np.testing.assert_array_equal(total.v_start, [10, -1])
    x = np.zeros((4, 1, 2), np.float32)
    x[:3, 0, 0] = x[1:3, 0, 1] = 1
    np.testing.assert_array_equal(net.simulate(x).readout, [[14, -5]])
    np.testing.assert_array_equal(net.simulate(x[:1]).readout, [[11, -1]])
    (weights,) = net.program.of(Linear)
    layer = net.energy(x).as_dict()["layers"][weights.name]
    assert (layer["synops"], layer["bias_adds"]) == (10, 0)  # W once for each of 5 spikes, b never
    with pytest.raises(UnsupportedError, match=r"node '.*': layer '.*' starts from values from -1 to 10, which is nei"):
        net.export(tmp_path / "net.nir")
    assert list(tmp_path.iterdir()) == []
    net.export(tmp_path / "c", to="c", input_grid=0)
    np.testing.assert_array_equal(net.simulate(x, backend="c", input_grid=0).readout, [[14, -5]])


def test_a_module_without_spikes_is_proved_by_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    proof = stl.capture(model, X[0], time="none").proof
    assert proof.values[0] == 3 * (8 + 3)
    assert 0 <= proof.values[1] < 1e-6
    assert "33 values differ by at most" in str(proof)
    assert "nothing compared" not in str(proof)
    capture = import_module("stl_deploy.tracing.capture")
    folded = capture.folded_layers

    def shifted(traced: Traced, fold: Fold) -> Rewritten:
        layers = folded(traced, fold)
        nodes = tuple(
            replace(node, bias=node.bias + np.float32(0.1)) if node.name == "0" else node
            for node in layers.program.nodes
        )
        return replace(layers, program=replace(layers.program, nodes=nodes))

    monkeypatch.setattr(capture, "folded_layers", shifted)
    with pytest.raises(CaptureError) as refused:
        stl.capture(model, X[0], time="none")
    assert refused.value.layer == "1"  # the ReLU behind the shifted weights, not the output
