"""What a model does behind capture's back is refused: caught refusals, reads and writes outside torch, far bounds."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError

Change = Callable[[Tensor], Tensor]


def same(value: Tensor) -> Tensor:
    return value


class Net(nn.Module):
    """6 inputs, 8 leaky neurons, 4 outputs; functions change the input, the potential, the spikes and the output."""

    def __init__(self, x: Change = same, v: Change = same, s: Change = same, y: Change = same) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 4)
        self.of_x, self.of_v, self.of_s, self.of_y = x, v, s, y

    def forward(self, x: Tensor) -> Tensor:
        v, found = torch.zeros(x.shape[1], 8), []
        for current in self.enter(self.of_x(x)):
            v = self.of_v(0.8 * v + current)
            s = (v > 0.4).float()
            v = v - 0.4 * s
            found.append(self.leave(self.of_s(s)))
        return self.of_y(torch.stack(found))


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


X = numbers(8, 4, 6)


def branch(y: Tensor) -> Tensor:
    try:
        if y.abs().max() > 50:
            return 2 * y
    except Exception:
        pass
    return y


def whatever(y: Tensor) -> Tensor:
    try:
        return y * float(y.abs().max() > 50)
    except BaseException:
        return y


def suppressed(y: Tensor) -> Tensor:
    with contextlib.suppress(CaptureError):
        return y + y[y.abs() > 1e3].numel()
    return y


def asserted(y: Tensor) -> Tensor:
    try:
        assert y.abs().max() < 1e3
    except AssertionError:
        return 0.5 * y
    except Exception:
        pass
    return y


def otherwise(y: Tensor) -> Tensor:
    try:
        if y.abs().max() > 50:
            return 2 * y
    except Exception as error:
        raise ValueError("no decision") from error
    return y


READS = {
    "in a set": lambda s: s * 2 if s.mean().item() in {1.0} else s,
    "a key": lambda s: s * {1.0: 2.0}.get(s.mean().item(), 1.0),
    "distinct values": lambda s: s * len({s.sum().item(), s.mean().item()}),
    "a tensor of tensors": lambda s: s * torch.tensor([s[0, 0], s[0, 1]]).sum(),
    "an array's tensor": lambda s: s * torch.as_tensor([s[0, 0]] * 8),
    "a new tensor": lambda s: s * s.new_tensor([s[0, 0]] * 8),
    "each value": lambda s: s.apply_(lambda value: min(value, 5.0)),
    "pairs of values": lambda s: s.map_(s.clone(), lambda value, _: min(value, 5.0)),
}
"""Each is called with spikes, or with a potential."""


def written(write: Callable[[Any], Any]) -> Change:
    def through_memory(v: Tensor) -> Tensor:
        write(v.numpy())
        return v

    return through_memory


WRITES = {
    "clipped": written(lambda a: np.clip(a, -5, 5, out=a)),
    "a bound": written(lambda a: np.maximum(a, -20, out=a)),
    "a slice": written(lambda a: a.__setitem__(slice(None), np.clip(a, -5, 5))),
    "copied": written(lambda a: np.copyto(a, np.clip(a, -5, 5))),
    "filled": written(lambda a: a.fill(0)),
    "a view": written(lambda a: a.reshape(-1)[3:].sort()),
}


@pytest.mark.parametrize("y", [branch, whatever, suppressed, asserted, otherwise])
def test_a_refusal_that_the_model_catches_is_raised_by_its_line(y: Change) -> None:
    with pytest.raises(CaptureError, match=r"test_swallowed\.py:\d+: the code reads a value that depends on the input"):
        stl.capture(Net(y=y), X)


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("place", ["s", "v"])
def test_a_value_read_outside_torch_is_refused_by_its_line(name: str, place: str) -> None:
    with pytest.raises(CaptureError, match=r"test_swallowed\.py:\d+: .* depends? on the input"):
        stl.capture(Net(**{place: READS[name]}), X)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_into_a_tensors_memory_is_refused_by_its_line(name: str) -> None:
    with pytest.raises(CaptureError, match=r"test_swallowed\.py:\d+: 'numpy' hands values"):
        stl.capture(Net(v=WRITES[name]), X)


@pytest.mark.parametrize(
    "y",
    [
        lambda y: y * y.new_tensor([1.0, 2.0, 3.0, 4.0]),
        lambda y: y * torch.tensor([torch.tensor(number) for number in (1.0, 2.0, 3.0, 4.0)]),
        lambda y: nn.functional.dropout(y, 0.5, training=False),
        lambda y: y * torch.as_tensor(np.arange(4, dtype=np.float32)),
    ],
)
def test_tensors_of_constants_are_captured(y: Change) -> None:
    model = Net(y=y)
    np.testing.assert_allclose(stl.capture(model, X).simulate(X.numpy()).y, model(X).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_far", [lambda k: k == 0, lambda k: k > 90, lambda k: k > 1e8])
def test_a_branch_on_silence_or_on_far_values_is_refused_though_no_record_shows_it(is_far: Any) -> None:
    def far(x: Tensor) -> Tensor:
        largest = x.abs().max().item()
        return x + 1 if isinstance(largest, float) and is_far(largest) else x

    with pytest.raises(CaptureError, match="the model computes something else on"):
        stl.capture(Net(x=far), X)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    "bound",
    [
        lambda v: v.clamp(max=1e8),
        lambda v: v.clamp(-1e10, 1e10),
        lambda v: torch.minimum(v, torch.tensor(1e9)),
        lambda v: nn.functional.hardtanh(v, -1e9, 1e9),
    ],
)
def test_a_bound_is_refused_however_far_it_is(bound: Change) -> None:
    with pytest.raises(CaptureError, match="a Cell"):
        stl.capture(Net(v=bound), X)


class Delayed(Net):
    """Two populations; the second reads the first's spikes of some steps ago, through a layer or a gain."""

    def __init__(self, delay: Callable[[Tensor], Tensor] | int, *, through_layer: bool = True) -> None:
        super().__init__()
        self.inner, self.delay, self.through_layer = nn.Linear(8, 8), delay, through_layer

    def spikes(self, currents: Tensor) -> Tensor:
        v, found = torch.zeros_like(currents[0]), []
        for current in currents:
            v = 0.8 * v + current
            found.append((v > 0.4).float())
            v = v - 0.4 * found[-1]
        return torch.stack(found)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.spikes(self.enter(x))
        if not isinstance(self.delay, int):
            return self.leave(self.spikes(spikes + self.delay(spikes)))
        queue = deque([torch.zeros_like(spikes[0])] * self.delay)
        late = []
        for s in spikes:
            queue.append(s)
            old = queue.popleft()
            late.append(s + (self.inner(old) if self.through_layer else 0.5 * old))
        return self.leave(self.spikes(torch.stack(late)))


def test_a_delay_longer_than_all_runs_is_refused() -> None:
    with pytest.raises(CaptureError, match="longest delay"):
        stl.capture(Delayed(300), X)


@pytest.mark.parametrize(
    "model",
    [
        Delayed(80),
        Delayed(80, through_layer=False),
        Delayed(lambda s: nn.functional.pad(s, (0, 0, 0, 0, 80, 0))[: len(s)]),
    ],
)
def test_a_delay_longer_than_x_is_captured(model: nn.Module) -> None:
    x = numbers(200, 2, 6)
    y = stl.capture(model, X).simulate(x.numpy()).y
    np.testing.assert_allclose(y, model(x).detach(), rtol=1e-5, atol=1e-6)


def test_a_delay_longer_than_what_is_traced_first_is_captured() -> None:
    model, x = Delayed(40, through_layer=False), numbers(60, 2, 6)
    y = stl.capture(model, x).simulate(x.numpy()).y
    np.testing.assert_allclose(y, model(x).detach(), rtol=1e-5, atol=1e-6)


def test_what_differs_behind_the_steps_that_are_traced_first_is_refused_by_its_line() -> None:
    def late(v: Tensor) -> Tensor:
        counted.append(1)
        return 0.5 * v if len(counted) % 60 == 50 else v

    counted: list[int] = []
    with pytest.raises(CaptureError):
        stl.capture(Net(v=late), numbers(60, 2, 6))


class TwoFilters(Net):
    def forward(self, x: Tensor) -> Tensor:
        v = rises = falls = torch.zeros(x.shape[1], 8)
        found = []
        for current in self.enter(x):
            rises, falls = 0.5 * rises + current, 0.8 * falls + current
            v = 0.9 * v + (falls - rises)
            s = (v > 0.1).float()
            v = v - 0.1 * s
            found.append(s)
        return self.leave(torch.stack(found))


def test_two_filters_of_one_input_are_captured() -> None:
    model, x = TwoFilters(), numbers(9, 3, 6, seed=2)
    y = stl.capture(model, X).simulate(x.numpy()).y
    np.testing.assert_allclose(y, model(x).detach(), rtol=1e-5, atol=1e-6)


class Deep(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            v, found = torch.zeros(x.shape[1], 4), []
            for current in layer(x):
                v = 0.9 * v + current
                found.append((v > 0.2).float())
                v = v - 0.2 * found[-1]
            x = torch.stack(found)
        return x


def test_layers_need_no_depth_of_calls() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        with pytest.warns(UserWarning, match="no spike"):
            net = stl.capture(Deep(30), numbers(4, 2, 4))
        assert sys.getrecursionlimit() < limit
    finally:
        sys.setrecursionlimit(limit)
    assert len(net.program.spiking) == 30


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.empty(4, 2, 6, device="meta"), "on the meta device"),
        ((torch.empty(4, 2, 6, device="meta"),) * 2, "on the meta device"),
        (torch.nested.nested_tensor([torch.rand(4, 6), torch.rand(3, 6)], layout=torch.jagged), "x is nested"),
    ],
)
def test_x_without_values_or_of_several_lengths_is_refused(x: Any, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        stl.capture(Net(), x)


def test_forward_is_called_ten_times_at_most() -> None:
    """Each call has a use of its own.

    x recorded; an input of other sizes, another one of those of x, and x after them (what is kept); larger fresh input
    recorded; x as it is; many steps of many samples, with gradients; 1 sample; 1 step; silence.
    """
    model, calls = Net(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    stl.capture(model, X)
    assert len(calls) <= 10


def test_a_run_of_many_samples_is_compared_though_the_longer_run_held_most_of_them() -> None:
    """About 3,000 values a step: 256 steps are afforded of 40 samples, and x's 8 of 64."""
    model = Net(y=lambda y: y * (1 + (y.shape[1] > 60)))
    model.enter, model.leave = nn.Linear(6, 450), nn.Linear(450, 4)
    model.forward = functools.partial(wide, model)  # type: ignore[method-assign]
    with pytest.raises(CaptureError, match="on 64 samples than on x"):
        stl.capture(model, X)


def wide(model: Net, x: Tensor) -> Tensor:
    v, found = torch.zeros(x.shape[1], 450), []
    for current in model.enter(x):
        v = 0.8 * v + current
        found.append((v > 0.4).float())
        v = v - 0.4 * found[-1]
    return model.of_y(model.leave(torch.stack(found)))
