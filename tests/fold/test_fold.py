"""Folding keeps every spike: against the trained network before, and between torch and the graph after."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from stl_deploy.config.load import apply_overrides, config_of
from stl_deploy.errors import InputError, ParityError
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import METADATA_KEY, lower
from stl_deploy.graph.exact import prove_exact, round_to_grid
from stl_deploy.graph.program import (
    DT,
    Conv,
    Input,
    Linear,
    Neuron,
    Norm,
    Operand,
    Output,
    Program,
    is_spike_max_pool,
)
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LIF
from stl_deploy.passes import fold_norms
from stl_deploy.pipeline.fold_network import Folded, fold

CONV_NET = """
dataset: {name: digits, T: 5}
network:
  - {kind: conv, channels: 6, kernel: 3, padding: 1}
  - {kind: norm}
  - {kind: lif}
  - {kind: pool, op: max}
  - {kind: conv, channels: 8, kernel: 3, stride: 1, padding: 0, bias: true}
  - {kind: norm}
  - {kind: dropout, p: 0.5}
  - {kind: lif}
  - {kind: flatten}
  - {kind: linear, features: 20}
  - {kind: norm}
  - {kind: lif}
  - {kind: vote, population: 2}
"""


def _network(*overrides: str, seed: int = 0) -> Network:
    """A network whose norms have statistics, and whose thresholds and decays are as if trained."""
    config = apply_overrides(config_of(yaml.safe_load(CONV_NET)), list(overrides))
    torch.manual_seed(seed)
    network = Network(config, (1, 8, 8), 10)
    network.train()
    for _ in range(3):
        network(torch.rand(5, 16, 1, 8, 8))
    with torch.no_grad():
        for layer in network.layers.values():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.weight.uniform_(0.5, 2.0)
                layer.bias.normal_(0.5, 0.5)
        for _, lif in network.lifs:
            lif.threshold_parameter.add_(0.3 * torch.randn_like(lif.threshold_parameter))
    return network.eval()


def _input(batch: int = 24) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(1)
    return np.repeat(round_to_grid(rng.random((1, batch, 1, 8, 8)), 4), 5, axis=0)


def _program(folded: Folded, path: Path) -> Program:
    write_nir(folded.graph, path)
    return lower(read_nir(path))


class Doubling(Network):
    """Its layers say one thing, its forward does another."""

    def forward(self, x: torch.Tensor, *observe: Any, **options: Any) -> torch.Tensor:
        return super().forward(2 * x, *observe, **options)


class Scoring(Network):
    def forward(self, x: torch.Tensor, *observe: Any, **options: Any) -> torch.Tensor:
        return super().forward(x, *observe, **options) + 1


def test_a_program_does_not_follow_its_network() -> None:
    """Its numbers are copies, also those that it keeps in the type of training."""
    network = _network()
    program = network.program(coding="analog", fraction_bits=4)
    before = {node.name: node.weight.copy() for node in program.of(Conv | Linear)}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert before
    for name, weight in before.items():
        np.testing.assert_array_equal(program.by_name[name].weight, weight)  # type: ignore[attr-defined]


def test_a_network_ready_to_run_is_folded_without_a_copy_and_left_as_it_was() -> None:
    network = _network().eval()
    held = {name: value.clone() for name, value in network.state_dict().items()}
    as_it_is = fold(network, coding="analog", fraction_bits=4)
    copied = fold(network.double().train(), coding="analog", fraction_bits=4)
    assert network.training
    for name, value in network.float().state_dict().items():
        torch.testing.assert_close(value, held[name], rtol=0, atol=0)
    for a, b in zip(as_it_is.program.of(Conv | Linear), copied.program.of(Conv | Linear), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)


@pytest.mark.parametrize("exact_grid", [True, False])
def test_a_forward_that_is_not_what_the_layers_say_is_refused(exact_grid: bool) -> None:
    network = _network()
    network.__class__ = Doubling
    with pytest.raises(ParityError, match=r"forward: [\d,]+ of [\d,]+ spikes differ from what its layers compute"):
        fold(network, coding="analog", fraction_bits=4, exact_grid=exact_grid)
    network.__class__ = Network
    fold(network, coding="analog", fraction_bits=4, exact_grid=exact_grid)


def test_folding_waits_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network()
    monkeypatch.setattr("stl_deploy.nn.fused.works", lambda *_: pytest.fail("the compiled path was asked for"))
    fold(network, coding="analog", fraction_bits=4)


def test_folding_leaves_the_network_as_it_was() -> None:
    """Its numbers are rounded in place, in copies: also those of a layer without a norm, and of doubles."""
    config = yaml.safe_load(CONV_NET)
    del config["network"][-3]
    network = Network(config_of(config), (1, 8, 8), 10).eval()
    before = {name: value.clone() for name, value in network.double().state_dict().items()}
    folded = fold(network, coding="analog", fraction_bits=4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    weight = folded.graph.nodes["conv1"].weight
    assert not np.shares_memory(weight, folded.network.layers["conv1"].weight.detach().numpy())


def test_a_forward_that_changes_the_scores_is_refused() -> None:
    network = _network()
    network.__class__ = Scoring
    with pytest.raises(ParityError, match="forward: outputs differ from what its layers compute, first in 'output'"):
        fold(network, coding="analog", fraction_bits=4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("neuron.learn_decay=true", "neuron.decay=0.7"),
        ("neuron.conv_granularity=neuron",),
        ("neuron.reset=subtract", "neuron.learn_decay=true", "neuron.decay=0.7", "neuron.conv_granularity=neuron"),
        ("neuron.reset=subtract", "neuron.decay=1.0"),
    ],
)
def test_torch_and_graph_agree_on_every_spike(tmp_path: Path, seed: int, overrides: tuple[str, ...]) -> None:
    folded = fold(_network(*overrides, seed=seed), coding="analog", fraction_bits=4)
    program = _program(folded, tmp_path / "net.nir")
    assert all(proof.exact for proof in prove_exact(program))
    x = _input()
    _, spikes = folded.network.record(torch.from_numpy(x))
    result = run(program, x, record=[node.name for node in program.spiking])
    assert set(spikes) == set(result.recorded) == {"lif1", "pool1", "lif2", "lif3"}
    for name, expected in spikes.items():
        assert 0 < expected.mean() < 1
        np.testing.assert_array_equal(result.recorded[name], expected.numpy(), err_msg=name)


def test_folding_changes_the_trained_network_by_rounding_only() -> None:
    network = _network()
    x = torch.from_numpy(_input(64))
    with torch.no_grad():
        _, before = network.record(x)
        _, after = fold(network, coding="analog", fraction_bits=4).network.record(x)
    for name in before:
        assert (before[name] != after[name]).float().mean() < 2e-3, name


def _norm_behind(conv: Conv, norm: Norm) -> Conv:
    end = Output(name="output", shape=conv.shape, operands=(Operand(norm.name),))
    entry = Input(name="input", shape=conv.input_shape, operands=())
    (found,) = fold_norms.PASS.run(Program((entry, conv, norm, end), DT)).program.of(Conv)
    return found


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_norm_is_exact_at_the_borders(padding: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=padding, dtype=torch.float64)
    norm = nn.BatchNorm2d(3, dtype=torch.float64).eval()
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            assert tensor is not None
            tensor.uniform_(0.5, 2)
        x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
        expected = norm(conv(x))
        mean, var, scale, shift = (t.numpy() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))  # type: ignore[union-attr]
        assert conv.bias is not None
        shape = tuple(expected.shape[1:])
        node = Conv(
            name="conv",
            shape=shape,
            operands=(Operand("input"),),
            weight=conv.weight.numpy(),
            bias=conv.bias.numpy(),
            stride=(1, 1),
            padding=((padding, padding),) * 2,
            dilation=(1, 1),
            groups=1,
            input_shape=(2, 6, 5),
        )
        folded = _norm_behind(
            node,
            Norm(
                name="norm",
                shape=shape,
                operands=(Operand("conv"),),
                mean=mean,
                scale=scale / np.sqrt(var + norm.eps),
                shift=shift,
            ),
        )
        got = nn.functional.conv2d(x, torch.tensor(folded.weight), torch.tensor(folded.bias), padding=padding)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_every_threshold_stays_in_the_graph_one_float_below(tmp_path: Path) -> None:
    network = _network()
    program = _program(fold(network, coding="analog", fraction_bits=4), tmp_path / "net.nir")
    lif3 = program.by_name["lif3"]
    assert isinstance(lif3, Neuron)
    assert lif3.threshold is not None
    trained = network.thresholds()["lif3"].numpy()
    assert trained.shape == (20,)
    np.testing.assert_array_equal(np.nextafter(lif3.threshold, np.float32(np.inf)), trained)


def test_under_a_soft_reset_the_graph_holds_the_thresholds_themselves_and_says_so(tmp_path: Path) -> None:
    """What is subtracted is what is stored; the float just below θ would leave a bit of it."""
    network = _network("neuron.reset=subtract")
    folded = fold(network, coding="analog", fraction_bits=4)
    dialect = folded.graph.metadata[METADATA_KEY]["dialect"]
    assert (dialect["reset"], dialect["compare"]) == ("subtract", "ge")
    program = _program(folded, tmp_path / "net.nir")
    assert all(is_spike_max_pool(program, node) == (node.name == "pool1") for node in program.spiking)
    for name, theta in network.thresholds().items():
        node = program.by_name[name]
        assert isinstance(node, Neuron)
        assert node.threshold is not None
        assert (node.reset, node.compare) == ("subtract", "ge")
        np.testing.assert_array_equal(np.broadcast_to(node.threshold, node.shape), theta.expand(node.shape).numpy())
    x = torch.from_numpy(_input())
    spikes = folded.network.record(x)[1]["lif1"]
    network.layers["lif1"] = LIF((6, 8, 8), threshold=network.thresholds()["lif1"], granularity="channel")
    with pytest.raises(InputError, match=r"'lif3' resets by subtraction and layer 'lif1' to 0, .* the same reset"):
        fold(network, coding="analog", fraction_bits=4)
    for _, lif in network.lifs:
        lif.soft_reset = False
    assert not torch.equal(fold(network, coding="analog", fraction_bits=4).network.record(x)[1]["lif1"], spikes)


@pytest.mark.parametrize("thresholds", ["keep", "weights"])
def test_a_recurrent_population_with_a_soft_reset(thresholds: Any, tmp_path: Path) -> None:
    config = yaml.safe_load(CONV_NET)
    dense = [{"kind": "flatten"}, {"kind": "linear", "features": 24}, {"kind": "norm"}, {"kind": "rlif"}]
    config["network"] = dense + config["network"][-4:]
    config["neuron"] = {"reset": "subtract", "decay": 0.75, "threshold": 0.5}
    torch.manual_seed(0)
    network = Network(config_of(config), (1, 8, 8), 10).eval()
    folded = fold(network, coding="analog", fraction_bits=4, thresholds=thresholds)
    program = _program(folded, tmp_path / "net.nir")
    assert all(proof.exact for proof in prove_exact(program))
    x = _input()
    outputs, spikes = folded.network.record(torch.from_numpy(x))
    result = run(program, x, record=["rlif1", "lif1"])
    for name in ("rlif1", "lif1"):
        assert 0.01 < spikes[name].mean() < 0.9
        np.testing.assert_array_equal(result.recorded[name], spikes[name].numpy(), err_msg=name)
    np.testing.assert_array_equal(result.y, outputs.numpy())


def test_thresholds_into_the_weights(tmp_path: Path) -> None:
    network = _network()
    kept = _program(fold(network, coding="analog", fraction_bits=4, exact_grid=False), tmp_path / "kept.nir")
    program = _program(
        fold(network, coding="analog", fraction_bits=4, exact_grid=False, thresholds="weights"), tmp_path / "w.nir"
    )
    for node in program.of(Neuron):
        if node.decay is not None:
            assert node.threshold is not None
            assert node.threshold == np.nextafter(np.float32(1), np.float32(0))
    thetas = network.thresholds()
    for name, theta in (("conv1", thetas["lif1"]), ("linear1", thetas["lif3"])):
        before, after = kept.by_name[name], program.by_name[name]
        assert isinstance(before, Conv | Linear)
        assert isinstance(after, Conv | Linear)
        np.testing.assert_allclose(
            after.weight.reshape(len(after.weight), -1) * theta.numpy().reshape(-1, 1),
            before.weight.reshape(len(before.weight), -1),
            rtol=1e-6,
        )
    x = _input(64)
    names = [node.name for node in program.spiking]
    one, other = run(kept, x, record=names), run(program, x, record=names)
    for name in names:
        assert (one.recorded[name] != other.recorded[name]).mean() < 2e-3, name


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_powers_of_two_thresholds_are_absorbed_without_moving_a_spike(tmp_path: Path, reset: str) -> None:
    network = _network(f"neuron.reset={reset}")
    with torch.no_grad():
        for _, lif in network.lifs:
            steps = torch.randint(-2, 3, lif.threshold_parameter.shape)
            lif.threshold_init.fill_(1.0)
            lif.threshold_parameter.zero_()
            lif.threshold_init.copy_(2.0**steps)
    x = _input(64)
    runs = []
    for thresholds in ("keep", "weights"):
        folded = fold(network, coding="analog", fraction_bits=4, exact_grid=False, thresholds=thresholds)  # type: ignore[arg-type]
        program = _program(folded, tmp_path / f"{thresholds}.nir")
        runs.append(run(program, x, record=[node.name for node in program.spiking]))
    for name in runs[0].recorded:
        np.testing.assert_array_equal(runs[0].recorded[name], runs[1].recorded[name])


def test_thresholds_per_pixel_cannot_go_into_a_kernel() -> None:
    folded = fold(_network("neuron.conv_granularity=neuron"), coding="analog", thresholds="weights")
    assert folded.kept["lif1"] == (
        "its thresholds cannot go into weights: 384 thresholds, one per pixel, behind the convolution "
        "'conv1' whose 6 kernels all pixels share; train with thresholds per channel "
        "(neuron.conv_granularity=channel in a configuration), or keep these for a target with one per neuron"
    )
    thresholds = {node.name: np.unique(node.threshold).size for node in folded.program.spiking}
    assert {name for name, distinct in thresholds.items() if distinct > 1} == set(folded.kept)
    assert len(folded.kept) < len(thresholds)


def test_thresholds_not_above_zero_are_refused_by_name() -> None:
    network = _network("neuron.parametrisation=raw")
    lif3 = dict(network.lifs)["lif3"]
    with torch.no_grad():
        lif3.threshold_parameter[4] = -0.25
        lif3.threshold_parameter[7] = 0
    with pytest.raises(InputError, match=r"layer 'lif3': thresholds <= 0 at \[4\], \[7\] \(the first is -0.25\)"):
        fold(network, coding="analog")


def test_a_negative_variance_is_refused_by_name() -> None:
    network = _network()
    norm = network.layers["norm1"]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var[0] = -1
    with pytest.raises(InputError, match="layer 'norm1' has a negative variance, which no training gives"):
        fold(network, coding="analog")


def _without_statistics(network: Network) -> None:
    norm = network.layers["norm1"]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = norm.running_var = None


def _with_tanh(network: Network) -> None:
    network.layers["pool1"] = nn.Tanh()


def _with_a_norm_behind_spikes(network: Network) -> None:
    network.layers["pool1"] = nn.BatchNorm2d(6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_statistics, "layer 'norm1': a norm without running statistics cannot be folded; train with them"),
        (_with_tanh, "layer 'pool1': a Tanh has no form in NIR"),
        (_with_a_norm_behind_spikes, "layer 'pool1': a norm folds into the conv or linear right before it; there is"),
    ],
)
def test_layers_put_in_by_hand_that_cannot_be_folded_are_refused(
    change: Callable[[Network], None], reason: str
) -> None:
    network = _network()
    change(network)
    with pytest.raises(InputError, match=reason):
        fold(network, coding="analog", fraction_bits=4)


@pytest.mark.parametrize("first", [["conv", "pool", "lif"], ["lif"]])
def test_thresholds_without_weights_right_before_them_have_nowhere_to_go(first: list[str]) -> None:
    config = yaml.safe_load(CONV_NET)
    made = {"conv": config["network"][0], "pool": {"kind": "pool", "op": "avg"}, "lif": {"kind": "lif"}}
    config["network"][:3] = [made[kind] for kind in first]
    del config["network"][len(first)]
    config["neuron"] = {"threshold": 0.75}
    network = Network(config_of(config), (1, 8, 8), 10).eval()
    fold(network, coding="analog", fraction_bits=4)
    folded = fold(network, coding="analog", fraction_bits=4, thresholds="weights")
    assert list(folded.kept) == ["lif1"]
    assert re.search("'(pool1|input)' .* without weights that could take them", folded.kept["lif1"])


def test_an_ann_is_not_folded() -> None:
    with pytest.raises(InputError, match="an ANN has no spikes to deploy; train with mode stl, sl or tl"):
        fold(_network("train.mode=ann"), coding="analog")


def test_weights_that_are_not_finite_are_refused() -> None:
    network = _network()
    conv = network.layers["conv2"]
    assert isinstance(conv, nn.Conv2d)
    with torch.no_grad():
        conv.weight[1, 2, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer 'conv2': weights are not finite after folding"):
        fold(network, coding="analog")


def test_no_leak_becomes_an_if_neuron(tmp_path: Path) -> None:
    folded = fold(_network("neuron.decay=1.0"), coding="analog", fraction_bits=4)
    assert isinstance(folded.graph.nodes["lif1"], nir.IF)
    program = _program(folded, tmp_path / "net.nir")
    lif1 = program.by_name["lif1"]
    assert isinstance(lif1, Neuron)
    assert lif1.decay == 1
    assert lif1.gain is None
    x = _input()
    _, spikes = folded.network.record(torch.from_numpy(x))
    np.testing.assert_array_equal(run(program, x, record=["lif3"]).recorded["lif3"], spikes["lif3"].numpy())
