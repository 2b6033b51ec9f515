"""Sinabs: its `LIF` on whole sequences, batch first, as it wants them."""

from __future__ import annotations

import math
from importlib.metadata import version

from sinabs.activation import MembraneReset, SingleExponential, SingleSpike
from sinabs.layers import LIF
from torch import Tensor, nn

from benchmarks.workloads import Shape, Stack, Workload

VERSION = version("sinabs")
NOTES = (
    "one fixed threshold per layer: it cannot learn them; its own surrogate (exponential); "
    "no gradient flows through its reset"
)


class _Sequence(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        kind = {"spike_fn": SingleSpike, "reset_fn": MembraneReset(), "surrogate_grad_fn": SingleExponential()}
        self.lif = LIF(tau_mem=1 / math.log(2), norm_input=False, **kind)
        self.lif.tau_mem.requires_grad_(False)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        self.lif.init_state_with_shape((len(x), *self.shape))
        spikes: Tensor = self.lif(x)
        return spikes


def sequences(workload: Workload) -> Stack:
    """Layer by layer over whole sequences."""
    return Stack(workload, _Sequence, "batch first")


FORMS = {"sequences": sequences}
