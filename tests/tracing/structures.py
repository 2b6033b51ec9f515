"""Published networks whose layers are more than a neuron's arithmetic, each written anew from its paper's equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.tracing.more_neurons import leaky
from tests.tracing.neurons import KINDS, Kind, N, adaptive, fires, symplectic, ternary

CLASSES, TAPS = 3, 4
X = (torch.rand(16, 3, 8, generator=torch.Generator().manual_seed(5)) < 0.5).float()
IMAGES = (torch.rand(16, 3, 2, 4, 4, generator=torch.Generator().manual_seed(5)) < 0.5).float()


class Structure(nn.Module):
    """A linear layer ``[T, B, 8]`` to currents ``[T, B, N]``, what a subclass makes of these, and a linear readout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc, self.out = nn.Linear(8, N), nn.Linear(N, CLASSES)
        self.alpha, self.beta = (nn.Parameter(torch.rand(N) * 0.2 + low) for low in (0.6, 0.7))
        self.a, self.b = nn.Parameter(torch.rand(N) * 0.5), nn.Parameter(torch.rand(N))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.spikes(self.fc(x)))

    def spikes(self, currents: Tensor) -> Tensor:
        raise NotImplementedError

    def run(self, step: Callable[..., tuple[Tensor, ...]], currents: Tensor, states: int) -> Tensor:
        kept, spikes = [torch.zeros_like(currents[0]) for _ in range(states)], []
        for current in currents:
            out, *kept = step(self, current, *kept)
            spikes.append(out)
        return torch.stack(spikes)


class Gates(Structure):
    """torch's recurrent layers, by a cell called for each step or whole, before a LIF."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(N, N)

    def spikes(self, currents: Tensor) -> Tensor:
        if isinstance(self.layer, nn.RNNBase):
            return self.run(leaky, self.layer(currents)[0], 1)
        state, made = None, []
        for current in currents:
            state = self.layer(current, state)
            made.append(state[0] if isinstance(self.layer, nn.LSTMCell) else state)
        return self.run(leaky, torch.stack(made), 1)


class Sliding(Structure):
    """Sliding PSN (Fang et al. 2023): a weighted sum of the last currents, without a reset."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weights, self.level = nn.Parameter(torch.rand(TAPS) * 0.5), nn.Parameter(torch.tensor(-0.2))

    def spikes(self, currents: Tensor) -> Tensor:
        steps = len(currents)
        if self.how == "loop":
            waiting, made = [torch.zeros_like(currents[0])] * (TAPS - 1), []
            for current in currents:
                waiting.append(current)
                made.append(fires(sum(w * i for w, i in zip(self.weights, waiting, strict=True)) + self.level))
                del waiting[0]
            return torch.stack(made)
        if self.how == "convolution":
            lines = functional.pad(currents.flatten(1).t().unsqueeze(1), (TAPS - 1, 0))
            summed = functional.conv1d(lines, self.weights.view(1, 1, -1)).squeeze(1).t().view(currents.shape)
            return fires(summed + self.level)
        band = torch.zeros(steps, steps)
        for t in range(steps):
            first = max(0, t - TAPS + 1)
            band[t][first : t + 1] = self.weights[TAPS - (t + 1 - first) :]
        return fires(torch.addmm(self.level.expand(steps, 1), band, currents.flatten(1)).view(currents.shape))


class SeveralThresholds(Structure):
    """LM-HT (Hao et al. 2024): counts of the thresholds that a potential is above, each subtracted."""

    def spikes(self, currents: Tensor) -> Tensor:
        def step(p: Any, i: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            v = p.beta * v + i
            s = fires(v - 0.2) + fires(v - 0.4) + fires(v - 0.6)
            return s, v - 0.2 * s

        return self.run(step, currents, 1)


class Delayed(Structure):
    """Learned delays, interpolated between two steps (DCLS), or whole ones of each axon, before neurons."""

    def __init__(self, kind: Kind, *, learned: bool) -> None:
        super().__init__()
        self.kind, self.learned = kind, learned
        position = torch.rand(N, 8) * (TAPS - 1)
        at = torch.arange(TAPS)[:, None, None]
        self.kernel = nn.Parameter(torch.randn(N, 8) * (1 - (at - position).abs()).clamp(min=0))
        self.delays = [axon % TAPS for axon in range(8)]

    def forward(self, x: Tensor) -> Tensor:
        steps = len(x)
        if self.learned:
            padded = functional.pad(x.permute(1, 2, 0), (TAPS - 1, 0))
            currents = functional.conv1d(padded, self.kernel.permute(1, 2, 0)).permute(2, 0, 1)
        else:
            late = [functional.pad(x[..., i], (0, 0, d, 0))[:steps] for i, d in enumerate(self.delays)]
            currents = self.fc(torch.stack(late, -1))
        return self.out(self.run(self.kind.step, currents, self.kind.states))


class Residual(nn.Module):
    """Three convolutions of one kind of neuron; the first one's spikes are added to the last one's (SEW's skip)."""

    def __init__(self, kind: Kind, current: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kind, self.current = kind, current
        self.layers = nn.ModuleList(nn.Conv2d(4 if k else 2, 4, 3, padding=1) for k in range(3))
        self.norm, self.out = nn.BatchNorm2d(4), nn.Linear(4 * 16, CLASSES)
        self.alpha, self.beta = (nn.Parameter(torch.rand(4, 1, 1) * 0.2 + low) for low in (0.6, 0.7))
        self.a, self.b = nn.Parameter(torch.rand(4, 1, 1) * 0.5), nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        rest = torch.zeros(x.shape[1], 4, 4, 4)
        start = [rest + self.kind.starts.get(number, 0.0) for number in range(self.kind.states)]
        states: list[Sequence[Tensor]] = [start] * 3
        made = []
        for x_t in x:
            spikes = [x_t]
            for k, layer in enumerate(self.layers):
                current = self.current * self.norm(layer(spikes[-1]))
                out, *states[k] = self.kind.step(self, current, *states[k])
                spikes.append(out)
            made.append(self.out((spikes[1] + spikes[3]).flatten(1)))
        return torch.stack(made)


STRUCTURES: dict[str, Callable[[], nn.Module]] = {
    **{f"nn.{kind}": lambda kind=kind: Gates(kind) for kind in ("GRUCell", "LSTMCell", "GRU", "LSTM")},  # type: ignore[misc]
    **{f"sliding PSN, {how}": lambda how=how: Sliding(how) for how in ("loop", "convolution", "matrix")},  # type: ignore[misc]
    "LM-HT": SeveralThresholds,
    "DCLS, LIF": lambda: Delayed(Kind(leaky, 1), learned=True),
    "DCLS, adLIF": lambda: Delayed(Kind(adaptive, 3), learned=True),
    "axon delays, SE-adLIF": lambda: Delayed(Kind(symplectic, 2), learned=False),
    "residual Izhikevich": lambda: Residual(KINDS["Izhikevich"], 30.0),
    "residual SE-adLIF": lambda: Residual(Kind(symplectic, 2), 1.0),
    "residual ternary": lambda: Residual(Kind(ternary, 1), 1.0),
}
"""Networks by name; those of residuals take ``[T, B, 2, 4, 4]``, the others ``[T, B, 8]``."""
