"""Run the input's convolution, norm, LIF and max pooling as one differentiable function on the CPU.

Batch norm behind a linear map of few numbers needs no pass over what it norms: the mean and the variance of w·x are
w·E[x] and w·Cov[x]·w, so that they, and by autograd their gradients, follow from the moments of the convolution's
windows. It is folded into the weights for each batch, and the kernels see a convolution with a bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stl_deploy.nn.fused.block import double
from stl_deploy.nn.fused.input_convolution import events
from stl_deploy.nn.fused.input_convolution.events import Entry, Kernel
from stl_deploy.nn.fused.passes import (
    Form,
    as_map,
    as_rows,
    backward_pass,
    forward_pass,
    gathered,
    of_map,
    pooled_size,
    spread,
)
from stl_deploy.nn.fused.rows import Array
from stl_deploy.nn.fused.sample_threads import array, run, split, wide
from stl_deploy.nn.fused.vectors import LANES
from stl_deploy.nn.layers import Norm, follow, running

_NOTHING = np.empty((0, 1))
_FEW_TAPS = 32
"""Input channels times kernel places up to which events are faster than a convolution of its own."""


def enters(conv: nn.Module) -> bool:
    """Return whether this is torch's own convolution of stride 1 with zero padding, small enough for a block."""
    return (
        type(conv) is nn.Conv2d
        and (conv.groups, conv.stride, conv.dilation) == (1, (1, 1), (1, 1))
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.weight[0].numel() <= _FEW_TAPS
    )


def entry_block(x: Tensor, conv: nn.Conv2d, theta: Tensor, decay: Tensor, norm: Norm | None, form: Form) -> Tensor:
    """Return spikes ``[T, B, *pooled]``, channels-last, of a convolution that `enters` and a `block` behind it.

    x: ``[T or 1, B, C_in, H, W]``, without a gradient. Under autocast spikes are of its type; all that leads to them is
    computed in float32 at least.
    """
    image = x.detach().to(wide(x.dtype)).contiguous()
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    with torch.autocast("cpu", enabled=False):
        weight, bias = _folded(image, conv, norm, form)
        taps = weight.permute(0, 2, 3, 4, 1).flip(3).flatten(3)
        taps = functional.pad(taps, (0, -taps.shape[3] % LANES)).to(image.dtype).contiguous()
        bias = bias.to(image.dtype)
        spikes: Tensor = _Entry.apply(image, taps, bias, theta, decay, _kernel(conv), form, dtype)  # type: ignore[no-untyped-call]
    return spikes


class _Entry(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        taps: Tensor,
        bias: Tensor,
        theta: Tensor,
        decay: Tensor,
        kernel: Kernel,
        form: Form,
        dtype: torch.dtype,
    ) -> Tensor:
        (height, width), batch = _sides(image, kernel), image.shape[1]
        layout = of_map(form.channels, form.pool, height, width)
        size = height * layout.row
        out = torch.empty((form.steps, batch, pooled_size(size, layout)), dtype=dtype)
        trace = torch.empty((form.steps if any(ctx.needs_input_grad) else 0, batch, size), dtype=image.dtype)
        ctx.shape = (form.channels, height, width)
        level, entry = spread(theta, ctx.shape, layout), Entry(array(image), array(taps), double(bias), kernel)
        forward_pass(image.new_empty((0, 0, 0)), entry, (_NOTHING, _NOTHING), level, decay, layout, trace, out)
        ctx.save_for_backward(image, taps, bias, theta, level, decay, trace)
        ctx.kernel, ctx.form, ctx.layout = kernel, form, layout
        return as_map(out, batch, (form.channels, height // form.pool, width // form.pool))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, taps, bias, theta, level, decay, trace = ctx.saved_tensors
        none, entry = trace.new_empty((0, 0, 0)), Entry(array(image), array(taps), double(bias), ctx.kernel)
        grads, wanted = as_rows(grad, ctx.layout), ctx.needs_input_grad[4]
        of = backward_pass(
            grads, trace, none, entry, _NOTHING, level, decay, ctx.form, ctx.layout, none, of_decay=wanted
        )
        grad_theta = gathered(of.level, theta, ctx.shape) if ctx.needs_input_grad[3] else None
        of_taps, of_bias = (torch.from_numpy(gradient).to(trace.dtype) for gradient in (of.taps, of.bias))
        return None, of_taps, of_bias, grad_theta, of.decay, None, None, None


def _folded(image: Tensor, conv: nn.Conv2d, norm: Norm | None, form: Form) -> tuple[Tensor, Tensor]:
    """Return weights ``[S, C, C_in, *kernel]`` and biases ``[S, C]`` of convolution and norm."""
    bias = torch.zeros(form.channels) if conv.bias is None else conv.bias
    if norm is None:
        return conv.weight[None], bias[None]
    if norm.training:
        count, window, covariance = window_moments(image, conv, form)
        weight = conv.weight.double().flatten(1)
        center = window @ weight.T + bias
        variance = ((weight @ covariance) * weight).sum(2)
        shown = 1 if form.by_step else form.steps // len(image)
        number = torch.from_numpy(count * shown)[:, None]
        follow(norm, center.detach(), variance.detach() * number, number)
    else:
        center, variance = (statistic[None].double() for statistic in running(norm))
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    return conv.weight * scale[:, :, None, None, None], norm.bias + (bias - center) * scale


def window_moments(image: Tensor, conv: nn.Conv2d, form: Form) -> tuple[Array, Tensor, Tensor]:
    """Return number, mean and covariance of a convolution's windows, ``[S]``, ``[S, taps]``, ``[S, taps, taps]``."""
    kernel = _kernel(conv)
    steps, parts = form.steps if form.by_step else 1, split(image.shape[1])
    taps = image.shape[2] * kernel.height * kernel.width
    shape = (len(parts), min(steps, len(image)), taps, taps + 1 + -(taps + 1) % LANES)
    frames, products = array(image), np.zeros(shape)

    def part(index: int, first: int, last: int) -> None:
        events.window_products(frames, kernel, first, last, products[index])

    run(part, parts, image.numel() * taps)
    height, width = _sides(image, kernel)
    count = height * width * image.shape[:2].numel() // shape[1]
    total = products.sum(0) / count
    mean = total[:, :, taps]
    covariance = total[:, :, :taps] - mean[:, :, None] * mean[:, None, :]
    means, covariances = (torch.from_numpy(moment).expand(steps, *moment.shape[1:]) for moment in (mean, covariance))
    return np.full(steps, float(count)), means, covariances


def _kernel(conv: nn.Conv2d) -> Kernel:
    assert not isinstance(conv.padding, str)
    return Kernel(*conv.kernel_size, *conv.padding)


def _sides(image: Tensor, kernel: Kernel) -> tuple[int, int]:
    """Return height and width of the convolution's output."""
    height, width = image.shape[3:]
    return height + 2 * kernel.high - kernel.height + 1, width + 2 * kernel.wide - kernel.width + 1
