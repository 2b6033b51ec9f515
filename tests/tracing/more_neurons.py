"""More published neurons, each written anew from its paper's equations; see `tests.tracing.neurons`.

Known forms are among them: together with those of `KINDS`, fifty kinds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.tracing.neurons import Kind, fires


def leaky(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """LIF."""
    v = p.beta * v + i
    s = fires(v - 0.3)
    return s, v * (1 - s)


def learned_leak(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """PLIF (Fang et al. 2021): the leak is a sigmoid of a parameter."""
    v = v + (i - v) * torch.sigmoid(p.a)
    s = fires(v - 0.2)
    return s, v * (1 - s)


def adapting(p: Any, i: Tensor, v: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """ALIF (Bellec et al. 2018): the threshold rises with each spike."""
    a = 0.9 * a + s
    v = p.beta * v + i - 0.2 * s
    s = fires(v - 0.2 - 0.1 * a)
    return s, v, a, s


def adapting_mixed(p: Any, i: Tensor, v: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """ALIF (Yin et al. 2021): a decaying mean of the spikes, and the whole threshold subtracted."""
    a = p.alpha * a + (1 - p.alpha) * s
    level = 0.1 + 1.8 * a
    v = p.beta * v + (1 - p.beta) * i - level * s
    s = fires(v - level)
    return s, v, a, s


def k_based(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """KLIF (Jiang and Zhang 2023): a scaled ReLU before the threshold."""
    v = torch.relu(p.b * (0.5 * v + 0.5 * i) * 2)
    s = fires(v - 0.2)
    return s, v * (1 - s)


def complementary(p: Any, i: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    """CLIF (Huang et al. 2024): a complementary potential damps the membrane."""
    v = p.beta * v + i
    s = fires(v - 0.3)
    m = m * torch.sigmoid((1 - p.beta) * v) + s
    return s, v - s * (0.3 + torch.sigmoid(m)), m


def closed_form(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """CfC (Hasani et al. 2022): a gate by time between two heads, then a threshold."""
    gate = torch.sigmoid(-(p.a * i + p.b) * 0.5)
    v = gate * torch.tanh(i + v) + (1 - gate) * torch.tanh(p.a * v)
    s = fires(v - 0.1)
    return s, v * (1 - s)


def liquid_leak(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """LTC (Hasani et al. 2021): one fused step of its solver."""
    f = torch.sigmoid(i + p.a * v)
    v = (v + 0.5 * f) / (1 + 0.5 * (0.4 + f))
    s = fires(v - 0.3)
    return s, v - 0.3 * s


def recurrent_gate(p: Any, i: Tensor, c: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """SpikGRU (Dampfhoffer et al. 2022): a gate between current and potential."""
    c = p.alpha * c + i
    z = torch.sigmoid(p.a * i + p.b)
    v = z * v + (1 - z) * c
    s = fires(v - 0.3)
    return s, c, v - 0.3 * s


def long_memory(p: Any, i: Tensor, c: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """SLSTM's cell with gates by channel and a soft reset of its output."""
    f, o = torch.sigmoid(i + p.b), torch.sigmoid(p.a * i)
    c = f * c + (1 - f) * torch.tanh(i)
    v = o * torch.tanh(c) - 0.2 * fires(v - 0.2)
    return fires(v - 0.2), c, v


def two_branches(p: Any, i: Tensor, d: Tensor, e: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """DH-LIF (Zheng et al. 2024): dendrites of two time constants."""
    d = p.alpha * d + (1 - p.alpha) * i
    e = p.beta * e + (1 - p.beta) * p.a * i
    v = 0.8 * v + d + e
    s = fires(v - 0.3)
    return s, d, e, v - 0.3 * s


def state_space(p: Any, i: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """A diagonal state space with spikes: one complex pole, read out by its real part."""
    x, y = p.alpha * x - 0.3 * y + i, 0.3 * x + p.alpha * y
    return fires(x * p.b - 0.2), x, y


def soft_state_space(p: Any, i: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """S4 with a soft reset of the neuron behind it."""
    x = p.alpha * x + i
    v = p.beta * v + p.a * x
    s = fires(v - 0.4)
    return s, x, v - 0.4 * s


def masked_refractory(p: Any, i: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """A spike blocks the input of the next step."""
    v = p.beta * v * (1 - s) + i * (1 - s)
    s = fires(v - 0.2)
    return s, v, s


def relative_refractory(p: Any, i: Tensor, v: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    """Relative refractoriness: an inhibiting trace of the own spikes."""
    v = p.beta * v + i - r
    s = fires(v - 0.2)
    return s, v * (1 - s), 0.7 * r + 0.3 * s


def two_synapses(p: Any, i: Tensor, f: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """A fast and a slow filter of one current."""
    f, g = 0.5 * f + i, p.alpha * g + i
    v = p.beta * v + 0.3 * f - 0.1 * g
    s = fires(v - 0.1)
    return s, f, g, v * (1 - s)


def temporal_gate(p: Any, i: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    """STC-LIF: circuits of the own past spikes gate leak and input."""
    v = torch.sigmoid(p.a * g) * v + (1 + p.b * g) * i
    s = fires(v - 0.2)
    return s, v * (1 - s), 0.6 * g + 0.4 * s


def moving_mean(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Dynamic threshold by the layer's mean potential."""
    v = p.beta * v + i
    s = fires(v - 0.1 - v.mean(1, keepdim=True).abs())
    return s, v * (1 - s)


def takes_all(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Lateral inhibition: only the highest potential of the layer fires."""
    v = p.beta * v + i
    s = fires(v - 0.1) * (v >= v.amax(1, keepdim=True)).float()
    return s, v * (1 - s) - 0.05 * s.sum(1, keepdim=True)


def learned_threshold(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """A threshold that is tanh of a parameter (Wang et al. 2022)."""
    v = p.beta * v + i
    level = torch.tanh(p.a)
    s = fires(v - level)
    return s, v - level * s


def several_compartments(p: Any, i: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """PMSN-like: two coupled linear compartments before a firing one."""
    x, y = p.alpha * x - 0.2 * y + i, 0.2 * x + p.beta * y
    v = v + x + p.a * y
    s = torch.where(v > 0.3, torch.ones_like(v), torch.zeros_like(v))
    return s, x, y, v - 0.3 * s


def clamped(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Soft clamp: the potential is squashed to its bounds."""
    v = 0.8 * torch.tanh(p.beta * v + i)
    s = fires(v - 0.3)
    return s, v - 0.3 * s


def theta(p: Any, i: Tensor, phase: Tensor) -> tuple[Tensor, ...]:
    """Theta neuron (Ermentrout and Kopell 1986)."""
    phase = phase + 0.2 * ((1 - torch.cos(phase)) + (1 + torch.cos(phase)) * (i + 0.2))
    s = fires(phase - 3.14)
    return s, torch.where(s > 0, phase - 6.28, phase)


def fitzhugh(p: Any, i: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """FitzHugh and Nagumo, at a step of 0.2; spikes at upward crossings."""
    before = v
    v = v + 0.2 * (v - v * v * v / 3 - w + i + 0.5)
    w = w + 0.2 * 0.08 * (v + 0.7 - 0.8 * w)
    return ((v > 0.8) & (before <= 0.8)).float(), v, w


def morris(p: Any, i: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """Morris and Lecar, in units of its calcium conductance."""
    m = 0.5 * (1 + torch.tanh((v + 0.01) / 0.15))
    v = v + 0.1 * (i + 0.3 - 0.5 * (v + 0.5) - m * (v - 1) - 2 * w * (v + 0.7))
    w = w + 0.1 * (0.5 * (1 + torch.tanh((v - 0.1) / 0.145)) - w)
    return fires(v - 0.1), v, w


def spike_response(p: Any, i: Tensor, r: Tensor, q: Tensor, e: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """SRM0 (Gerstner 1995; Shrestha and Orchard 2018): alpha kernels of input and of refractoriness."""
    r = 0.8 * r + i
    q = 0.8 * (q + 0.2 * r)
    s = fires(q - h - 0.1)
    e = 0.7 * e + s
    return s, r, q, e, 0.7 * (h + 0.5 * e)


def sigma_delta(p: Any, i: Tensor, v: Tensor, ref: Tensor) -> tuple[Tensor, ...]:
    """Sigma-delta: the change of an activation, quantised, is sent."""
    v = v + i
    change = torch.relu(v) - ref
    sent = torch.round(change * 4) / 4 * (change.abs() >= 0.25).float()
    return sent, v, ref + sent


def inhibitory(p: Any, i: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    """Bistable or hysteretic threshold: easier to keep firing than to begin."""
    v = p.beta * v + i
    s = torch.where(s > 0, fires(v - 0.1), fires(v - 0.4))
    return s, v * 0.8, s


def hard_then_soft(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """A learned mixture of both resets (Yao et al. 2022)."""
    v = p.beta * v + i
    s = fires(v - 0.3)
    return s, p.a * v * (1 - s) + (1 - p.a) * (v - 0.3 * s)


def leaky_bounds(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """A leak by subtraction towards 0, as on event-driven chips, and a floor."""
    v = torch.sign(v) * torch.clamp(v.abs() - 0.05, min=0) + i
    s = fires(v - 0.3)
    return s, torch.clamp(v - 0.3 * s, min=-0.5)


MORE: dict[str, Kind] = {
    "LIF": Kind(leaky, 1),
    "PLIF": Kind(learned_leak, 1),
    "ALIF": Kind(adapting, 3),
    "ALIF, mixed": Kind(adapting_mixed, 3),
    "KLIF": Kind(k_based, 1),
    "CLIF": Kind(complementary, 2, inexact=True),
    "CfC": Kind(closed_form, 1, inexact=True),
    "LTC": Kind(liquid_leak, 1, inexact=True),
    "SpikGRU": Kind(recurrent_gate, 2, inexact=True),
    "SLSTM": Kind(long_memory, 2, inexact=True),
    "DH-LIF": Kind(two_branches, 3),
    "state space": Kind(state_space, 2),
    "S4, soft reset": Kind(soft_state_space, 2),
    "refractory mask": Kind(masked_refractory, 2),
    "relative refractory": Kind(relative_refractory, 2),
    "two synapses": Kind(two_synapses, 3),
    "STC-LIF": Kind(temporal_gate, 2, inexact=True),
    "mean threshold": Kind(moving_mean, 1),
    "winner takes all": Kind(takes_all, 1),
    "learned threshold": Kind(learned_threshold, 1),
    "PMSN-like": Kind(several_compartments, 3),
    "soft clamp": Kind(clamped, 1, inexact=True),
    "theta": Kind(theta, 1, inexact=True),
    "FitzHugh-Nagumo": Kind(fitzhugh, 2),
    "Morris-Lecar": Kind(morris, 2, inexact=True),
    "SRM0": Kind(spike_response, 4),
    "sigma-delta": Kind(sigma_delta, 2, fires=False),
    "hysteresis": Kind(inhibitory, 2),
    "mixed reset": Kind(hard_then_soft, 1),
    "leak by subtraction": Kind(leaky_bounds, 1),
}
