"""netx's integer model is what was recorded of it, and what a file of a graph may not hold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.netx.convert import run_file, to_file, to_graph
from stl_deploy.exporters.netx.layers import DenseLayer, FlattenLayer, InputLayer, NetxFile
from stl_deploy.graph.program import Operand
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.net import IntegerNeuron, same
from tests.exporters.netx.model_digests import FILE, any_neuron, groups, int32
from tests.exporters.netx.nets import random_case, special_cases


def test_integers_ranges_and_spikes_are_those_that_were_recorded() -> None:
    assert groups() == json.loads(FILE.read_text(encoding="ascii"))


def test_a_file_comes_back_from_its_graph() -> None:
    """Where Lava sums the weights as they are written; elsewhere the graph holds those that Lava makes of them."""
    count = 0
    for net, _ in [random_case(seed) for seed in range(40)] + list(special_cases().values()):
        graph = to_graph(net)
        if any(not np.array_equal(graph.by_name[f"{key}.weights"].weight, layer.weight) for key, layer in net.spiking):  # type: ignore[attr-defined]
            continue
        for held, back in zip(net.layers, to_file(graph).layers, strict=True):
            if isinstance(back, InputLayer):
                assert back.shape == net.input_shape
            else:
                assert same(back if isinstance(back, FlattenLayer) else replace(back, node=None), held)
        count += 1
    assert count > 40


def test_weights_that_lava_has_changed_are_not_written_as_if_they_were_the_files() -> None:
    graph = to_graph(special_cases()["weight_rule"][0])
    with pytest.raises(UnsupportedError, match="its weights are as Lava stores them") as error:
        to_file(graph)
    assert error.value.node == "layer1.weights"


def test_a_graph_that_is_no_chain_has_no_file() -> None:
    graph = to_graph(random_case(1)[0])
    last = graph.populations[-1]
    looped = replace(last, operands=(*last.operands, Operand(last.name, 1)))
    nodes = tuple(looped if node is last else node for node in graph.nodes)
    with pytest.raises(UnsupportedError, match="does not read the node before it alone") as error:
        to_file(IntegerGraph(nodes, graph.accumulator))
    assert (error.value.node, error.value.slug) == (last.name, "skip-connection")


def test_input_wider_than_the_bias_of_input_neurons_is_refused() -> None:
    entry = InputLayer(shape=(2,), neuron=IntegerNeuron(v_decay=0, threshold=int32(5)), scale=64)
    net = NetxFile((entry, DenseLayer(weight=int32([[1, 2]]), neuron=any_neuron(np.random.default_rng(0), ()))))
    with pytest.raises(InputError, match="expected input from -4096 to 4095, the bias of the input layer's neurons"):
        run_file(net, np.full((1, 1, 2), 5000))
