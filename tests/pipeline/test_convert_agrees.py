"""Counts of converted random networks equal quantised ReLUs in torch, ONNX Runtime, C and Verilog on fresh inputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.render import PREFIX, render
from stl_deploy.exporters.verilog.simulator import Simulation, simulators
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About
from stl_deploy.nn.program_module import ProgramModule

pytestmark = pytest.mark.filterwarnings("ignore:.*silent|.*saturated|.*no spike:UserWarning")


class Residual(nn.Module):
    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.layer, self.activation = nn.Conv2d(channels, channels, 3, padding=1), activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x) + x)


class QuantisedReLU(nn.Module):
    """min(max(floor(x / θ + ½), 0), cap) of a count neuron, by torch alone."""

    def __init__(self, neuron: ir.Neuron) -> None:
        super().__init__()
        assert neuron.gain is None
        self.theta, self.cap = torch.from_numpy(np.asarray(neuron.threshold)), neuron.cap
        self.offset = 0.0 if neuron.offset is None else torch.from_numpy(np.asarray(neuron.offset))

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor((x + self.offset) / self.theta + 0.5).clamp(0, self.cap)


def drawn_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    drawn = np.random.default_rng(seed)
    activation: type[nn.Module] = nn.ReLU6 if seed % 2 else nn.ReLU
    channels, size = int(drawn.integers(2, 6)), 8
    layers = [nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), activation()]
    for kind in drawn.permutation(["residual", "residual", "average", "max", "depthwise"])[:3]:
        if kind == "residual":
            layers.append(Residual(channels, activation))
        elif kind == "depthwise":
            layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=channels), activation()]
        else:
            layers.append(nn.AvgPool2d(2) if kind == "average" else nn.MaxPool2d(2))
            size //= 2
    layers += [nn.Flatten(), nn.Linear(channels * size * size, 6), activation(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).eval()


def on_grid(drawn: np.random.Generator, count: int) -> np.ndarray:
    return (drawn.integers(0, 17, (count, 1, 8, 8)) / 16).astype(np.float32)


def differing_in_verilog(program: ir.Program, x: np.ndarray) -> int:
    """Counts and outputs of the simulated engine that are not the integer model's."""
    graph = choose(program, x[None]).graph
    whole = to_integers(x[None, :2], graph.input.scale).astype(np.int32)
    model, plan = simulate(graph, whole, record=True), make_plan(graph)
    ours, _ = Simulation(render(plan, About(prefix=PREFIX)), plan).run(whole, simulator=simulators()[-1])
    counts = sum(int((ours.spikes[name] != model.spikes[name]).sum()) for name in model.spikes)
    return counts + int((ours.y != model.y).sum())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """3 networks; `make explore` compares 130, of which C holds 100 and Verilog 91."""
    if "seed" in metafunc.fixturenames:
        explores = metafunc.config.getoption("hypothesis_profile", None) == "explore"
        metafunc.parametrize("seed", range(130 if explores else 3))


@pytest.mark.push(1)
@pytest.mark.hypothesis
def test_counts_are_quantised_relus_everywhere(seed: int, tmp_path: Path) -> None:
    drawn = np.random.default_rng(seed)
    model = drawn_network(seed)
    net = stl.convert(model, torch.from_numpy(on_grid(drawn, 32)), levels=(3, 4, 15)[seed % 3], progress=False)
    net = net.fold(input_grid=4, merge_pools=True)
    x, program = on_grid(drawn, 16), net.program
    names = [node.name for node in program.spiking]
    counts = run(program, x[None], record=names).recorded
    quantised = ProgramModule(program, layers={node.name: QuantisedReLU(node) for node in program.spiking})
    observed = quantised.observe(torch.from_numpy(x)[None], names)
    assert all(np.array_equal(observed[name].numpy(), counts[name]) for name in names)

    net.export(tmp_path / "net.onnx")
    onnx = net.verify(tmp_path / "net.onnx", x).as_dict()["runs"]
    assert [each["differing"] for each in onnx if each["against"] == "reference"] == [0]
    net.export(tmp_path / "floats", to="c", numbers="float32")
    floats = net.verify(tmp_path / "floats", x).as_dict()["runs"]
    assert [each["differing"] for each in floats if each["against"] == "reference"] == [0]
    refused = {
        target: [each.slug for each in net.check(target).findings if each.severity == "error"]
        for target in ("c", "verilog")
    }
    kinds = [type(layer) for layer in model]
    behind_average = kinds[kinds.index(nn.AvgPool2d) + 1 :] if nn.AvgPool2d in kinds else []
    if refused["c"]:  # an average, or its maximum, that weights and a skip read
        assert refused["c"] == ["no-neuron"]
        assert next(kind for kind in behind_average if kind is not nn.MaxPool2d) is Residual
    else:
        net.export(tmp_path / "c", to="c")
        c = net.verify(tmp_path / "c", x).as_dict()["runs"]
        assert [each["differing"] for each in c if each["against"] == "loihi"] == [0]
    if not refused["verilog"]:
        assert not simulators() or differing_in_verilog(program, x) == 0
    elif not refused["c"]:  # the maximum of averages is one of sums
        assert refused["verilog"] == ["max-pool"]
        assert behind_average[0] is nn.MaxPool2d

    without_biases = tuple(
        replace(node, bias=None) if isinstance(node, ir.Conv | ir.Linear) else node for node in program.nodes
    )
    other = run(replace(program, nodes=without_biases), x[None], record=names).recorded
    assert any((other[name] != counts[name]).any() for name in names)
    off_grid = drawn.random(x.shape, np.float32)
    rounded = (np.round(off_grid * 16) / 16).astype(np.float32)
    exact, off = (run(program, each[None], record=names).recorded for each in (rounded, off_grid))
    assert any((exact[name] != off[name]).any() for name in names)
