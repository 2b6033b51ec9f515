"""Step LIF neurons and the max pooling behind them, forwards and backwards, by vectors; compiled by numba.

The equations are those of `stl_deploy.nn.lif_scan`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stl_deploy.nn.fused.compile import inlined, part
from stl_deploy.nn.fused.rows import Array
from stl_deploy.nn.fused.vectors import LANES, at_least, choose, either, exp, fill, load, store


class Neurons(NamedTuple):
    """A population's parameters for the backward pass.

    θ ``[M]`` or, repeating, ``[strip]``; β; the surrogate's number; whether the reset passes no gradient.
    """

    theta: Array
    beta: Any
    surrogate: int
    detach: bool


class Layout(NamedTuple):
    """A map in memory: numbers in an image row, channels-last, and in a strip of rows; side of the pooling windows."""

    row: int
    channels: int
    pool: int
    strip: int


@inlined
def pooled(size: int, layout: Layout) -> int:
    """Return the number of outputs of windows over a row's numbers, in whole rows of windows."""
    across = layout.row // layout.channels // layout.pool
    return size // (layout.pool * layout.row) * across * layout.channels


@inlined
def _corner(window: int, layout: Layout) -> int:
    """Return the first place of a pooling window in a strip."""
    across = layout.row // layout.channels // layout.pool
    return (window // across * layout.row + window % across * layout.channels) * layout.pool


@part
def fire(
    currents: Any,
    u: Any,
    size: int,
    normed: bool,
    scale: Any,
    shift: Any,
    level: Any,
    beta: Any,
    layout: Layout,
    rest: Any,
    out: Any,
) -> None:
    """Step a strip: potentials into ``u``, those after the reset into ``rest``, pooled spikes into ``out``."""
    channels, pool = layout.channels, layout.pool
    zero, one = fill(type(beta)(0)), fill(type(beta)(1))
    if pool == 1:
        for i in range(0, size, LANES):
            count = min(LANES, size - i)
            fired = _advance(currents, u, normed, scale, shift, level, beta, rest, i, count)
            store(out, i, count, choose(fired, one, zero))
        return
    for window in range(pooled(size, layout) // channels):
        corner = _corner(window, layout)
        for c in range(0, channels, LANES):
            count, any_fired = min(LANES, channels - c), at_least(zero, one)
            for a in range(pool):
                for j in range(pool):
                    i = corner + a * layout.row + j * channels + c
                    any_fired = either(
                        any_fired, _advance(currents, u, normed, scale, shift, level, beta, rest, i, count)
                    )
            store(out, window * channels + c, count, choose(any_fired, one, zero))


@inlined
def _advance(
    currents: Any, u: Any, normed: bool, scale: Any, shift: Any, level: Any, beta: Any, rest: Any, i: int, count: int
) -> Any:
    """Return which of ``count`` neurons from i on fire."""
    current = load(currents, i, count)
    if normed:
        current = current * load(scale, i, count) + load(shift, i, count)
    potential = load(rest, i, count) * fill(beta) + current
    fired = at_least(potential, load(level, i, count))
    store(u, i, count, potential)
    store(rest, i, count, choose(fired, fill(type(beta)(0)), potential))
    return fired


@part
def descend(
    grad: Any,
    size: int,
    u: Any,
    level: Any,
    neurons: Neurons,
    layout: Layout,
    decaying: bool,
    before: Any,
    carried: Any,
    of_level: Any,
    of_decay: Any,
    out: Any,
) -> None:
    """Step a strip backwards: from ∂(pooled spikes) and ∂r in ``carried`` to ∂u in ``out`` and the ∂r before.

    decaying: the gradient of the decay is wanted; before: potentials of the step before. Where no window is, nothing
    is written.
    """
    channels, pool, beta, surrogate = layout.channels, layout.pool, neurons.beta, neurons.surrogate
    zero, one, reset = fill(type(beta)(0)), fill(type(beta)(1)), fill(type(beta)(0 if neurons.detach else 1))
    if pool == 1:
        for i in range(0, size, LANES):
            count = min(LANES, size - i)
            of_spike = load(grad, i, count)
            _retreat(
                of_spike, u, level, beta, reset, surrogate, decaying, before, carried, of_level, of_decay,
                out, i, count,
            )  # fmt: skip
        return
    for window in range(pooled(size, layout) // channels):
        corner = _corner(window, layout)
        for c in range(0, channels, LANES):
            count, any_fired = min(LANES, channels - c), at_least(zero, one)
            for a in range(pool):
                for j in range(pool):
                    i = corner + a * layout.row + j * channels + c
                    any_fired = either(any_fired, at_least(load(u, i, count), load(level, i, count)))
            # to a window's first spike, or to its first place if none fired, as torch's max_pool2d does
            left = load(grad, window * channels + c, count)
            for a in range(pool):
                for j in range(pool):
                    i = corner + a * layout.row + j * channels + c
                    fired = at_least(load(u, i, count), load(level, i, count))
                    of_spike = choose(fired, left, zero)
                    if a == 0 and j == 0:
                        of_spike = choose(any_fired, of_spike, left)
                    left = choose(fired, zero, left)
                    _retreat(
                        of_spike, u, level, beta, reset, surrogate, decaying, before, carried, of_level,
                        of_decay, out, i, count,
                    )  # fmt: skip


@inlined
def _retreat(
    of_spike: Any,
    u: Any,
    level: Any,
    beta: Any,
    reset: Any,
    surrogate: int,
    decaying: bool,
    before: Any,
    carried: Any,
    of_level: Any,
    of_decay: Any,
    out: Any,
    i: int,
    count: int,
) -> None:
    """Step ``count`` neurons from i on backwards; reset: 0 if it is detached, else 1."""
    potential, theta, of_rest = load(u, i, count), load(level, i, count), load(carried, i, count)
    zero = fill(type(beta)(0))
    through_spike = (of_spike - potential * of_rest * reset) * _slope(surrogate, potential - theta, type(beta)(1))
    store(of_level, i, count, load(of_level, i, count) - through_spike)
    of_potential = choose(at_least(potential, theta), zero, of_rest) + through_spike
    if decaying:
        earlier = load(before, i, count)
        share = choose(at_least(earlier, theta), zero, earlier * of_potential)
        store(of_decay, 0, LANES, load(of_decay, 0, LANES) + share)
    store(out, i, count, of_potential)
    store(carried, i, count, of_potential * fill(beta))


@inlined
def _slope(surrogate: int, away: Any, unit: Any) -> Any:
    """Return the surrogate derivative at u − θ, by its place in `SURROGATES`; unit: the 1 of its type."""
    one, zero = fill(unit), fill(unit - unit)
    if surrogate == 0:
        y = away * fill(type(unit)(np.pi))
        return one / (y * y + one)
    if surrogate == 1:
        four = fill(type(unit)(4))
        y = one / (one + exp(zero - four * away))
        return y * (one - y) * four
    distance = choose(at_least(away, zero), away, zero - away)
    if surrogate == 2:
        return choose(at_least(one, distance), one - distance, zero)
    return choose(at_least(distance, fill(type(unit)(0.5))), zero, one)
