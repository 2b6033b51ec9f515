"""Norm, LIF and pool as one block, against the same layers one after the other under plain autograd."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stl_deploy import fused
from stl_deploy.config_io import apply_overrides
from stl_deploy.fused.block import Form, block, columns
from stl_deploy.fused.plan import stages
from stl_deploy.modules import StepNorm1d, StepNorm2d
from stl_deploy.network import Network
from stl_deploy.surrogate import SURROGATES, surrogate

T, B = 4, 19  # more samples than parts, so that sums over parts of different lengths count
MAP, VECTOR = (3, 7, 6), (11,)


def _spike(derivative):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, distance):
            ctx.save_for_backward(distance)
            return (distance >= 0).to(distance.dtype)

        @staticmethod
        def backward(ctx, grad):
            (distance,) = ctx.saved_tensors
            return grad * derivative(distance.clone())

    return Spike.apply


def _one_after_the_other(x, theta, decay, norm, form):
    """Plain loop over time, plain autograd."""
    spike = _spike(surrogate(form.surrogate))
    x = x.expand(form.steps, *x.shape[1:])
    if norm is not None:
        x = norm(x) if form.by_step else norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    rest, spikes = 0.0, []
    for current in x:
        u = rest * decay + current
        s = spike(u - theta)
        spikes.append(s)
        rest = (1 - (s.detach() if form.detach else s)) * u
    y = torch.stack(spikes)
    return functional.max_pool2d(y.flatten(0, 1), form.pool).unflatten(0, y.shape[:2]) if form.pool > 1 else y


def _norm(kind, shape):
    if kind is None:
        return None
    kinds = {"folded": (nn.BatchNorm1d, nn.BatchNorm2d), "by step": (StepNorm1d, StepNorm2d)}
    norm = kinds[kind][len(shape) == 3](shape[0]).double()
    torch.manual_seed(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    return norm


def _outcome(function, x, theta, norm, form):
    """Spikes, all gradients, and what the norm remembers."""
    x, theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
    decay = torch.tensor(0.625, dtype=x.dtype, requires_grad=True)  # exact in bfloat16
    y = function(x, theta, decay, norm, form)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).bfloat16().to(y.dtype)).sum().backward()
    outcome = [y.detach(), x.grad, theta.grad, decay.grad]
    if norm is not None:
        outcome += [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        outcome += [norm.num_batches_tracked.double()]
    return outcome


CASES = [
    (shape, granularity, norm, pool, steady)
    for shape, granularity, norm, pool, steady in itertools.product(
        (VECTOR, MAP), ("neuron", "channel", "layer"), (None, "folded", "by step"), (1, 2, 3), (False, True)
    )
    if not (shape is VECTOR and (pool > 1 or granularity == "channel"))
]


@pytest.mark.parametrize(("shape", "granularity", "norm", "pool", "steady"), CASES)
def test_block_gives_the_spikes_and_gradients_of_plain_autograd(shape, granularity, norm, pool, steady):
    torch.manual_seed(0)
    x = torch.randn(1 if steady else T, B, *shape, dtype=torch.float64) * 1.5 + 0.3
    if steady and norm == "by step":
        x = x.expand(T, *x.shape[1:]).contiguous()
    sizes = {"neuron": shape, "channel": (shape[0], *[1] * (len(shape) - 1)), "layer": ()}
    theta = torch.rand(sizes[granularity], dtype=torch.float64) + 0.5
    _compare(x, theta, norm, Form(T, shape[0], pool, norm == "by step", "arctan", False))


@pytest.mark.parametrize("norm", [None, "folded", "by step"])
@pytest.mark.parametrize("shape", [VECTOR, MAP])
def test_a_single_step(shape, norm):
    torch.manual_seed(0)
    x = torch.randn(1, B, *shape).double() * 1.5
    _compare(x, torch.rand(shape).double() + 0.5, norm, Form(1, shape[0], 1, norm == "by step", "arctan", False))


@pytest.mark.parametrize("norm", [None, "folded", "by step"])
@pytest.mark.parametrize("granularity", ["neuron", "channel"])
@pytest.mark.parametrize(("pool", "shape"), [(1, (16, 31, 17)), (2, (16, 31, 17)), (3, (8, 50, 19)), (1, (700,))])
def test_maps_of_several_strips_and_vectors_side_by_side(pool, shape, granularity, norm):
    """Strips hold 15, 14 and 24 image rows, the last one fewer; vectors of 700 stand side by side by threes."""
    torch.manual_seed(0)
    x = torch.randn(T, 12 if len(shape) == 1 else 2, *shape).double() * 1.5
    size = shape if granularity == "neuron" else (shape[0], *[1] * (len(shape) - 1))
    _compare(x, torch.rand(size).double() + 0.5, norm, Form(T, shape[0], pool, norm == "by step", "arctan", False))


@pytest.mark.parametrize("kind", ["folded", "by step"])
def test_running_statistics_are_a_mean_over_batches_without_a_momentum(kind):
    torch.manual_seed(0)
    form, norms = Form(T, MAP[0], 1, kind == "by step", "arctan", False), [_norm(kind, MAP) for _ in range(2)]
    for _ in range(3):
        x, theta, decay = torch.randn(T, B, *MAP).double(), torch.ones(MAP).double(), torch.tensor(0.5).double()
        for norm, function in zip(norms, (block, _one_after_the_other), strict=True):
            norm.momentum = None
            function(x, theta, decay, norm, form)
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_with_the_reset_attached_or_not(name, detach):
    torch.manual_seed(0)
    x, theta = torch.randn(T, B, *MAP).double() * 1.5, torch.rand(MAP).double() + 0.5
    _compare(x, theta, None, Form(T, MAP[0], 2, False, name, detach))


def _compare(x, theta, norm, form):
    found, expected = (
        _outcome(function, x, theta, _norm(norm, x.shape[2:]), form) for function in (block, _one_after_the_other)
    )
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_gradients_are_the_same_bits_on_any_number_of_threads():
    torch.manual_seed(0)
    x, theta = torch.randn(T, 64, 8, 16, 16).double(), torch.rand(8, 16, 16).double() + 0.5
    form, before, outcomes = Form(T, 8, 2, False, "arctan", False), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outcomes.append(_outcome(block, x, theta, _norm("folded", (8, 16, 16)), form))
    finally:
        torch.set_num_threads(before)
    for outcome in outcomes[1:]:
        assert all(torch.equal(one, other) for one, other in zip(outcome, outcomes[0], strict=True))


def test_bfloat16_currents_meet_float32_potentials():
    torch.manual_seed(0)
    narrow = (torch.randn(T, B, *MAP) * 1.5).bfloat16()
    theta, form = torch.rand(MAP) + 0.5, Form(T, MAP[0], 2, False, "arctan", False)
    found, expected = (_outcome(block, x, theta, None, form) for x in (narrow, narrow.float()))
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(found[0].float(), expected[0])
    assert torch.equal(found[1], expected[1].bfloat16())
    torch.testing.assert_close(found[2], expected[2])


def test_a_second_backward_pass_is_refused():
    x = torch.randn(T, 2, *VECTOR, requires_grad=True)
    y = block(x, torch.ones(VECTOR), torch.tensor(0.5), None, Form(T, VECTOR[0], 1, False, "arctan", False)).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="ran twice"):
        y.backward()


@pytest.mark.parametrize("bias", [False, True])
def test_columns_are_the_windows_of_a_convolution(bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 5, (3, 2), stride=(2, 1), padding=(1, 2), bias=bias).double()
    x = torch.randn(3, 2, 7, 6).double()
    windows = columns(x, conv.kernel_size, conv.stride, conv.padding, one=bias)
    weight = conv.weight.flatten(1)
    weight = torch.cat((weight, conv.bias[:, None]), 1) if bias else weight
    torch.testing.assert_close((windows @ weight.T).permute(0, 3, 1, 2), conv(x))


def _trained(network, x, **options):
    network.zero_grad()
    network(x, **options).square().sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("change", ["network.3.op=max", "network.3.op=avg", "network.1.per_step=true"])
def test_a_network_trains_alike_in_blocks_and_layer_by_layer(tiny, change, steady):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, [change, "network.4.p=0.0"]), (1, 8, 8), 10).double()
    x = torch.rand(1 if steady else 3, 6, 1, 8, 8).double() * 3
    x = x.expand(3, *x.shape[1:])
    blocks = _trained(network, x)
    layers = _trained(network, x, every_layer=True)
    assert blocks.keys() == layers.keys()
    for name, grad in blocks.items():
        torch.testing.assert_close(grad, layers[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("mode", ["stl", "sl"])
@pytest.mark.parametrize("normed", [False, True])
def test_evaluation_agrees_with_the_layers_and_with_observed_blocks(tiny, mode, normed, steady):
    torch.manual_seed(0)
    network = Network(apply_overrides(tiny, [f"train.mode={mode}"]), (1, 8, 8), 10).double().eval()
    if not normed:  # a fixed threshold behind a synapse: no gradient, no trace, and currents that are nobody else's
        network.remove("norm1")
    x = torch.rand(1 if steady else 3, 40, 1, 8, 8).double() * 3
    x = x.expand(3, *x.shape[1:])
    seen = {}
    with torch.no_grad():
        votes = network(x)
        assert torch.equal(votes, network(x, every_layer=True))
        assert torch.equal(votes, network(x, lambda name, y: seen.setdefault(name, y)))
    assert {name: tuple(y.shape[2:]) for name, y in seen.items()} == {
        name: shape for name, shape in network.shapes.items() if not name.startswith("norm")
    }


def test_blocks_hold_norm_lif_and_pool(tiny):
    network = Network(tiny, (1, 8, 8), 10)
    names = [stage.name for stage in stages(network.layers, network.sources, 3, pools=True)]
    assert names == [name for name in network.layers if name not in ("norm1", "lif1")]
    assert "lif1" in [stage.name for stage in stages(network.layers, network.sources, 3, pools=False)]


def test_forward_hooks_of_torch_see_their_layer(tiny):
    network, x, seen = Network(tiny, (1, 8, 8), 10).eval(), torch.rand(3, 2, 1, 8, 8), []
    plain = network(x)
    network.layers["lif1"].register_forward_hook(lambda _layer, _given, spikes: seen.append(spikes) or 1 - spikes)
    assert not torch.equal(network(x), plain)
    assert seen[0].shape == (3, 2, *network.shapes["lif1"])


def test_without_numba_it_says_so_once_and_goes_on(tiny, monkeypatch):
    fused.installed.cache_clear()
    monkeypatch.setattr(fused.importlib.util, "find_spec", lambda name: None)
    network, x = Network(tiny, (1, 8, 8), 10).eval(), torch.rand(3, 2, 1, 8, 8)
    try:
        with pytest.warns(UserWarning, match=r"pip install 'stl-deploy\[fast\]'"):
            slow = network(x)
        network(x)
    finally:
        fused.installed.cache_clear()
    monkeypatch.undo()
    np.testing.assert_array_equal(slow.detach(), network(x).detach())


def test_the_switch_turns_it_off(monkeypatch):
    assert fused.ready(torch.zeros(1))
    monkeypatch.setenv(fused.SWITCH, "0")
    assert not fused.ready(torch.zeros(1))
