"""Scan neurons with a synaptic current or several spikes per step over time, with the gradient.

Forward, per step t, with i the current and v the membrane (without a synapse i is x)::

    i[t] = (i[t−1] + x[t])·α                    the current decays before it acts
    u[t] = β·v[t−1] + i[t]
    s[t] = min(max(trunc(u/θ), 0), cap)         cap 1: 1 where u >= θ
    v[t] = u[t] − θ·s[t], the soft reset;   or u[t]·(1 − s[t]), the hard one (cap 1 alone)

Multiply, add and comparison are separate operations, so every backend gets the same bits. Backward, a staircase (cap
above 1) has the slope of u/θ where 0.3 < u/θ < cap + 0.7, else 0; cap 1 uses the population's surrogate at u − θ. Both
flow through the reset unless it is detached.

numba runs the scan if installed (`stl_deploy.nn.fused.synaptic_kernels`), else torch; gradients differ only by the
order of sums over samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stl_deploy.nn.fused.switch import usable, works
from stl_deploy.nn.layers import wide
from stl_deploy.nn.lif_scan import spike
from stl_deploy.nn.surrogate import SURROGATES, Derivative

LOW, BEYOND = 0.3, 0.7
"""The staircase has a slope from so many thresholds to so many past the cap."""
_NAMES = {derivative: name for name, derivative in SURROGATES.items()}


@dataclass(frozen=True)
class Rule:
    """Rule of a step. cap: spikes at most. spiking: False: the membrane itself is the output, never reset."""

    cap: int = 1
    soft_reset: bool = True
    detach_reset: bool = False
    derivative: Derivative = SURROGATES["arctan"]
    spiking: bool = True


def synaptic_scan(x: Tensor, theta: Tensor, decay: Tensor, synapse_decay: Tensor | None, rule: Rule) -> Tensor:
    """Return spikes (or membranes) ``[T, B, *shape]`` of a population at rest before step 0.

    x: input ``[T, B, *shape]``. theta, decay, synapse_decay: broadcast to shape; None: no synapse. Differentiable in
    all four. float32 for bfloat16 input.
    """
    x = wide(x)
    known = rule.cap > 1 or rule.derivative in _NAMES
    if usable(x) and known and works(x.dtype, "synaptic"):
        flat = x.flatten(2)
        rows = [value.expand(x.shape[2:]).reshape(-1) for value in (theta, decay)]
        synapse = rows[1].new_empty(0) if synapse_decay is None else synapse_decay.expand(x.shape[2:]).reshape(-1)
        y: Tensor = _Scan.apply(flat, rows[0], rows[1], synapse, rule)  # type: ignore[no-untyped-call]
        return y.reshape(x.shape)
    current = v = torch.zeros_like(x[0])
    outputs = []
    for arriving in x.unbind(0):
        y, current, v = advance(arriving, current, v, theta, decay, synapse_decay, rule)
        outputs.append(y)
    return torch.stack(outputs)


def rest(like: Tensor, synaptic: bool) -> Tensor:
    """Return the state before step 0: the membrane ``[B, *shape]``, or ``[2, B, *shape]``, the current before it."""
    return torch.zeros_like(like.unsqueeze(0).expand(2, *like.shape) if synaptic else like)


def step(
    x: Tensor, state: Tensor, theta: Tensor, decay: Tensor, synapse_decay: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Step ``[B, *shape]``: return output and state, in the form of `rest`."""
    if synapse_decay is None:
        y, _, v = advance(x, x, state, theta, decay, None, rule)
        return y, v
    y, current, v = advance(x, state[0], state[1], theta, decay, synapse_decay, rule)
    return y, torch.stack([current, v])


def advance(
    x: Tensor, current: Tensor, v: Tensor, theta: Tensor, decay: Tensor, synapse_decay: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """Step ``[B, *shape]``: return output, synaptic current (x itself without a synapse) and membrane."""
    current = x if synapse_decay is None else (current + x) * synapse_decay
    u = v * decay + current
    if not rule.spiking:
        return u, current, u
    spikes = staircase(u, theta, rule.cap) if rule.cap > 1 else spike(u, theta, rule.derivative)
    taken = spikes.detach() if rule.detach_reset else spikes
    return spikes, current, u - (theta if rule.soft_reset else u) * taken


def staircase(u: Tensor, theta: Tensor, cap: int) -> Tensor:
    """Return min(max(trunc(u/θ), 0), cap), with the slope of u/θ near the steps in both."""
    spikes: Tensor = _Staircase.apply(u, theta, cap)  # type: ignore[no-untyped-call]
    return spikes


class _Staircase(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, cap: int) -> Tensor:
        ratio = u / theta
        ctx.save_for_backward(ratio, theta)
        ctx.cap = cap
        return ratio.trunc().clamp_(0, cap)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        ratio, theta = ctx.saved_tensors
        inside = (ratio > LOW) & (ratio < ctx.cap + BEYOND)
        of_u = torch.where(inside, grad / theta, torch.zeros_like(grad))
        return of_u, -(of_u * ratio).sum_to_size(theta.shape), None


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, decay: Tensor, synapse: Tensor, rule: Rule) -> Tensor:
        from stl_deploy.nn.fused import synaptic_kernels as kernels

        given = [tensor.detach().contiguous() for tensor in (x, theta, decay, synapse)]
        learning = any(ctx.needs_input_grad)
        y, u, current = kernels.forward([tensor.numpy() for tensor in given], _numbers(rule), learning)
        ctx.rule, ctx.given, ctx.trace = rule, given, (y, u, current)
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from stl_deploy.nn.fused import synaptic_kernels as kernels

        arrays = [tensor.numpy() for tensor in ctx.given]
        gradients = kernels.backward(grad.contiguous().numpy(), arrays, ctx.trace, _numbers(ctx.rule))
        grads = [torch.from_numpy(array) for array in gradients]
        return *(
            grad_of_input if need else None for grad_of_input, need in zip(grads, ctx.needs_input_grad, strict=False)
        ), None


def _numbers(rule: Rule) -> tuple[int, int, bool, bool]:
    """Return the rule for the kernels: cap (0: no spikes), surrogate's number, soft and detached resets."""
    names = list(SURROGATES)
    number = names.index(_NAMES[rule.derivative]) if rule.derivative in _NAMES else 0
    return rule.cap if rule.spiking else 0, number, rule.soft_reset, rule.detach_reset
