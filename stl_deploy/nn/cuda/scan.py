"""Batch norm and the LIF scan as one differentiable function over the Triton kernels."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import language as tl

from stl_deploy.nn.cuda import kernels
from stl_deploy.nn.layers import Norm, follow, is_by_step, require_values, running
from stl_deploy.nn.surrogate import SURROGATES, Derivative

_BLOCK = 256
"""Neurons of a program."""
_PARTS = 32
"""Into how many sums, at most, what is summed over samples or rows goes before it is added up: a fixed order.

Blocks and samples, which may be many, are on a grid's first axis; CUDA allows 65,535 on each of the others.
"""
_EACH = 8
"""Least number of rows in such a sum, so that sums stay small beside their terms."""


def lif_scan(
    x: Tensor,
    theta: Tensor,
    decay: Tensor,
    derivative: Derivative,
    *,
    soft_reset: bool,
    detach_reset: bool,
    norm: Norm | None = None,
) -> Tensor:
    """Return spikes ``[T, B, *shape]``, in the type of ``x``, of a LIF population at rest before step 0, behind a norm.

    x: currents ``[T, B, *shape]``, float32, bfloat16 or float64, all that is kept for gradients; theta broadcasts to
    shape; decay is 0-dimensional. Differentiable in all three and the norm's weight and bias. A norm in training mode
    moves its running statistics as torch's does; in evaluation mode the result has no gradient.
    """
    wide = _computed(x)
    level = theta.to(x.device, wide).expand(x.shape[2:]).reshape(-1).contiguous()
    surrogate = list(SURROGATES.values()).index(derivative)
    given = (x.contiguous(), level, decay.to(x.device, wide))
    # Triton starts kernels on the current card; torch's own threads of the backward pass set it.
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        if norm is not None and not norm.training:
            with torch.no_grad():
                return _spikes(*given, _evaluated(norm), soft_reset)
        gain, bias = (None, None) if norm is None else (norm.weight, norm.bias)
        how = (surrogate, soft_reset, detach_reset)
        spikes: Tensor = _Scan.apply(*given, gain, bias, norm, *how)  # type: ignore[no-untyped-call]
        return spikes


class _Normed(NamedTuple):
    """A norm's effect on currents: rows per statistic, mean, deviation and its affine, ``[S, C]`` each.

    S = T where each step has its own, else 1.
    """

    rows: int
    mean: Tensor
    deviation: Tensor
    scale: Tensor
    shift: Tensor


class _Scan(torch.autograd.Function):
    """``[T, B, *shape]`` currents, ``[M]`` thresholds and β to spikes; torch expands and sums the threshold."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        level: Tensor,
        decay: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        norm: Norm | None,
        surrogate: int,
        soft: bool,
        detach: bool,
    ) -> Tensor:
        normed = None if norm is None else _normed(x, norm)
        ctx.save_for_backward(x, level, decay, *(normed or ())[1:])
        ctx.rows = None if normed is None else normed.rows
        ctx.surrogate, ctx.soft, ctx.detach = surrogate, soft, detach
        return _spikes(x, level, decay, normed, soft)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, level, decay, *kept = ctx.saved_tensors
        normed = _Normed(ctx.rows, *kept) if kept else None
        steps, batch, size, channels = _sizes(x)
        samples = max(triton.cdiv(batch, _PARTS), 1)
        parts = triton.cdiv(batch, samples)
        learns = ctx.needs_input_grad[2]
        grad_z = torch.empty_like(x, dtype=level.dtype)
        of_level = level.new_zeros((parts, size))
        of_decay = level.new_zeros((parts, size) if learns else (0,))
        if x.numel():
            kernels.backward[(triton.cdiv(size, _BLOCK), parts)](
                grad.contiguous(), x, *_affine(normed, level), level, decay, grad_z, of_level, of_decay,
                steps, batch * size, batch, size, size // channels, _own(normed, channels), samples,
                normed=normed is not None, surrogate=ctx.surrogate, soft=ctx.soft, detach=ctx.detach,
                learns_decay=learns, wide=_wide(level.dtype), block=_BLOCK, enable_fp_fusion=False,
            )  # fmt: skip
        rest = (of_level.sum(0), of_decay.sum() if learns else None)
        if normed is None:
            return grad_z.to(x.dtype), *rest, *(None,) * 6
        of_one, of_x = _sums(grad_z, x, normed.mean, normed.rows)
        of_gain, of_bias = ((part.sum(0)).to(level.dtype) for part in (of_x / normed.deviation, of_one))
        share = normed.scale / (normed.rows * (size // channels))
        coefficients = (normed.scale, -share * of_x / normed.deviation**2, -share * of_one)
        return _norm_backward(grad_z, x, normed, coefficients), *rest, of_gain, of_bias, *(None,) * 4


def _spikes(x: Tensor, level: Tensor, decay: Tensor, normed: _Normed | None, soft: bool) -> Tensor:
    steps, batch, size, channels = _sizes(x)
    spikes = torch.empty_like(x)
    if x.numel():
        kernels.forward[(batch * triton.cdiv(size, _BLOCK),)](
            x, *_affine(normed, level), level, decay, spikes,
            steps, batch * size, size, size // channels, _own(normed, channels),
            normed=normed is not None, soft=soft, wide=_wide(level.dtype), block=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
    return spikes


def _normed(x: Tensor, norm: Norm) -> _Normed:
    """Return the norm of a batch, and update its running statistics."""
    steps, batch, size, channels = _sizes(x)
    own = steps if is_by_step(norm) else 1
    rows = steps * batch // own
    number = rows * (size // channels)
    require_values(number)
    first = x.view(own, rows, channels, -1)[:, 0, :, 0].double().contiguous()  # near the mean: little cancels
    of_one, of_x = _sums(None, x, first, rows)
    mean = first + of_one / number
    squares = (of_x - of_one**2 / number).clamp_min(0)
    follow(norm, mean, squares, number)
    return _Normed(rows, mean, *_coefficients(norm, mean, squares / number))


def _evaluated(norm: Norm) -> _Normed:
    mean, variance = (statistic.double()[None] for statistic in running(norm))
    return _Normed(0, mean, *_coefficients(norm, mean, variance))


def _coefficients(norm: Norm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return deviation, scale and shift, float64."""
    deviation = torch.sqrt(variance + norm.eps)
    scale = norm.weight.detach().double() / deviation
    return deviation, scale, norm.bias.detach().double() - mean * scale


def _sums(grad: Tensor | None, x: Tensor, center: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return Σ g and Σ g·(x - center) of each channel, ``[S, C]``, float64; g is x - center if grad is None."""
    _, _, size, channels = _sizes(x)
    wide = _computed(x)
    each = max(triton.cdiv(rows, _PARTS), _EACH)
    parts, own = triton.cdiv(rows, each), len(center)
    totals = x.new_empty((2, own, parts, size), dtype=wide)
    kernels.sums[(triton.cdiv(size, _BLOCK), parts, own)](
        x if grad is None else grad, x, center.to(wide), *totals, rows, size, size // channels, each,
        squares=grad is None, wide=_wide(wide), block=_BLOCK,
    )  # fmt: skip
    of_one, of_x = totals.view(2, own, parts, channels, -1).sum((2, 4), dtype=torch.float64)
    return of_one, of_x


def _norm_backward(grad: Tensor, x: Tensor, normed: _Normed, coefficients: tuple[Tensor, ...]) -> Tensor:
    """Return ∂x of ∂ behind the norm, reusing its memory if types allow."""
    _, _, size, channels = _sizes(x)
    each = triton.cdiv(normed.rows, _PARTS)
    grad_x = grad if grad.dtype == x.dtype else torch.empty_like(x)
    numbers = (coefficient.to(grad.dtype) for coefficient in (normed.mean, *coefficients))
    kernels.norm_backward[(triton.cdiv(size, _BLOCK), triton.cdiv(normed.rows, each), len(normed.mean))](
        grad, x, *numbers, grad_x, normed.rows, size, size // channels, each,
        wide=_wide(grad.dtype), block=_BLOCK,
    )  # fmt: skip
    return grad_x


def _affine(normed: _Normed | None, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift as the kernels take them; without a norm any tensor, which they do not read."""
    return (level, level) if normed is None else (normed.scale.to(level.dtype), normed.shift.to(level.dtype))


def _own(normed: _Normed | None, channels: int) -> int:
    """Return the distance between the norms of consecutive steps."""
    return channels if normed is not None and len(normed.mean) > 1 else 0


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    """Return T, B, neurons and, of these, channels."""
    return x.shape[0], x.shape[1], x.shape[2:].numel(), x.shape[2] if x.dim() > 2 else 1


def _computed(x: Tensor) -> torch.dtype:
    """Return the type of potentials and sums for such currents."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _wide(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32
