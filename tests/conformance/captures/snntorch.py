"""snnTorch 1.0: the nets of its tutorials, in small."""

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn
from torch.nn import functional


class Loop(nn.Module):
    """Tutorial 5: two fully connected layers in a loop over time; both spikes and potentials are returned."""

    def __init__(self, **options):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(20, 30), snn.Leaky(**{"beta": 0.95, **options})
        self.fc2, self.lif2 = nn.Linear(30, 5), snn.Leaky(**{"beta": 0.95, **options})

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, potentials = [], []
        for t in range(x.size(0)):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            spikes.append(spk)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)


class Static(Loop):
    """The same with a static image, shown at every step."""

    def forward(self, x):
        return super().forward(x.expand(9, *x.shape))


class Recurrent(nn.Module):
    """A neuron with more state than its potential, and a Leaky behind it."""

    def __init__(self, neuron, states):
        super().__init__()
        self.fc1, self.neuron, self.states = nn.Linear(20, 30), neuron, states
        self.fc2, self.out = nn.Linear(30, 5), snn.Leaky(beta=0.8)

    def forward(self, x):
        state, mem, spikes = getattr(self.neuron, self.states)(), self.out.init_leaky(), []
        for t in range(x.size(0)):
            found = self.neuron(self.fc1(x[t]), *state)
            state = found if "init_r" in self.states else found[1:]
            spk, mem = self.out(self.fc2(found[0]), mem)
            spikes.append(spk)
        return torch.stack(spikes)


def conv():
    """Tutorial 6's Sequential with hidden states, but with the pool behind the spikes."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5),
        snn.Leaky(beta=0.5, init_hidden=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 36, 5),
        snn.Leaky(beta=0.5, init_hidden=True, output=True),
    )
    utils.reset(net)
    return net


class Tutorial6(nn.Module):
    """Tutorial 6 (convolutional SNNs), word for word but for the batch size: pools of currents, a loop over steps."""

    def __init__(self):
        super().__init__()
        beta, spike_grad = 0.5, surrogate.fast_sigmoid(slope=25)
        self.conv1 = nn.Conv2d(1, 12, 5)
        self.lif1 = snn.Leaky(beta=beta, spike_grad=spike_grad)
        self.conv2 = nn.Conv2d(12, 64, 5)
        self.lif2 = snn.Leaky(beta=beta, spike_grad=spike_grad)
        self.fc1 = nn.Linear(64 * 4 * 4, 10)
        self.lif3 = snn.Leaky(beta=beta, spike_grad=spike_grad)
        with torch.no_grad():
            self.fc1.weight.mul_(8)  # that the last layer spikes, untrained

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        mem3 = self.lif3.init_leaky()
        spk_rec = []
        for _step in range(5):
            cur1 = functional.max_pool2d(self.conv1(x), 2)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = functional.max_pool2d(self.conv2(spk1), 2)
            spk2, mem2 = self.lif2(cur2, mem2)
            cur3 = self.fc1(spk2.view(spk2.shape[0], -1))
            spk3, mem3 = self.lif3(cur3, mem3)
            spk_rec.append(spk3)
        return torch.stack(spk_rec)


def tutorial7(sizes=(12, 32), image=34):
    """Tutorial 7 (N-MNIST): convolution, pool, Leaky, with hidden states."""
    spike_grad, left = surrogate.atan(), ((image - 4) // 2 - 4) // 2
    net = nn.Sequential(
        nn.Conv2d(2, sizes[0], 5),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=spike_grad, init_hidden=True),
        nn.Conv2d(sizes[0], sizes[1], 5),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.5, spike_grad=spike_grad, init_hidden=True),
        nn.Flatten(),
        nn.Linear(sizes[1] * left**2, 10),
        snn.Leaky(beta=0.5, spike_grad=spike_grad, init_hidden=True, output=True),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    utils.reset(net)
    return net


def events(image, steps=6):
    return (torch.rand(steps, 3, 2, image, image) < 0.2).float()


def sequence():
    return torch.rand(10, 3, 20) * 3


def _recurrent(kind, **options):
    states = {"RLeaky": "init_rleaky", "RSynaptic": "init_rsynaptic", "Synaptic": "init_synaptic"}[kind]
    more = {"linear_features": 30} if kind.startswith("R") else {}
    return lambda: (Recurrent(getattr(snn, kind)(**options, **more), states), sequence(), {})


CASES = {
    "leaky": lambda: (Loop(), sequence(), {}),
    "leaky-zero": lambda: (Loop(reset_mechanism="zero"), sequence(), {}),
    "leaky-none": lambda: (Loop(reset_mechanism="none"), sequence(), {}),
    "leaky-learned": lambda: (Loop(learn_beta=True, learn_threshold=True, threshold=0.7), sequence(), {}),
    "leaky-thresholds": lambda: (Loop(beta=0.8, threshold=torch.tensor(0.4)), sequence(), {}),
    "leaky-static": lambda: (Static(), torch.rand(3, 20) * 3, {"time": "inside"}),
    "conv-hidden": lambda: (conv(), torch.rand(8, 3, 1, 16, 16) * 3, {"time": "step"}),
    "tutorial-6": lambda: (Tutorial6(), torch.rand(3, 1, 28, 28) * 12, {"time": "inside"}),
    "tutorial-7": lambda: (tutorial7(), events(34), {"time": "step"}),
    "tutorial-7-small": lambda: (tutorial7((3, 4), 20), events(20), {"time": "step"}),
    "leaky-now": lambda: (Loop(reset_delay=False), 3 * sequence(), {}),
    "leaky-zero-now": lambda: (Loop(reset_mechanism="zero", reset_delay=False), 3 * sequence(), {}),
    "rleaky": _recurrent("RLeaky", beta=0.9),
    "rleaky-zero": _recurrent("RLeaky", beta=0.9, reset_mechanism="zero"),
    "rsynaptic": _recurrent("RSynaptic", alpha=0.8, beta=0.9),
    "rleaky-now": _recurrent("RLeaky", beta=0.9, reset_delay=False),
    "synaptic": _recurrent("Synaptic", alpha=0.8, beta=0.9),
    "synaptic-zero": _recurrent("Synaptic", alpha=0.8, beta=0.9, reset_mechanism="zero"),
    "synaptic-now": _recurrent("Synaptic", alpha=0.8, beta=0.9, reset_delay=False),
    "synaptic-zero-now": _recurrent("Synaptic", alpha=0.8, beta=0.9, reset_mechanism="zero", reset_delay=False),
}
GOLDEN = ("leaky", "tutorial-7-small", "leaky-now", "leaky-learned", "rleaky", "synaptic-zero")
