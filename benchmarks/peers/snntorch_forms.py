"""snnTorch: `Leaky` with a learned threshold per neuron."""

from __future__ import annotations

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor

from benchmarks.peers.stepping import Stepped, forms
from benchmarks.workloads import Shape

VERSION = snntorch.__version__
NOTES = "thresholds per neuron, learned; the gradient does not flow through its reset; spikes where v > θ"


def _leaky(shape: Shape) -> snntorch.Leaky:
    threshold = torch.ones(shape)
    kind = {"reset_mechanism": "zero", "spike_grad": surrogate.atan(alpha=2.0), "reset_delay": True}
    return snntorch.Leaky(beta=0.5, threshold=threshold, learn_threshold=True, **kind)


class _Step(Stepped):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.leaky = _leaky(shape)

    def begin(self) -> None:
        self.potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.potential is None:
            self.potential = torch.zeros_like(x)
        spikes, self.potential = self.leaky(x, self.potential)
        return spikes


FORMS = forms(_Step)
