"""Several members as one graph: the same joint decision in torch, the graph and ONNX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stl_deploy.config.load import config_of
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.netx.chain import read_chain
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.write import to_own_graph
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.exact import prove_exact, round_to_grid
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.passes.join import merge
from stl_deploy.pipeline.fold_network import Folded, fold
from stl_deploy.verbs.joining import learn_weights
from tests.fold.test_residual import SEW

PLAIN = """
dataset: {name: digits, T: 4}
network:
  - {kind: flatten}
  - {kind: linear, features: 30}
  - {kind: lif}
  - {kind: vote, population: 3}
neuron: {threshold: 0.2}
"""


def _folded(text: str, seed: int, fraction_bits: int = 4, shape: tuple[int, ...] = (1, 8, 8)) -> Folded:
    torch.manual_seed(seed)
    network = Network(config_of(yaml.safe_load(text)), shape, 10).eval()
    return fold(network, coding="analog", fraction_bits=fraction_bits)


def _x() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.repeat(round_to_grid(np.random.default_rng(0).random((1, 20, 1, 8, 8)), 4), 4, axis=0)


@pytest.mark.parametrize("weights", [None, (3.0, 1.0, 0.7)])
def test_merged_members_decide_as_the_weighted_sum(tmp_path: Path, weights: tuple[float, ...] | None) -> None:
    members = [_folded(PLAIN, 0), _folded(PLAIN, 1), _folded(SEW, 2)]
    write_nir(to_own_graph(merge([member.program for member in members], weights)).graph, tmp_path / "net.nir")
    program = lower(read_nir(tmp_path / "net.nir"))
    assert all(proof.exact for proof in prove_exact(program))
    x, names = _x(), [node.name for node in program.spiking]
    reference = run(program, x, record=names)
    shares = np.array(weights or (1.0, 1.0, 1.0))
    shares /= shares.sum()
    expected = 0.0
    for number, (member, share) in enumerate(zip(members, shares, strict=True), start=1):
        outputs, spikes = member.network.record(torch.from_numpy(x))
        expected = expected + share * outputs.numpy()
        for name, spiked in spikes.items():
            if f"m{number}_{name}" in reference.recorded:
                np.testing.assert_array_equal(reference.recorded[f"m{number}_{name}"], spiked.numpy())
    assert reference.y.any()
    np.testing.assert_allclose(reference.y, expected, atol=3e-5)
    export_onnx(program, tmp_path / "net.onnx")
    onnx = OnnxModel.load(tmp_path / "net.onnx").run(x, record=names)
    np.testing.assert_array_equal(onnx.y, reference.y)
    assert all(np.array_equal(onnx.recorded[name], reference.recorded[name]) for name in names)
    assert program.metadata["joint"]["weights"] == pytest.approx(shares.tolist())
    with pytest.raises(UnsupportedError, match="netx, the format for Loihi, holds plain chains"):
        read_chain(program)


def test_learned_weights_lean_on_the_member_that_is_right() -> None:
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (200,), generator=draws)
    right = torch.nn.functional.one_hot(labels, 10).float()
    noise = torch.rand(200, 10, generator=draws)
    weights = learn_weights(torch.stack([noise, right]), labels)
    assert sum(weights) == pytest.approx(1)
    assert weights[1] > 0.95
    assert learn_weights(torch.stack([noise, right]), labels) == weights
    assert learn_weights(torch.stack([right, right]), labels) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, float("nan")), (1.0, -1.0)])
def test_weights_that_do_not_fit(weights: tuple[float, ...]) -> None:
    graph = _folded(PLAIN, 0).program
    with pytest.raises(InputError, match="expected one finite weight above 0 for each of 2 members; found "):
        merge([graph, graph], weights)


def test_members_that_do_not_fit() -> None:
    graph = _folded(PLAIN, 0).program
    coarse = _folded(PLAIN, 0, fraction_bits=3).program
    with pytest.raises(InputError, match=r"member 2: expected input .* found {'fraction_bits': 3}$"):
        merge([graph, coarse])
    with pytest.raises(
        InputError, match=r"member 2: expected input \[1, 8, 8\] as the first member has; found \[1, 4, 4\]"
    ):
        merge([graph, _folded(PLAIN, 0, shape=(1, 4, 4)).program])
    voteless = _folded(PLAIN, 0).program
    voteless = replace(voteless, nodes=tuple(node for node in voteless.nodes if node.name != "vote"))
    with pytest.raises(InputError, match="member 2: expected a network that ends in a vote; found none"):
        merge([graph, voteless])
