"""The neuron: exact arithmetic, hand-made gradients against plain autograd, learned thresholds."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stl_deploy.errors import InputError
from stl_deploy.nn.neuron import LIF, RLIF
from stl_deploy.nn.surrogate import SURROGATES, Derivative, surrogate

SHAPE = (3, 4, 5)


class _SlowSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, derivative: Derivative) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.derivative = derivative
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return grad * ctx.derivative(distance), None


def _slow(layer: LIF, x: Tensor) -> Tensor:
    """The neuron as plain autograd sees it."""
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x.unbind(0):
        v = layer.decay * v + current
        s = _SlowSpike.apply(v - layer.threshold, surrogate(layer.surrogate_name))
        reset = s.detach() if layer.detach_reset else s
        v = v - layer.threshold * reset if layer.soft_reset else v * (1 - reset)
        spikes.append(s)
    return torch.stack(spikes)


def _gradients(layer: LIF, x: Tensor, spikes: Tensor, weight: Tensor) -> dict[str, Tensor]:
    layer.zero_grad()
    x.grad = None
    (spikes * weight).sum().backward()
    found = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {**found, "x": x.grad.clone()}


@pytest.mark.push(24)
@pytest.mark.parametrize("granularity", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("parametrisation", ["positive", "raw"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
def test_gradients_equal_plain_autograd(granularity, parametrisation, reset, detach, name):
    torch.manual_seed(0)
    layer = LIF(
        SHAPE,
        threshold=0.8,
        jitter=0.05,
        granularity=granularity,
        parametrisation=parametrisation,
        decay=0.7,
        learn_decay=True,
        surrogate_name=name,
        reset=reset,
        detach_reset=detach,
    ).double()
    x = torch.randn(7, 2, *SHAPE, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 2, *SHAPE, dtype=torch.float64)
    fast = layer(x)
    slow = _slow(layer, x)
    assert torch.equal(fast, slow)
    assert 0.05 < fast.mean() < 0.95
    expected = _gradients(layer, x, slow, weight)
    for key, value in _gradients(layer, x, fast, weight).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-11, atol=1e-11)
    assert set(expected) == {"x", "threshold_parameter", "decay_parameter"}


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("frozen", ["threshold_parameter", "decay_parameter"])
def test_a_frozen_parameter_leaves_the_other_gradients_alone(frozen, reset):
    torch.manual_seed(1)
    layer = LIF(SHAPE, decay=0.6, learn_decay=True, reset=reset).double()
    layer.get_parameter(frozen).requires_grad_(False)
    x = torch.randn(5, 2, *SHAPE, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    expected = _gradients(layer, x, _slow(layer, x), weight)
    found = _gradients(layer, x, layer(x), weight)
    assert frozen not in found
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("beta", [0.5, 0.3, 0.937, 1.0, 0.0])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_spikes_equal_numpy_float32_bit_for_bit(beta, training, reset):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 4, 33)).astype(np.float32)
    layer = LIF((33,), threshold=0.9, decay=beta, reset=reset)
    tensor = torch.from_numpy(x).requires_grad_(training)
    v = np.zeros(x.shape[1:], np.float32)
    expected = np.empty_like(x)
    for t, current in enumerate(x):
        v = np.float32(beta) * v + current
        expected[t] = v >= np.float32(0.9)
        v = np.where(expected[t] > 0, v - np.float32(0.9) if reset == "subtract" else np.float32(0), v)
    with torch.set_grad_enabled(training):
        assert np.array_equal(layer(tensor).detach().numpy(), expected)


@pytest.mark.parametrize("beta", [0.3, 0.937])
def test_the_membrane_is_rounded_after_the_product_and_after_the_sum(beta):
    """θ is the float32 membrane itself, so that a contracted multiply-add would miss ties or fire one ulp early."""
    rng = np.random.default_rng(5)
    x = rng.uniform(0.1, 1, size=(6, 1, 20_000)).astype(np.float32)
    v = np.zeros(x.shape[1:], np.float32)
    for current in x:
        v = np.float32(beta) * v + current
    contracted = np.zeros(x.shape[1:], np.float64)
    for current in x:
        contracted = (np.float64(np.float32(beta)) * contracted + current).astype(np.float32).astype(np.float64)
    assert (contracted != v).any()
    for theta, fires in ((v, True), (np.nextafter(v, np.float32(np.inf)), False)):
        layer = LIF((20_000,), parametrisation="raw", decay=beta)
        with torch.no_grad():
            layer.threshold_parameter.copy_(torch.from_numpy(theta[0]))
            spikes = layer(torch.from_numpy(x))[:, 0]
        first = spikes[:-1].sum(0) == 0
        assert first.sum() > 1000
        assert bool((spikes[-1, first] == float(fires)).all())


def test_a_soft_reset_leaves_what_is_above_the_threshold():
    x = torch.tensor([3.5, 0.0, 0.875, 0.0]).reshape(4, 1, 1)
    layer = LIF((1,), threshold=1.0, decay=0.5, reset="subtract")
    assert layer(x).flatten().tolist() == [1, 1, 1, 0]  # 3.5, 2.5/2, 0.25/2 + 0.875 = 1, and nothing is left
    assert LIF((1,), threshold=1.0, decay=0.5)(x).flatten().tolist() == [1, 0, 0, 0]
    assert repr(layer) == "LIF((1,), θ per neuron (positive), arctan, soft reset)"


def test_the_threshold_that_a_soft_reset_takes_off_has_a_gradient_also_where_the_reset_is_detached():
    """The first u is 2, where the surrogate's slope is 0, the second (2 − θ)/2 + 1 = 1.5, where it is 1/2."""
    options = dict(threshold=1.0, parametrisation="raw", decay=0.5, surrogate_name="triangular", reset="subtract")
    for detach in (False, True):
        layer = LIF((1,), **options, detach_reset=detach)
        layer(torch.tensor([2.0, 1.0]).reshape(2, 1, 1))[1].sum().backward()
        assert layer.threshold_parameter.grad.tolist() == [0.5 * (-0.5 - 1)]


def test_a_recurrent_population_with_a_soft_reset_by_hand():
    currents = torch.tensor([[[2.5, 0.0]], [[0.0, 2.0]], [[-0.25, 0.0]]])
    for reset, last in (("subtract", [1, 0]), ("zero", [0, 0])):  # 1.5/4 - 0.25 + 1, or -0.25 + 1
        population = RLIF((2,), threshold=1.0, decay=0.5, reset=reset)
        population.recurrent.weight = torch.nn.Parameter(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        assert population(currents).tolist() == [[[1, 0]], [[0, 1]], [last]]


def test_a_tie_fires():
    layer = LIF((1,), threshold=1.0, decay=0.5)
    x = torch.tensor([0.5, 0.75, 0.5, 0.5]).reshape(4, 1, 1)
    assert layer(x).flatten().tolist() == [0, 1, 0, 0]  # 0.25 + 0.75 = 1 fires, then from 0: 0.5, 0.75
    assert layer(torch.full((1, 1, 1), 1.0)).item() == 1


@pytest.mark.parametrize("parametrisation", ["positive", "raw"])
@pytest.mark.parametrize("theta", [2.0, 0.1, 0.7, 3.3])
def test_threshold_starts_exactly_where_asked(parametrisation, theta):
    layer = LIF((4,), threshold=theta, parametrisation=parametrisation)
    assert layer.threshold.tolist() == [float(np.float32(theta))] * 4


def test_threshold_stays_positive_under_any_step():
    layer = LIF((4,), threshold=0.01)
    with torch.no_grad():
        layer.threshold_parameter.fill_(-20.0)
    assert (layer.threshold > 0).all()


@pytest.mark.parametrize(("granularity", "size"), [("neuron", (3, 4, 5)), ("channel", (3, 1, 1)), ("layer", ())])
def test_granularity_sets_the_number_of_thresholds(granularity, size):
    assert LIF(SHAPE, granularity=granularity).threshold.shape == size


def test_jitter_is_drawn_per_threshold():
    torch.manual_seed(0)
    theta = LIF((20_000,), threshold=2.0, jitter=1e-4).threshold
    assert abs(theta.mean().item() - 2) < 1e-5
    assert abs(theta.std().item() - 1e-4) < 5e-6


def test_samples_are_stateless():
    torch.manual_seed(0)
    layer = LIF((6,))
    x = torch.rand(5, 3, 6)
    first = layer(x)
    layer(torch.full((5, 3, 6), 0.9))
    assert torch.equal(layer(x), first)
    assert torch.equal(layer(x[:, 1:2]), first[:, 1:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "initial threshold 0 with jitter 0 gives a threshold <= 0"),
        ({"decay": 1.5}, "expected a number from 0 to 1 as decay; found 1.5"),
        ({"decay": 1.0, "learn_decay": True}, "expected a number between 0 and 1, ends excluded as decay; found 1.0"),
        ({"reset": "soft"}, "reset: expected one of zero, subtract; found 'soft'"),
        ({"surrogate_name": "step"}, "surrogate gradient: expected one of arctan, sigmoid"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        LIF((4,), **options)
    assert message in str(caught.value)


def test_surrogates_are_bumps_around_the_threshold():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    closed = {
        "arctan": 1 / (1 + (np.pi * x) ** 2),
        "sigmoid": 4 * torch.sigmoid(4 * x) * torch.sigmoid(-4 * x),
        "triangular": torch.relu(1 - x.abs()),
        "rectangular": (x.abs() < 0.5).double(),
    }
    for name, derivative in SURROGATES.items():
        y = derivative(x)
        torch.testing.assert_close(y, closed[name])
        scratch = x.clone()
        assert derivative(scratch, out=scratch) is scratch
        assert torch.equal(scratch, y)
