"""Convolutions by tiles, against torch's, which sum every product."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stl_deploy.config.load import apply_overrides
from stl_deploy.config.schema import RunConfig
from stl_deploy.nn.fused import path, winograd_allowed
from stl_deploy.nn.fused.switch import works
from stl_deploy.nn.fused.winograd import convolution as winograd
from stl_deploy.nn.fused.winograd import tile_kernels as tiles
from stl_deploy.nn.fused.winograd.convolution import convolve, suits
from stl_deploy.nn.network import Network
from stl_deploy.training.loop import train

ROUNDING = 10
"""How many times as far from the exact result as plain float32 sums they may be."""


def both(conv, x):
    """Outputs, and gradients of the input, weights and bias, by tiles and by torch."""
    found = []
    for function in (lambda: convolve(x, conv), lambda: conv(x)):
        out = function()
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).cos().reshape(out.shape)
        found.append([out.detach(), *torch.autograd.grad(out, [x, *conv.parameters()], weights)])
    return zip(*found, strict=True)


@settings(max_examples=40)
@given(
    side=st.sampled_from([3, 5]),
    sides=st.tuples(st.integers(5, 11), st.integers(5, 11)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    channels=st.tuples(st.sampled_from([32, 64]), st.sampled_from([32, 64])),
    samples=st.integers(1, 19),
    bias=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_a_convolution(side, sides, padding, channels, samples, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, side, padding=padding, bias=bias).double()
    x = torch.randn(samples, channels[0], *sides, dtype=torch.double, requires_grad=True)
    for ours, theirs in both(conv, x):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("draw", [torch.randn, lambda *shape: (torch.rand(*shape) < 0.2).float()])
def test_float32_rounds_a_few_times_as_much_as_plain_sums(side, draw):
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 128, side, padding=side // 2, bias=False)
    x = draw(4, 128, 14, 14).requires_grad_()
    wide_conv = nn.Conv2d(128, 128, side, padding=side // 2, bias=False).double()
    wide_conv.load_state_dict(conv.state_dict())
    exact = [theirs for _, theirs in both(wide_conv, x.detach().double().requires_grad_())]
    for (ours, theirs), right in zip(both(conv, x), exact, strict=True):
        error, plain = ((one.double() - right).pow(2).mean().sqrt() for one in (ours, theirs))
        assert 0 < error < ROUNDING * plain


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    maps = torch.randn(2, 32, 3, 5, dtype=torch.double, requires_grad=True)
    weight = torch.randn(32, 32, 3, 3, dtype=torch.double, requires_grad=True)

    def convolved(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return convolve(x, SimpleNamespace(weight=kernels, padding=(1, 2), bias=None))  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(convolved, (maps, weight), fast_mode=True)


def test_the_number_of_threads_does_not_change_a_bit():
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(9, 64, 16, 16, requires_grad=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([ours for ours, _ in both(conv, x)][:3])
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        assert torch.equal(one, three)


@pytest.fixture
def _fast(monkeypatch):
    monkeypatch.setattr(tiles, "FAST", True)


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize(
    ("fits", "changed"),
    [
        (True, {}),
        (True, {"kernel_size": 5, "padding": 2}),
        (True, {"in_channels": 96}),
        (False, {"in_channels": 32}),
        (False, {"out_channels": 80}),
        (False, {"kernel_size": 7}),
        (False, {"kernel_size": (3, 5)}),
        (False, {"stride": 2}),
        (False, {"dilation": 2}),
        (False, {"groups": 2}),
        (False, {"padding": "same"}),
        (False, {"padding_mode": "reflect"}),
    ],
)
def test_what_suits(fits, changed):
    conv = nn.Conv2d(**{"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1} | changed)
    x = torch.zeros(1, conv.in_channels, 8, 8)
    assert suits(conv, x) is fits
    assert suits(conv, x[:, :, :6, :6]) is fits  # 4 tiles of 36 products, or 9, for 36 outputs of 9, or 25
    assert not suits(conv, x[:, :, :5, :5])  # as many tiles for 25
    assert not suits(conv, x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits(conv, x)


@pytest.mark.usefixtures("_fast")
def test_a_convolution_of_somebody_elses_is_left_to_it():
    class Masked(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 0

    assert suits(nn.Conv2d(64, 64, 3), torch.zeros(1, 64, 8, 8))
    assert not suits(Masked(64, 64, 3), torch.zeros(1, 64, 8, 8))


def test_nothing_suits_a_processor_where_it_was_not_measured(monkeypatch):
    conv, x = nn.Conv2d(64, 64, 3), torch.zeros(1, 64, 8, 8)
    monkeypatch.setattr(tiles, "FAST", False)
    assert not suits(conv, x)


@pytest.fixture
def seen(monkeypatch):
    """Names of the convolutions' ways, as they are taken."""
    works(torch.float32, "winograd_3")  # compiled before anything is counted
    taken = []

    def convolve_and_say(x, conv):
        taken.append("tiles")
        return convolve(x, conv)

    plain = nn.Conv2d.forward

    def forward(self, x):
        taken.append("plain")
        return plain(self, x)

    monkeypatch.setattr(tiles, "FAST", True)
    monkeypatch.setattr(winograd, "convolve", convolve_and_say)
    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    return taken


LAYERS = [
    {"kind": "conv", "channels": 64, "kernel": 3, "padding": 1},
    {"kind": "lif"},
    {"kind": "conv", "channels": 64, "kernel": 3, "padding": 1},
    {"kind": "lif"},
    {"kind": "flatten"},
    {"kind": "linear", "features": 10},
    {"kind": "lif"},
    {"kind": "vote", "population": 1},
]


@pytest.fixture
def deep(tiny):
    """A configuration with a convolution of 64 channels, 8 by 8."""
    return RunConfig.model_validate({**tiny.model_dump(), "network": LAYERS})


def test_a_network_takes_them_where_it_is_allowed_to(deep, seen):
    torch.manual_seed(0)
    network = Network(deep, (1, 8, 8), 10)
    x = (torch.rand(4, 5, 1, 8, 8) < 0.5).float()
    plain = network(x)
    assert seen == ["plain"]  # the input's convolution runs inside its block
    with winograd_allowed(True):
        votes = network(x)
        with winograd_allowed(False):
            assert torch.equal(network(x), plain)
    assert seen == ["plain", "tiles", "plain"]
    assert (votes != plain).float().mean() < 0.02  # a spike may fall differently
    assert torch.equal(network(x), plain)


@pytest.mark.parametrize("allowed", [True, False])
def test_training_takes_them_unless_told_otherwise_evaluation_never(deep, seen, tmp_path, allowed):
    train(apply_overrides(deep, ["train.epochs=1", f"train.winograd={str(allowed).lower()}"]), tmp_path)
    first_evaluation = seen.index("plain")
    assert bool(first_evaluation) is allowed
    assert set(seen[first_evaluation:]) == {"plain"}


@pytest.mark.parametrize("fast", [True, False])
def test_doctor_says_whether_training_takes_them(monkeypatch, fast):
    monkeypatch.setattr(tiles, "FAST", fast)
    assert ("Winograd" in path()) is fast
