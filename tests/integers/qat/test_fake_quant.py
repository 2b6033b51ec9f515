"""Fake-quantised torch layers against the integer model, number for number, and what learns in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.layers import ConvLayer, DenseLayer
from stl_deploy.integers import step
from stl_deploy.integers.net import IntegerNeuron
from stl_deploy.integers.qat import fake_quant
from stl_deploy.integers.qat.fake_quant import LoihiLIF, WholeSynapse, whole
from stl_deploy.nn import fused
from stl_deploy.nn.neuron import LIF
from stl_deploy.nn.schedule import layerwise
from tests.exporters.netx.nets import chain, dense

DECAYS = (0, 1, 700, 1900, 2048, 3000, 4095, 4096)


def _spikes(layer: DenseLayer | ConvLayer, x: NDArray[Any]) -> NDArray[Any]:
    return run_file(chain(x.shape[2:], layer), x).y


def in_torch(synapse: WholeSynapse, lif: LoihiLIF, x: Any) -> Any:
    lif.eval()
    with torch.no_grad():
        currents = synapse(torch.from_numpy(x.astype(np.float32)).flatten(0, 1))
        return lif(currents.unflatten(0, x.shape[:2])).numpy()


def numbers(synapse: WholeSynapse) -> tuple[Any, Any]:
    return tuple(part.detach().numpy().astype(np.int32) for part in synapse.numbers())


@pytest.mark.push(8)
@pytest.mark.parametrize("v_decay", DECAYS)
@pytest.mark.parametrize(("scale", "top"), [(3, 1), (90, 16), (90, 300)])
def test_dense_layers_spike_as_the_integer_model(v_decay: int, scale: int, top: int) -> None:
    """scale 3: the fractions that a leak leaves decide spikes. top 300: sums wrap in u and potentials saturate."""
    rng = np.random.default_rng(v_decay + top)
    weight = torch.from_numpy(rng.normal(0.1, 0.6, (17, 40)).astype(np.float32))
    bias = torch.from_numpy(rng.normal(0, 1, 17)).float()
    synapse = WholeSynapse(nn.Linear(40, 17), weight, bias, float(scale), float(scale), 64.0)
    synapse.log_threshold.data.normal_(0, 0.3)
    lif = LoihiLIF(LIF((17,)), scale * top, 64.0, v_decay)
    x = rng.integers(0, top + 1, (60, 6, 40)) * (rng.random((60, 6, 40)) < 0.4)
    w, b = numbers(synapse)
    threshold = np.array(scale * top, np.int32)
    spikes = _spikes(dense(w, bias=b, neuron=IntegerNeuron(v_decay=v_decay, threshold=threshold)), x.astype(np.int32))
    assert 0.01 < spikes.mean() < 0.99
    np.testing.assert_array_equal(in_torch(synapse, lif, x), spikes)


def test_conv_layers_spike_as_the_integer_model() -> None:
    rng = np.random.default_rng(1)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    weight = torch.from_numpy(rng.normal(0.1, 0.6, (6, 2, 3, 3)).astype(np.float32))
    synapse = WholeSynapse(conv, weight, torch.from_numpy(rng.normal(0, 0.5, 6)).float(), 100.0, 100.0, 128.0)
    lif = LoihiLIF(LIF((6, 4, 4)), 100, 128.0, 1500)
    x = (rng.random((12, 5, 4, 7, 7)) < 0.3).astype(np.int32)
    w, b = numbers(synapse)
    layer = ConvLayer(
        weight=w, bias=b, input_shape=(4, 7, 7), stride=(2, 2), padding=(1, 1), groups=2,
        neuron=IntegerNeuron(v_decay=1500, threshold=np.array(100, np.int32)),
    )  # fmt: skip
    np.testing.assert_array_equal(in_torch(synapse, lif, x), _spikes(layer, x))


def leaking_slowly() -> tuple[Any, Any]:
    """Negative potentials that decay through small values: in torch, and in the integer model."""
    rng = np.random.default_rng(1)
    synapse = WholeSynapse(
        nn.Linear(8, 10), torch.from_numpy(rng.integers(-60, 60, (10, 8))).float(), torch.zeros(10), 1.0, 1.0, 32.0
    )
    x = (rng.random((60, 30, 8)) < 0.3).astype(np.int32)
    layer = dense(numbers(synapse)[0], neuron=IntegerNeuron(v_decay=300, threshold=np.array(30, np.int32)))
    return in_torch(synapse, LoihiLIF(LIF((10,)), 30, 32.0, 300), x), _spikes(layer, x)


def test_potentials_round_toward_zero_as_they_leak() -> None:
    ours, integers = leaking_slowly()
    np.testing.assert_array_equal(ours, integers)


@pytest.mark.parametrize("wrong", [lambda real: real, np.floor])
def test_a_wrong_leak_would_be_seen(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def integrate(*args: Any, **kwargs: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(step, "toward_zero", wrong)
            step.integrate(*args, **kwargs)

    monkeypatch.setattr(fake_quant, "integrate", integrate)
    ours, integers = leaking_slowly()
    assert (ours != integers).any()


def test_rounding_passes_gradients_within_its_bounds() -> None:
    real = torch.tensor([0.4, 1.6, 300.0, -300.0], requires_grad=True)
    rounded = whole(real, -127, 127)
    assert rounded.tolist() == [0, 2, 127, -127]
    rounded.backward(torch.ones(4))  # type: ignore[no-untyped-call]
    assert real.grad is not None
    assert real.grad.tolist() == [1, 1, 0, 0]


def test_the_gradient_of_a_lone_neuron_by_hand() -> None:
    """One step, one input: z = (w·x − K − 1/128)/unit; d spike/d z is the surrogate's at z."""
    synapse = WholeSynapse(nn.Linear(1, 1), torch.tensor([[0.52]]), torch.zeros(1), 100.0, 100.0, 64.0)
    lif = LoihiLIF(LIF((1,), surrogate_name="triangular"), 70, 64.0, 2048)
    spike = lif(synapse(torch.ones(1, 1)).unsqueeze(0))
    assert spike.item() == 0
    spike.sum().backward()
    slope = 1 - (70 - 52 + 1 / 128) / 64
    for parameter, wanted in (
        (synapse.weight, slope * 100 / 64),
        (synapse.bias, slope * 100 / 64),
        (synapse.log_threshold, -52 / 64 * slope),
        (lif.threshold_parameter, -slope),
    ):
        assert parameter.grad is not None
        assert parameter.grad.item() == pytest.approx(wanted, rel=1e-5)


def test_training_computes_the_spikes_that_evaluation_does() -> None:
    """A potential equal to K, too. v halves: in six steps it has no fraction below 1/64."""
    rng = np.random.default_rng(2)
    lif = LoihiLIF(LIF((40,)), 50, 32.0, 2048)
    x = torch.from_numpy(rng.integers(-30, 60, (6, 200, 40))).float() / 32
    assert (x == 50 / 32).any()
    spikes = lif(x)
    assert 0.05 < spikes.mean() < 0.9
    assert torch.equal(spikes, lif.eval()(x))


@pytest.mark.parametrize("make", [lambda: nn.Linear(12, 5), lambda: nn.Conv2d(2, 3, 3, padding=1)])
def test_the_fast_blocks_change_no_spike_and_no_gradient(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    layer = make()
    shape = tuple(layer(torch.zeros(1, *((12,) if isinstance(layer, nn.Linear) else (2, 6, 6)))).shape[1:])
    weight, bias = layer.weight.detach(), layer.bias.detach()
    layers = nn.ModuleDict(
        {"a": WholeSynapse(layer, weight, bias, 90.0, 90.0, 64.0), "b": LoihiLIF(LIF(shape), 40, 64.0, 2048)}
    )
    x = (
        torch.rand(4, 3, *((12,) if len(shape) == 1 else (2, 6, 6)), generator=torch.Generator().manual_seed(0)) < 0.5
    ).float()
    sources = {"a": ("input",), "b": ("a",)}
    found = []
    for stages in (fused.stages(layers, sources, 4, pools=True), layerwise(layers, sources)):
        y = x
        for stage in stages:
            y = stage.run(y)
        layers.zero_grad()
        (y * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
        found.append([y, *(parameter.grad.clone() for parameter in layers.parameters() if parameter.grad is not None)])
    assert len(found[0]) == 5
    assert 0 < found[0][0].mean() < 1
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
