"""Operations that only move values are captured by where torch's own kernel puts numbers, whatever their name is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.unrolling import addresses

X = (torch.rand(5, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5).float()
Body = Callable[[Tensor], Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:the model rearranges its input")


class Behind(nn.Module):
    """Neurons behind what ``body`` makes of images, step by step or of all steps at once."""

    def __init__(self, body: Body, at_once: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.at_once = body, at_once
        self.layer, self.lif = (
            nn.Linear(body(torch.zeros(2, 2, 4, 4)).flatten(1).shape[1], 6),
            stl.LIF((6,), threshold=0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.at_once:
            made = self.body(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        else:
            made = torch.stack([self.body(step) for step in x])
        return self.lif(self.layer(made.flatten(2)))


def strided(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :, ::2] = x[:, :, 1::2]
    return out


def on_diagonal(x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 2, 4, 4)
    out.diagonal(dim1=2, dim2=3).copy_(x[:, :, 0])
    return out


def copied(x: Tensor) -> Tensor:
    """A column of bool, repeated and cast by the copy."""
    return x + torch.zeros_like(x).copy_(x[..., :1] > 0.5)


def overwritten(x: Tensor) -> Tensor:
    """Constants in the place of everything: torch repeats them along the axes that they do not have."""
    return x - x.clone().copy_(torch.tensor([0.0, 1.0, 0.5, 0.25]))


MOVING: dict[str, Body] = {
    "unfold": lambda x: x.unfold(3, 3, 1),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "diag_embed": lambda x: x[:, :, 0].diag_embed(),
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
    "flip": lambda x: x.flip(1, 3),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "index": lambda x: x[:, :, [3, 0, 0]],
    "index of two axes": lambda x: x[:, :, [0, 1, 3], [1, 2, 0]],
    "index by a table": lambda x: x[:, :, torch.tensor([[0, 1], [3, 2]])],
    "gather": lambda x: x.gather(3, torch.tensor([2, 0]).expand(len(x), 2, 4, 2)),
    "scatter": lambda x: torch.zeros(len(x), 2, 4, 6).scatter(3, torch.tensor([5, 0, 1, 2]).expand(x.shape), x),
    "index_copy": lambda x: torch.zeros(len(x), 3, 4, 4).index_copy(1, torch.tensor([2, 0]), x),
    "col2im": lambda x: F.fold(F.unfold(x, 2, stride=2), (4, 4), 2, stride=2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "mirrored": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "upsampled": lambda x: F.interpolate(x, scale_factor=2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "strided": strided,
    "on_diagonal": on_diagonal,
    "copied": copied,
    "overwritten": overwritten,
}


@pytest.mark.push(15)
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", MOVING)
def test_what_moves_values_is_captured(name: str, at_once: bool) -> None:
    model = Behind(MOVING[name], at_once)
    net = stl.capture(model, X)
    fresh = (torch.rand(7, 2, 2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    for x in (X, fresh):
        expected = model(x).detach().numpy()
        assert expected.any()
        np.testing.assert_array_equal(net.simulate(x).y, expected)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x.cumsum(3),
        lambda x: x.sort(3)[0],
        lambda x: F.fold(F.unfold(x, 2), (4, 4), 2),
        lambda x: x.cummax(3)[0],
        lambda x: F.pad(x, (1, 1), value=0.5),
        lambda x: x.prod(3, keepdim=True),
        lambda x: x.kthvalue(2, 3)[0],
    ],
)
def test_what_does_more_than_moving_is_refused(body: Body) -> None:
    with pytest.raises(CaptureError):
        stl.capture(Behind(body, at_once=False), X)


class OverSteps(nn.Module):
    """A rearrangement of whole sequences."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.layer, self.lif = body, nn.Linear(32, 6), stl.LIF((6,), threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.layer(self.body(x).flatten(2)))


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x.flip(0),
        lambda x: x.roll(1, 1),
        lambda x: torch.stack([x[:, 0], *x[:, :-1].unbind(1)], 1),
        lambda x: x.flatten(0, 1).flip(0).unflatten(0, x.shape[:2]),
    ],
)
def test_what_moves_steps_or_samples_is_refused(body: Body) -> None:
    with pytest.raises(CaptureError):
        stl.capture(OverSteps(body), X)


class TimesSamples(nn.Module):
    """A layer of all steps and samples in one axis, before and behind a loop of neurons."""

    def __init__(self, enters: Body, leaves: Callable[[list[Tensor]], Tensor], inside: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enters, self.leaves, self.inside = enters, leaves, inside
        self.fc, self.norm, self.out = nn.Linear(32, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps = 5 if self.inside else len(x)
        currents = self.norm(self.fc(self.enters(x)))
        v, spikes = torch.zeros(len(currents) // steps, 8), []
        for current in currents.chunk(steps):
            v = 0.5 * v + current
            s = (v > 0.2).float()
            v = v - 0.2 * s
            spikes.append(s)
        together = self.out(self.leaves(spikes)).unflatten(0, (steps, -1))
        return together.mean(0) if self.inside else together


def _filled(spikes: list[Tensor]) -> Tensor:
    """Write each step in its place among all."""
    samples = len(spikes[0])
    whole = torch.zeros(len(spikes) * samples, 8)
    for t, s in enumerate(spikes):
        whole[t * samples : (t + 1) * samples] = s
    return whole


SHOWN: dict[str, Body] = {
    "cat": lambda x: torch.cat([x] * 5),
    "repeat": lambda x: x.repeat(5, 1),
    "tile": lambda x: torch.tile(x, (5, 1)),
    "index": lambda x: x[torch.arange(5 * len(x)) % len(x)],
    "steps behind": lambda x: x.repeat_interleave(5, 0).unflatten(0, (-1, 5)).transpose(0, 1).flatten(0, 1),
}
JOINED: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "cat": torch.cat,
    "vstack": torch.vstack,
    "halves": lambda spikes: torch.cat([torch.cat(spikes[:2]), torch.cat(spikes[2:])]),
    "written": _filled,
    "padded": lambda spikes: F.pad(torch.cat(spikes[:-1]), (0, 0, len(spikes[0]), 0)),
}


@pytest.mark.parametrize("leaves", JOINED)
@pytest.mark.parametrize("enters", [*SHOWN, "flatten"])
def test_steps_and_samples_in_one_axis(enters: str, leaves: str) -> None:
    inside = enters in SHOWN
    body = SHOWN[enters] if inside else lambda x: x.flatten(0, 1)
    model = TimesSamples(lambda x: body(x.flatten(1 if inside else 2)), JOINED[leaves], inside).eval()
    net = stl.capture(model, X[0] if inside else X, time="inside" if inside else "first")
    fresh = torch.rand(7, 6, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    x = fresh[0] if inside else fresh
    y = torch.from_numpy(net.simulate(x.numpy()).y)
    torch.testing.assert_close(torch.from_numpy(net.readout(y.numpy())) if inside else y, model(x))


def test_large_values_get_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_MOST", 100)
    with pytest.raises(CaptureError, match="'tril' has no form"):
        stl.capture(Behind(MOVING["tril"], at_once=True), X)


class Recurrent(nn.Module):
    """Neurons that read each other's spikes by ``own(weights)``, or by what ``body`` makes of their spikes."""

    def __init__(self, own: Body | None = None, body: Body | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.loop = nn.Linear(32, 8), nn.Linear(8, 8, bias=False)
        self.own, self.body = own, body

    def forward(self, x: Tensor) -> Tensor:
        v, s, out = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 8), []
        for now in x.flatten(2):
            v = 0.5 * v + self.enter(now)
            v = v + (s @ self.own(self.loop.weight).T if self.own is not None else -0.3 * self.body(s))
            s = (v > 0.2).float()
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


def _written(weight: Tensor) -> Tensor:
    weight = weight.clone()
    weight[torch.arange(8), torch.arange(8)] = 0
    return weight


@pytest.mark.parametrize(
    "own",
    [
        lambda weight: weight.clone().fill_diagonal_(0),
        _written,
        lambda weight: weight.triu(1),
    ],
)
def test_weights_that_forward_writes_into_are_constants(own: Body) -> None:
    model = Recurrent(own=own)
    np.testing.assert_array_equal(stl.capture(model, X).simulate(X).y, model(X).detach().numpy())


@pytest.mark.parametrize(
    "body",
    [
        lambda s: s.sum(-1, keepdim=True),
        lambda s: s.mean(-1, keepdim=True),
        lambda s: s.amax(-1, keepdim=True),
        lambda s: s.unflatten(1, (2, 4)).amax(2).repeat_interleave(4, 1),
    ],
)
def test_reductions_over_neurons_are_captured(body: Body) -> None:
    model = Recurrent(body=body)
    made = model(X).detach().numpy()
    assert 0 < made.mean() < 1
    np.testing.assert_array_equal(stl.capture(model, X).simulate(X).y, made)


@pytest.mark.parametrize("end", [200, 5000, -200])
def test_a_slice_of_steps_whose_end_x_does_not_reach_is_refused(end: int) -> None:
    """Addresses of 12 steps show none of it, and neither does the proof's longest run."""

    class Cut(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter = torch.nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            v, spikes = torch.zeros(x.shape[1], 6), []
            for current in self.enter(x):
                v = 0.5 * v + current
                spikes.append((v > 0.2).float())
                v = v * (1 - spikes[-1])
            made = torch.stack(spikes)
            return made[:end] if end > 0 else made[end:]

    with pytest.raises(CaptureError):
        stl.capture(Cut(), torch.rand(12, 3, 4))
