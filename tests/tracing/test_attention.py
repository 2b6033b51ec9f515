"""Spiking self-attention as its authors write it: Spikformer, QKFormer, Spike-driven Transformer V1 and V2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.graph.program import Gather, Linear, Product
from tests.tracing.held import require_held_or_refused


class Spikes(nn.Module):
    """Leaky neurons over ``[T, ...]``, reset to 0."""

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        found, v = [], torch.zeros_like(x[0])
        for current in x:
            v = v + (current - v) / 2
            s = (v >= self.threshold).float()
            v = v * (1 - s)
            found.append(s)
        return torch.stack(found)


class Projection(nn.Module):
    """Weights and norm of images or tokens ``[T, B, C, ...]``, then spikes."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm, self.neurons = layer, norm, Spikes()

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neurons(self.norm(self.layer(x.flatten(0, 1))).unflatten(0, x.shape[:2]))
        return spikes


class Spikformer(nn.Module):
    """``[T, B, N, C]`` tokens: (Q·Kᵀ)·V·0.125, linear layers whose norms are over transposed tokens."""

    heads = 2

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(channels, channels) for _ in range(4))
        self.norm = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(4))
        self.neurons, self.attended = Spikes(), Spikes(0.25)

    def project(self, x: Tensor, at: int) -> Tensor:
        currents = self.norm[at](self.linear[at](x.flatten(0, 1)).transpose(-1, -2)).transpose(-1, -2)
        spikes: Tensor = self.neurons(currents.reshape(x.shape).contiguous())
        return spikes

    def split(self, x: Tensor) -> Tensor:
        steps, batch, tokens, channels = x.shape
        return x.reshape(steps, batch, tokens, self.heads, channels // self.heads).permute(0, 1, 3, 2, 4).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(self.project(x, at)) for at in range(3))
        attention = (q @ k.transpose(-2, -1)) * 0.125
        mixed = self.attended((attention @ v).transpose(2, 3).reshape(x.shape).contiguous())
        return x + self.project(mixed, 3)


class QKFormer(nn.Module):
    """``[T, B, C, N]``: the spikes of each token's query, added up, let its keys through."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.q, self.k, self.out = (
            Projection(nn.Conv1d(channels, channels, 1, bias=False), nn.BatchNorm1d(channels)) for _ in range(3)
        )
        self.gates = Spikes(0.5)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, channels, tokens = x.shape
        q, k = (each(x).unsqueeze(2).reshape(steps, batch, 2, channels // 2, tokens) for each in (self.q, self.k))
        out: Tensor = self.out(torch.mul(self.gates(torch.sum(q, dim=3, keepdim=True)), k).flatten(2, 3))
        return out


class SpikeDriven(nn.Module):
    """``[T, B, C, H, W]`` with a shortcut of potentials: Q ∧ spikes of Σ(K ∧ V)."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            Projection(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)) for _ in range(3)
        )
        self.enter, self.heads = Spikes(), Spikes(0.5)
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.enter(x)
        q, k, v = (self.split(projection(spikes)) for projection in self.projections)
        mixed = self.mixed(q, k, v).transpose(3, 4).reshape(x.shape).contiguous()
        return self.out(mixed.flatten(0, 1)).unflatten(0, x.shape[:2]) + x

    def split(self, x: Tensor) -> Tensor:
        steps, batch, channels = x.shape[:3]
        tokens = x.flatten(3).transpose(-1, -2)
        return tokens.reshape(steps, batch, -1, 2, channels // 2).permute(0, 1, 3, 2, 4).contiguous()

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q.mul(self.heads(k.mul(v).sum(dim=-2, keepdim=True)))


class SpikeDrivenV2(SpikeDriven):
    """Q·(Kᵀ·V)·0.25, then spikes."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        spikes: Tensor = self.heads((q @ (k.transpose(-2, -1) @ v)) * 0.25)
        return spikes


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    Spikformer: (5, 8),
    QKFormer: (8, 5),
    SpikeDriven: (8, 2, 3),
    SpikeDrivenV2: (8, 2, 3),
}


def made(kind: type[nn.Module], steps: int = 4, samples: int = 3, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A module whose norms have seen data and drive its neurons, and input for it."""
    torch.manual_seed(0)
    model = kind()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(layer.weight, 2.0)
            nn.init.constant_(layer.bias, 1.0)
    generator = torch.Generator().manual_seed(seed)
    scale = 1.0 if kind in (Spikformer, QKFormer) else 2.0
    x = torch.rand((8, 6, *SHAPES[kind]), generator=torch.Generator().manual_seed(9)) * scale
    for _ in range(20):
        model(x)
    given = torch.rand((steps, samples, *SHAPES[kind]), generator=generator) * scale
    return model.eval(), (given > 0.6).float() if scale == 1 else given


@pytest.mark.push(1)
@pytest.mark.parametrize("kind", SHAPES)
def test_blocks_are_captured_run_and_exported(kind: type[nn.Module], tmp_path: Path) -> None:
    model, x = made(kind)
    net = stl.capture(model, x)
    _, unseen = made(kind, steps=6, samples=2, seed=5)
    for given in (x, unseen):
        run = net.simulate(given.numpy())
        expected = model(given).detach().numpy()
        np.testing.assert_allclose(run.y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
        assert all(0 < spikes.mean() < 1 for spikes in run.spikes.values())
    net.export(tmp_path / "net.onnx")
    net.export(tmp_path / "step.onnx", form="step")
    bill = net.energy(x).totals
    assert bill["synops_AC"] > 0
    if find_compiler() is not None:
        net.export(tmp_path / "c", to="c", input_grid=6)
        compared = net.verify(tmp_path / "c", unseen.numpy(), input_grid=6).require().as_dict()["runs"]
        own = [run for run in compared if run.get("against") == "loihi"]
        assert own
        assert all(run["differing"] == 0 for run in own)


def test_spikformer_is_two_products_that_every_target_holds_or_refuses_by_node(tmp_path: Path) -> None:
    model, x = made(Spikformer)
    net = stl.capture(model, x)
    program = net.program
    assert [product.operand_shapes for product in program.of(Product)] == [
        ((2, 5, 4), (2, 4, 5)),
        ((2, 5, 5), (2, 5, 4)),
    ]
    assert len(list(program.of(Linear))) == 4  # each with its norm in it
    # q, k and v are split into heads, and the mixed values put together: nothing is transposed for a norm
    assert len(list(program.of(Gather))) == 4
    layers = net.energy(x).as_dict()["layers"]
    assert {layers[product.name]["op"] for product in program.of(Product)} == {"AC"}
    require_held_or_refused(net, x, tmp_path, {"onnx", "program", "c", "c_floats"})


class Attention(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.q, self.k, self.neurons = form, nn.Linear(6, 6), nn.Linear(6, 6), Spikes(0.2)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.neurons(self.q(x)), self.neurons(self.k(x))
        scores = q @ k.transpose(-2, -1)
        if self.form == "norm":
            return self.neurons((scores / (scores.sum(-1, keepdim=True) + 1)) @ k)
        if self.form == "shapes":
            return self.neurons(q @ k)
        if self.form == "samples":
            return self.neurons(q.transpose(1, 2) @ k.transpose(1, 2).transpose(-2, -1))
        return self.neurons(scores @ k)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ("shapes", r"test_attention\.py:\d+: the model fails on an input .*Expected size for first two dimensions"),
        ("norm", r"test_attention\.py:\d+: expected division by a constant; found one signal divided by another"),
        ("samples", r"test_attention\.py:\d+: .*mixes time steps or samples"),
    ],
)
def test_other_attention_is_refused_by_its_line(form: str, sentence: str) -> None:
    x = (torch.rand(6, 3, 4, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    with pytest.raises(CaptureError, match=sentence):
        stl.capture(Attention(form), x)


class Transposed(nn.Module):
    """Linear layers without biases yet, of tokens behind a transposed image, and norms over channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.neurons = nn.Linear(8, 12), nn.BatchNorm1d(12), Spikes()
        nn.init.zeros_(self.linear.bias)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.bias)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.1, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.neurons(2 * x).flatten(0, 1).flatten(2).transpose(-1, -2)
        currents = self.norm(self.linear(tokens).transpose(-1, -2)).transpose(-1, -2)
        currents = currents.reshape(*x.shape[:2], -1, 12)
        return self.neurons(currents) + currents


def test_a_norm_of_transposed_tokens_rounds_as_it_lies_in_memory_and_is_in_its_layer() -> None:
    x = (torch.rand(5, 3, 8, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    net = stl.capture(Transposed(), x)
    assert net.proof is not None
    assert net.proof.replay_differing == 0
    assert not net.proof.matrices
    assert len(list(net.program.of(Linear))) == 1
