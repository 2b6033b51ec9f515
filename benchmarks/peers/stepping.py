"""The forms of a framework whose neurons are modules that are called step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.workloads import Shape, Stack, Workload


class Stepped(nn.Module):
    """A population ``[B, *shape]`` that forgets at ``begin()``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()

    def begin(self) -> None:
        """Go to rest."""
        raise NotImplementedError


def forms(step: type[Stepped]) -> dict[str, Callable[[Workload], Stack]]:
    """All layers at one step, then the next; or time folded into the batch for synapses, and a loop in each neuron."""

    class Sequence(step):  # type: ignore[valid-type,misc]
        def forward(self, x: Tensor) -> Tensor:
            self.begin()
            return torch.stack([super(Sequence, self).forward(frame) for frame in x.unbind(0)])

    return {
        "step by step": lambda workload: Stack(workload, step, "steps"),
        "folded": lambda workload: Stack(workload, Sequence, "folded"),
    }
