"""Batch norm, LIF and max pooling as one differentiable function on the CPU, gradients by hand."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stl_deploy.fused import kernels
from stl_deploy.fused.kernels import Array

_PARTS = 16
"""Samples are worked on in so many parts at most, whatever the threads: sums over them come out the same."""
_WORTH_A_THREAD = 1 << 15
"""Numbers in a layer from which on threads pay."""
_STRIP = 1 << 12
"""Numbers that the kernels work on at a time, about: a few arrays of so many stay in a processor's own cache."""
_FEW = 4
"""Strips that are left to threads at least."""

Norm = nn.BatchNorm1d | nn.BatchNorm2d


class Form(NamedTuple):
    """How a block computes.

    steps: T. channels: of the feature map; features of a vector. pool: side of the max-pooling windows; 1: none.
    by_step: batch norm takes the statistics of each step apart. surrogate: its name. detach: no gradient by the reset.
    reuse: the currents are nobody else's, and their memory may become that of the potentials.
    row, strip: numbers in an image row, channels-last, and in a strip of rows (see `kernels`); `block` finds them.
    """

    steps: int
    channels: int
    pool: int
    by_step: bool
    surrogate: str
    detach: bool
    reuse: bool = False
    row: int = 0
    strip: int = 0


def block(x: Tensor, theta: Tensor, decay: Tensor, norm: Norm | None, form: Form) -> Tensor:
    """Spikes ``[T, B, *pooled]`` of norm, LIF and pool, one after the other; feature maps come back channels-last.

    x: currents ``[T or 1, B, *shape]``, float32, float64 or bfloat16; a single step is shown at every step. theta
    broadcasts to shape; decay is 0-dimensional. Potentials are float32 at least. A norm in training mode moves its
    running statistics as torch's does; in evaluation mode the result has no gradient.
    """
    rows, level, form = _laid_out(x, theta, form)
    empty = x.new_empty((0, form.channels), dtype=_wide(x.dtype))
    if norm is None:
        out = _Block.apply(rows, empty, empty, level, decay, 0.0, form)[0]  # type: ignore[no-untyped-call]
    elif norm.training:
        out, count, mean, spread = _Block.apply(rows, norm.weight, norm.bias, level, decay, norm.eps, form)  # type: ignore[no-untyped-call]
        _follow(norm, count, mean, spread)
    else:
        with torch.no_grad():
            scale = norm.weight * torch.rsqrt(_running(norm.running_var) + norm.eps)
            shift = norm.bias - _running(norm.running_mean) * scale
            factor, offset = (_tiled(one[None].to(empty.dtype), form.strip) for one in (scale, shift))
            out, _ = _spikes(rows, factor, offset, level, decay, form, keep_trace=False)
    batch, sides = x.shape[1], [side // form.pool for side in x.shape[3:]]
    spikes: Tensor = out.reshape(form.steps, batch, *sides, form.channels)
    return spikes.movedim(-1, 2)


def columns(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], one: bool) -> Tensor:
    """The windows of a convolution, ``[N, C, H, W]`` -> ``[N, H', W', taps]``, with a column of ones behind if wanted.

    Not differentiable: for the layer that sees the input.
    """
    sizes = [(size + 2 * p - k) // s + 1 for size, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True)]
    out = torch.empty((len(x), *sizes, x.shape[1] * kernel[0] * kernel[1] + one), dtype=x.dtype)
    values = torch.ones(int(one), dtype=x.dtype)
    source, ones, windows = (_array(tensor) for tensor in (x.contiguous(), values, out))
    steps, pads, sides = (np.array(pair) for pair in (stride, padding, kernel))

    def part(_: int, first: int, last: int) -> None:
        kernels.columns(source, first, last, steps, pads, sides, ones, windows)

    _run(part, _parts(len(x)), out.numel())
    return out


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, level: Tensor, decay: Tensor, eps: float, form: Form
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = _wide(x.dtype)
        count, mean, spread = _moments(x, form) if len(gain) else _no_moments(form)
        deviation = torch.sqrt(spread / count[:, None] + eps)
        scale = gain / deviation if len(gain) else mean
        shift = bias - mean * scale if len(gain) else mean
        factor, offset = (_tiled(one.to(wide), form.strip) for one in (scale, shift))
        out, trace = _spikes(x, factor, offset, level, decay, form, keep_trace=any(ctx.needs_input_grad))
        ctx.save_for_backward(x if len(gain) else x[:0], trace, level, decay, scale, mean, deviation, count)
        ctx.single, ctx.dtype, ctx.spent = len(x) < form.steps, x.dtype, False
        ctx.form = form
        ctx.mark_non_differentiable(count, mean, spread)
        return out, count, mean, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, trace, level, decay, scale, mean, deviation, count = ctx.saved_tensors
        form: Form = ctx.form
        if ctx.spent:
            raise RuntimeError("the backward pass of a fused block ran twice; its potentials are gone after the first")
        ctx.spent = True
        normed = bool(len(mean))
        wide_enough = normed or ctx.dtype == trace.dtype
        if ctx.single:
            grad_z = torch.empty_like(trace[:1])
        else:  # each potential is read once, right before its gradient is known
            grad_z = trace if wide_enough else torch.empty_like(trace, dtype=ctx.dtype)
        parts = _parts(trace.shape[1])
        grad_level = torch.zeros((len(parts), *level.shape), dtype=trace.dtype)
        grad_decay = torch.zeros((len(parts), int(ctx.needs_input_grad[4])), dtype=torch.float64)
        sums = torch.zeros((len(parts), len(mean), 2, form.strip), dtype=torch.float64)
        center = _tiled(mean.to(trace.dtype), form.strip)
        tensors = (grad.contiguous(), trace, x, center, level, grad_z, grad_level, grad_decay, sums)
        g, u, y, middle, theta, out, of_level, of_decay, of_norm = (_array(one) for one in tensors)
        beta, surrogate = _scalar(decay, trace), kernels.SURROGATES.index(form.surrogate)

        def part(index: int, first: int, last: int) -> None:
            kernels.backward(
                g, u, y, first, last, middle, theta, beta, form.row, form.channels, form.pool, form.strip, surrogate,
                form.detach, out, of_level[index], of_decay[index], of_norm[index],
            )  # fmt: skip

        _run(part, parts, trace.numel())
        grad_gain = grad_bias = None
        grad_x = grad_z.to(ctx.dtype)
        if normed:
            of_one, of_x = _by_place(sums.sum(0), form).sum(2).unbind(1)
            grad_bias = of_one.sum(0).to(trace.dtype)
            grad_gain = (of_x / deviation).sum(0).to(trace.dtype)
            share = (form.steps if ctx.single else 1) * scale / count[:, None]
            coefficients = (mean, scale, -share * of_x / deviation**2, -share * of_one)
            grad_x = _norm_backward(grad_z, x, [one.to(trace.dtype) for one in coefficients], form)
        of_beta = grad_decay.sum().to(decay.dtype) if ctx.needs_input_grad[4] else None
        return grad_x, grad_gain, grad_bias, grad_level.sum(0), of_beta, None, None


def _moments(x: Tensor, form: Form) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and sum of squared deviations by channel, ``[S]``, ``[S, C]``, ``[S, C]``, float64."""
    parts, steps, x = _parts(x.shape[1]), form.steps if form.by_step else 1, _by_rows(x, form)
    counts = torch.zeros((len(parts), steps), dtype=torch.float64)
    means, spreads = (torch.zeros((len(parts), steps, x.shape[3]), dtype=torch.float64) for _ in range(2))
    currents, number, center, squares = (_array(one) for one in (x, counts, means, spreads))
    wide = _array(torch.empty(0, dtype=_wide(x.dtype)))

    def part(index: int, first: int, last: int) -> None:
        kernels.moments(currents, first, last, number[index], center[index], squares[index], wide)

    _run(part, parts, x.numel())
    each, mean, spread = counts[:, :, None, None], *(_by_place(one, form) for one in (means, spreads))
    columns = mean.shape[2]
    count = counts.sum(0) * columns
    together = (mean * each).sum((0, 2)) / count[:, None]
    total = (spread + each * (mean - together[:, None]) ** 2).sum((0, 2))
    shown = form.steps // len(x)
    return count * shown, together, total * shown


def _no_moments(form: Form) -> tuple[Tensor, Tensor, Tensor]:
    empty = torch.empty((0, form.channels), dtype=torch.float64)
    return empty.sum(1), empty, empty


def _spikes(
    x: Tensor, scale: Tensor, shift: Tensor, level: Tensor, decay: Tensor, form: Form, *, keep_trace: bool
) -> tuple[Tensor, Tensor]:
    """Pooled spikes ``[T, B, M']`` and the trace of u, ``[T, B, M]``, or ``[0, B, M]`` if it is not kept."""
    _, batch, size = x.shape
    columns = form.row // form.channels // form.pool
    pooled = size // form.row // form.pool * columns * form.channels
    out = torch.empty((form.steps, batch, pooled), dtype=x.dtype)
    shape = (form.steps if keep_trace else 0, batch, size)
    in_place = form.reuse and not len(scale) and x.shape == shape and x.dtype == _wide(x.dtype)
    trace = x.detach() if in_place else torch.empty(shape, dtype=_wide(x.dtype))
    no_and_yes = torch.tensor([0.0, 1.0], dtype=x.dtype)
    arrays = [_array(one) for one in (x, scale, shift, level, trace, no_and_yes, out)]
    currents, gain, offset, theta, u, values, spikes = arrays
    beta = _scalar(decay, trace)

    def part(_: int, first: int, last: int) -> None:
        kernels.forward(
            currents, first, last, gain, offset, theta, beta, form.row, form.channels, form.pool, form.strip, u, values,
            spikes,
        )  # fmt: skip

    _run(part, _parts(batch), form.steps * batch * size)
    return out, trace


def _norm_backward(grad_z: Tensor, x: Tensor, coefficients: list[Tensor], form: Form) -> Tensor:
    grad_x = grad_z if grad_z.dtype == x.dtype else torch.empty_like(x)
    maps = [_by_rows(one, form) for one in (grad_z, x, grad_x)]
    g, currents, out = (_array(one) for one in maps)
    center, a, k, d = (_array(_tiled(one, maps[0].shape[3])) for one in coefficients)

    def part(_: int, first: int, last: int) -> None:
        kernels.norm_backward(g, currents, first, last, center, a, k, d, out)

    _run(part, _parts(x.shape[1]), x.numel())
    return grad_x


def _follow(norm: Norm, count: Tensor, mean: Tensor, spread: Tensor) -> None:
    """Move the running statistics, once for each row; by a mean over all so far where momentum is None, as torch."""
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        for n, center, squares in zip(count, mean, spread, strict=True):
            norm.num_batches_tracked.add_(1)
            share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            for running, value in ((norm.running_mean, center), (norm.running_var, squares / (n - 1))):
                _running(running).lerp_(value.to(_running(running).dtype), share)


def _running(statistic: Tensor | None) -> Tensor:
    assert statistic is not None
    return statistic


def _laid_out(x: Tensor, theta: Tensor, form: Form) -> tuple[Tensor, Tensor, Form]:
    """``[T, B, *shape]`` as ``[T, B', M]``, channels-last, and the threshold as ``[M]`` or, repeating, ``[strip]``.

    Vectors of several samples stand side by side, as the columns of a one-row map: short strips cost more than they
    hold. No copy where x is laid out so.
    """
    steps, batch, channels = x.shape[:3]
    if x.dim() == 3:
        columns = _beside(batch, channels)
        row, level = columns * channels, theta.expand(channels).repeat(columns)
        return x.reshape(steps, -1, row), level, form._replace(row=row, strip=row)
    height, width = x.shape[3:]
    row, window = width * channels, form.pool * width * channels
    strip = min(max(_STRIP // window, 1) * window, height * row)
    if theta.shape[1:].numel() == 1:
        level = theta.reshape(-1).expand(channels).repeat(strip // channels)
    else:
        level = theta.permute(1, 2, 0).flatten()
    rows = x.permute(0, 1, 3, 4, 2).flatten(2).contiguous()
    return rows, level.contiguous(), form._replace(row=row, strip=strip)


def _beside(batch: int, features: int) -> int:
    """How many samples' vectors make a strip; threads need some strips to share out."""
    fit = (n for n in range(2, batch // _FEW + 1) if batch % n == 0 and n * features <= _STRIP)
    return max(fit, default=1)


def _by_rows(x: Tensor, form: Form) -> Tensor:
    """``[T, B, M]`` as ``[T, B, R, L]``, as long rows as strips are if they are of equal length."""
    size = form.strip if x.shape[2] % form.strip == 0 else form.row
    return x.reshape(*x.shape[:2], -1, size)


def _tiled(by_channel: Tensor, size: int) -> Tensor:
    """``[S, C]`` as ``[S, size]``."""
    return by_channel.repeat(1, size // by_channel.shape[1])


def _by_place(rows: Tensor, form: Form) -> Tensor:
    """``[..., L]`` as ``[..., W, C]``."""
    return rows.reshape(*rows.shape[:-1], -1, form.channels)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _array(tensor: Tensor) -> Array:
    """The memory of a contiguous tensor; bfloat16 as uint16."""
    tensor = tensor.detach()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _scalar(value: Tensor, like: Tensor) -> Any:
    return _array(value.detach().to(like.dtype).reshape(1))[0]


def _parts(samples: int) -> list[range]:
    """The samples in at most `_PARTS` runs of nearly equal length."""
    edges = [samples * i // min(samples, _PARTS) for i in range(min(samples, _PARTS) + 1)] if samples else []
    return [range(first, last) for first, last in pairwise(edges)]


def _run(part: Callable[[int, int, int], None], parts: list[range], work: int) -> None:
    """Call ``part(index, first, last)`` for every part, on as many threads as torch uses, this one among them."""
    threads = min(torch.get_num_threads(), len(parts)) if work >= _WORTH_A_THREAD else 1
    waiting = deque((index, samples.start, samples.stop) for index, samples in enumerate(parts))

    def take() -> None:
        while waiting:
            try:
                call = waiting.popleft()
            except IndexError:  # another thread had the last one
                return
            part(*call)

    others = [_pool(threads - 1, os.getpid()).submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        other.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"fused-{process}")
