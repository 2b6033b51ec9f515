"""The dense layer behind the input from events, against plain autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stl_deploy.config.load import apply_overrides
from stl_deploy.config.schema import RunConfig
from stl_deploy.nn.fused import warm
from stl_deploy.nn.fused.input_dense import dense
from stl_deploy.nn.fused.input_dense.dense import product, suits
from stl_deploy.nn.fused.switch import works
from stl_deploy.nn.network import Network

ROUNDING = 4
"""How many times as far from the exact result as torch's float32 products they may be."""
T, B, INPUTS, HIDDEN = 8, 128, 300, 160


def _outcome(function, linear, x):
    """Outputs, and gradients of weights and bias, for a gradient of integers."""
    y = function(x)
    grad = torch.randint(-4, 5, y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, list(linear.parameters()), grad)]


def _wide(linear):
    double = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None).double()
    double.load_state_dict(linear.state_dict())
    return double


@settings(max_examples=40)
@given(
    rows=st.sampled_from([1, 127, 128, 129, 600]),  # less and more than a tile, and than the rows of a piece
    inputs=st.sampled_from([1, 128, 130, 300]),
    outputs=st.sampled_from([1, 16, 63, 64, 130]),
    share=st.sampled_from([0.0, 0.02, 0.25]),
    graded=st.booleans(),
    bias=st.booleans(),
)
def test_integers_give_what_plain_autograd_gives_in_float64(rows, inputs, outputs, share, graded, bias):
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randint(-8, 9, parameter.shape))
    x = (torch.rand(rows, inputs) < share).float()
    x = x * torch.randint(-3, 4, x.shape) if graded else x
    exact = _wide(linear)
    found = _outcome(lambda x: product(x, linear), linear, x)
    for ours, right in zip(found, _outcome(exact, exact, x.double()), strict=True):
        assert torch.equal(ours.double(), right)


@pytest.mark.parametrize("graded", [False, True])
def test_float32_rounds_as_torch_does(graded):
    torch.manual_seed(0)
    linear, x = nn.Linear(784, 130), (torch.rand(3000, 784) < 0.2).float()
    x = x * torch.randn(x.shape) if graded else x
    exact = _wide(linear)
    right = _outcome(exact, exact, x.double())
    for ours, theirs, value in zip(
        _outcome(lambda x: product(x, linear), linear, x), _outcome(linear, linear, x), right, strict=True
    ):
        error, plain = ((one.double() - value).pow(2).mean().sqrt() for one in (ours, theirs))
        assert error <= ROUNDING * plain


def test_input_without_an_event_gives_the_bias_and_no_gradient():
    linear = nn.Linear(200, 70)
    y, of_weight, of_bias = _outcome(lambda x: product(x, linear), linear, torch.zeros(600, 200))
    assert torch.equal(y, linear.bias.detach().expand(600, 70))
    assert not of_weight.any()
    assert of_bias.any()


def test_input_that_is_not_contiguous_and_numbers_that_are_none():
    torch.manual_seed(0)
    linear, x = nn.Linear(200, 70, bias=False), (torch.rand(200, 600) < 0.1).float()
    x[3, 5] = torch.nan
    y = product(x.t(), linear)
    torch.testing.assert_close(y, linear(x.t()), equal_nan=True)
    assert y[5].isnan().all()


@pytest.mark.parametrize("learned", [("weight",), ("bias",), ()])
def test_what_is_not_learned_gets_no_gradient(learned):
    torch.manual_seed(0)
    linear, x = nn.Linear(200, 70), (torch.rand(600, 200) < 0.1).float()
    for name, parameter in linear.named_parameters():
        parameter.requires_grad_(name in learned)
    y = product(x, linear)
    assert y.requires_grad is bool(learned)
    if learned:
        y.sum().backward()
    assert [name for name, parameter in linear.named_parameters() if parameter.grad is not None] == list(learned)


@pytest.mark.parametrize(
    ("fits", "change"),
    [
        (True, lambda layer, x: (layer, x)),
        (True, lambda layer, x: (nn.Linear(500, 128), x)),
        (False, lambda layer, x: (nn.Linear(500, 127), x)),
        (False, lambda layer, x: (layer, x[:256])),
        (False, lambda layer, x: (layer, x.requires_grad_())),
        (False, lambda layer, x: (layer.double(), x.double())),
        (False, lambda layer, x: (layer.bfloat16(), x.bfloat16())),
        (False, lambda layer, x: (nn.Conv2d(500, 256, 1), x)),
        (False, lambda layer, x: (type("Masked", (nn.Linear,), {})(500, 256), x)),
    ],
)
def test_what_suits(fits, change):
    layer, x = change(nn.Linear(500, 256), torch.zeros(1024, 500))
    assert suits(layer, x) is fits
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits(layer, x)


@pytest.fixture
def config(tiny):
    """A dense layer wide enough, norm, LIF, vote."""
    layers = [
        {"kind": "linear", "features": HIDDEN, "bias": True},
        {"kind": "norm"},
        {"kind": "lif"},
        {"kind": "vote", "population": HIDDEN // 10},
    ]
    return RunConfig.model_validate({**tiny.model_dump(), "network": layers})


@pytest.fixture
def taken(monkeypatch):
    """Ways that dense layers take: looked at for events, torch's."""
    works(torch.float32, "input_dense")
    seen = []
    ours, theirs = dense.product, nn.Linear.forward

    def look(x, linear):
        seen.append("look")
        return ours(x, linear)

    def forward(self, x):
        seen.append("torch")
        return theirs(self, x)

    monkeypatch.setattr(dense, "product", look)
    monkeypatch.setattr(nn.Linear, "forward", forward)
    return seen


def _sparse(*shape, share=0.2):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(2)) < share).float()


@pytest.mark.parametrize(
    ("ways", "x"),
    [
        (["look"], _sparse(T, B, INPUTS)),
        (["look"], _sparse(T, B, INPUTS) * 0.7),
        (["look", "torch"], _sparse(T, B, INPUTS, share=0.5)),
        (["torch"], _sparse(1, B * T, INPUTS).expand(T, -1, -1)),  # the same at every step: computed once anyway
        (["torch"], _sparse(T, B, INPUTS).requires_grad_()),
        (["torch"], _sparse(T, 4, INPUTS)),
    ],
)
def test_a_network_looks_for_events_where_they_can_pay(config, taken, ways, x):
    Network(config, (INPUTS,), 10)(x)
    assert taken == ways


def test_behind_a_flatten_but_not_in_hidden_layers(config, taken):
    hidden = [{"kind": "linear", "features": HIDDEN}, {"kind": "lif"}]
    layers = [{"kind": "flatten"}, *hidden, *config.model_dump()["network"]]
    network = Network(RunConfig.model_validate({**config.model_dump(), "network": layers}), (3, 10, 10), 10)
    network(_sparse(T, B, 3, 10, 10))
    assert taken == ["look", "torch"]


@pytest.mark.parametrize("norm", ["folded", "by step", None])
def test_a_network_trains_alike_from_events_and_layer_by_layer(config, taken, norm):
    torch.manual_seed(0)
    network = Network(apply_overrides(config, [f"network.1.per_step={str(norm == 'by step').lower()}"]), (INPUTS,), 10)
    if norm is None:
        network.remove("norm1")
    x, found = _sparse(T, B, INPUTS), []
    for every_layer in (False, True):
        network.zero_grad()
        network(x, every_layer=every_layer).square().sum().backward()
        found.append({name: parameter.grad for name, parameter in network.named_parameters()})
    assert taken == ["look", "torch"]
    if norm is not None:  # it takes a bias away again, whose gradient is rounding alone
        assert all(of.pop("layers.linear1.bias").norm() < 1e-3 * of["layers.linear1.weight"].norm() for of in found)
    for name, grad in found[0].items():  # a spike may fall differently
        assert (grad - found[1][name]).norm() <= 1e-2 * found[1][name].norm(), name


def test_training_gives_the_same_bits_on_any_number_of_threads(config, taken):
    before, x, found = torch.get_num_threads(), _sparse(T, B, INPUTS), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            network = Network(config, (INPUTS,), 10)
            optimiser = torch.optim.Adam(network.parameters())
            for _ in range(3):
                optimiser.zero_grad()
                votes = network(x)
                (votes - 0.1).square().sum().backward()
                optimiser.step()
            found.append({"votes": votes.detach(), **network.state_dict()})
    finally:
        torch.set_num_threads(before)
    assert set(taken) == {"look"}
    for other in found[1:]:
        assert all(torch.equal(found[0][name], value) for name, value in other.items())


def test_where_its_kernels_do_not_compile_networks_go_on_in_torch(config, taken, monkeypatch):
    def fail(x, linear):
        raise RuntimeError("no such instruction")

    network, x = Network(config, (INPUTS,), 10), _sparse(T, B, INPUTS)
    monkeypatch.setattr(warm, "product", fail)
    works.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"failed \(no such instruction\); going on in torch") as said:
            votes = [network(x), network(x)][1]
        votes.sum().backward()
        assert len(said) == 1
    finally:
        works.cache_clear()
    assert taken == ["torch", "torch"]
