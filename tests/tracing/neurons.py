"""Published neurons whose step no `Neuron` has, each written anew from its paper's equations.

A step takes the current ``i`` and the states, and returns the output and the states. Every state starts at 0 unless
``starts`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[..., tuple[Tensor, ...]]
N = 12


@dataclass(frozen=True)
class Kind:
    """states: their number. starts: values other than 0, by number. inexact: whether it computes exp, tanh or such.

    fires: whether it puts out spikes or counts of them, not graded values.
    """

    step: Step
    states: int
    starts: Mapping[int, float] = field(default_factory=dict)
    inexact: bool = False
    fires: bool = True


def fires(v: Tensor) -> Tensor:
    return (v > 0).float()


def adaptive(p: Any, i: Tensor, u: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """adLIF (Bittar and Garner 2022)."""
    w = p.beta * w + p.a * u + p.b * s
    u = p.alpha * (u - s) + (1 - p.alpha) * (i - w)
    s = fires(u - 0.1)
    return s, u, w, s


def symplectic(p: Any, i: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """SE-adLIF (Baronig et al. 2024): the spike acts in the same step."""
    u = p.alpha * u + (1 - p.alpha) * (i - w)
    s = fires(u - 0.1)
    u = u * (1 - s)
    w = p.beta * w + (1 - p.beta) * (p.a * u + p.b * s)
    return s, u, w


def radial(p: Any, i: Tensor, u: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """RadLIF's gate of the input by the last spike."""
    u = p.alpha * u + (1 - p.alpha) * i * (1 - 0.5 * s)
    s = fires(u - p.b * 0.1)
    return s, u - s * p.a, s


def resonate(p: Any, i: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Resonate and fire (Izhikevich 2001)."""
    x, y = x + 0.1 * (-0.5 * x - 6.0 * y) + 0.1 * i, y + 0.1 * (6.0 * x - 0.5 * y)
    s = fires(y - 0.02)
    return s, x * (1 - s), torch.where(s > 0, 0.01, y)


def balanced(p: Any, i: Tensor, x: Tensor, y: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """Balanced resonate and fire (Higuchi et al. 2024)."""
    b = -p.b - q
    x, y = x + 0.1 * (b * x - 4.0 * y + i), y + 0.1 * (4.0 * x + b * y)
    s = fires(x - 0.05 - q)
    return s, x, y, 0.9 * q + s


def quadratic(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Quadratic integrate and fire."""
    v = v + 0.2 * (v * v - 0.1 + i)
    s = fires(v - 0.8)
    return s, torch.where(s > 0, -0.3, v)


def izhikevich(p: Any, i: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    """Izhikevich 2003, at half a millisecond."""
    v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + 20 * i)
    u = u + 0.5 * 0.02 * (0.2 * v - u)
    s = v >= 30
    return s.float(), torch.where(s, -65.0, v), torch.where(s, u + 8, u)


def gated_lif(p: Any, i: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """GLIF (Yao et al. 2022): gates by channel are constants."""
    gate = torch.sigmoid(p.a)
    leak = v * (1 - gate * (1 - p.beta)) - (1 - gate) * 0.02
    v = leak + i * (1 - gate * (1 - p.alpha)) - s * 0.3
    s = fires(v - 0.2)
    return s, torch.where((s > 0) & (p.b > 0.5), torch.zeros_like(v), v), s


def ternary(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Ternary spikes (Guo et al. 2024)."""
    v = p.beta * v + i
    s = (v > 0.3).float() - (v < -0.3).float()
    return s, v * (1 - s.abs())


def several_thresholds(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Multi-threshold neurons (LM-HT, Hao et al. 2024)."""
    v = p.beta * v + i
    s = (v > 0.2).float() + (v > 0.4).float() + (v > 0.6).float()
    return s, v - 0.2 * s


def counts(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """I-LIF (Luo et al. 2024), its threshold by neuron on a leaking product."""
    v = p.beta * v + i * i
    s = torch.round((v * 3).clamp(0, 4))
    return s, (v - s / 3) * p.alpha


def two_compartments(p: Any, i: Tensor, d: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """TC-LIF (Zhang et al. 2024)."""
    d = d - 0.5 * v + i - 0.1 * s
    v = v + 0.6 * d - 0.2 * s
    s = fires(v - 0.2)
    return s, d, v, s


def refractory(p: Any, i: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
    """A counter that holds the potential."""
    resting = rest > 0
    v = torch.where(resting, torch.zeros_like(v), p.beta * v + i)
    s = fires(v - 0.3)
    return s, v * (1 - s), torch.where(s > 0, 3.0, (rest - 1).clamp(min=0))


def alpha_synapse(p: Any, i: Tensor, r: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    r = 0.6 * r + i
    g = 0.6 * g + 0.4 * r
    v = p.beta * v + g * (1.0 - v)
    s = fires(v - 0.3)
    return s, r, g, v * (1 - s)


def short_term(p: Any, i: Tensor, u: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Tsodyks and Markram 1997, driven by the rectified current."""
    drive = i.clamp(0, 1)
    u = u + 0.1 * (0.2 - u) + 0.2 * (1 - u) * drive
    x = x + 0.1 * (1 - x) - u * x * drive
    v = p.beta * v + 2 * u * x * drive
    s = fires(v - 0.2)
    return s, u, x, v * (1 - s)


def burst(p: Any, i: Tensor, v: Tensor, g: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """Burst neurons: the threshold falls while a neuron keeps firing."""
    g = torch.where(s > 0, 0.5 * g, torch.ones_like(g))
    v = p.beta * v + i
    s = fires(v - 0.3 * g)
    return s * g, v - s * g * 0.3, g, s


def conductance(p: Any, i: Tensor, e: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    e, h = 0.8 * e + i.clamp(min=0), 0.7 * h + (-i).clamp(min=0)
    v = v + 0.1 * (-v + e * (1.5 - v) + h * (-0.5 - v))
    s = fires(v - 0.1)
    return s, e, h, v - s * 0.1


def gated(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """GPN: gates of the current itself."""
    forget = torch.sigmoid(i + v)
    v = forget * v + (1 - forget) * torch.tanh(2 * i)
    s = fires(v - 0.15)
    return s, v * (1 - s)


def liquid(p: Any, i: Tensor, v: Tensor, b: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """Liquid time constants (Yin et al. 2023): both decays are sigmoids of the state."""
    decay = torch.sigmoid(i + p.a * v)
    b = torch.sigmoid(i + b) * b + 0.2 * s
    v = v + (-v + i) * decay - s * (0.1 + b)
    s = fires(v - 0.1 - b)
    return s, v, b, s


def exponential(p: Any, i: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """AdEx (Brette and Gerstner 2005), normalised."""
    v = v + 0.2 * (-v + 0.1 * torch.exp((v - 0.3) * 5) + i - w)
    w = w + 0.1 * (p.a * v - w)
    s = fires(v - 0.6)
    return s, torch.where(s > 0, 0.0, v), w + 0.1 * s


KINDS: dict[str, Kind] = {
    "adLIF": Kind(adaptive, 3),
    "SE-adLIF": Kind(symplectic, 2),
    "RadLIF": Kind(radial, 2),
    "resonate and fire": Kind(resonate, 2),
    "balanced resonate and fire": Kind(balanced, 3),
    "quadratic": Kind(quadratic, 1),
    "Izhikevich": Kind(izhikevich, 2, {0: -65.0, 1: -13.0}),
    "GLIF": Kind(gated_lif, 2),
    "ternary": Kind(ternary, 1),
    "several thresholds": Kind(several_thresholds, 1),
    "I-LIF": Kind(counts, 1),
    "TC-LIF": Kind(two_compartments, 3),
    "refractory": Kind(refractory, 2),
    "alpha synapse": Kind(alpha_synapse, 3),
    "short-term plasticity": Kind(short_term, 3, {1: 1.0}),
    "burst": Kind(burst, 3, {1: 1.0}, fires=False),
    "conductance": Kind(conductance, 3),
    "gated": Kind(gated, 1, inexact=True),
    "liquid": Kind(liquid, 3, inexact=True),
    "AdEx": Kind(exponential, 2, inexact=True),
}


class Net(nn.Module):
    """A layer of one kind, recurrent if asked, and a leaky readout."""

    def __init__(self, kind: Kind, *, recurrent: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kind = kind
        self.fc, self.out = nn.Linear(8, N), nn.Linear(N, 3)
        self.back = nn.Linear(N, N, bias=False) if recurrent else None
        self.alpha, self.beta = (nn.Parameter(torch.rand(N) * 0.2 + low) for low in (0.6, 0.7))
        self.a, self.b = nn.Parameter(torch.rand(N) * 0.5), nn.Parameter(torch.rand(N))

    def forward(self, x: Tensor) -> Tensor:
        rest = torch.zeros(x.shape[1], N)
        states = [rest + self.kind.starts.get(number, 0.0) for number in range(self.kind.states)]
        spikes, v, out = rest, torch.zeros(x.shape[1], 3), []
        for x_t in x:
            current = self.fc(x_t)
            if self.back is not None:
                current = current + self.back(spikes)
            spikes, *states = self.kind.step(self, current, *states)
            v = 0.9 * v + self.out(spikes)
            out.append(v)
        return torch.stack(out)
