"""A network whose neurons subtract their threshold, trained or captured, on every target: equal, or refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.config.load import config_of
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.graph.exact import round_to_grid
from stl_deploy.integers.qat.network import quantised_network
from stl_deploy.integers.quantise import choose
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import Folded, fold

LAYERS = [
    {"kind": "conv", "channels": 4, "padding": 1},
    {"kind": "norm"},
    {"kind": "lif"},
    {"kind": "pool"},
    {"kind": "flatten"},
    {"kind": "linear", "features": 20},
    {"kind": "norm"},
    {"kind": "lif"},
    {"kind": "vote", "population": 2},
]
X = round_to_grid(np.random.default_rng(0).random((4, 6, 1, 8, 8)), 4)


@pytest.fixture
def folded() -> Folded:
    torch.manual_seed(0)
    neuron = {"reset": "subtract", "threshold": 0.5, "jitter": 0.05, "decay": 0.75}
    config = config_of({"dataset": {"name": "digits", "T": 4}, "network": LAYERS, "neuron": neuron})
    network = Network(config, (1, 8, 8), 10)
    network(torch.from_numpy(X))  # the norms get statistics
    return fold(network.eval(), coding="analog", fraction_bits=4)


@pytest.fixture
def graph(folded: Folded, tmp_path: Path) -> stl.SpikingGraph:
    write_nir(folded.graph, tmp_path / "net.nir")
    return stl.read(tmp_path / "net.nir")


def test_simulation_and_onnx_have_every_spike_of_the_network(
    folded: Folded, graph: stl.SpikingGraph, tmp_path: Path
) -> None:
    assert (graph.dialect.reset, graph.dialect.compare) == ("subtract", "ge")
    _, spikes = folded.network.record(torch.from_numpy(X))
    found = graph.simulate(X)
    for name in ("lif1", "lif2"):
        assert 0.05 < spikes[name].mean() < 0.95
        np.testing.assert_array_equal(found.spikes[name], spikes[name].numpy(), err_msg=name)
    graph.export(tmp_path / "net.onnx", x=X)
    graph.verify(tmp_path / "net.onnx", X).require()


@pytest.mark.skipif(find_compiler() is None, reason=why_none())
def test_c_has_every_spike_of_the_integers(graph: stl.SpikingGraph, tmp_path: Path) -> None:
    graph.export(tmp_path / "c", to="c", x=X)
    by_c = graph.simulate(X, backend="reference")
    (run, *_) = graph.verify(tmp_path / "c", X).report.runs
    assert run.compared == by_c.spikes["lif1"].size + by_c.spikes["pool1"].size + by_c.spikes["lif2"].size
    assert run.differing < 0.05 * run.compared  # 8-bit weights against float32


def test_loihi_refuses_it(folded: Folded, graph: stl.SpikingGraph) -> None:
    said = "its reset is 'subtract'.* Loihi resets to 0; train with hard reset"
    with pytest.raises(UnsupportedError, match=said):
        graph.check("netx").raise_if_unsupported()
    with pytest.raises(UnsupportedError, match=said):
        graph.quantised(X)
    with pytest.raises(UnsupportedError, match=said):
        quantised_network(folded.network, graph.program, choose(graph.program, X, "folded"), host=False)


def test_a_captured_module_is_read_so() -> None:
    torch.manual_seed(0)
    options = dict(threshold=0.3, jitter=0.02, decay=0.75, reset="subtract")
    model = nn.Sequential(nn.Linear(12, 16), stl.LIF((16,), **options), nn.Linear(16, 5), stl.LIF((5,), **options))
    x = (torch.rand(8, 4, 12) < 0.4).float()
    graph = stl.capture(model, x)
    assert {(node.reset, node.compare) for node in graph.program.spiking} == {("subtract", "ge")}
    np.testing.assert_array_equal(graph.simulate(x).y, model(x).detach().numpy())
