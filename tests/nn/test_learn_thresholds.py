"""Fixed thresholds become parameters. The frameworks' neurons are stood in for by what they hold and compute."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

import stl_deploy as stl


def _step(x, v, theta):
    """A spike of v - θ with a gradient, and the reset by subtraction, as snnTorch's Leaky has them."""
    v = 0.5 * v + x
    s = torch.sigmoid(4 * (v - theta))
    return s + ((v > theta).float() - s).detach(), v


class SpikingNeuron(nn.Module):
    """As snnTorch's: a buffer named threshold, one step a call."""

    def __init__(self, threshold=1.0):
        super().__init__()
        self.register_buffer("threshold", torch.as_tensor(threshold))

    def forward(self, x, v=None):
        return _step(x, torch.zeros_like(x) if v is None else v, self.threshold)


class Parameters(NamedTuple):
    tau: torch.Tensor
    v_th: torch.Tensor


class SNNCell(nn.Module):
    """As Norse's: its parameters in a named tuple."""

    def __init__(self):
        super().__init__()
        self.p = Parameters(torch.tensor(100.0), torch.tensor(0.7))

    def forward(self, x, v=None):
        return _step(x, torch.zeros_like(x) if v is None else v, self.p.v_th)


class SNNRecurrentCell(SNNCell):
    def __init__(self, hidden_size):
        super().__init__()
        self.hidden_size = torch.as_tensor(hidden_size)
        self.w = nn.Linear(3, hidden_size)

    def forward(self, x, v=None):
        return super().forward(self.w(x), v)


class BaseNode(nn.Module):
    v_threshold = 1.0


@pytest.fixture(autouse=True)
def names(monkeypatch):
    for cls, package in (
        (SpikingNeuron, "snntorch"),
        (SNNCell, "norse"),
        (SNNRecurrentCell, "norse"),
        (BaseNode, "spikingjelly"),
    ):
        monkeypatch.setattr(cls, "__module__", f"{package}.somewhere")


@pytest.mark.parametrize(
    ("granularity", "size"), [("neuron", (3, 2, 2)), ("channel", (3, 1, 1)), ("layer", ())], ids=str
)
@pytest.mark.parametrize("make", [SpikingNeuron, SNNCell])
def test_thresholds_begin_where_they_were_and_learn(make, granularity, size) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"neuron": make()})
    x = torch.rand(4, 3, 2, 2) * 2
    expected = model["neuron"](x)[0].detach()
    before = float(model["neuron"].p.v_th) if make is SNNCell else 1.0
    assert stl.learn_thresholds(model, granularity) == ("neuron",)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)  # before the sizes are known
    spikes, _ = model["neuron"](x)
    assert torch.equal(spikes, expected)
    ((name, theta),) = model.named_parameters()
    assert (name, tuple(theta.shape)) == ("neuron.v_th" if make is SNNCell else "neuron.threshold", size)
    assert (theta == before).all()
    spikes.sum().backward()
    optimiser.step()
    assert (theta > before).any()  # fewer spikes
    assert not torch.equal(model["neuron"](x)[0], expected) or granularity != "layer"


def test_a_recurrent_cell_is_as_large_as_it_says() -> None:
    model = SNNRecurrentCell(5)
    assert stl.learn_thresholds(model) == ("model",)
    assert model.v_th.shape == (5,)
    model(torch.rand(2, 3))[0].sum().backward()
    assert model.v_th.grad is not None


def test_a_learned_scalar_becomes_one_per_neuron() -> None:
    neuron = SpikingNeuron()
    del neuron._buffers["threshold"]
    neuron.threshold = nn.Parameter(torch.tensor(0.25))
    stl.learn_thresholds(neuron)
    neuron(torch.zeros(2, 6))
    assert neuron.threshold.tolist() == [0.25] * 6


@pytest.mark.parametrize("parametrisation", ["positive", "raw"])
@pytest.mark.parametrize("shape", [(3, 2, 2), None])
def test_our_own_layers_learn_and_become_finer(parametrisation, shape) -> None:
    layer = stl.LIF(shape, threshold=0.6, granularity="layer", learn_threshold=False, parametrisation=parametrisation)
    x = torch.rand(5, 2, 3, 2, 2)
    expected = stl.LIF((3, 2, 2), threshold=0.6)(x)
    assert not layer.threshold_parameter.requires_grad
    for granularity, size in (("channel", (3, 1, 1)), ("neuron", (3, 2, 2)), ("neuron", (3, 2, 2))):
        stl.learn_thresholds(layer, granularity)
        assert torch.equal(layer(x), expected)
        assert tuple(layer.threshold.shape) == size
        assert layer.threshold_parameter.requires_grad
    with pytest.raises(stl.InputError, match=r"there are thresholds \[3, 2, 2\], not one for each of \[\]"):
        stl.learn_thresholds(layer, "layer")


def test_what_cannot_learn_is_said_and_nothing_is_changed() -> None:
    model = nn.Sequential(SpikingNeuron(), BaseNode())
    with pytest.raises(stl.InputError, match=r"layer '1': SpikingJelly's BaseNode takes its threshold as one float"):
        stl.learn_thresholds(model)
    assert list(model.parameters()) == []
    with pytest.raises(stl.InputError, match="snnTorch or Norse in the model; found none"):
        stl.learn_thresholds(nn.Linear(2, 2))
    with pytest.raises(stl.InputError, match=r"expected a torch\.nn\.Module; found a function"):
        stl.learn_thresholds(_step)  # type: ignore[arg-type]
    with pytest.raises(stl.InputError, match="granularity: expected one of neuron, channel, layer; found 'pixel'"):
        stl.learn_thresholds(model, "pixel")  # type: ignore[arg-type]
