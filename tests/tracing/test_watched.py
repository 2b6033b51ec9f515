"""Numbers that a model only watches, by ``.item()`` or ``.numpy()``, do not keep it from being captured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError

Watch = Callable[["Net", Tensor], Any]


class Net(nn.Module):
    """Leaky neurons; ``watch`` is called with the spikes of each step, and ``end`` with all outputs."""

    def __init__(self, watch: Watch = lambda net, s: None, end: Watch = lambda net, y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 4)
        self.watch, self.end = watch, end
        self.kept: list[Any] = []
        self.total = 0.0

    def add(self, number: Any) -> None:
        self.total += number

    def forward(self, x: Tensor) -> Any:
        self.total = 0.0
        found, v = [], torch.zeros(x.shape[1], 8)
        for current in self.enter(x):
            v = 0.8 * v + current
            s = (v > 0.4).float()
            v = v * (1 - s)
            self.watch(self, s)
            found.append(self.leave(s))
        return self.end(self, torch.stack(found))


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


WATCHES: dict[str, Watch] = {
    "a rate": lambda net, s: net.kept.append(s.mean().item()),
    "a sum of rates": lambda net, s: net.add(s.sum().item() / 8),
    "text": lambda net, s: net.kept.append(f"{s.mean():.3f} {s.mean().item():6.2f} {s.sum().int().item():d} {s}"),
    "padded text": lambda net, s: net.kept.append("rate " + str(s.mean()).strip() + f"{s.mean():.2f}".ljust(9)),
    "an array": lambda net, s: net.kept.append(s.detach().cpu().numpy().copy()),
    "an array's mean": lambda net, s: net.kept.append(np.mean([np.sqrt(s.numpy().mean()), s.numpy()[0, 1]])),
    "a list": lambda net, s: net.kept.append(s.tolist()),
}


@pytest.mark.parametrize("name", WATCHES)
def test_a_model_that_watches_its_spikes_is_captured(name: str) -> None:
    model = Net(WATCHES[name])
    net = stl.capture(model, numbers(7, 4, 6))
    assert (model.kept, model.total) == ([], 0.0)
    unseen = 1.4 * numbers(9, 2, 6, seed=2) - 0.1
    expected = model.eval()(unseen).detach().numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, expected, rtol=1e-4, atol=1e-5)
    assert model.kept or model.total


def test_a_rate_that_is_returned_beside_the_output_is_left_aside() -> None:
    net = stl.capture(Net(end=lambda net, y: (y, {"rate": y.mean().item()})), numbers(7, 4, 6))
    assert net.proof is not None
    assert net.proof.replay_differing == 0


ACTS: dict[str, Watch] = {
    "a factor": lambda net, y: y * y.mean().item(),
    "a divisor": lambda net, y: y / (1 + abs(y.mean().item())),
    "a tensor of it": lambda net, y: y + torch.tensor(y.mean().item()),
    "a tensor of several": lambda net, y: y + torch.tensor([y[0, 0, 0].item()] * 4),
    "an option": lambda net, y: torch.clamp(y, max=y.max().item()),
    "a branch": lambda net, y: 2 * y if y.max().item() > 1e6 else y,
    "a branch by equality": lambda net, y: 2 * y if y.max().item() == 1e6 else y,
    "a loop": lambda net, y: sum((y for _ in range(int(y.max().item()))), y),
    "mathematics": lambda net, y: y * math.sqrt(y.abs().max().item()),
    "numpy": lambda net, y: y + torch.from_numpy(np.float32(y.numpy())),
    "an entry written": lambda net, y: y.index_fill(-1, torch.tensor([0]), y.max().item()),
    "a state": lambda net, y: y + net.total,
}


@pytest.mark.parametrize("name", ACTS)
def test_a_number_that_acts_on_the_output_is_refused(name: str) -> None:
    watch: Watch = (lambda net, s: net.add(s.sum().item())) if name == "a state" else (lambda net, s: None)
    with pytest.raises(CaptureError, match=r"test_watched\.py:.* depends? on the input"):
        stl.capture(Net(watch, ACTS[name]), numbers(7, 4, 6))


TEXTS: dict[str, Callable[[Tensor], bool]] = {
    "digits": lambda y: "3" in f"{y.abs().max():.0f}",
    "a sign": lambda y: "-" in str(y),
    "a number's text": lambda y: str(y.max().item()) == "3.0",
    "order": lambda y: f"{y.max():.0f}" > "n",
    "a key": lambda y: f"{y.max():.0f}" in {"3": 1},
    "a list": lambda y: f"{y.max():.0f}" in ["3", "4"],
    "its start": lambda y: repr(y).startswith("tensor(-"),
    "its length": lambda y: len(f"{y.max():.0f}") > 1,
    "joined text": lambda y: f"{y.max():.0f}" + " Hz" == "3 Hz",
    "a number again": lambda y: float(f"{y.max():.0f}") > 3,
    "an integer again": lambda y: int(f"{y.max():.0f}") > 3,
    "stripped text": lambda y: f"{y.max():3.0f}".strip() == "3",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_branch_on_a_numbers_text_is_refused_by_its_line(name: str) -> None:
    with pytest.raises(CaptureError, match=r"test_watched\.py:\d+: the code reads a value that depends on the input"):
        stl.capture(Net(end=lambda net, y: 2 * y if TEXTS[name](y) else y), numbers(7, 4, 6))


@pytest.mark.parametrize("decide", [lambda y: "3" in f"at most {y:.0f} Hz", lambda y: "3" in str([y.item()])])
def test_a_branch_on_text_with_other_parts_is_refused_by_the_proof(decide: Callable[[Tensor], bool]) -> None:
    with pytest.raises(CaptureError, match=r"does not compute what the model does|computes something else"):
        stl.capture(Net(end=lambda net, y: 2 * y if decide(y.abs().max()) else y), numbers(7, 4, 6))


def test_a_number_read_by_float_is_refused_with_what_to_write() -> None:
    model = Net(lambda net, s: net.kept.append(float(s.mean())))
    with pytest.raises(CaptureError, match=r"what is only watched \(a firing rate\) may be kept by \.item\(\)"):
        stl.capture(model, numbers(7, 4, 6))
