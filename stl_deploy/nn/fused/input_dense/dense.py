"""Compute a dense layer and the gradient of its weights from the events of its input, on the CPU.

Both are products of a sparse matrix with a dense one: the outputs of the input's rows with the weights, the gradient of
its columns with the gradient of the outputs. One pass finds the events by row; they are then sorted by column, for the
backward pass. At one number in five they take half of torch's time, at one in three two thirds.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stl_deploy.nn.fused.input_dense import events as kernels
from stl_deploy.nn.fused.input_dense.events import ROWS, TILE, WIDTH, Events
from stl_deploy.nn.fused.rows import Array
from stl_deploy.nn.fused.sample_threads import array, run, split

_FEWEST = 128
"""Outputs from which on the rest of the work pays for finding events."""
_WORTH = 1 << 25
"""Multiplications of the whole product from which on it does."""
_SPARSE = 0.3
"""The largest share of events among the input's numbers."""
_NO_BIAS = np.empty(0, np.float32)


class _Found(NamedTuple):
    """The events of an input by row, and by column if a backward pass needs them."""

    rows: int
    by_row: Events
    by_column: Events | None


def suits(layer: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
    """Return whether `product` can compute this layer of ``x[N, inputs]``, and may be worth it."""
    return (
        type(layer) is nn.Linear
        and x.dtype == layer.weight.dtype == torch.float32
        and not x.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and layer.out_features >= _FEWEST
        and x.numel() * layer.out_features >= _WORTH
    )


def product(x: Tensor, linear: nn.Linear) -> Tensor:
    """Return the output ``[N, outputs]`` of ``linear``, which `suits`, for ``x[N, inputs]``."""
    weight, bias = linear.weight, linear.bias
    events = _events(x.contiguous(), for_backward=torch.is_grad_enabled() and weight.requires_grad)
    if events is None:
        return linear(x)  # type: ignore[no-any-return]
    y: Tensor = _Product.apply(weight, bias, events)  # type: ignore[no-untyped-call]
    return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, events: _Found) -> Tensor:
        ctx.inputs = weight.shape[1]
        if events.by_column is not None:
            *arrays, ctx.apart = events.by_column
            ctx.save_for_backward(*(torch.from_numpy(array) for array in arrays))
        offset = _NO_BIAS if bias is None else array(bias)
        return _multiply(events.by_row, events.rows, array(weight.t().contiguous()), offset)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            place, value, start = (array(tensor) for tensor in ctx.saved_tensors)
            by_column = Events(place, value, start, ctx.apart)
            of_weight = _multiply(by_column, ctx.inputs, array(grad.contiguous()), _NO_BIAS).t()
        if ctx.needs_input_grad[1]:
            of_bias = grad.sum(0)
        return of_weight, of_bias, None


def _multiply(events: Events, rows: int, dense: Array, bias: Array) -> Tensor:
    """Return ``[rows, outputs]``: rows of events times ``dense[columns, outputs]``, and the bias."""
    out = torch.empty(rows, dense.shape[1])
    into = array(out)
    pieces = -(-rows // ROWS) * -(-dense.shape[1] // WIDTH)

    def part(_: int, first: int, last: int) -> None:
        kernels.multiply(events, dense, bias, first, last, into)

    run(part, split(pieces, pieces), events.place.size * dense.shape[1])
    return out


def _events(x: Tensor, *, for_backward: bool) -> _Found | None:
    """Return the events of ``x[N, inputs]``; None if they are not few."""
    numbers, (rows, columns) = array(x), x.shape
    counts, parts = np.empty(rows, np.int64), split(rows)
    run(lambda _, first, last: kernels.count(numbers, first, last, counts), parts, x.numel())
    total = int(counts.sum())
    if total > _SPARSE * x.numel():
        return None
    tiles = -(-columns // TILE)
    by_row = _empty(total, rows, tiles, (tiles, 1))
    by_row.start[:-1:tiles] = np.cumsum(counts) - counts
    run(lambda _, first, last: kernels.find(numbers, first, last, by_row), parts, x.numel())
    if not for_backward:
        return _Found(rows, by_row, None)
    tiles = -(-rows // TILE)
    by_column = _empty(total, columns, tiles, (1, columns))
    run(lambda _, first, last: kernels.turn(by_row, rows, first, last, by_column), split(tiles), x.numel())
    return _Found(rows, by_row, by_column)


def _empty(total: int, rows: int, tiles: int, apart: tuple[int, int]) -> Events:
    """Return room for the given number of events, with the last end known."""
    start = np.empty(rows * tiles + 1, np.int64)
    start[-1] = total
    return Events(np.empty(total, np.uint8), np.empty(total, np.float32), start, apart)
