"""The LIF scan as one differentiable function over the Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import language as tl

from stl_deploy.nn.cuda import kernels
from stl_deploy.nn.surrogate import SURROGATES, Derivative

_BLOCK = 256
"""Neurons of a program."""
_PARTS = 32
"""Into how many sums, at most, the samples' gradients of a threshold go before they are added up: a fixed order."""


def lif_scan(x: Tensor, theta: Tensor, decay: Tensor, derivative: Derivative, *, detach_reset: bool) -> Tensor:
    """Spikes ``[T, B, *shape]``, of the type of ``x``, of a LIF population at rest before step 0.

    x: currents ``[T, B, *shape]``, float32, bfloat16 or float64; theta broadcasts to shape; decay is 0-dimensional.
    Differentiable in all three; the potentials are kept, once, only for gradients.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    level = theta.to(wide).expand(x.shape[2:]).reshape(-1).contiguous()
    surrogate = list(SURROGATES.values()).index(derivative)
    spikes: Tensor = _Scan.apply(x.contiguous(), level, decay.to(wide), surrogate, detach_reset)  # type: ignore[no-untyped-call]
    return spikes


class _Scan(torch.autograd.Function):
    """``[T, B, *shape]`` currents, ``[M]`` thresholds and β to spikes; torch expands and sums the threshold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, level: Tensor, decay: Tensor, surrogate: int, detach: bool) -> Tensor:
        steps, batch, size = _sizes(x)
        keep = any(ctx.needs_input_grad)
        spikes = torch.empty_like(x)
        trace = x.new_empty(x.shape if keep else (0,), dtype=level.dtype)
        if spikes.numel():
            kernels.forward[(triton.cdiv(size, _BLOCK), batch)](
                x, level, decay, spikes, trace, steps, batch * size, size,
                keep=keep, wide=_wide(level), block=_BLOCK, enable_fp_fusion=False,
            )  # fmt: skip
        ctx.save_for_backward(trace, level, decay)
        ctx.surrogate, ctx.detach, ctx.dtype = surrogate, detach, x.dtype
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        trace, level, decay = ctx.saved_tensors
        steps, batch, size = _sizes(trace)
        samples = max(triton.cdiv(batch, _PARTS), 1)
        parts = triton.cdiv(batch, samples)
        learns = ctx.needs_input_grad[2]
        grad_x = torch.empty_like(trace, dtype=ctx.dtype)
        of_level = level.new_zeros((parts, size))
        of_decay = level.new_zeros((parts, size) if learns else (0,))
        if trace.numel():
            kernels.backward[(triton.cdiv(size, _BLOCK), parts)](
                grad.contiguous(), trace, level, decay, grad_x, of_level, of_decay,
                steps, batch * size, batch, size, samples,
                surrogate=ctx.surrogate, detach=ctx.detach, learns_decay=learns, wide=_wide(level), block=_BLOCK,
                enable_fp_fusion=False,
            )  # fmt: skip
        return grad_x, of_level.sum(0), of_decay.sum() if learns else None, None, None


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2:].numel()


def _wide(level: Tensor) -> Any:
    return tl.float64 if level.dtype == torch.float64 else tl.float32
