"""Refusals of capture that name what to write in its place: each is reached, and what it names is captured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from tests.tracing.held import require_cell


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(-4, 9, shape, generator=torch.Generator().manual_seed(seed)).float() / 4


def spikes(currents: Tensor, beta: float = 0.5, theta: float = 0.25, plus: Tensor | float = 0.0) -> Tensor:
    v, found = torch.zeros_like(currents[0]), []
    for current in currents:
        v = beta * v + current + plus
        s = (v > theta).float()
        v = v - theta * s
        found.append(s)
    return torch.stack(found)


class Net(nn.Module):
    """Layers of all forms, and a forward given as a function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.own, self.enter, self.leave = forward, nn.Linear(6, 8), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_((parameter * 16).round() / 16)  # sums are exact, and potentials meet thresholds

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


class Training(Net):
    def train(self, mode: bool = True) -> Training:
        super().train(mode)
        self.norm.train()
        return self


def potentials(
    spike: Callable[[Tensor], Tensor], rest: float = 0.0, drop: float = 0.25
) -> Callable[[Net, Tensor], Tensor]:
    def forward(net: Net, x: Tensor) -> Tensor:
        v, found = torch.full((x.shape[1], 8), rest), []
        for current in net.enter(x):
            v = v + 0.5 * (rest - v) + current
            s = spike(v)
            v = v - drop * s
            found.append(s)
        return torch.stack(found)

    return forward


def once(net: Net, x: Tensor) -> Tensor:
    v, found = torch.zeros(x.shape[1], 8), []
    fired = v > 1
    for current in net.enter(x):
        v = 0.5 * v + current
        s = (v > 0.25) & ~fired
        fired = fired | s
        found.append(s.float())
    return torch.stack(found)


def counted_once(net: Net, x: Tensor) -> Tensor:
    v, found = torch.zeros(x.shape[1], 8), []
    w = torch.zeros_like(v)
    for current in net.enter(x):
        v = 0.5 * v + current - 1000 * w
        s = (v > 0.25).float()
        w = w + s
        found.append(s)
    return torch.stack(found)


def twice_a_step(net: Net, x: Tensor) -> Tensor:
    v, found = torch.zeros(x.shape[1], 8), []
    for current in net.enter(x):
        for _ in range(2):
            v = 0.5 * v + current
            s = (v > 0.25).float()
            v = v - 0.25 * s
        found.append(s)
    return torch.stack(found)


def grouped(net: Net) -> Tensor:
    """Weights [2, 4, 4], of two groups."""
    return net.leave.weight.reshape(2, 4, 8)[..., :4].mT


X = numbers(8, 4, 6)
BOOL, INTEGERS = X > 0.5, (X * 4).long()
PLAIN = potentials(lambda v: (v > 0.25).float())
Forward = Callable[[Net, Tensor], Tensor]
SAME: list[tuple[Forward, Forward, Tensor, str]] = [
    (
        lambda net, x: functional.pad(PLAIN(net, x), (0, 0, 0, 0, 2, 0))[len(x) - 1],
        lambda net, x: functional.pad(PLAIN(net, x), (0, 0, 0, 0, 2, 0))[: len(x)],
        X,
        r"is the output, of another step than the last .*; return every step, \[T, B, \.\.\.\], and take the last",
    ),
    (
        lambda net, x: spikes(
            torch.einsum("tbgi,gij->tbgj", PLAIN(net, x).unflatten(2, (2, 4)), grouped(net)).flatten(2)
        ),
        lambda net, x: spikes(
            functional.conv1d(PLAIN(net, x).flatten(0, 1)[..., None], grouped(net).mT.reshape(8, 4, 1), groups=2).view(
                *x.shape[:2], 8
            )
        ),
        X,
        r"'bmm' has no form in a spiking graph; .* for each group write Conv1d\(n, m, 1, groups=g\)",
    ),
]
"""A form that is refused, one that computes the same and is captured, and the sentence."""
OTHERS: list[tuple[Forward, Forward, Tensor, str]] = [
    (
        lambda net, x: spikes(net.enter((~x).float())),
        lambda net, x: spikes(net.enter((~(x > 0.5)).float())),
        BOOL,
        "takes x as bool alone, and capture gives it floats, .* compare it in forward, x > 0.5",
    ),
    (
        lambda net, x: spikes(net.enter((x >> 1).float())),
        lambda net, x: spikes(net.enter(x)),
        INTEGERS,
        "takes x as int64 alone, .* apply what needs integers to x before capture",
    ),
    (
        lambda net, x: spikes(torch.roll(net.enter(x), 1, 1)),
        lambda net, x: spikes(net.enter(x)),
        X,
        "'roll' moves time steps or samples; a graph computes each by itself$",
    ),
    (
        lambda net, x: spikes(net.enter(x - x[:1])),
        lambda net, x: spikes(net.enter(x)),
        X,
        "reads step 0 of x in several steps",
    ),
]
"""A form that is refused, and one that the sentence leads to, which computes otherwise."""


@pytest.mark.parametrize(
    "body",
    [
        once,
        twice_a_step,
        potentials(lambda v: ((v - 0.25) * 1e30).clamp(0, 1)),
        potentials(lambda v: (v > 0.25).float() - (v < -0.25).float()),
        potentials(lambda v: ((v > 0.25) & (v < 50)).float()),
    ],
    ids=["once", "twice a step", "a steep slope", "ternary", "a window"],
)
def test_what_no_neuron_has_is_a_cell(body: Forward) -> None:
    require_cell(Net(body), X, X.flip(0))


def require_same(net: stl.SpikingGraph, model: nn.Module, x: Tensor) -> None:
    steps = torch.cat([x, x.flip(0), x[:1]])
    for given in (
        x,
        x[:1, :1],
        steps.flip(1),
        steps[:, :3],
        *(() if x.dtype == torch.bool else (-2 * x, 0 * x, x / 4)),
    ):
        with torch.no_grad():
            expected = model(given).numpy()
        np.testing.assert_allclose(net.simulate(given.numpy()).y.reshape(expected.shape), expected, rtol=0, atol=1e-5)


@pytest.mark.push(5)
@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(("refused", "captured", "x", "sentence"), SAME + OTHERS)
def test_a_refusal_names_a_form_that_is_captured(refused: Forward, captured: Forward, x: Tensor, sentence: str) -> None:
    with pytest.raises(CaptureError, match=sentence):
        stl.capture(Net(refused), x)
    given = x.float()
    model = Net(captured).eval()
    net = stl.capture(model, given)
    require_same(net, model, given)
    if refused in [form for form, *_ in SAME]:
        made, y = Net(refused).eval()(given).detach().numpy(), net.simulate(given.numpy()).y
        np.testing.assert_allclose(y if made.ndim == y.ndim else y[-1], made, rtol=0, atol=1e-5)


def test_a_norm_that_its_module_keeps_in_train_mode_is_named() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return spikes(torch.stack([net.norm(current) for current in net.enter(x)]))

    with pytest.raises(CaptureError, match=r"one that model.eval\(\) leaves in train mode .*; let eval\(\) reach it"):
        stl.capture(Training(forward), X)
    model = Net(forward).eval()
    require_same(stl.capture(model, X), model, X)


@pytest.mark.parametrize("theta", [-60.0, -69.5, 0.0])
@pytest.mark.parametrize("drop", [5.0, 0.5])
def test_potentials_in_millivolts_are_captured(theta: float, drop: float) -> None:
    """A spike subtracts a number, not the threshold, which is below 0."""
    model = Net(potentials(lambda v: (v >= theta).float(), rest=-70.0, drop=drop)).eval()
    with torch.no_grad():
        model.enter.weight.mul_(16 if theta == -60 else 64 if theta == 0 else 1)
    net = stl.capture(model, X)
    require_same(net, model, X)
    assert net.simulate(X.numpy()).y.any()


@pytest.mark.parametrize("own", [False, True])
def test_one_layer_of_spikes_of_two_steps_is_captured(tmp_path: Path, *, own: bool) -> None:
    """It was refused as an edge that is "listed twice", without a line."""

    def forward(net: Net, x: Tensor) -> Tensor:
        v = last = before = torch.zeros(x.shape[1], 8)
        found = []
        for step in x:
            again = net.one(last) + net.other(before) if own else net.one(last + before)
            v = 0.5 * v + net.enter(step) + again
            last, before = (v > 0.25).float(), last
            v = v - 0.25 * last
            found.append(last)
        return torch.stack(found)

    model = Net(forward)
    model.one, model.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        for layer in (model.one, model.other):
            layer.weight.copy_((layer.weight * 16).round() / 16)
    net, unseen = stl.capture(model, numbers(7, 3, 6)), numbers(9, 2, 6, seed=2)
    with torch.no_grad():
        np.testing.assert_array_equal(net.simulate(unseen).y, model(unseen).numpy())
    if not own:
        with pytest.raises(stl.UnsupportedError, match="reads spikes of several steps in a loop"):
            net.export(tmp_path / "net.nir")
