"""Norse 1.1: SequentialState in a loop with the state by hand, and its modules."""

import norse.torch as norse
import torch
from torch import nn


class Loop(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.net = norse.SequentialState(*layers)

    def forward(self, x):
        state, out = None, []
        for step in x:
            y, state = self.net(step, state)
            out.append(y)
        return torch.stack(out)


def cells(cell, readout):
    return lambda: (Loop(nn.Linear(20, 30), cell(), nn.Linear(30, 5), readout()), torch.rand(10, 3, 20) * 20, {})


def leaking():
    return norse.LIFBoxCell(norse.LIFBoxParameters(v_leak=torch.tensor(0.2), v_reset=torch.tensor(-0.1)))


def conv():
    layers = (nn.Conv2d(1, 4, 3), norse.LIFBoxCell(), nn.Flatten(), nn.Linear(4 * 36, 5), norse.LIFBoxCell())
    return Loop(*layers), torch.rand(8, 3, 1, 8, 8) * 40, {}


def modules():
    net = norse.SequentialState(nn.Linear(20, 30), norse.LIF(), nn.Linear(30, 5), norse.LIF())
    return net, torch.rand(10, 3, 20) * 60, {}


def steps():
    net = norse.SequentialState(nn.Linear(20, 30), norse.LIFBoxCell(), nn.Linear(30, 5), norse.LIBoxCell())
    return net, torch.rand(10, 3, 20) * 20, {"time": "step"}


def adapting(readout=True):
    """LSNN cells, whose thresholds rise quickly enough to be seen in 20 steps."""
    given = norse.LSNNParameters(tau_adapt_inv=torch.tensor(20.0), beta=torch.tensor(0.4))
    net = Loop(nn.Linear(20, 30), norse.LSNNCell(given), nn.Linear(30, 5), *([norse.LIBoxCell()] if readout else []))
    return net, torch.rand(20, 3, 20) * 40, {}


CASES = {
    "lsnn-cell": lambda: adapting(readout=False),
    "lsnn-cell-readout": adapting,
    "lifbox-cell": cells(norse.LIFBoxCell, norse.LIBoxCell),
    "lifbox-leak": cells(leaking, norse.LIBoxCell),
    "lif-cell": cells(norse.LIFCell, norse.LICell),
    "iaf-cell": cells(norse.IAFCell, norse.LIBoxCell),
    "lif-recurrent": cells(lambda: norse.LIFRecurrentCell(30, 30), norse.LIBoxCell),
    "lif-module": modules,
    "conv": conv,
    "state-by-step": steps,
}
GOLDEN = ("lifbox-leak", "lif-cell", "lsnn-cell")
