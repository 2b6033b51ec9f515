"""Refusals of neurons written by hand say what capture met, and the form that they name is captured."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError

State = tuple[Tensor, ...]
Step = Callable[["Neurons", Tensor, State], tuple[Tensor, State]]


class Neurons(nn.Module):
    """One layer by hand: ``step`` takes currents and the state, and returns spikes and the next state."""

    def __init__(self, step: Step, *start: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.back = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.back.weight.copy_(torch.eye(8) * -0.25)
        self.step, self.start = step, start

    def forward(self, x: Tensor) -> Tensor:
        state: State = tuple(torch.full((x.shape[1], 8), start) for start in self.start)
        out = []
        for current in self.enter(x):
            spikes, state = self.step(self, current, state)
            out.append(spikes)
        return torch.stack(out)


def _reset(v: Tensor, theta: float | Tensor = 0.25) -> tuple[Tensor, Tensor]:
    k = (v >= theta).float()
    return k, v * (1 - k)


def _negated(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v = 0.75 * state[0] - i
    k = (v < -0.25).float()
    return k, (v * (1 - k),)


def _multiple(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v = 0.75 * state[0] + i
    k = (-2 * v <= -0.5).float()
    return k, (v * (1 - k),)


def _bounded_by_where(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v = 0.75 * state[0] + i
    k, v = _reset(torch.where(v < -0.5, -0.5, v))
    return k, (v,)


def _bounded(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    k, v = _reset((0.75 * state[0] + i).clamp(min=-0.5))
    return k, (v,)


def _plain(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    k, v = _reset(0.75 * state[0] + i)
    return k, (v,)


def _late_without_weights(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v, last, before = state
    k, v = _reset(0.75 * v + i - 0.25 * before)
    return k, (v, k, last)


def _late_through_weights(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v, last, before = state
    k, v = _reset(0.75 * v + i + net.back(before))
    return k, (v, k, last)


def _divided(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v, theta = state
    v = 0.75 * v + i
    k = (v / theta >= 1).float()
    return k, (v * (1 - k), 0.9 * theta + 0.04 + 0.2 * k)


def _adapting(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v, theta = state
    k, v = _reset(0.75 * v + i, theta)
    return k, (v, 0.9 * theta + 0.04 + 0.2 * k)


def _adapting_late(net: Neurons, i: Tensor, state: State) -> tuple[Tensor, State]:
    v, theta, last = state
    k, v = _reset(0.75 * v + i, theta)
    return k, (v, 0.9 * theta + 0.04 + 0.2 * last, k)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("refused", "reason", "followed"),
    [
        (
            Neurons(_negated, 0.0),
            "a Cell",
            Neurons(_plain, 0.0),
        ),
        (
            Neurons(_multiple, 0.0),
            "a Cell",
            Neurons(_plain, 0.0),
        ),
        (
            Neurons(_bounded_by_where, 0.0),
            "a Cell",
            Neurons(_bounded, 0.0),
        ),
        (
            Neurons(_late_without_weights, 0.0, 0.0, 0.0),
            "a Cell",
            Neurons(_late_through_weights, 0.0, 0.0, 0.0),
        ),
        (
            Neurons(_divided, 0.0, 0.4),
            "a Cell",
            Neurons(_adapting, 0.0, 0.4),
        ),
        (
            Neurons(_adapting_late, 0.0, 0.4, 0.0),
            "'ge' does not do the same at every step: it compares with other numbers at some (a threshold chosen by "
            "the step, or raised by spikes of before the last step?)",
            Neurons(_adapting, 0.0, 0.4),
        ),
        (
            Neurons(_late_through_weights, 0.0, 1.0, 1.0),
            "a Cell",
            Neurons(_late_through_weights, 0.0, 0.0, 0.0),
        ),
    ],
)
def test_a_refusal_says_what_is_true_and_the_form_it_names_is_captured(
    refused: nn.Module, reason: str, followed: nn.Module
) -> None:
    x, fresh = (torch.rand(12, 4, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with pytest.raises(CaptureError, match=re.escape(reason)):
        stl.capture(refused, x)
    expected = followed(fresh).detach().numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(stl.capture(followed, x).simulate(fresh.numpy()).y, expected)


@pytest.mark.parametrize(
    "forward",
    [lambda x: x @ torch.ones(5, 2), lambda x: x + torch.zeros(4, 6), lambda x, y: x + y],
    ids=["its width", "its samples", "two inputs"],
)
def test_a_module_without_time_is_not_told_of_steps(forward: Callable[..., Any]) -> None:
    class Timeless(nn.Module):
        pass

    model = Timeless()
    model.forward = forward
    with pytest.raises(CaptureError) as refused:
        stl.capture(model, torch.rand(4, 6), time="none")
    assert "give x as forward takes it" in str(refused.value)
    assert "step" not in str(refused.value)


def test_a_module_without_time_may_have_an_argument_for_state() -> None:
    class Timeless(nn.Module):
        def forward(self, x: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
            v = 2 * x if v is None else v + x
            return torch.relu(v), v

    x = torch.rand(4, 6) - 0.5
    np.testing.assert_array_equal(stl.capture(Timeless(), x, time="none").simulate(x.numpy()).y[0], torch.relu(2 * x))


@pytest.mark.parametrize(
    "fault",
    [
        "stl_deploy.tracing.unrolling.rules.interpret",
        "stl_deploy.tracing.layers.weights.Linear",
    ],
)
def test_a_fault_of_captures_own_is_no_reason(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of an exception inside capture speak of nothing that the user wrote."""

    def fails(*_: Any) -> Any:
        raise StopIteration("'float' object has no attribute 'signal'")

    monkeypatch.setattr(fault, fails)
    with pytest.raises(CaptureError) as refused:
        stl.capture(Neurons(_plain, 0.0), torch.rand(8, 3, 6))
    assert refused.value.line is not None
    assert "a form that capture does not read" in str(refused.value)
    assert "StopIteration" not in str(refused.value)
    assert "signal" not in str(refused.value)


class AllSteps(nn.Module):
    """A neuron that reads step t of sums over all steps, weighted by a matrix [T, T] as dendrites' decays are."""

    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        self.enter, self.inside = nn.Linear(6, 8), inside
        lags = torch.arange(4)[:, None] - torch.arange(4)
        self.weights = torch.where(lags <= 0, 0.5 ** (-lags.clamp(max=0)), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.enter(x.repeat(4, 1, 1) if self.inside else x)
        summed = (self.weights.reshape(4, 4, 1, 1) * currents.unsqueeze(1)).sum(0)
        v, spikes = torch.zeros_like(summed[0]), []
        for t in range(4):
            v = 0.5 * v + summed[t]
            spikes.append((v > 0.3).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


@pytest.mark.parametrize(("inside", "reason"), [(False, "comes in a later step"), (True, "not do the same at every")])
def test_a_matrix_over_all_steps_is_no_question_of_delays(inside: bool, reason: str) -> None:
    x = torch.rand(3, 6) if inside else torch.rand(4, 3, 6)
    with pytest.raises(CaptureError, match=reason) as error:
        stl.capture(AllSteps(inside=inside), x, time="inside" if inside else "first")
    assert "F.pad(s" not in str(error.value)


class Whole(nn.Module):
    """A loop over the second axis of ``[B, T, ...]``; samples alone in it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(()), []
        for t in range(x.shape[1]):
            v = 0.5 * v + self.conv(x[:, t])
            out.append((v > 0.2).float())
            v = v - out[-1]
        return torch.stack(out, 1)


def one_step(x: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
    v = x if v is None else 0.5 * v + x
    return (v > 0.7).float(), v * (v <= 0.7)


class OneStep(nn.Module):
    """One step, with the state in the caller's hands."""

    def forward(self, x: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return one_step(x, v)


@pytest.mark.parametrize(
    ("model", "shape", "time", "right"),
    [
        (Whole, (6, 8, 2, 5, 5), "step", "second"),  # x[:, None] was told, with which samples passed for steps
        (Whole, (6, 8, 2, 5, 5), "inside", "second"),
        (OneStep, (6, 8), "inside", "step"),
    ],
)
def test_another_time_is_told_with_which_the_model_is_captured(
    model: type[nn.Module], shape: tuple[int, ...], time: Any, right: Any
) -> None:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CaptureError, match=f"give (x as .* and )?time='{right}'"):
        stl.capture(model(), x, time=time, progress=False)
    given = x if right == "second" else x.expand(4, *x.shape)
    assert stl.capture(model(), given, time=right, progress=False).proof is not None


def test_a_wrong_shape_names_the_axes_that_the_module_takes() -> None:
    x = torch.rand(6, 8, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    net = stl.capture(Whole(), x, time="second", progress=False)
    with pytest.raises(stl.InputError, match=r"expected \[B, T, 2, 5, 5\].*found \[6, 8, 1, 5, 5\]"):
        net.simulate(x[:, :, :1])
    with pytest.raises(stl.InputError, match=r"found \[8, 2, 5, 5\]; of one sample give x\[None\]"):
        net.simulate(x[0])
    assert net.simulate(x[0][None]).y.shape[:2] == (8, 1)
