"""Baselines of spoken digits and commands (SHD, SSC), each written anew from its paper, in the published sizes.

LIF, adLIF, RLIF and RadLIF (Bittar and Garner 2022), SRNN (Yin et al. 2021), SE-adLIF (Baronig et al. 2024) and learned
delays (Hammouamri et al. 2023). All take spikes ``[T, B, channels]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

STEPS, CLASSES = 50, 20
READOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax, summed": lambda u: u.softmax(2).sum(0),
    "maximum": lambda u: u.max(0).values,
    "last step": lambda u: u[-1],
    "each step": lambda u: u,
}


def fires(v: Tensor) -> Tensor:
    """Return spikes of a potential above 0."""
    return (v > 0).float()


def between(low: float, high: float, size: int) -> nn.Parameter:
    """Return a drawn parameter."""
    return nn.Parameter(low + (high - low) * torch.rand(size))


class Leaky(nn.Module):
    """A layer behind a batch norm: leaky neurons, adapting and recurrent ones if asked, of states that are drawn."""

    def __init__(self, before: int, after: int, *, adapts: bool, recurrent: bool) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)
        self.alpha, self.beta = between(0.82, 0.96, after), between(0.967, 0.992, after)
        self.a, self.b = between(0, 1, after), between(0, 2, after)
        self.adapts, self.back = adapts, nn.Parameter(torch.empty(after, after)) if recurrent else None
        if self.back is not None:
            nn.init.orthogonal_(self.back)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes ``[T, B, after]``."""
        currents = self.norm(self.enter(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        u, w, s = (torch.rand_like(currents[0]) for _ in range(3))
        back = None if self.back is None else self.back.clone().fill_diagonal_(0)
        spikes = []
        for current in currents:
            drive = current if back is None else current + s @ back
            if self.adapts:
                w = self.beta * w + self.a * u + self.b * s
                drive = drive - w
            u = self.alpha * (u - s) + (1 - self.alpha) * drive
            s = fires(u - 1)
            spikes.append(s)
        return torch.stack(spikes)


class Adaptive(nn.Module):
    """SRNN's layer: recurrent neurons whose threshold each spike raises."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.enter, self.back = nn.Linear(before, after), nn.Linear(after, after)
        self.tau_m, self.tau_adp = between(15, 25, after), between(100, 200, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes ``[T, B, after]``."""
        alpha, rho = torch.exp(-1 / self.tau_m), torch.exp(-1 / self.tau_adp)
        v = b = s = torch.zeros(x.shape[1], len(alpha))
        b = b + 0.01
        spikes = []
        for x_t in x:
            current = self.enter(x_t) + self.back(s)
            b = rho * b + (1 - rho) * s
            level = 0.01 + 1.8 * b
            v = v * alpha + (1 - alpha) * current - level * s
            s = fires(v - level)
            spikes.append(s)
        return torch.stack(spikes)


class Symplectic(nn.Module):
    """SE-adLIF's layer: recurrent, the spike acts on the adaptation in its own step."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.enter, self.back = nn.Linear(before, after), nn.Linear(after, after, bias=False)
        nn.init.uniform_(self.enter.weight, 0, 6 * before**-0.5)
        nn.init.orthogonal_(self.back.weight)
        self.decay, self.slow = between(0.82, 0.96, after), between(0.967, 0.992, after)
        self.a, self.b = between(0, 1, after), between(0, 2, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes ``[T, B, after]``."""
        u = w = s = torch.zeros(x.shape[1], len(self.a))
        spikes = []
        for x_t in x:
            u = self.decay * u + (1 - self.decay) * (self.enter(x_t) + self.back(s) - w)
            s = fires(u - 1)
            u = u * (1 - s)
            w = self.slow * w + (1 - self.slow) * (self.a * u + self.b * s) * 120
            spikes.append(s)
        return torch.stack(spikes)


class Delays(nn.Module):
    """A layer of synapses with delays: one tap each, interpolated, then leaky neurons. behind: steps that it adds."""

    def __init__(self, before: int, after: int, *, threshold: float = 1.0, behind: int = 0, taps: int = 25) -> None:
        super().__init__()
        late = torch.rand(after, before, 1) * (taps - 1)
        shape = (1 - (torch.arange(taps) - late).abs()).clamp(min=0)
        self.kernel = nn.Parameter(torch.randn(after, before, 1) * 3 * before**-0.5 * shape)
        self.norm = nn.BatchNorm1d(after) if threshold < 2 else nn.Identity()
        self.taps, self.threshold, self.behind = taps, threshold, behind

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes ``[T, B, after]``; of a threshold that nothing reaches, potentials."""
        late = functional.pad(x.permute(1, 2, 0), (self.taps - 1, self.behind))
        currents = self.norm(functional.conv1d(late, self.kernel)).permute(2, 0, 1)
        v, spikes, potentials = torch.zeros_like(currents[0]), [], []
        for current in currents:
            v = v - v / 1.005 + current
            s = fires(v - self.threshold)
            v = v * (1 - s)
            spikes.append(s)
            potentials.append(v)
        return torch.stack(potentials if self.threshold > 2 else spikes)


class Integrator(nn.Module):
    """Leaky readouts that never spike."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.enter, self.alpha = nn.Linear(before, CLASSES), between(0.8, 0.96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return potentials ``[T, B, classes]``."""
        currents = self.enter(x)
        u, potentials = torch.zeros_like(currents[0]), []
        for current in currents:
            u = self.alpha * u + (1 - self.alpha) * current
            potentials.append(u)
        return torch.stack(potentials)


class Baseline(nn.Module):
    """Layers, then a readout over time."""

    def __init__(self, layers: list[nn.Module], readout: str) -> None:
        super().__init__()
        self.layers, self.readout = nn.Sequential(*layers), readout

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[B, classes]``, or those of each step."""
        return READOUTS[self.readout](self.layers(x))


def speech() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield name, module and input of each baseline."""
    generator = torch.Generator().manual_seed(0)

    def spikes(channels: int) -> Tensor:
        return (torch.rand(STEPS, 3, channels, generator=generator) < 0.05).float()

    torch.manual_seed(0)
    for recurrent in (False, True):
        for adapts in (False, True):
            kind = {"adapts": adapts, "recurrent": recurrent}
            layers = [Leaky(700, 1024, **kind), Leaky(1024, 1024, **kind), Integrator(1024)]
            name = "R" * recurrent + ("adLIF" if adapts else "LIF")
            yield name, Baseline(layers, "softmax, summed"), spikes(700)
    for readout in ("maximum", "last step", "each step"):
        kind = {"adapts": False, "recurrent": False}
        yield f"LIF, {readout}", Baseline([Leaky(700, 512, **kind), Integrator(512)], readout), spikes(700)
    yield "SRNN", Baseline([Adaptive(700, 128), Adaptive(128, 128), Integrator(128)], "softmax, summed"), spikes(700)
    pair = [Symplectic(140, 360), Symplectic(360, 360), Integrator(360)]
    yield "SE-adLIF", Baseline(pair, "softmax, summed"), spikes(140)
    for behind in (0, 12):
        sizes = ((140, 256, 1.0), (256, 256, 1.0), (256, CLASSES, 1e9))
        delays = [Delays(before, after, threshold=level, behind=behind) for before, after, level in sizes]
        name = "SNN-delays" + ", padded behind" * bool(behind)
        yield name, Baseline([*delays], "softmax, summed"), spikes(140)
