"""Step 0 of a deep layer: what it does otherwise is seen although nothing arrives there in a run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from tests.tracing.held import require_cell

X = (torch.rand(20, 8, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


class Deep(nn.Module):
    """A first layer that needs two steps to fire, and a second one whose step 0 follows ``rule``."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc1, self.fc2 = nn.Linear(6, 16, bias=False), nn.Linear(16, 5, bias=False)
        with torch.no_grad():
            self.fc2.weight.mul_(3)
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        v, u, out = torch.zeros(x.shape[1], 16), None, []
        for t in range(len(x)):
            v = 0.9 * v + self.fc1(x[t])
            s = (v > 1.0).float()
            v = v * (1 - s)
            c = self.fc2(s)
            u = self._potential(u, c)
            if self.rule == "readout":
                out.append(u)
                continue
            o = (u > (2.0 if self.rule == "threshold" and t == 0 else 0.5)).float()
            u = u if self.rule == "reset" and t == 0 else u * (1 - o)
            out.append(o)
        return torch.stack(out)

    def _potential(self, u: Tensor | None, c: Tensor) -> Tensor:
        match self.rule:
            case "average" | "readout":
                return c if u is None else 0.5 * u + 0.5 * c
            case "synapse":
                return 2 * c if u is None else 0.5 * u + c
            case "constant":
                return c + 0.25 if u is None else 0.5 * u + c
            case _:
                return c if u is None else 0.5 * u + c


@pytest.mark.parametrize("rule", ["synapse", "constant", "threshold", "reset", "average", "readout"])
def test_another_rule_at_the_start_is_a_cell(rule: str) -> None:
    require_cell(Deep(rule), X, 5 * X)


def test_a_state_that_starts_as_the_current_is_one_that_starts_from_0() -> None:
    model = Deep("plain")
    net = stl.capture(model, X)
    for strength in (1, 2, 3, 5):  # strong input reaches the second layer in step 0
        with torch.no_grad():
            expected = model(strength * X)
        assert expected.any()
        assert torch.equal(torch.from_numpy(net.simulate((strength * X).numpy()).y), expected)


class Shown(nn.Module):
    """The same currents at every step of a loop inside; the potential starts from the number 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v, out = 0.0, []
        for _ in range(6):
            v = 0.5 * v + self.fc(x)
            s = (v > 0.3).float()
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


def test_currents_that_are_the_same_at_every_step() -> None:
    model, x = Shown(), torch.rand(5, 6, generator=torch.Generator().manual_seed(2))
    net = stl.capture(model, x, time="inside")
    assert net.proof is not None
    assert net.proof.replay_differing == 0
