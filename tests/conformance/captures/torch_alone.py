"""Plain torch, without a framework: nets as papers' code writes them, in small."""

import torch
from torch import nn
from torch.nn import functional

BASELINE, BETA = 0.01, 1.8


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(_, distance):
        return (distance > 0).float()


class Adaptive(nn.Module):
    """A recurrent layer of Yin, Corradi and Bohte (2021): its adaptation starts at the threshold's baseline."""

    def __init__(self, inputs, size, recurrent=True):
        super().__init__()
        self.enter = nn.Linear(inputs, size)
        self.within = nn.Linear(size, size) if recurrent else None
        self.tau_m = nn.Parameter(torch.empty(size).normal_(20, 2))
        self.tau_adp = nn.Parameter(torch.empty(size).normal_(15, 3))

    def rest(self, like):
        zero = torch.zeros(len(like), len(self.tau_m))
        return zero, zero, torch.ones_like(zero) * BASELINE

    def forward(self, x, state):
        mem, spike, b = state
        current = self.enter(x) + (self.within(spike) if self.within is not None else 0)
        alpha, rho = torch.exp(-1 / self.tau_m), torch.exp(-1 / self.tau_adp)
        b = rho * b + (1 - rho) * spike
        threshold = BASELINE + BETA * b
        mem = mem * alpha + (1 - alpha) * current - threshold * spike
        return mem, Spike.apply(mem - threshold), b


class SRNN(nn.Module):
    """Adaptive layers and a leaky readout. potentials: these are returned, not their softmax summed over time."""

    def __init__(self, layers=1, potentials=False, recurrent=True):
        super().__init__()
        self.layers = nn.ModuleList(Adaptive(30 if k else 20, 30, recurrent) for k in range(layers))
        self.leave, self.tau_m = nn.Linear(30, 5), nn.Parameter(torch.empty(5).normal_(20, 2))
        self.potentials = potentials

    def forward(self, x):
        states = [layer.rest(x[0]) for layer in self.layers]
        mem, scores, steps = torch.zeros(x.shape[1], 5), 0, []
        for step in x:
            for k, layer in enumerate(self.layers):
                states[k] = layer(step, states[k])
                step = states[k][1]
            alpha = torch.exp(-1 / self.tau_m)
            mem = mem * alpha + (1 - alpha) * self.leave(step)
            steps.append(mem)
            scores = scores + functional.softmax(mem, dim=1)
        return torch.stack(steps) if self.potentials else scores


def _of(**options):
    return lambda: (SRNN(**options), torch.rand(30, 3, 20) * 3, {})


CASES = {
    "srnn": _of(),
    "srnn-2-layers": _of(layers=2),
    "srnn-potentials": _of(potentials=True),
    "alif-2-layers": _of(layers=2, recurrent=False, potentials=True),
}
GOLDEN = ("srnn-potentials",)
