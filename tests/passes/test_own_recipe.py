"""A network of ours as a Program: folded by passes, run by torch, each pass checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from torch import nn

from stl_deploy.config.load import config_of
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.passes import OWN, apply
from stl_deploy.pipeline.fold_network import fold
from tests.drawn import examples
from tests.pipeline.small_networks import NETWORKS


def network(key: str, neuron: dict[str, Any], seed: int) -> Network:
    """As if trained: statistics, thresholds, decays and weights moved from where they began."""
    torch.manual_seed(seed)
    layers, own = NETWORKS[key]
    config = config_of({"dataset": {"name": "digits", "T": 4}, "network": layers, "neuron": own | neuron})
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
        "key": st.sampled_from(list(NETWORKS)),
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


@examples(12)
@given(cases, options)
def test_a_folded_network_is_written_as_it_is_and_torch_spikes_as_it(case: dict[str, Any], how: dict[str, Any]) -> None:
    try:
        folded = fold(network(**case), coding="analog", **how)
    except InputError:
        event("refused")
        return
    again = lower(folded.graph)
    assert again.digest() == folded.program.digest()
    x = np.round(np.random.default_rng(0).random((4, 3, 1, 8, 8)) * 2).astype(np.float32) / 2
    with torch.no_grad():
        _, spikes = folded.network.record(torch.from_numpy(x))
    ran = run(again, x, record=list(spikes))
    event("spikes" if any(values.any() for values in spikes.values()) else "silent")
    if how["exact_grid"] and how["fraction_bits"] and case["key"] != "avg3":  # a ninth is on no grid
        for name, values in spikes.items():
            np.testing.assert_array_equal(values.numpy(), ran.recorded[name], err_msg=name)


@pytest.mark.parametrize("key", NETWORKS)
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
