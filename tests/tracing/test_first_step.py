"""Step 0 of a deep layer: what it does otherwise is seen although nothing arrives there in a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.graph.cell import Cell
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


class Spikes(nn.Module):
    """A neuron whose potential starts from the number 0."""

    def __init__(self, charge: Callable[[float | Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.charge, self.v = charge, 0.0

    def reset(self) -> None:
        self.v = 0.0

    def forward(self, i: Tensor) -> Tensor:
        v = self.charge(self.v, i)
        s = (v >= 0.5).float()
        self.v = v * (1 - s)
        return s


class Before(nn.Module):
    """Step 0 stands on a line before the loop."""

    def __init__(self, ends: str, charge: Callable[[float | Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 9)]
        with torch.no_grad():
            layers[2].weight.mul_(4)
        self.net = nn.Sequential(Spikes(charge), *layers[:2], Spikes(charge), layers[2], Spikes(charge))
        self.ends = ends

    def forward(self, x: Tensor) -> Tensor:
        if self.ends == "list":
            steps = [self.net(x[0])]
            for t in range(1, len(x)):
                steps.append(self.net(x[t]))
            return torch.stack(steps)
        out = self.net(x[0])
        for t in range(1, len(x)):
            if self.ends == "in place":
                out += self.net(x[t])
            else:
                out = out + self.net(x[t])
        return out / len(x) if self.ends == "mean" else out


class Copied(nn.Module):
    """Step 0 is written out before the loop."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.weight = nn.Linear(6, 12), nn.Parameter(torch.randn(9, 12))

    def forward(self, x: Tensor) -> Tensor:
        v, u = 0.0, 0.0
        v = v + (self.fc(x[0]) - v) / 2
        s = (v >= 0.5).float()
        v = v * (1 - s)
        u = u + (functional.linear(s, self.weight) - u) / 2
        o = (u >= 0.5).float()
        u = u * (1 - o)
        out = [o]
        for t in range(1, len(x)):
            v = v + (self.fc(x[t]) - v) / 2
            s = (v >= 0.5).float()
            v = v * (1 - s)
            u = u + (functional.linear(s, self.weight) - u) / 2
            o = (u >= 0.5).float()
            u = u * (1 - o)
            out.append(o)
        return torch.stack(out)


CHARGES: dict[str, Callable[[float | Tensor, Tensor], Tensor]] = {
    "towards the current": lambda v, i: v + (i - v) / 2,
    "decay": lambda v, i: v * 0.5 + i,
    "sum": lambda v, i: v + i,
}


@pytest.mark.parametrize(
    "model",
    [*(Before(ends, CHARGES["towards the current"]) for ends in ("list", "in place", "sum", "mean")), Copied()]
    + [Before("in place", CHARGES[charge]) for charge in ("decay", "sum")],
    ids=lambda model: getattr(model, "ends", "copied"),
)
def test_a_first_step_before_the_loop_is_a_step(model: nn.Module) -> None:
    net = stl.capture(model.eval(), 3 * X)
    assert not [node for node in net.program.nodes if isinstance(node, Cell)]
    for x in (3 * X, 3 * X.flip(0), 30 * X):
        for module in model.modules():
            getattr(module, "reset", lambda: None)()
        with torch.no_grad():
            expected = model(x)
        y = torch.from_numpy(net.simulate(x.numpy()).y)
        made = y if net.readout.over_time is None else torch.from_numpy(net.readout(y.numpy()))
        assert expected.any()
        assert torch.equal(made, expected)
