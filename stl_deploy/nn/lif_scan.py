"""Scan LIF neurons over time, with a hand-written gradient.

Forward, with u the membrane before and r after the reset, per step t::

    u[t] = β·r[t−1] + x[t];   s[t] = 1 where u[t] >= θ else 0
    r[t] = (1 − s[t])·u[t], the hard reset;   or u[t] − θ·s[t], the soft one

Multiply, add and comparison are separate operations: no compiler contracts β·r + x, and all backends get the same bits.
Backward, with g the surrogate derivative at u − θ and ∂ the gradient of the loss::

    ∂r[t] = β·∂u[t+1];   ∂x = ∂u;   ∂β = Σ ∂u[t]·r[t−1]
    hard:   ∂s[t] += −u[t]·∂r[t];   ∂u[t] = (1 − s[t])·∂r[t] + g·∂s[t];   ∂θ = −Σ g·∂s
    soft:   ∂s[t] += −θ·∂r[t];      ∂u[t] = ∂r[t] + g·∂s[t];              ∂θ = −Σ g·∂s − Σ s·∂r

A detached reset treats its spike as a constant and adds nothing to ∂s. The θ that a soft reset subtracts is still
differentiated (−Σ s·∂r), as in snnTorch and SpikingJelly. Only u is stored per layer; spikes, r and g are recomputed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stl_deploy.nn import cuda
from stl_deploy.nn.layers import wide
from stl_deploy.nn.surrogate import Derivative


def lif_scan(
    x: Tensor, theta: Tensor, decay: Tensor, derivative: Derivative, *, soft_reset: bool, detach_reset: bool
) -> Tensor:
    """Return spikes ``[T, B, *shape]`` of a LIF population at rest before step 0.

    x: input current ``[T, B, *shape]``; theta: threshold, broadcastable to shape; decay: β, 0-dimensional.
    Differentiable in x, theta and decay; without gradients the trace is not kept. Of the currents' type, but float32
    for bfloat16 currents in torch's operations (on CUDA `stl_deploy.nn.cuda` takes over where it can).
    """
    if torch.compiler.is_compiling():
        return _unrolled(wide(x), theta, decay, derivative, soft_reset, detach_reset)
    if cuda.ready(x) and cuda.knows(derivative):
        return cuda.lif_scan(x, theta, decay, derivative, soft_reset=soft_reset, detach_reset=detach_reset)
    x = wide(x)
    if torch.is_grad_enabled() and (x.requires_grad or theta.requires_grad or decay.requires_grad):
        given = (x, theta, decay, derivative, soft_reset, detach_reset)
        spikes: Tensor = _Scan.apply(*given)  # type: ignore[no-untyped-call]
        return spikes
    return _forward(x, theta, decay, soft_reset, keep_trace=False)[0]


def spike(u: Tensor, theta: Tensor, derivative: Derivative) -> Tensor:
    """Return 1 where ``u >= theta``, else 0, with the surrogate's gradient; theta broadcasts to ``u``'s last axes."""
    spikes: Tensor = _Spike.apply(u, theta, derivative)  # type: ignore[no-untyped-call]
    return spikes


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, derivative: Derivative) -> Tensor:
        ctx.save_for_backward(u, theta)
        ctx.derivative = derivative
        return torch.ge(u, theta).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, Tensor, None]:
        u, theta = ctx.saved_tensors
        grad_u = ctx.derivative(u - theta) * grad_spikes
        return grad_u, -grad_u.sum_to_size(theta.shape), None


def _forward(x: Tensor, theta: Tensor, decay: Tensor, soft: bool, *, keep_trace: bool) -> tuple[Tensor, Tensor]:
    spikes = torch.empty_like(x, memory_format=torch.contiguous_format)
    trace = torch.empty_like(spikes if keep_trace else spikes[:1])
    rest = torch.zeros_like(spikes[0])
    for step, (current, spike) in enumerate(zip(x.unbind(0), spikes.unbind(0), strict=True)):
        u = trace[step if keep_trace else 0]
        torch.mul(rest, decay, out=u).add_(current)
        torch.ge(u, theta, out=spike)
        torch.mul(theta if soft else u, spike, out=rest)
        torch.sub(u, rest, out=rest)
    return spikes, trace


def _unrolled(x: Tensor, theta: Tensor, decay: Tensor, derivative: Derivative, soft: bool, detach: bool) -> Tensor:
    """Return the same spikes and gradients in operators that torch.compile and torch.export can follow."""
    rest, made = torch.zeros_like(x[0]), []
    for current in x.unbind(0):
        u = rest * decay + current
        fired = spike(u, theta, derivative)
        rest = u - (theta if soft else u) * (fired.detach() if detach else fired)
        made.append(fired)
    return torch.stack(made)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, theta: Tensor, decay: Tensor, derivative: Derivative, soft: bool, detach: bool
    ) -> Tensor:
        spikes, trace = _forward(x, theta, decay, soft, keep_trace=True)
        ctx.save_for_backward(trace, theta, decay)
        ctx.derivative, ctx.soft, ctx.detach = derivative, soft, detach
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
        trace, theta, decay = ctx.saved_tensors
        _, need_theta, need_decay, *_ = ctx.needs_input_grad
        grad_x = torch.empty_like(trace)
        grad_theta = torch.zeros_like(theta)
        grad_decay = torch.zeros_like(decay)
        grad_rest = torch.zeros_like(trace[0])
        slope, spike, grad_spike = (torch.empty_like(grad_rest) for _ in range(3))
        for t in range(trace.shape[0] - 1, -1, -1):
            u, grad_u = trace[t], grad_x[t]
            ctx.derivative(torch.sub(u, theta, out=slope), out=slope)
            torch.ge(u, theta, out=spike)
            if ctx.detach:
                torch.mul(slope, grad_spikes[t], out=grad_spike)
            else:
                torch.mul(theta if ctx.soft else u, grad_rest, out=grad_spike)
                torch.sub(grad_spikes[t], grad_spike, out=grad_spike).mul_(slope)
            if need_theta:
                grad_theta.sub_(grad_spike.sum(0).sum_to_size(theta.shape))
            torch.mul(grad_rest, spike, out=grad_u)
            if ctx.soft:
                if need_theta:
                    grad_theta.sub_(grad_u.sum(0).sum_to_size(theta.shape))
                torch.add(grad_rest, grad_spike, out=grad_u)
            else:
                torch.sub(grad_rest, grad_u, out=grad_u).add_(grad_spike)
            if need_decay and t:
                before = trace[t - 1]
                if ctx.soft:
                    kept = torch.sub(before, torch.ge(before, theta, out=spike).mul_(theta), out=spike)
                else:
                    kept = torch.lt(before, theta, out=spike).mul_(before)
                grad_decay.add_(kept.mul_(grad_u).sum())
            torch.mul(grad_u, decay, out=grad_rest)
        grads = (grad_x, grad_theta, grad_decay)
        return *(grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=False)), *[None] * 3
