"""Norse: `LIFBoxCell` with a learned threshold per neuron.

It scales its input by dt/τ = 1/2, so its thresholds are halved: the same spikes.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from norse.torch import LIFBoxCell
from norse.torch.functional.lif_box import LIFBoxParameters
from torch import Tensor, nn

from benchmarks.peers.stepping import Stepped, forms
from benchmarks.workloads import Shape

VERSION = version("norse")
NOTES = "thresholds per neuron, learned; its own surrogate (superspike); spikes where v > θ"


class _Step(Stepped):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.threshold = nn.Parameter(torch.full(shape, 0.5))
        rate = torch.tensor(500.0)
        self.cell = LIFBoxCell(LIFBoxParameters(tau_mem_inv=rate, v_th=self.threshold), dt=0.001)

    def begin(self) -> None:
        self.state: Any = None

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor
        spikes, self.state = self.cell(x, self.state)
        return spikes


FORMS = forms(_Step)
