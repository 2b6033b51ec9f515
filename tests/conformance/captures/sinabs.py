"""Sinabs 3.1: its layers over ``[B, T, ...]``, and its squeezed layers with a batch size of the input's."""

import sinabs.layers as sl
import torch
from torch import nn


def layers(make):
    """A chain of a layer and of a LIF that reads it."""
    return lambda: (
        nn.Sequential(nn.Linear(8, 16), make(), nn.Linear(16, 4), sl.LIF(tau_mem=5.0)),
        torch.rand(3, 10, 8) * 300,
        {"time": "second"},
    )


class Squeezed(nn.Module):
    """The convolutional network of the N-MNIST tutorial, small, with steps and samples in one axis."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.Conv2d(8, 10, 4, bias=False)
        self.pool = sl.SumPool2d(4)
        self.neurons, self.output = sl.IAF(min_v_mem=-1.0), sl.IAF(min_v_mem=-1.0)

    def forward(self, x):
        sizes = x.shape[:2]
        y = self.neurons(self.first(x.flatten(0, 1)).unflatten(0, sizes))
        return self.output(self.second(self.pool(y.flatten(0, 1))).unflatten(0, sizes)).flatten(2)


CASES = {
    "lif": layers(lambda: sl.LIF(tau_mem=20.0)),
    "lif-synapses": layers(lambda: sl.LIF(tau_mem=20.0, tau_syn=10.0)),
    "alif": layers(lambda: sl.ALIF(tau_mem=20.0, tau_adapt=20.0)),
    "leak": layers(lambda: sl.ExpLeak(tau_mem=20.0)),
    "iaf": layers(sl.IAF),
    "lif-recurrent": layers(lambda: sl.LIFRecurrent(tau_mem=20.0, rec_connect=nn.Linear(16, 16))),
    "iaf-recurrent": layers(lambda: sl.IAFRecurrent(rec_connect=nn.Linear(16, 16))),
    "alif-recurrent": layers(lambda: sl.ALIFRecurrent(tau_mem=20.0, tau_adapt=20.0, rec_connect=nn.Linear(16, 16))),
    "convolutions": lambda: (Squeezed(), (torch.rand(3, 8, 2, 16, 16) < 0.3).float() * 4, {"time": "second"}),
}
GOLDEN = ()
