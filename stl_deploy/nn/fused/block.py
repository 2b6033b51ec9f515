"""Batch norm, LIF and max pooling as one differentiable function on the CPU, gradients by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stl_deploy.nn.fused import kernels
from stl_deploy.nn.fused.neuron_kernels import Layout
from stl_deploy.nn.fused.passes import (
    Form,
    as_map,
    as_rows,
    backward_pass,
    forward_pass,
    gathered,
    no_entry,
    of_map,
    of_vectors,
    pooled_size,
    spread,
)
from stl_deploy.nn.fused.rows import Array
from stl_deploy.nn.fused.sample_threads import array, run, split, wide
from stl_deploy.nn.layers import Norm, follow, running


def block(x: Tensor, theta: Tensor, decay: Tensor, norm: Norm | None, form: Form) -> Tensor:
    """Return spikes ``[T, B, *pooled]`` of norm, LIF and pool in sequence; feature maps come back channels-last.

    x: currents ``[T or 1, B, *shape]``, float32, float64 or bfloat16; a single step is shown at every step. theta
    broadcasts to shape; decay is 0-dimensional. Potentials are float32 at least. A norm in training mode moves its
    running statistics as torch's does; in evaluation mode the result has no gradient.
    """
    if norm is None or norm.training:
        gain, bias = (None, None) if norm is None else (norm.weight, norm.bias)
        spikes: Tensor = _Block.apply(x, gain, bias, theta, decay, norm, form)  # type: ignore[no-untyped-call]
        return spikes
    layout = _layout(x, form)
    scale, shift = evaluation_affine(norm)
    with torch.no_grad():
        return _spikes(x, as_rows(x, layout), (scale, shift), theta, decay, form, layout, keep_trace=False)[0]


def evaluation_affine(norm: Norm) -> tuple[Array, Array]:
    """Return scale and shift of a norm in evaluation mode, ``[1, C]``, float64."""
    mean, variance = (double(statistic) for statistic in running(norm))
    scale = double(norm.weight) / np.sqrt(variance + norm.eps)
    return scale[None], (double(norm.bias) - mean * scale)[None]


class _Normed(NamedTuple):
    """A norm's effect on a batch, float64: numbers per statistic ``[S]``, mean, deviation and its affine, ``[S, C]``.

    S = 0: there is none.
    """

    number: Array
    mean: Array
    deviation: Array
    scale: Array
    shift: Array


_NO_NORM = _Normed(np.empty(0), *(np.empty((0, 1)) for _ in range(4)))


def double(tensor: Tensor) -> Array:
    """Return its numbers as float64."""
    return array(tensor).astype(np.float64)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        theta: Tensor,
        decay: Tensor,
        norm: Norm | None,
        form: Form,
    ) -> Tensor:
        layout = _layout(x, form)
        rows = as_rows(x, layout)
        ctx.norm = _NO_NORM
        if norm is not None:
            assert gain is not None
            assert bias is not None
            count, mean, squares = _moments(rows, form, layout)
            follow(norm, *(torch.from_numpy(moment) for moment in (mean, squares, count[:, None])))
            deviation = np.sqrt(squares / count[:, None] + norm.eps)
            scale = double(gain) / deviation
            ctx.norm = _Normed(count, mean, deviation, scale, double(bias) - mean * scale)
        affine, keep_trace = (ctx.norm.scale, ctx.norm.shift), any(ctx.needs_input_grad)
        spikes, trace, level = _spikes(x, rows, affine, theta, decay, form, layout, keep_trace=keep_trace)
        ctx.save_for_backward(rows if norm is not None else rows[:0], trace, theta, level, decay)
        ctx.shape, ctx.dtype, ctx.spent = x.shape, x.dtype, False
        ctx.form, ctx.layout = form, layout
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, trace, theta, level, decay = ctx.saved_tensors
        form, layout, single, norm = ctx.form, ctx.layout, ctx.shape[0] < ctx.form.steps, ctx.norm
        if ctx.spent:
            raise RuntimeError("the backward pass of a fused block ran twice; its potentials are gone after the first")
        ctx.spent = True
        normed = bool(len(norm.number))
        if single:
            grad_z = torch.empty_like(trace[:1])
        elif normed or ctx.dtype == trace.dtype:  # each potential is read once, right before its gradient is known
            grad_z = trace
        else:
            grad_z = torch.empty_like(trace, dtype=ctx.dtype)
        grads, entry, wanted = as_rows(grad, layout), no_entry(array(trace).dtype), ctx.needs_input_grad[4]
        of = backward_pass(grads, trace, rows, entry, norm.mean, level, decay, form, layout, grad_z, of_decay=wanted)
        grad_gain = grad_bias = None
        grad_x = grad_z.to(ctx.dtype)
        if normed:
            of_one, of_x = of.sums
            grad_bias = torch.from_numpy(of_one.sum(0)).to(trace.dtype)
            grad_gain = torch.from_numpy((of_x / norm.deviation).sum(0)).to(trace.dtype)
            share = (form.steps if single else 1) * norm.scale / norm.number[:, None]
            coefficients = (norm.mean, norm.scale, -share * of_x / norm.deviation**2, -share * of_one)
            grad_x = _norm_backward(grad_z, rows, coefficients, layout)
        shape = ctx.shape[2:]
        grad_theta = gathered(of.level, theta, shape) if ctx.needs_input_grad[3] else None
        return as_map(grad_x, ctx.shape[1], shape), grad_gain, grad_bias, grad_theta, of.decay, None, None


def _layout(x: Tensor, form: Form) -> Layout:
    batch, channels, *sides = x.shape[1:]
    return of_map(channels, form.pool, *sides) if sides else of_vectors(batch, channels)


def _spikes(
    x: Tensor,
    rows: Tensor,
    affine: tuple[Array, Array],
    theta: Tensor,
    decay: Tensor,
    form: Form,
    layout: Layout,
    *,
    keep_trace: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pooled spikes ``[T, B, *pooled]``, the trace of u, ``[T, B', M]`` (or ``[0, B', M]``), thresholds.

    affine: scale and shift of a norm, ``[S, C]``, float64; S = 0: there is none.
    """
    (_, batch, size), shape, dtype = rows.shape, x.shape[2:], wide(x.dtype)
    of_trace = (form.steps if keep_trace else 0, batch, size)
    own = form.reuse and len(rows) == form.steps and x.dtype == dtype  # the currents' memory can be written to
    in_place = own and keep_trace and not len(affine[0])
    trace = rows.detach() if in_place else torch.empty(of_trace, dtype=dtype)
    of_out = (form.steps, batch, pooled_size(size, layout))
    out = rows.detach() if own and not keep_trace and form.pool == 1 else torch.empty(of_out, dtype=x.dtype)
    level = spread(theta, shape, layout)
    forward_pass(rows, no_entry(array(trace).dtype), affine, level, decay, layout, trace, out)
    pooled = (shape[0], *(side // form.pool for side in shape[1:]))
    return as_map(out, x.shape[1], pooled), trace, level


def _moments(x: Tensor, form: Form, layout: Layout) -> tuple[Array, Array, Array]:
    """Return number, mean and sum of squared deviations by channel, ``[S]``, ``[S, C]``, ``[S, C]``, float64."""
    parts, steps, maps = split(x.shape[1]), form.steps if form.by_step else 1, array(_by_rows(x, layout))
    count, mean, squares = (np.zeros((len(parts), steps, *more)) for more in ((), (form.channels,), (form.channels,)))
    computed = array(torch.empty(0, dtype=wide(x.dtype)))

    def part(index: int, first: int, last: int) -> None:
        kernels.moments(maps, first, last, count[index], mean[index], squares[index], computed)

    run(part, parts, x.numel())
    total, each = count.sum(0), count[:, :, None]
    together = (mean * each).sum(0) / total[:, None]
    spread_out = (squares + each * (mean - together) ** 2).sum(0)
    shown = form.steps // len(x)
    return total * shown, together, spread_out * shown


def _norm_backward(grad_z: Tensor, x: Tensor, coefficients: tuple[Array, ...], layout: Layout) -> Tensor:
    grad_x = grad_z if grad_z.dtype == x.dtype else torch.empty_like(x)
    g, z, out = (array(_by_rows(tensor, layout)) for tensor in (grad_z, x, grad_x))
    center, of_grad, of_x, rest = coefficients

    def part(_: int, first: int, last: int) -> None:
        kernels.norm_backward(g, z, first, last, center, of_grad, of_x, rest, out)

    run(part, split(x.shape[1]), x.numel())
    return grad_x


def _by_rows(x: Tensor, layout: Layout) -> Tensor:
    """Return ``[T, B, M]`` as ``[T, B, R, L]``, with rows as long as strips if these have equal length."""
    size = layout.strip if x.shape[2] % layout.strip == 0 else layout.row
    return x.reshape(*x.shape[:2], -1, size)
