"""Residual blocks: sums of spikes in torch, in the graph and in ONNX, and what cannot hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from stl_deploy.config.load import apply_overrides, config_of
from stl_deploy.errors import ConfigError, UnsupportedError
from stl_deploy.exporters.netx.chain import read_chain
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.exact import grids, prove_exact, round_to_grid
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold

SEW = """
dataset: {name: digits, T: 4}
network:
  - {kind: conv, channels: 6, padding: 1}
  - {kind: norm}
  - {kind: lif}
  - kind: residual
    layers:
      - {kind: conv, channels: 6, padding: 1}
      - {kind: norm}
      - {kind: lif}
      - {kind: conv, channels: 6, padding: 1}
      - {kind: dropout, p: 0.1}
      - {kind: lif}
  - kind: residual
    layers:
      - {kind: conv, channels: 8, padding: 1, stride: 2}
      - {kind: norm}
      - {kind: lif}
    shortcut:
      - {kind: conv, channels: 8, kernel: 1, stride: 2}
      - {kind: norm}
      - {kind: lif}
  - kind: residual
    layers:
      - {kind: conv, channels: 8, padding: 1}
      - {kind: lif}
  - {kind: pool, op: avg}
  - {kind: flatten}
  - {kind: linear, features: 20}
  - {kind: lif}
  - {kind: vote, population: 2}
"""


def _network(*overrides: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = Network(apply_overrides(config_of(yaml.safe_load(SEW)), overrides), (1, 8, 8), 10)
    with torch.no_grad():
        for layer in network.layers.values():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.weight.uniform_(1.0, 3.0)
                layer.bias.normal_(0.3, 0.5)
        for _ in range(2):
            network(torch.rand(4, 16, 1, 8, 8))
    return network.eval()


def _x() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    images = np.random.default_rng(0).random((1, 24, 1, 8, 8))
    return np.repeat(round_to_grid(images, 4), 4, axis=0)


def test_wiring_and_values() -> None:
    network = _network()
    assert network.sources["residual1"] == ("lif3", "lif1")
    assert network.sources["residual2"] == ("lif4", "lif5")
    assert network.sources["conv5"] == network.sources["conv4"] == ("residual1",)
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        network(torch.from_numpy(_x()), lambda name, y: seen.__setitem__(name, y))
    assert torch.equal(seen["residual1"], seen["lif1"] + seen["lif3"])
    assert torch.equal(seen["residual3"], seen["lif6"] + seen["lif4"] + seen["lif5"])
    assert set(seen["residual3"].unique().tolist()) <= {0, 1, 2, 3}
    assert seen["residual1"].max() == 2
    flat = network.layers["norm4"](network.layers["conv5"](seen["residual1"].flatten(0, 1)))
    assert torch.equal(seen["lif5"], network.layers["lif5"](flat.unflatten(0, (4, 24))))


@pytest.mark.parametrize("seed", range(3))
def test_torch_graph_and_onnx_agree_on_every_spike(tmp_path: Path, seed: int) -> None:
    folded = fold(_network(seed=seed), coding="analog", fraction_bits=4)
    write_nir(folded.graph, tmp_path / "net.nir")
    program = lower(read_nir(tmp_path / "net.nir"))
    assert all(proof.exact for proof in prove_exact(program))
    assert {source.node for source in program.by_name["conv6"].operands} == {"lif4", "lif5"}
    assert {source.node for source in program.by_name["pool1"].operands} == {"lif4", "lif5", "lif6"}
    pooled = grids(program)["pool1"]
    assert pooled is not None
    assert (pooled.fraction_bits, pooled.bound) == (2, 3.0)
    x, names = _x(), [node.name for node in program.spiking]
    outputs, spikes = folded.network.record(torch.from_numpy(x))
    reference = run(program, x, record=names)
    export_onnx(program, tmp_path / "net.onnx")
    onnx = OnnxModel.load(tmp_path / "net.onnx").run(x, record=names)
    assert set(names) == {f"lif{i}" for i in range(1, 8)}
    for name in names:
        assert 0 < spikes[name].mean() < 1, name
        np.testing.assert_array_equal(reference.recorded[name], spikes[name].numpy(), err_msg=name)
        np.testing.assert_array_equal(onnx.recorded[name], spikes[name].numpy(), err_msg=name)
    np.testing.assert_array_equal(reference.y, outputs.numpy())


def test_the_grid_of_a_layer_behind_a_sum_leaves_room_for_it() -> None:
    network = _network()
    grid = {g.node: g for g in fold(network, coding="analog", fraction_bits=4).grids}
    assert 22 < grid["conv6"].bits <= 24
    program = lower(fold(network, coding="analog", fraction_bits=4).graph)
    assert {p.node: p.bits for p in prove_exact(program)}["conv6"] == pytest.approx(grid["conv6"].bits)


def test_netx_refuses_the_skip_with_its_reason() -> None:
    program = lower(fold(_network(), coding="analog", fraction_bits=4).graph)
    with pytest.raises(UnsupportedError, match="netx, the format for Loihi, holds plain chains") as caught:
        read_chain(program)
    assert caught.value.slug == "skip-connection"


def test_gradients_reach_both_branches() -> None:
    network = _network().train()
    network(torch.rand(4, 8, 1, 8, 8)).sum().backward()
    for name in ("conv1", "conv3", "conv4", "conv5"):
        weight = network.layers[name].weight
        assert isinstance(weight, torch.Tensor)
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "network.3.layers.3.channels=5",
            "network.3 (residual): expected one shape of branch and shortcut; found 5x8x8 and 6x8x8",
        ),
        ("network.2={kind: dropout}", "network.3 (residual): what arrives is neither spikes nor sums of spikes"),
        ("network.3.layers.5={kind: dropout}", "network.3 (residual): a branch ends in dropout; spikes are added, so"),
        ("network.3.layers.3.kernel=40", "network.3.layers.3 (conv): kernel 40 with padding 1 does not fit"),
        ("network.3.layers.3={kind: norm}", "network.3.layers.3 (norm): a norm folds into the conv or linear right"),
        ("network.3.layers.0={kind: norm}", "network.3.layers.0 (norm): a norm folds into the conv or linear right"),
        ("network.6.op=max", "network.6 (pool): max pooling of values that are not spikes cannot be deployed"),
        (
            "network.3.layers.0.knl=1",
            "changes: key 'network.3.layers.0.knl': expected kind, channels",
        ),
        ("network.3.layers.0={kind: vote}", "changes: key 'network.3.layers.0.kind': expected conv, linear,"),
        ("network.3.layers=[]", "changes: key 'network.3.layers': expected a list of at least 1 layer; found []"),
    ],
)
def test_blocks_that_do_not_fit_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _network(override)
    assert str(caught.value).startswith(message)
