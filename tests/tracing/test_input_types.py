"""Input is read in the order of forward's arguments, and as the module computes on its own types; else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError, InputError, StlDeployError

SHAPE = (5, 3, 4)


def _draw(kind: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randint(0, 2 if kind == torch.bool else 255, SHAPE, generator=torch.Generator().manual_seed(seed)).to(
        kind
    )


class Prepared(nn.Module):
    """Neurons behind what is made of the inputs."""

    def __init__(self, prepare: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.prepare = nn.Linear(4, 6), stl.LIF((6,), threshold=0.4), prepare

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.lif(self.fc(self.prepare(a, b)))


class OfOne(Prepared):
    """The same of one input."""

    def forward(self, a: Tensor) -> Tensor:  # type: ignore[override]
        return self.lif(self.fc(self.prepare(a)))


X = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2


def test_a_tuple_is_in_the_order_of_arguments_whatever_the_dict_was() -> None:
    model = Prepared(lambda a, b: a - b)
    net = stl.capture(model, {"b": X[1], "a": X[0]})
    expected = model(X[0], X[1]).detach().numpy()
    assert (expected != model(X[1], X[0]).detach().numpy()).any()
    np.testing.assert_array_equal(net.simulate((X[0], X[1])).y, expected)


def test_a_tuple_is_refused_where_inputs_have_no_order() -> None:
    net = stl.capture(Prepared(lambda a, b: a - b), (X[0], X[1]))
    with pytest.raises(InputError, match="expected a dict of inputs by name"):
        stl.SpikingGraph(net.program).simulate((X[0], X[1]))


def test_a_stream_takes_the_modules_names() -> None:
    model = Prepared(lambda a, b: a - b)
    stream = stl.capture(model, (X[0], X[1])).stream()
    expected = model(X[0], X[1]).detach().numpy()
    by_name = [stream.step({"b": b, "a": a}) for a, b in zip(X[0], X[1], strict=True)]
    np.testing.assert_array_equal(by_name, expected)


WRAPPING: list[tuple[type[Prepared], torch.dtype, Callable[..., Tensor], str]] = [
    (Prepared, torch.uint8, lambda a, b: (a - b).float() / 100, "'sub' computes in uint8"),
    (Prepared, torch.bool, lambda a, b: (a + b).float(), "a sum of bools"),
    (OfOne, torch.uint8, lambda a: (a + a).float() / 100, "'add' computes in uint8"),
]


@pytest.mark.parametrize(("kind", "dtype", "prepare", "reason"), WRAPPING)
def test_arithmetic_on_the_inputs_own_type_is_refused(
    kind: type[Prepared], dtype: torch.dtype, prepare: Callable[..., Tensor], reason: str
) -> None:
    x: Any = _draw(dtype) if kind is OfOne else (_draw(dtype), _draw(dtype, 1))
    with pytest.raises(CaptureError, match=reason) as refused:
        stl.capture(kind(prepare), x)
    assert "test_input_types.py" in str(refused.value.line)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64])
def test_a_module_that_only_casts_is_captured(dtype: torch.dtype) -> None:
    model = Prepared(lambda a, b: (a.float() - b.float()) / 100)
    net = stl.capture(model, (_draw(dtype), _draw(dtype, 1)), verify=False)
    fresh = _draw(dtype, 2), _draw(dtype, 3)
    np.testing.assert_array_equal(net.simulate(fresh).y, model(*fresh).detach().numpy())


def test_float64_that_float32_rounds_is_refused() -> None:
    large = 2.0**25 + torch.arange(60.0, dtype=torch.float64).reshape(SHAPE)
    net = stl.capture(Prepared(lambda a, b: (a - b).float()), (X[0], X[1]))
    for call in (lambda x: stl.capture(Prepared(lambda a, b: (a - b).float()), x), net.simulate):
        with pytest.raises(StlDeployError, match=r"expected numbers that float32 holds.*found 335544[0-9]+"):
            call((large, large.flip(0)))


def test_outputs_in_float64_that_float32_has_not_are_refused() -> None:
    small = torch.full(SHAPE, 1.0, dtype=torch.float64) + torch.arange(60.0).reshape(SHAPE) * 1e-9
    with pytest.raises(CaptureError, match="other outputs on x in float64 than on the same values in float32"):
        stl.capture(OfOne(lambda a: ((a - 1) * 1e9).float()), small)


class Masked(Prepared):
    """A second argument that forward can do without."""

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        return self.lif(self.fc(a if b is None else a - b))


def test_a_list_that_may_be_steps_or_inputs_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"may be 2 steps or inputs of forward\(a, b\)"):
        stl.capture(Masked(lambda a: a), [X[0, 0], X[0, 1]])
    assert len(stl.capture(Masked(lambda a: a), list(X[0])).program.inputs) == 1
    assert len(stl.capture(Prepared(lambda a, b: a - b), [X[0], X[1]]).program.inputs) == 2


class Loop(nn.Module):
    """A loop over time whose state is in the type of its input."""

    def __init__(self, dtype: torch.dtype, scale: float = 1.0, *, casts: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave, self.scale, self.casts = nn.Linear(4, 6), nn.Linear(6, 2), scale, casts
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        v, outputs = torch.zeros(x.shape[1], 6, dtype=self.leave.weight.dtype), []
        for current in self.enter(x.to(self.leave.weight.dtype) if self.casts else x):
            v = 0.8 * v + self.scale * current
            s = (v > 0.2).to(v.dtype)
            v = v - 0.2 * s
            outputs.append(self.leave(s))
        return torch.stack(outputs).float()


class Compared(nn.Module):
    """Sums of tenths, compared with tenths in a type of their own."""

    def __init__(self, theta: Any, fires: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.theta, self.fires = theta, fires

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for now in x:
            v = v + 0.1 * now
            s = self.fires(v, self.theta).float()
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


TENTHS = np.array([0.1, 0.2, 0.3, 0.7])


@pytest.mark.push(5)
@pytest.mark.parametrize("fires", [torch.gt, torch.ge, lambda v, theta: theta < v, lambda v, theta: ~(v < theta)])
@pytest.mark.parametrize("theta", [torch.from_numpy(TENTHS), torch.from_numpy(TENTHS).float(), 0.1, torch.tensor(0.7)])
def test_a_threshold_is_compared_in_its_own_type(theta: Any, fires: Any) -> None:
    """float32 sums of tenths lie on, below and above float64's tenths: rounded thresholds would move spikes."""
    x = (torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    model = Compared(theta, fires)
    net = stl.capture(model, x)
    np.testing.assert_array_equal(net.simulate(x).y, model(x).numpy())
    assert net.program.spiking[0].threshold.dtype == np.float32


class Meets(nn.Module):
    """Thresholds that are the currents of one sample as the model rounds them; folding a norm rounds otherwise."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.norm = nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 1.5)
        self.eval()
        self.level = self.norm(self.weights(x)).detach()

    def forward(self, x: Tensor) -> Tensor:
        current = self.norm(self.weights(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return (current >= self.level).float()


def test_spikes_that_differ_on_x_are_warned_of() -> None:
    x = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"[1-9]\d* of 512 spikes on x differ from the model's: float32 rounds"):
        net = stl.capture(Meets(x[0, :1]), x)
    assert net.proof.end_to_end["differing"] > 0


TYPES = {torch.float16: 1e-3, torch.float64: 1e-6}
"""Largest difference of the outputs of linear layers in this type and in float32."""


@pytest.mark.parametrize("casts", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_module_of_another_type_is_captured_with_a_warning(dtype: torch.dtype, casts: bool) -> None:
    name, model = str(dtype).removeprefix("torch."), Loop(dtype, casts=casts)
    kind = torch.float32 if casts else dtype
    with pytest.warns(UserWarning, match=rf"the model computes in {name} and the graph in float32.*model\.float\(\)"):
        net = stl.capture(model, (X[0] > 0.5).to(kind))
    assert net.proof.replay_differing == 0
    for seed in range(3):
        fresh = torch.randint(0, 3, (9, 2, 4), generator=torch.Generator().manual_seed(seed)).to(kind)
        expected = model(fresh).detach().numpy()
        assert expected.any()
        np.testing.assert_allclose(net.simulate(fresh.float().numpy()).y, expected, rtol=0, atol=TYPES[dtype])


@pytest.mark.parametrize("dtype", TYPES)
def test_a_module_of_another_type_than_x_is_refused_by_its_parameter(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    refusal = rf"test_input_types\.py:\d+: .*parameter 'enter.weight' is {name} and x float32: give model\.float\(\)"
    with pytest.raises(CaptureError, match=refusal):
        stl.capture(Loop(dtype), X[0])
    net, model = stl.capture(Loop(dtype).float(), X[0]), Loop(dtype).float()
    np.testing.assert_allclose(net.simulate(X[1].numpy()).y, model(X[1]).detach().numpy(), rtol=0, atol=1e-6)


class FloatSpikes(nn.Module):
    """Neurons whose spikes are float32 in any type of weights, as ``(v > θ).float()`` makes them."""

    def __init__(self, *dtypes: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(4, 6).to(dtypes[0]), nn.Linear(6, 2).to(dtypes[1])

    def forward(self, x: Tensor) -> Tensor:
        v, outputs = torch.zeros(()), []
        for current in self.enter(x):
            v = 0.8 * v + current
            s = (v > 0.2).float()
            v = v - 0.2 * s
            outputs.append(self.leave(s))
        return torch.stack(outputs)


@pytest.mark.parametrize("x", [torch.float32, *TYPES, torch.bfloat16])
@pytest.mark.parametrize(
    "weights", [(torch.float64, torch.float64), (torch.half, torch.half), (torch.float, torch.half)]
)
def test_a_module_that_fails_in_its_own_type_is_captured_in_float32(
    weights: tuple[torch.dtype, torch.dtype], x: torch.dtype
) -> None:
    model, own = FloatSpikes(*weights), (X[0] > 0.5).to(x)
    with pytest.raises(CaptureError, match=r"test_input_types\.py:\d+: .*: give model\.float\(\)") as refused:
        stl.capture(model, own)
    given = own.float() if "and x as float32" in str(refused.value) else own
    net, expected = stl.capture(model.float(), given), model(own.float()).detach().numpy()
    np.testing.assert_allclose(net.simulate(own.float().numpy()).y, expected, rtol=0, atol=1e-6)


def test_half_precision_that_overflows_is_refused() -> None:
    """Potentials beyond 65,504 are infinite in float16, and stay so."""
    with pytest.raises(CaptureError, match=r"the model computes in float16, .*: capture model\.float\(\)"):
        stl.capture(Loop(torch.float16, 5e4), X[0].half())
