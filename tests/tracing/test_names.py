"""Names of layers: those of the modules that hold their states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError


class Surrogate(nn.Module):
    def forward(self, v: Tensor) -> Tensor:
        return (v > 0).float()


class Leaky(nn.Module):
    """A neuron that takes its surrogate, by default the same for all."""

    def __init__(self, kind: str, surrogate: nn.Module = Surrogate()) -> None:  # noqa: B008 (as SpikingJelly's do)
        super().__init__()
        self.surrogate, self.kind = surrogate, kind
        self.v: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "memoryless":
            return self.surrogate(x - 1.0)
        self.v = 0.5 * self.v + x
        if self.kind == "cell":
            self.v = self.v * torch.sigmoid(self.v)
        spikes: Tensor = self.surrogate(self.v - 1.0)
        self.v = self.v - spikes
        return spikes


class Net(nn.Module):
    def __init__(self, kind: str, surrogate: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.surrogate = surrogate or Surrogate()
        self.fc1, self.neuron1, self.fc2 = nn.Linear(5, 6), Leaky(kind, self.surrogate), nn.Linear(6, 3)
        self.neuron2 = Leaky(kind, self.surrogate)
        nn.init.uniform_(self.fc2.weight, -1.0, 1.5)
        self.net = nn.Sequential(self.fc1, self.neuron1, self.fc2, self.neuron2)

    def forward(self, x: Tensor) -> Tensor:
        self.neuron1.v = self.neuron2.v = 0.0
        return torch.stack([self.net(x_t) for x_t in x])


X = 10 * torch.rand(6, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["memoryless", "neuron", "cell"])
def test_neurons_that_share_a_surrogate_have_their_own_names(kind: str) -> None:
    """The surrogate is held by the network and both neurons; each neuron by the network and a Sequential."""
    net = stl.capture(Net(kind), X)
    assert [node.name for node in net.program.compared] == ["neuron1", "neuron2"]


def test_a_surrogate_of_one_neuron_keeps_its_name() -> None:
    net = stl.capture(nn.Sequential(nn.Linear(5, 6), Leaky("memoryless", Surrogate())), X[0], time="none")
    assert [node.name for node in net.program.compared] == ["1.surrogate"]


def test_a_shared_surrogate_with_a_weight_keeps_its_name() -> None:
    class Weighted(Surrogate):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = nn.Parameter(torch.tensor(0.1))

        def forward(self, v: Tensor) -> Tensor:
            return (v > self.threshold).float()

    net = stl.capture(Net("memoryless", Weighted()), X)
    assert {node.name for node in net.program.compared} == {"surrogate", "surrogate.threshold1"}


def test_a_refusal_names_the_neuron_not_its_surrogate() -> None:
    class Sorts(Surrogate):
        def forward(self, v: Tensor) -> Tensor:
            return super().forward(v.sort(dim=0).values)

    with pytest.raises(CaptureError, match=r"in module 'neuron1', Leaky"):
        stl.capture(Net("neuron", Sorts()), X)
