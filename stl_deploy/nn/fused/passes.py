"""Run the forward and the backward pass of a block over all its samples."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stl_deploy.nn.fused import kernels
from stl_deploy.nn.fused.input_convolution.events import Entry, Kernel
from stl_deploy.nn.fused.neuron_kernels import Layout, Neurons
from stl_deploy.nn.fused.rows import Array
from stl_deploy.nn.fused.sample_threads import array, run, scalar, split
from stl_deploy.nn.surrogate import SURROGATES

_STRIP = 1 << 13
"""Numbers that the kernels work on at a time, about: a few arrays of so many stay in a processor's own cache."""
_FEW = 4
"""Strips that are left to threads at least."""


class Form(NamedTuple):
    """Parameters of a block's computation.

    steps: T. channels: of the feature map; features of a vector. pool: side of the max-pooling windows; 1: none.
    by_step: batch norm takes the statistics of each step apart. surrogate: its name. detach: no gradient by the reset.
    reuse: the currents have no other reader, and their memory may hold the potentials or spikes.
    """

    steps: int
    channels: int
    pool: int
    by_step: bool
    surrogate: str
    detach: bool
    reuse: bool = False


@cache
def no_entry(dtype: np.dtype) -> Entry:
    """Return an empty entry: the currents are there."""
    return Entry(np.empty((0,) * 5, dtype), np.empty((0,) * 4, dtype), np.empty((0, 0)), Kernel(0, 0, 0, 0))


class Gradients(NamedTuple):
    """Sums over all samples: of the thresholds; of the decay, if wanted; ``[2, S, C]`` of a norm; of an entry."""

    level: Tensor
    decay: Tensor | None
    sums: Array
    taps: Array
    bias: Array


def forward_pass(
    x: Tensor,
    entry: Entry,
    affine: tuple[Array, Array],
    level: Tensor,
    decay: Tensor,
    layout: Layout,
    trace: Tensor,
    out: Tensor,
) -> None:
    """Write pooled spikes into ``out[T, B, M']``, potentials into ``trace``: `kernels.forward`, of all samples.

    affine: scale and shift of a norm, ``[S, C]``, float64; S = 0: there is none.
    """
    currents, theta, u, spikes = (array(tensor) for tensor in (x, level, trace, out))
    beta = scalar(decay, trace)

    def part(_: int, first: int, last: int) -> None:
        kernels.forward(currents, entry, first, last, *affine, theta, beta, layout, u, spikes)

    steps, (_, batch, size) = len(out), trace.shape
    run(part, split(batch), steps * batch * size)


def backward_pass(
    grad: Tensor,
    trace: Tensor,
    x: Tensor,
    entry: Entry,
    mean: Array,
    level: Tensor,
    decay: Tensor,
    form: Form,
    layout: Layout,
    grad_z: Tensor,
    *,
    of_decay: bool,
) -> Gradients:
    """Write the gradient of the LIF's input into ``grad_z`` (see `kernels.backward`) and return the sums.

    mean: of a norm, ``[S, C]``, float64; S = 0: there is none.
    """
    parts = split(trace.shape[1])
    grad_level = torch.zeros((len(parts), *level.shape), dtype=trace.dtype)
    shapes = ((int(of_decay),), (2, *mean.shape), entry.taps.shape, entry.bias.shape)
    others = [np.zeros((len(parts), *shape)) for shape in shapes]
    g, u, currents, theta, of_z, of_level = (array(tensor) for tensor in (grad, trace, x, level, grad_z, grad_level))
    neurons = Neurons(theta, scalar(decay, trace), [*SURROGATES].index(form.surrogate), form.detach)

    def part(index: int, first: int, last: int) -> None:
        sums = kernels.Sums(of_level[index], *(total[index] for total in others))
        kernels.backward(g, u, currents, entry, first, last, mean, neurons, layout, of_z, sums)

    run(part, parts, trace.numel())
    of_beta, *sums = (total.sum(0) for total in others)
    return Gradients(grad_level.sum(0), decay.new_tensor(of_beta[0]) if of_decay else None, *sums)


@cache
def of_map(channels: int, pool: int, height: int, width: int) -> Layout:
    """Return the layout of a feature map."""
    row = width * channels
    strip = min(max(_STRIP // (pool * row), 1) * pool * row, height * row)
    return Layout(row, channels, pool, strip)


@cache
def of_vectors(batch: int, features: int) -> Layout:
    """Return the layout of vectors: several samples' stand side by side, as the columns of a one-row map.

    Short strips cost more than they hold; but threads need some to share out.
    """
    fit = (n for n in range(2, batch // _FEW + 1) if batch % n == 0 and n * features <= _STRIP)
    row = max(fit, default=1) * features
    return Layout(row, features, 1, row)


def pooled_size(size: int, layout: Layout) -> int:
    """Return the numbers left of a map after the pooling."""
    return size // layout.row // layout.pool * (layout.row // layout.channels // layout.pool) * layout.channels


def spread(theta: Tensor, shape: tuple[int, ...], layout: Layout) -> Tensor:
    """Return a threshold that broadcasts to ``shape`` as ``[M]``, channels-last, or, repeating, ``[strip]``."""
    if theta.shape[1:].numel() == 1:
        level = theta.new_empty((layout.strip // shape[0], shape[0]))
        array(level)[:] = array(theta).reshape(-1)  # a few numbers: numpy takes a tenth of torch's time
        return level.reshape(-1)
    return theta.permute(1, 2, 0).reshape(-1)


def gathered(grad_level: Tensor, theta: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the gradient of ``theta`` from that of `spread`'s result."""
    if theta.shape[1:].numel() == 1:
        by_channel = grad_level.reshape(-1, shape[0]).sum(0)
        return by_channel.reshape(theta.shape) if theta.numel() > 1 else by_channel.sum().reshape(theta.shape)
    return grad_level.reshape(*shape[1:], shape[0]).permute(2, 0, 1)


def as_map(out: Tensor, batch: int, shape: tuple[int, ...]) -> Tensor:
    """Return ``[T, B', M]`` as ``[T, B, *shape]``, feature maps still channels-last in memory."""
    if len(shape) == 1:
        return out.view(len(out), batch, *shape)
    return out.view(len(out), batch, *shape[1:], shape[0]).permute(0, 1, 4, 2, 3)


def as_rows(x: Tensor, layout: Layout) -> Tensor:
    """Return ``[T, B, *shape]`` as ``[T, B', M]``, contiguous, channels-last. No copy if x is laid out that way."""
    if x.dim() == 3:
        return x.reshape(len(x), -1, layout.row)
    return x.permute(0, 1, 3, 4, 2).flatten(2).contiguous()
