"""Neurons that compute in the order of the frameworks' own, without the frameworks.

`tests/conformance` holds the frameworks themselves to the same captures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Heaviside(torch.autograd.Function):
    """snnTorch's spike: a function of autograd's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def spike(x: Tensor) -> Tensor:
    found: Tensor = Heaviside.apply(x)
    return found


class Leaky(nn.Module):
    """snnTorch's Leaky, and with ``alpha`` its Synaptic: the state is passed by hand.

    The reset is one step late, or with ``delay=False`` (its ``reset_delay``) at once.
    """

    def __init__(
        self,
        beta: Any = 0.9,
        threshold: Any = 1.0,
        reset: str = "subtract",
        alpha: float | None = None,
        delay: bool = True,
    ) -> None:
        super().__init__()
        self.beta, self.threshold = nn.Parameter(torch.as_tensor(beta)), nn.Parameter(torch.as_tensor(threshold))
        self.reset, self.alpha, self.delay = reset, alpha, delay

    def forward(self, x: Tensor, mem: Tensor, syn: Tensor | None = None) -> tuple[Tensor, ...]:
        late = spike(mem - self.threshold).clone().detach()
        beta = self.beta.clamp(0, 1)
        if syn is not None:
            assert self.alpha is not None
            syn = x = self.alpha * syn + x
        if self.reset == "subtract":
            mem = beta * mem + x - late * self.threshold
        elif syn is None:
            mem = beta * ((1 - late) * mem) + x
        else:
            charged = beta * mem + x
            mem = charged - late * charged
        out = spike(mem - self.threshold)
        if not self.delay:
            mem = mem - (out / 1.0 - late) * (self.threshold if self.reset == "subtract" else mem)
        return (out, mem) if syn is None else (out, mem, syn)


class MemoryNeuron(nn.Module):
    """SpikingJelly's IFNode, LIFNode and ParametricLIFNode: state in the module, ``step_mode`` s or m."""

    def __init__(
        self,
        tau: float | None = 2.0,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = True,
        step_mode: str = "s",
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.tau, self.v_threshold, self.v_reset = tau, v_threshold, v_reset
        self.decay_input, self.step_mode = decay_input, step_mode
        self.w = nn.Parameter(torch.tensor(0.3)) if learned else None
        self.reset()

    def reset(self) -> None:
        self.v: Any = 0.0 if self.v_reset is None else self.v_reset

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self.step(x)
        out = torch.empty_like(x)
        for t in range(x.shape[0]):
            out[t] = self.step(x[t])
        return out

    def step(self, x: Tensor) -> Tensor:
        if not isinstance(self.v, Tensor):
            self.v = torch.full_like(x, self.v)
        self.v = self.charged(x)
        out = (self.v >= self.v_threshold).to(x)
        if self.v_reset is None:
            self.v = self.v - out * self.v_threshold
        else:
            self.v = out * self.v_reset + (1.0 - out) * self.v
        return out

    def charged(self, x: Tensor) -> Tensor:
        rest = 0.0 if self.v_reset is None else self.v_reset
        if self.tau is None:
            return self.v + x  # type: ignore[no-any-return]
        if self.w is not None:
            return self.v + (x - (self.v - rest)) * self.w.sigmoid()  # type: ignore[no-any-return]
        if self.decay_input:
            return self.v + (x - (self.v - rest)) / self.tau  # type: ignore[no-any-return]
        return self.v - (self.v - rest) / self.tau + x  # type: ignore[no-any-return]


class LIFBox(nn.Module):
    """Norse's LIFBox step: scalars made anew at each step, a state that is None at first, and a leak potential."""

    def __init__(self, v_leak: float = 0.0, v_reset: float = 0.0, v_th: float = 1.0, dt: float = 0.1) -> None:
        super().__init__()
        self.tau_mem_inv = torch.as_tensor(2.0)
        self.v_leak, self.v_reset, self.v_th = map(torch.as_tensor, (v_leak, v_reset, v_th))
        self.dt = dt

    def forward(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        if v is None:
            v = torch.full(x.shape, float(self.v_leak))
        v = v + self.dt * self.tau_mem_inv * ((self.v_leak + x) - v)
        out = spike(v - self.v_th)
        return out, (1 - out) * v + out * self.v_reset
