"""Convolve channels-last maps by tiles, compiled by numba; `convolution` explains them.

Some tiles at a time are cut out and transformed, multiplied by the kernel's transform and put back, so that all but the
kernel stays in a processor's own cache. Arrays in between hold vectors of channels, ``[36, C / LANES, tiles, LANES]``.

The transforms interpolate at 0, a, -a, b, -b and infinity, a = 2/3, b = 3/2, so that a·b = 1. Each maps a column of
vectors, which stand ``between`` numbers apart, to another, ``apart``; ``f`` is a, b, a², b², a³, b³ and a² + b².
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from stl_deploy.nn.fused.compile import compiled, inlined
from stl_deploy.nn.fused.rows import Array, copy
from stl_deploy.nn.fused.vectors import LANES, beyond, broadcast, fill, load, operation, row_at, size_of, store

_A, _B = 2 / 3, 3 / 2
POINTS = (0.0, _A, -_A, _B, -_B)
FACTORS = np.array([_A, _B, _A**2, _B**2, _A**3, _B**3, _A**2 + _B**2])
_FEATURES = {} if numba.config.CPU_NAME else llvmlite.binding.get_host_cpu_features()  # type: ignore[attr-defined]
FAST = bool(_FEATURES.get("fma"))
"""Whether products are added up at the speed of the processor: measured with AVX2 and AVX-512."""
ROWS, _CHANNELS = (12, 8) if _FEATURES.get("avx512f") else (2, 2)
"""Tiles that are multiplied at a time, and channels where tiles are summed over: with two vectors each, their sums stay
in registers."""


def outer_products(rows: int, of_row: int, of_step: int) -> Any:
    """Return a function that adds up outer products of ``rows`` numbers with two vectors, all in registers.

    ``add(a, jump, b, b_apart, c, c_apart, groups, steps, onto)``: for group g and step k, in order, number r is
    ``a[g·jump + k·of_step + r·of_row]``, vector w begins at ``b[(g·steps + k)·LANES + w·b_apart]``, and their products
    are added to what stands at ``c[r·LANES + w·c_apart]``, or, if not ``onto``, to 0. Multiplication and addition are
    rounded once where the processor can.
    """
    wide = range(2)

    @operation
    def add(
        _: Any, a: Any, jump: Any, b: Any, b_apart: Any, c: Any, c_apart: Any, groups: Any, steps: Any, onto: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, jump, b, b_apart, c, c_apart, groups, steps, onto = arguments
            element, index = a.type.pointee, jump.type
            vector = ir.VectorType(element, LANES)
            name = f"llvm.fmuladd.v{LANES}{element.intrinsic_name}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

            def there(base: Any, fixed: int, w: int, apart: Any) -> Any:
                row = builder.gep(builder.gep(base, [builder.mul(apart, index(w))]), [index(fixed)])
                return builder.bitcast(row, vector.as_pointer())

            size = size_of(context, element)
            totals = {(r, w): cgutils.alloca_once(builder, vector) for r in range(rows) for w in wide}
            for place in totals.values():
                builder.store(ir.Constant(vector, None), place)
            with builder.if_then(onto):
                for (r, w), place in totals.items():
                    builder.store(builder.load(there(c, r * LANES, w, c_apart), align=size), place)
            with cgutils.for_range(builder, groups) as group:
                numbers = builder.gep(a, [builder.mul(group.index, jump)])
                vectors = builder.gep(b, [builder.mul(builder.mul(group.index, steps), index(LANES))])
                with cgutils.for_range(builder, steps) as step:
                    number = builder.gep(numbers, [builder.mul(step.index, index(of_step))])
                    line = builder.gep(vectors, [builder.mul(step.index, index(LANES))])
                    factors = [builder.load(there(line, 0, w, b_apart), align=size) for w in wide]
                    for r in range(rows):
                        one = broadcast(builder, builder.load(builder.gep(number, [index(r * of_row)])))
                        for w in wide:
                            total = builder.load(totals[r, w])
                            builder.store(builder.call(function, [one, factors[w], total]), totals[r, w])
            for (r, w), place in totals.items():
                builder.store(builder.load(place), there(c, r * LANES, w, c_apart), align=size)
            return context.get_dummy_value()

        return types.void(a, jump, b, b_apart, c, c_apart, groups, steps, onto), generate

    return add


_by_tile = outer_products(ROWS, LANES, 1)
_by_channel = outer_products(_CHANNELS, 1, LANES)


class Grid(NamedTuple):
    """Tiling of maps.

    A tile of ``side`` by ``side`` outputs every ``side`` rows and columns, ``down`` by ``across``; the window of the
    first begins ``high`` rows above the input and ``wide`` columns left of it.
    """

    side: int
    down: int
    across: int
    high: int
    wide: int


@inlined
def _input(x: Any, between: int, y: Any, apart: int, f: Array) -> None:
    """6 -> 6: the products of all factors (z - point) but the point's own, coefficients times the numbers."""
    x0, x1, x2 = load(x, 0, LANES), load(x, between, LANES), load(x, 2 * between, LANES)
    x3, x4, x5 = load(x, 3 * between, LANES), load(x, 4 * between, LANES), load(x, 5 * between, LANES)
    even_a, odd_a = x4 - fill(f[3]) * x2, fill(f[0]) * x3 - fill(f[1]) * x1
    even_b, odd_b = x4 - fill(f[2]) * x2, fill(f[1]) * x3 - fill(f[0]) * x1
    store(y, 0, LANES, x0 + x4 - fill(f[6]) * x2)
    store(y, apart, LANES, even_a + odd_a)
    store(y, 2 * apart, LANES, even_a - odd_a)
    store(y, 3 * apart, LANES, even_b + odd_b)
    store(y, 4 * apart, LANES, even_b - odd_b)
    store(y, 5 * apart, LANES, x1 + x5 - fill(f[6]) * x3)


@inlined
def _of_input(x: Any, between: int, y: Any, apart: int, f: Array) -> None:
    """6 -> 6: the adjoint of `_input`."""
    x0, x5 = load(x, 0, LANES), load(x, 5 * between, LANES)
    a, minus_a = load(x, between, LANES), load(x, 2 * between, LANES)
    b, minus_b = load(x, 3 * between, LANES), load(x, 4 * between, LANES)
    even_a, odd_a, even_b, odd_b = a + minus_a, a - minus_a, b + minus_b, b - minus_b
    store(y, 0, LANES, x0)
    store(y, apart, LANES, x5 - fill(f[1]) * odd_a - fill(f[0]) * odd_b)
    store(y, 2 * apart, LANES, fill(-f[6]) * x0 - fill(f[3]) * even_a - fill(f[2]) * even_b)
    store(y, 3 * apart, LANES, fill(f[0]) * odd_a + fill(f[1]) * odd_b - fill(f[6]) * x5)
    store(y, 4 * apart, LANES, x0 + even_a + even_b)
    store(y, 5 * apart, LANES, x5)


@inlined
def _two(x: Any, between: int, y: Any, apart: int, f: Array) -> None:
    """6 -> 2: outputs of a tile."""
    a, minus_a = load(x, between, LANES), load(x, 2 * between, LANES)
    b, minus_b = load(x, 3 * between, LANES), load(x, 4 * between, LANES)
    store(y, 0, LANES, load(x, 0, LANES) + (a + minus_a) + (b + minus_b))
    odd = fill(f[0]) * (a - minus_a) + fill(f[1]) * (b - minus_b)
    store(y, apart, LANES, odd + load(x, 5 * between, LANES))


@inlined
def _of_two(x: Any, between: int, y: Any, apart: int, f: Array) -> None:
    """2 -> 6: the adjoint of `_two`."""
    x0, x1 = load(x, 0, LANES), load(x, between, LANES)
    a, b = fill(f[0]) * x1, fill(f[1]) * x1
    store(y, 0, LANES, x0)
    store(y, apart, LANES, x0 + a)
    store(y, 2 * apart, LANES, x0 - a)
    store(y, 3 * apart, LANES, x0 + b)
    store(y, 4 * apart, LANES, x0 - b)
    store(y, 5 * apart, LANES, x1)


@inlined
def _four(x: Any, between: int, y: Any, apart: int, f: Array) -> None:
    """6 -> 4: outputs of a tile."""
    a, minus_a = load(x, between, LANES), load(x, 2 * between, LANES)
    b, minus_b = load(x, 3 * between, LANES), load(x, 4 * between, LANES)
    even_a, odd_a, even_b, odd_b = a + minus_a, a - minus_a, b + minus_b, b - minus_b
    store(y, 0, LANES, load(x, 0, LANES) + even_a + even_b)
    store(y, apart, LANES, fill(f[0]) * odd_a + fill(f[1]) * odd_b)
    store(y, 2 * apart, LANES, fill(f[2]) * even_a + fill(f[3]) * even_b)
    store(y, 3 * apart, LANES, fill(f[4]) * odd_a + fill(f[5]) * odd_b + load(x, 5 * between, LANES))


@inlined
def _of_four(x: Any, between: int, y: Any, apart: int, f: Array) -> None:
    """4 -> 6: the adjoint of `_four`."""
    x0, x1 = load(x, 0, LANES), load(x, between, LANES)
    x2, x3 = load(x, 2 * between, LANES), load(x, 3 * between, LANES)
    even_a, odd_a = x0 + fill(f[2]) * x2, fill(f[0]) * x1 + fill(f[4]) * x3
    even_b, odd_b = x0 + fill(f[3]) * x2, fill(f[1]) * x1 + fill(f[5]) * x3
    store(y, 0, LANES, x0)
    store(y, apart, LANES, even_a + odd_a)
    store(y, 2 * apart, LANES, even_a - odd_a)
    store(y, 3 * apart, LANES, even_b + odd_b)
    store(y, 4 * apart, LANES, even_b - odd_b)
    store(y, 5 * apart, LANES, x3)


@inlined
def _cut(
    to_six: Any, size: int, high: int, wide: int, maps: Array, tile: int, count: int, grid: Grid, f: Array,
    edge: Array, half: Array, windows: Array,
) -> None:  # fmt: skip
    """Cut squares of ``maps[N, H, W, C]`` from tile number ``tile`` on, transformed, zeros around a map."""
    height, width, channels = maps.shape[1:]
    flat, groups, rows = maps.reshape(-1), windows.shape[1], windows.shape[2]
    target, plane = windows.reshape(-1), groups * rows * LANES
    for t in range(count):
        n, place = divmod(tile + t, grid.down * grid.across)
        top, left = place // grid.across * grid.side - high, place % grid.across * grid.side - wide
        if top >= 0 and left >= 0 and top + size <= height and left + size <= width:
            corner, line = row_at(flat, ((n * height + top) * width + left) * channels), width * channels
        else:
            edge[:] = 0
            for p in range(max(-top, 0), min(size, height - top)):
                for q in range(max(-left, 0), min(size, width - left)):
                    copy(maps[n, top + p, left + q], edge[(p * size + q) * channels :][:channels])
            corner, line = row_at(edge, 0), size * channels
        for g in range(groups):
            for q in range(size):
                to_six(beyond(corner, q * channels + g * LANES), line, row_at(half, q * LANES), size * LANES, f)
            for p in range(6):
                into = row_at(target, p * 6 * plane + (g * rows + t) * LANES)
                to_six(row_at(half, p * size * LANES), LANES, into, plane, f)


@inlined
def _join(
    from_six: Any, size: int, high: int, wide: int, panel: Array, tile: int, count: int, grid: Grid, f: Array,
    half: Array, sums: Array, first_channel: int, maps: Array,
) -> None:  # fmt: skip
    """Add squares, transformed back, to some channels of ``maps``: the adjoint of `_cut`."""
    height, width = maps.shape[1:3]
    source, groups, rows = panel.reshape(-1), panel.shape[1], panel.shape[2]
    plane, square = groups * rows * LANES, row_at(sums, 0)
    for t in range(count):
        n, place = divmod(tile + t, grid.down * grid.across)
        top, left = place // grid.across * grid.side - high, place % grid.across * grid.side - wide
        for g in range(groups):
            for q in range(6):
                column = row_at(source, q * plane + (g * rows + t) * LANES)
                from_six(column, 6 * plane, row_at(half, q * LANES), 6 * LANES, f)
            for p in range(size):
                from_six(row_at(half, p * 6 * LANES), LANES, row_at(sums, p * size * LANES), LANES, f)
            channel = first_channel + g * LANES
            for p in range(max(-top, 0), min(size, height - top)):
                for q in range(max(-left, 0), min(size, width - left)):
                    pixel = row_at(maps[n, top + p, left + q], channel)
                    added = load(pixel, 0, LANES) + load(square, (p * size + q) * LANES, LANES)
                    store(pixel, 0, LANES, added)


@inlined
def _multiply(windows: Array, kernel: Array, panel: Array, group: int, count: int) -> None:
    """Multiply windows by the kernel, for the outputs of two groups of channels from ``group`` on, into ``panel``."""
    groups, rows = windows.shape[1:3]
    into, outof, size = windows.reshape(-1), panel.reshape(-1), kernel.shape[2] * LANES
    factors = kernel.reshape(-1)
    for plane in range(36):
        b = row_at(factors, (plane * kernel.shape[1] + group) * size)
        for t in range(0, count, ROWS):
            a = row_at(into, (plane * groups * rows + t) * LANES)
            c = row_at(outof, (plane * 2 * rows + t) * LANES)
            _by_tile(a, rows * LANES, b, size, c, rows * LANES, groups, LANES, False)


@inlined
def _through(
    to_six: Any, from_six: Any, inner: int, outer: int, maps: Array, kernel: Array, first: int, last: int, grid: Grid,
    rows: int, f: Array, out: Array,
) -> None:  # fmt: skip
    channels = maps.shape[3]
    windows = np.zeros((36, channels // LANES, rows, LANES), f.dtype)
    panel, edge = np.empty((36, 2, rows, LANES), f.dtype), np.empty(inner * inner * channels, f.dtype)
    half, sums = np.empty(36 * LANES, f.dtype), np.empty(36 * LANES, f.dtype)
    high, wide = (grid.high, grid.wide) if inner == 6 else (0, 0)
    above, before = (grid.high, grid.wide) if outer == 6 else (0, 0)
    out[first:last] = 0
    end = last * grid.down * grid.across
    for tile in range(first * grid.down * grid.across, end, rows):
        count = min(rows, end - tile)
        _cut(to_six, inner, high, wide, maps, tile, count, grid, f, edge, half, windows)
        for group in range(0, kernel.shape[1], 2):
            _multiply(windows, kernel, panel, group, count)
            _join(from_six, outer, above, before, panel, tile, count, grid, f, half, sums, group * LANES, out)


@inlined
def _products(
    of_outputs: Any, side: int, maps: Array, grad: Array, first: int, last: int, grid: Grid, rows: int, f: Array,
    out: Array,
) -> None:  # fmt: skip
    channels, outputs = maps.shape[3], grad.shape[3]
    groups = channels // LANES
    windows = np.empty((36, groups, rows, LANES), f.dtype)
    products = np.empty((36, outputs // LANES, rows, LANES), f.dtype)
    edge, half = np.empty(36 * max(channels, outputs), f.dtype), np.empty(36 * LANES, f.dtype)
    a, b, c, size = windows.reshape(-1), products.reshape(-1), out.reshape(-1), rows * LANES
    start, end = first * grid.down * grid.across, last * grid.down * grid.across
    for tile in range(start, end, rows):
        count = min(rows, end - tile)
        _cut(_input, 6, grid.high, grid.wide, maps, tile, count, grid, f, edge, half, windows)
        _cut(of_outputs, side, 0, 0, grad, tile, count, grid, f, edge, half, products)
        for plane in range(36):
            for group in range(0, outputs // LANES, 2):
                factors = plane * (outputs // LANES) + group
                for channel in range(0, channels, _CHANNELS):
                    number = ((plane * groups + channel // LANES) * rows) * LANES + channel % LANES
                    total = (factors * channels + channel) * LANES
                    _by_channel(
                        row_at(a, number), 0, row_at(b, factors * size), size, row_at(c, total), channels * LANES,
                        1, count, tile > start,
                    )  # fmt: skip


@compiled
def convolve_3(maps: Array, kernel: Array, first: int, last: int, grid: Grid, rows: int, f: Array, out: Array) -> None:
    """Convolve maps first <= n < last of ``maps[N, H, W, C]`` into ``out[N, H', W', K]``, kernel 3 by 3.

    kernel: ``[36, K / LANES, C, LANES]``, transformed. rows: tiles at a time, a multiple of `ROWS`. C and K are
    multiples of two `LANES`.
    """
    _through(_input, _four, 6, 4, maps, kernel, first, last, grid, rows, f, out)


@compiled
def convolve_5(maps: Array, kernel: Array, first: int, last: int, grid: Grid, rows: int, f: Array, out: Array) -> None:
    """Compute `convolve_3` for a kernel of 5 by 5."""
    _through(_input, _two, 6, 2, maps, kernel, first, last, grid, rows, f, out)


@compiled
def of_maps_3(grad: Array, kernel: Array, first: int, last: int, grid: Grid, rows: int, f: Array, out: Array) -> None:
    """Compute the maps' gradient ``out[N, H, W, C]`` from the outputs'; kernel: ``[36, C / LANES, K, LANES]``."""
    _through(_of_four, _of_input, 4, 6, grad, kernel, first, last, grid, rows, f, out)


@compiled
def of_maps_5(grad: Array, kernel: Array, first: int, last: int, grid: Grid, rows: int, f: Array, out: Array) -> None:
    """Compute `of_maps_3` for a kernel of 5 by 5."""
    _through(_of_two, _of_input, 2, 6, grad, kernel, first, last, grid, rows, f, out)


@compiled
def of_kernel_3(maps: Array, grad: Array, first: int, last: int, grid: Grid, rows: int, f: Array, out: Array) -> None:
    """Compute the gradient of the transformed kernel, of these maps, into ``out[36, K / LANES, C, LANES]``."""
    _products(_of_four, 4, maps, grad, first, last, grid, rows, f, out)


@compiled
def of_kernel_5(maps: Array, grad: Array, first: int, last: int, grid: Grid, rows: int, f: Array, out: Array) -> None:
    """Compute `of_kernel_3` for a kernel of 5 by 5."""
    _products(_of_two, 2, maps, grad, first, last, grid, rows, f, out)


class Kernels(NamedTuple):
    """Kernels of a convolution: the outputs, and both gradients."""

    convolve: Any
    of_maps: Any
    of_kernel: Any


BY_SIDE = {3: Kernels(convolve_3, of_maps_3, of_kernel_3), 5: Kernels(convolve_5, of_maps_5, of_kernel_5)}
"""By the side of the convolution's kernel; apart, since most networks have only one of them to compile."""
