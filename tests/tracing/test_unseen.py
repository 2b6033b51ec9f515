"""What a run on x does not show of a module is refused, or captured as it is on input that capture never saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError

Step = Callable[[Tensor, Tensor], Tensor]
"""The potential of a current and of what was left of the potential."""


class Net(nn.Module):
    """6 inputs, 8 spiking neurons whose potential is ``step``'s, 4 linear outputs; ``body`` is done to what spikes."""

    def __init__(
        self, step: Step = lambda current, v: 0.5 * v + current, rest: float = 0.0, body: Any = lambda net, s: s
    ) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 4)
        self.step, self.rest, self.body = step, rest, body

    def spikes(self, currents: Tensor) -> Tensor:
        v, found = torch.zeros_like(currents[0]), []
        for current in currents:
            v = self.step(current, v)
            spikes = (v > 0.3).float()
            v = torch.where(spikes.bool(), torch.full_like(v, self.rest), v)
            found.append(spikes)
        return torch.stack(found)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.leave(self.body(self, self.spikes(self.enter(x))))
        return found


class Other(Net):
    """A net with a forward of its own, in a function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def require_same(model: nn.Module, x: Tensor, *unseen: Tensor, **options: Any) -> Any:
    """Capture on x, then hold the graph against the module on x and on input that capture never saw."""
    net = stl.capture(model, x, **options)
    for given in (x, *unseen):
        expected = model.eval()(given.clone()).detach().float().numpy()
        found = net.simulate(given.numpy()).y
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    return net


@pytest.mark.parametrize("bound", [1.0, 1000.0])
def test_a_bound_that_no_potential_comes_near_is_refused(bound: float) -> None:
    torch.manual_seed(0)
    model = Net(lambda current, v: (0.9 * v + current).clamp(min=-bound))
    with pytest.raises(CaptureError, match="'clamp' bounds its potential; leave the bound out"):
        stl.capture(model, torch.rand(6, 4, 6))


def test_a_bend_near_0_is_refused() -> None:
    torch.manual_seed(0)
    model = Net(lambda current, v: nn.functional.hardshrink(0.9 * v, 0.01) + current)
    with pytest.raises(CaptureError, match="its potential is not a weighted sum"):
        stl.capture(model, torch.rand(6, 4, 6))


def test_a_potential_that_starts_at_0_and_leaks_elsewhere_starts_at_0() -> None:
    torch.manual_seed(0)
    require_same(Net(lambda current, v: v + (current - (v + 0.2)) / 2, -0.2), torch.rand(6, 4, 6), torch.rand(9, 2, 6))
