"""A network of ours as a Program, folded by passes, is the graph of the fold it replaced, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn

from stl_deploy.config.load import config_of
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import InputError
from stl_deploy.nn.network import Network
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.passes import OWN, apply
from stl_deploy.pipeline.fold_network import fold
from tests.oracles.fold import network as old
from tests.pipeline.small_networks import NETWORKS

_CONV = {"kind": "conv", "channels": 6, "padding": 1}
SHAPES: dict[str, list[dict[str, Any]]] = {
    **{name: layers for name, (layers, _) in NETWORKS.items()},
    "norms": [
        _CONV,
        {"kind": "norm"},
        {"kind": "lif", "granularity": "channel"},
        {"kind": "pool"},
        _CONV | {"channels": 8, "bias": True},
        {"kind": "norm"},
        {"kind": "lif", "granularity": "channel"},
        {"kind": "pool", "op": "avg"},
        {"kind": "flatten"},
        {"kind": "linear", "features": 30},
        {"kind": "norm"},
        {"kind": "lif"},
        {"kind": "dropout"},
        {"kind": "linear", "features": 30, "bias": True},
        {"kind": "lif"},
        {"kind": "vote", "population": 3},
    ],
    "sums": [
        _CONV | {"channels": 4},
        {"kind": "lif", "decay": 1.0, "granularity": "channel"},
        {"kind": "pool", "op": "sum"},
        {"kind": "flatten"},
        {"kind": "linear", "features": 40},
        {"kind": "norm"},
        {"kind": "lif", "decay": 0.0},
        {"kind": "vote", "population": 4},
    ],
}


def network(key: str, neuron: dict[str, Any], seed: int) -> Network:
    """As if trained: statistics, thresholds, decays and weights moved from where they began."""
    torch.manual_seed(seed)
    neuron = neuron | {"learn_decay": False} if key == "sums" else neuron  # which has decays of 0 and 1
    config = config_of({"dataset": {"name": "digits", "T": 4}, "network": SHAPES[key], "neuron": neuron})
    net = Network(config, (1, 8, 8), 10).train()
    x = (torch.rand(3, 4, 1, 8, 8) < 0.4).float()
    with torch.no_grad():
        for _ in range(2):
            net(x, every_layer=True)
        for name, parameter in net.named_parameters():
            if "threshold" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape))
            elif name.endswith("bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape))
            elif parameter.dim() == 1:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape))
    return net.eval()


cases = st.fixed_dictionaries(
    {
        "key": st.sampled_from(list(SHAPES)),
        "neuron": st.fixed_dictionaries(
            {
                "reset": st.sampled_from(["zero", "subtract"]),
                "learn_decay": st.booleans(),
                "decay": st.floats(0.05, 0.95),
            }
        ),
        "seed": st.integers(0, 1000),
    }
)
options = st.fixed_dictionaries(
    {
        "thresholds": st.sampled_from(["keep", "weights"]),
        "exact_grid": st.booleans(),
        "fraction_bits": st.sampled_from([0, 4, 8]),
    }
)


@settings(max_examples=20, deadline=None)
@given(cases, options)
def test_the_graph_is_that_of_the_old_fold(case: dict[str, Any], how: dict[str, Any]) -> None:
    net = network(**case)
    try:
        expected = old.fold(net, coding="analog", **how)
    except InputError as error:
        event("refused")
        with pytest.raises(InputError, match=str(error).split("'")[1]):
            fold(net, coding="analog", **how)
        return
    found = fold(net, coding="analog", **how)
    assert [vars(grid) for grid in found.grids] == [vars(grid) for grid in expected.grids]
    assert list(found.graph.nodes) == list(expected.graph.nodes)
    assert [tuple(edge) for edge in found.graph.edges] == expected.graph.edges
    assert found.graph.metadata == expected.graph.metadata
    for name, node in expected.graph.nodes.items():
        assert type(found.graph.nodes[name]) is type(node)
        for field, value in vars(node).items():
            made = getattr(found.graph.nodes[name], field)
            if isinstance(value, np.ndarray):
                assert (made.dtype, made.shape, made.tobytes()) == (value.dtype, value.shape, value.tobytes()), name
            else:
                assert str(made) == str(value), (name, field)
    x = torch.from_numpy(np.round(np.random.default_rng(0).random((4, 3, 1, 8, 8)) * 2).astype(np.float32) / 2)
    with torch.no_grad():
        (y, spikes), (z, others) = found.network.record(x), expected.network.record(x, every_layer=True)
    if how["exact_grid"] and case["key"] != "avg3" and how["fraction_bits"]:
        torch.testing.assert_close(y, z, rtol=1e-6, atol=1e-6)
        for name, values in spikes.items():
            torch.testing.assert_close(values, others[name], rtol=0, atol=0)


@pytest.mark.parametrize("key", SHAPES)
def test_torch_equals_the_program_and_gives_it_back(key: str) -> None:
    folded = fold(network(key, {}, 1), coding="analog", fraction_bits=4)
    module = ProgramModule(folded.program)
    for node, same in zip(folded.program.nodes, module.program().nodes, strict=True):
        for field, value in vars(node).items():
            np.testing.assert_array_equal(getattr(same, field), value, err_msg=f"{node.name} {field}")


@pytest.mark.parametrize("one", OWN, ids=lambda one: one.name)
def test_a_pass_that_is_wrong_is_caught_by_name(one: Any) -> None:
    from tests.passes.test_checked import caught

    net = network("rlif" if one.name == "representable_decays" else "norms", {"decay": 0.37}, 2)
    program = net.program(coding="analog", fraction_bits=4)
    caught(one, program, OWN, FoldOptions(thresholds="weights", exact_grid=one.name != "narrow"))
    apply(program, OWN, FoldOptions(thresholds="weights"))


def test_a_norm_that_is_not_behind_weights_is_refused() -> None:
    net = network("norms", {}, 0)
    net.layers["pool1"] = nn.BatchNorm2d(6)
    with pytest.raises(InputError, match="layer 'pool1': a norm folds into the conv or linear right before it"):
        net.program(coding="spikes")
