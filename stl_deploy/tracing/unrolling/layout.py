"""Track the axes of a tensor that carry time and samples, through reshapes.

A layout has one tuple for each dimension of a tensor: the factors of its size, outermost first. A factor is a number,
or `TIME`, or `BATCH`. ``x.flatten(0, 1)`` of ``[T, B, C]`` has the layout ``((TIME, BATCH), (C,))``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

TIME: Literal["T"] = "T"
BATCH: Literal["B"] = "B"
Factor = int | str
Dim = tuple[Factor, ...]
Layout = tuple[Dim, ...]
Sizes = dict[str, int]
"""Numbers of steps and of samples."""


def of_shape(shape: Sequence[int]) -> Layout:
    """Return the layout of a tensor without time or samples."""
    return tuple(() if size == 1 else (size,) for size in shape)


def shape_of(layout: Layout, sizes: Sizes) -> tuple[int, ...]:
    """Return the tensor's shape."""
    return tuple(_size(dim, sizes) for dim in layout)


def _size(dim: Dim, sizes: Sizes) -> int:
    return math.prod(factor if isinstance(factor, int) else sizes[factor] for factor in dim)


def axis_of(layout: Layout, factor: str) -> int | None:
    """Return the dimension that a factor is in."""
    return next((axis for axis, dim in enumerate(layout) if factor in dim), None)


def without_time(layout: Layout) -> Layout:
    """Return the layout of one time step."""
    return tuple(tuple(f for f in dim if f != TIME) for dim in layout if dim != (TIME,))


def regroup(layout: Layout, shape: Sequence[int], sizes: Sizes) -> Layout | None:
    """Return the layout after a reshape to ``shape``, of as many values; None if it splits time or samples.

    One sample, or one step, fits anywhere: it takes an axis of size 1 if one stands at its place, else it stays with
    the time or samples before it, as ``x.flatten(0, 1)`` means it, else it goes into what follows.
    """
    shape = tuple(shape)
    factors = [factor for dim in layout for factor in dim]
    dims: list[Dim] = []

    def alone() -> bool:
        return bool(factors) and isinstance(factors[0], str) and sizes[factors[0]] == 1

    for place, wanted in enumerate(shape):
        dim: list[Factor] = []
        if wanted == 1 and alone():
            dim.append(factors.pop(0))
        while wanted > 1:
            if not factors:
                return None
            factor = factors.pop(0)
            size = factor if isinstance(factor, int) else sizes[factor]
            if wanted % size == 0:
                dim.append(factor)
                wanted //= size
            # [6] to [2, 3]: a number splits, and its rest goes on to the next axis; time and samples never do.
            elif isinstance(factor, int) and factor % wanted == 0:
                dim.append(wanted)
                factors.insert(0, factor // wanted)
                wanted = 1
            else:
                return None
        while alone() and any(isinstance(factor, str) for factor in dim) and shape[place + 1 : place + 2] != (1,):
            dim.append(factors.pop(0))
        dims.append(_merged(dim))
    return tuple(dims) if all(factor == 1 for factor in factors) else None


def _merged(dim: Sequence[Factor]) -> Dim:
    """Multiply neighbouring numbers."""
    merged: list[Factor] = []
    for factor in dim:
        if isinstance(factor, int) and merged and isinstance(merged[-1], int):
            merged[-1] *= factor
        else:
            merged.append(factor)
    return tuple(merged)


def broadcast(layouts: Sequence[Layout], sizes: Sizes) -> Layout | None:
    """Return the layout of an elementwise operation's result; None if the operands do not fit."""
    rank = max(len(layout) for layout in layouts)
    padded = [((),) * (rank - len(layout)) + layout for layout in layouts]
    broadcast_dims: list[Dim] = []
    for dims in zip(*padded, strict=True):
        named = [dim for dim in dims if any(isinstance(f, str) for f in dim)]
        large = [dim for dim in dims if dim]
        if not large:
            broadcast_dims.append(())
            continue
        chosen = named[0] if named else large[0]
        if any(_size(dim, sizes) != _size(chosen, sizes) for dim in large) or any(dim != chosen for dim in named):
            return None
        broadcast_dims.append(chosen)
    return tuple(broadcast_dims)
