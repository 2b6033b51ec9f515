"""SpikingJelly: `LIFNode` in multi-step mode, its fastest on a CPU."""

from __future__ import annotations

from importlib.metadata import version

from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from benchmarks.workloads import Shape, Stack, Workload

VERSION = version("spikingjelly")
NOTES = "one fixed threshold per layer: it cannot learn them"


class _Sequence(nn.Module):
    def __init__(self, _shape: Shape) -> None:
        super().__init__()
        kind = {"surrogate_function": surrogate.ATan(alpha=2.0), "step_mode": "m"}
        self.node = neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=1.0, v_reset=0.0, **kind)

    def forward(self, x: Tensor) -> Tensor:
        self.node.reset()
        spikes: Tensor = self.node(x)
        return spikes


def multi_step(workload: Workload) -> Stack:
    """Layer by layer over whole sequences."""
    return Stack(workload, _Sequence, "folded")


FORMS = {"multi-step": multi_step}
