"""DCLS 0.1: synapses with learned delays, a causal convolution over time before the neurons."""

import torch
from DCLS.construct.modules import Dcls1d
from torch import nn
from torch.nn import functional

STEPS = 6
"""Positions of a kernel, of which the last is no delay."""


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(_, v):
        return (v > 0).float()


class Delayed(nn.Module):
    """[T, B, 12] to 16 spiking neurons and 4 leaky outputs; each synapse has its own delay."""

    def __init__(self, version):
        super().__init__()
        self.hidden = Dcls1d(12, 16, kernel_count=1, dilated_kernel_size=STEPS, bias=False, version=version)
        self.readout = Dcls1d(16, 4, kernel_count=1, dilated_kernel_size=STEPS, bias=False, version=version)
        with torch.no_grad():
            for layer in (self.hidden, self.readout):
                layer.P.uniform_(-STEPS / 2, STEPS / 2)
                layer.weight.uniform_(-0.2, 0.6)
                if version in ("gauss", "max"):
                    layer.SIG.fill_(0.4)

    def forward(self, x):
        v, spikes = 0, []
        for current in self.late(self.hidden, x):
            v = 0.5 * v + current
            spike = Spike.apply(v - 0.7)
            v = v * (1 - spike)
            spikes.append(spike)
        v, potentials = 0, []
        for current in self.late(self.readout, torch.stack(spikes)):
            v = 0.9 * v + current
            potentials.append(v)
        return torch.stack(potentials)

    def late(self, layer, x):
        padded = functional.pad(x.permute(1, 2, 0), (STEPS - 1, 0))
        return layer(padded).permute(2, 0, 1)


def _of(version):
    return lambda: (Delayed(version), (torch.rand(12, 3, 12) > 0.7).float(), {})


CASES = {f"dcls1d-{version}": _of(version) for version in ("v0", "v1", "gauss", "max")}
GOLDEN = ("dcls1d-v0", "dcls1d-v1")
