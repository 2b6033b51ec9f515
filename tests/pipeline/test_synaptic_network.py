"""A network of neurons with synapses and several spikes a step, from YAML to every target: equal, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import stl_deploy as stl
from stl_deploy.config.load import config_of
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.witnesses.environment import XYLOSIM
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.nn.population import Population
from stl_deploy.pipeline.fold_network import Folded, fold

LAYERS = [
    {"kind": "linear", "features": 20},
    {"kind": "lif"},
    {"kind": "rlif"},
    {"kind": "linear", "features": 3},
    {"kind": "li"},
]
X = np.random.default_rng(0).integers(0, 5, (12, 6, 4)).astype(np.float32)


def folded(**neuron: object) -> Folded:
    torch.manual_seed(0)
    common = {"reset": "subtract", "decay": 0.75, "synapse_decay": 0.5, "multi_spike": 31, "threshold": 0.5}
    layers = [*LAYERS[:2], {"kind": "linear", "features": 20}, *LAYERS[2:]]
    config = config_of({"dataset": {"name": "digits", "T": 12}, "network": layers, "neuron": common | neuron})
    network = Network(config, (4,), 3)
    with torch.no_grad():
        for layer in network.layers.values():
            if isinstance(layer, Population) and layer.decay_parameter is not None:
                layer.decay_parameter += torch.randn_like(layer.decay_parameter)
    return fold(network.eval(), coding="graded", bound=4.0)


@pytest.mark.push(2)
@pytest.mark.parametrize(
    "neuron",
    [
        {},
        {"decay_form": "shift"},
        {"decay_form": "shift", "learn_decay": True},
        {"learn_decay": True},
        {"multi_spike": 1, "reset": "zero"},
        {"synapse_decay": None},
        {"synapse_decay": None, "decay_form": "shift", "learn_decay": True},
    ],
)
def test_graph_and_onnx_have_every_spike_of_the_network(neuron: dict[str, object], tmp_path: Path) -> None:
    made = folded(**neuron)
    write_nir(made.graph, tmp_path / "net.nir")
    graph = stl.read(tmp_path / "net.nir")
    y, spikes = made.network.record(torch.from_numpy(X))
    found = graph.simulate(X)
    for name in ("lif1", "rlif1"):
        assert spikes[name].max() > 1 or neuron.get("multi_spike") == 1
        np.testing.assert_array_equal(found.spikes[name], spikes[name].numpy(), err_msg=name)
    np.testing.assert_array_equal(found.y, y.numpy())
    graph.export(tmp_path / "net.onnx", x=X)


def test_layers_may_differ_in_how_many_spikes_they_fire(tmp_path: Path) -> None:
    config = config_of(
        {
            "dataset": {"name": "digits", "T": 12},
            "network": [*LAYERS[:2], {"kind": "linear", "features": 3}, {"kind": "lif", "multi_spike": 1}, VOTE],
            "neuron": {
                "reset": "subtract",
                "synapse_decay": 0.5,
                "multi_spike": 31,
                "decay_form": "shift",
                "threshold": 0.5,
            },
        }
    )
    torch.manual_seed(0)
    write_nir(fold(Network(config, (4,), 3).eval(), coding="graded", bound=4.0).graph, tmp_path / "net.nir")
    graph = stl.read(tmp_path / "net.nir")
    lif1, lif2 = graph.program.spiking
    assert (lif1.multi_spike, lif1.cap, lif2.multi_spike) == (True, 31, False)
    exported = graph.export(tmp_path / "chip", to="xylo", x=X)
    assert exported["device"] == "audio2"


VOTE = {"kind": "vote", "population": 1}


def test_shifts_are_read_back_as_they_are(tmp_path: Path) -> None:
    made = folded(decay_form="shift", learn_decay=True)
    write_nir(made.graph, tmp_path / "net.nir")
    program = stl.read(tmp_path / "net.nir").program
    shifts = (1 - 2.0 ** -np.arange(16)).astype(np.float32)
    for node in program.spiking:
        assert node.synapse is not None
        assert node.decay is not None
        assert np.isin(node.decay, shifts).all()
        assert np.isin(node.synapse.decay, shifts).all()
        assert np.unique(node.decay).size > 1
        np.testing.assert_array_equal(node.decay, made.program.by_name[node.name].decay)


def test_what_holds_no_such_neurons_says_so(tmp_path: Path) -> None:
    write_nir(folded().graph, tmp_path / "net.nir")
    graph = stl.read(tmp_path / "net.nir")
    with pytest.raises(UnsupportedError):
        graph.export(tmp_path / "net.net", x=X)


@pytest.mark.parametrize(
    "backend",
    ["xylo", pytest.param("xylosim", marks=pytest.mark.skipif(XYLOSIM.reason() is not None, reason="no xylosim"))],
)
def test_on_xylo(backend: str, tmp_path: Path) -> None:
    write_nir(folded(decay_form="shift").graph, tmp_path / "net.nir")
    graph = stl.read(tmp_path / "net.nir")
    expected = run(graph.program, X, record=["rlif1"]).recorded["rlif1"]
    found = graph.simulate(X, backend=backend)
    assert (found.spikes["rlif1"] == expected).mean() > 0.9
    assert expected.any()
