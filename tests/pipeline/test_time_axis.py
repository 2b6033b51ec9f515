"""Which axis of a batch is time: what the module does decides, and each advice leads on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl

Steps = Callable[["Loop", Tensor], Iterable[Tensor]]
X = (torch.rand(9, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()  # [B, T, ...] where T is 5


class Loop(nn.Module):
    """Neurons written by hand in a loop over ``steps``; puts out every step, ``[T, B, 3]``."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.weights, self.num_steps = steps, nn.Linear(4, 3), 5

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(()), []
        for now in self.steps(self, x):
            v = 0.5 * v + self.weights(now)
            spikes.append((v > 0.05).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


def second(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return (x[:, t] for t in range(x.shape[1]))


def fixed_second(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return (x[:, t] for t in range(net.num_steps))


def first(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return x


def fixed_first(net: Loop, x: Tensor) -> Iterable[Tensor]:
    return (x[t] for t in range(net.num_steps))


@pytest.mark.parametrize("steps", [second, fixed_second])
def test_a_loop_over_the_second_axis_is_asked_about(steps: Steps) -> None:
    with pytest.raises(stl.CaptureError, match=r"read as 9 steps of 5 samples, .* give time='second', with which"):
        stl.capture(Loop(steps), X)
    assert stl.capture(Loop(steps), X, time="second", verify=False).sample.shape[:2] == (5, 9)


def test_a_loop_over_fewer_steps_than_x_has_is_asked_about() -> None:
    with pytest.raises(stl.CaptureError, match=r"if x is .*, give x\.transpose\(0, 1\), with which"):
        stl.capture(Loop(fixed_first), X)
    assert stl.capture(Loop(fixed_first), X.transpose(0, 1), verify=False).sample.shape[:2] == (5, 9)


def test_an_output_of_the_first_steps_is_refused_before_the_order_is_asked_about() -> None:
    class First(Loop):
        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = super().forward(x)
            return made[:5]

    with pytest.raises(stl.CaptureError, match=r"py:\d+: expected an output made of all 9 .* found one of 5 .*; x, \["):
        stl.capture(First(first), X)


def test_a_model_s_own_number_of_steps_contradicts_x() -> None:
    """The loop takes what x has; that the model says 5 steps, as many as samples, is all that shows the mistake."""
    with pytest.warns(UserWarning, match=r"9 steps of 5 samples, and the model's num_steps is 5: .*x\.transpose"):
        stl.capture(Loop(first), X)
    assert stl.capture(Loop(first), X.transpose(0, 1)).sample.shape[:2] == (5, 9)  # without a warning


def test_a_fixed_number_of_steps_is_held_on_that() -> None:
    """A loop over ``num_steps`` makes no more of a longer x: it is captured, and says so."""
    with pytest.warns(UserWarning, match=r"the model makes 5 steps of any longer x, .* give the graph 5 steps"):
        net = stl.capture(Loop(fixed_first), X.transpose(0, 1))
    model, x = Loop(fixed_first), X.transpose(0, 1)
    np.testing.assert_array_equal(net.simulate(x).y, model(x).detach())


@pytest.mark.parametrize("time", ["first", "second"])
def test_square_batches_are_asked_about_at_evaluation(time: str) -> None:
    steps = first if time == "first" else second
    x = X[:5] if time == "second" else X[:5].transpose(0, 1)
    net = stl.capture(Loop(steps), x, time=time)  # type: ignore[arg-type]
    labels = torch.arange(5) % 3
    with pytest.raises(stl.InputError, match="either axis may be time; say which: time='first' or time='second'"):
        net.evaluate([(X[:5], labels)])
    assert net.evaluate([(X[:5], labels)], time="second").differing == 0
    assert net.evaluate([(X, torch.arange(9) % 3)]).differing == 0  # 9 samples of 5 steps: labels tell
