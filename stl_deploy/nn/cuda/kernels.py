"""Batch norm and the LIF scan (`stl_deploy.nn.lif_scan`) as Triton kernels, one block of neurons per program.

Arrays are contiguous ``[T, B, M]`` with ``step`` = B·M numbers per step; thresholds are ``[M]``; a norm's numbers are
``[S, C]``, with S = T if each step has its own, else 1, for M = C·``positions`` neurons. Computations have the type
``wide``, float32 or float64. Kernels are launched with ``enable_fp_fusion=False``, so that ``u = r·β + x`` is not
contracted to one operation.

Only constants are annotated, because Triton reads annotations as kernel code.
"""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def forward(
    x, scale, shift, theta, decay, spikes, steps, step, size, positions, own,
    normed: tl.constexpr, soft: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute spikes; one program per sample and block. own: C where each step has its own norm, else 0."""
    program, blocks = tl.program_id(0), tl.cdiv(size, block)
    neurons = program % blocks * block + tl.arange(0, block)
    inside = neurons < size
    channels = neurons // positions
    level = tl.load(theta + neurons, mask=inside, other=0.0)
    beta = tl.load(decay)
    rest = tl.zeros((block,), dtype=wide)
    place = (program // blocks).to(tl.int64) * size + neurons
    for _ in range(steps):
        u = rest * beta + current(x + place, scale + channels, shift + channels, inside, normed, wide)
        tl.store(spikes + place, tl.where(u >= level, 1.0, 0.0).to(spikes.dtype.element_ty), mask=inside)
        rest = left(u, level, soft)
        place += step
        channels += own


@triton.jit
def backward(
    grad, x, scale, shift, theta, decay, grad_z, of_theta, of_decay,
    steps, step, batch, size, positions, own, samples,
    normed: tl.constexpr, surrogate: tl.constexpr, soft: tl.constexpr, detach: tl.constexpr,
    learns_decay: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute ∂ of every current behind the norm; sums of ∂θ and ∂β over ``samples`` samples, ``[parts, M]``.

    Potentials are computed anew, into the memory of their gradients.
    """
    neurons = tl.program_id(0) * block + tl.arange(0, block)
    inside = neurons < size
    level = tl.load(theta + neurons, mask=inside, other=0.0)
    beta = tl.load(decay)
    sum_theta = tl.zeros((block,), dtype=wide)
    sum_decay = tl.zeros((block,), dtype=wide)
    first = tl.program_id(1).to(tl.int64) * samples
    begin = first * size + neurons
    for _ in range(first, tl.minimum(first + samples, batch)):
        place = begin
        begin += size
        channels = neurons // positions
        rest = tl.zeros((block,), dtype=wide)
        for _ in range(steps):
            u = rest * beta + current(x + place, scale + channels, shift + channels, inside, normed, wide)
            tl.store(grad_z + place, u, mask=inside)
            rest = left(u, level, soft)
            place += step
            channels += own
        tl.debug_barrier()  # what one thread stored another may load
        of_rest = tl.zeros((block,), dtype=wide)
        place -= step
        u = tl.load(grad_z + place, mask=inside, other=0.0)
        for t in range(steps):
            of_spike = tl.load(grad + place, mask=inside, other=0.0).to(wide)
            if not detach:
                if soft:
                    of_spike -= level * of_rest
                else:
                    of_spike -= u * of_rest
            of_spike *= slope(u - level, surrogate)
            sum_theta -= of_spike
            if soft:
                sum_theta -= tl.where(u >= level, of_rest, 0.0)
                of_u = of_rest + of_spike
            else:
                of_u = tl.where(u >= level, 0.0, of_rest) + of_spike
            tl.store(grad_z + place, of_u, mask=inside)
            place -= step
            if t < steps - 1:
                u = tl.load(grad_z + place, mask=inside, other=0.0)
                if learns_decay:
                    sum_decay += of_u * left(u, level, soft)
            of_rest = of_u * beta
    part = tl.program_id(1).to(tl.int64) * size + neurons
    tl.store(of_theta + part, sum_theta, mask=inside)
    if learns_decay:
        tl.store(of_decay + part, sum_decay, mask=inside)


@triton.jit
def sums(
    grad, x, center, of_one, of_x, rows, size, positions, each,
    squares: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute Σ g and Σ g·(x - center) over rows ``[S, rows, M]`` in parts of ``each``, ``[S, parts, M]``.

    squares: g is x - center itself.
    """
    neurons = tl.program_id(0) * block + tl.arange(0, block)
    inside = neurons < size
    own, part = tl.program_id(2), tl.program_id(1)
    middle = tl.load(center + own * (size // positions) + neurons // positions, mask=inside, other=0.0)
    sum_one = tl.zeros((block,), dtype=wide)
    sum_x = tl.zeros((block,), dtype=wide)
    first = part * each
    place = (own.to(tl.int64) * rows + first) * size + neurons
    for _ in range(first, tl.minimum(first + each, rows)):
        away = tl.load(x + place, mask=inside, other=0.0).to(wide) - middle
        g = away if squares else tl.load(grad + place, mask=inside, other=0.0)
        sum_one += g
        sum_x += g * away
        place += size
    place = (own.to(tl.int64) * tl.num_programs(1) + part) * size + neurons
    tl.store(of_one + place, sum_one, mask=inside)
    tl.store(of_x + place, sum_x, mask=inside)


@triton.jit
def norm_backward(
    grad, x, center, of_grad, of_x, rest, grad_x, rows, size, positions, each,
    wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute ∂x = of_grad·g + of_x·(x - center) + rest, over the rows of `sums`; ``grad_x`` may be ``grad``."""
    neurons = tl.program_id(0) * block + tl.arange(0, block)
    inside = neurons < size
    own = tl.program_id(2)
    channels = own * (size // positions) + neurons // positions
    middle = tl.load(center + channels, mask=inside, other=0.0)
    times_grad = tl.load(of_grad + channels, mask=inside, other=0.0)
    times_x = tl.load(of_x + channels, mask=inside, other=0.0)
    more = tl.load(rest + channels, mask=inside, other=0.0)
    first = tl.program_id(1) * each
    place = (own.to(tl.int64) * rows + first) * size + neurons
    for _ in range(first, tl.minimum(first + each, rows)):
        away = tl.load(x + place, mask=inside, other=0.0).to(wide) - middle
        g = tl.load(grad + place, mask=inside, other=0.0)
        tl.store(grad_x + place, (times_grad * g + times_x * away + more).to(grad_x.dtype.element_ty), mask=inside)
        place += size


@triton.jit
def current(x, scale, shift, inside, normed: tl.constexpr, wide: tl.constexpr):
    """Return the neurons' input in a step: ``x``, behind a norm x·scale + shift."""
    arrived = tl.load(x, mask=inside, other=0.0).to(wide)
    if normed:
        arrived = arrived * tl.load(scale, mask=inside, other=0.0) + tl.load(shift, mask=inside, other=0.0)
    return arrived


@triton.jit
def left(u, level, soft: tl.constexpr):
    """Return potentials after the reset."""
    return tl.where(u >= level, u - level if soft else 0.0, u)


@triton.jit
def slope(away, surrogate: tl.constexpr):
    """Return the surrogate derivative at u − θ (`stl_deploy.nn.surrogate`, by position in ``SURROGATES``)."""
    distance = tl.abs(away)
    if surrogate == 0:  # arctan
        y = away * 3.141592653589793
        result = 1.0 / (y * y + 1.0)
    elif surrogate == 1:  # sigmoid; e^(-4|x|) cannot overflow, and the derivative is even
        e = tl.exp(-4.0 * distance)
        result = 4.0 * e / ((1.0 + e) * (1.0 + e))
    elif surrogate == 2:  # triangular
        result = tl.maximum(1.0 - distance, 0.0)
    else:  # rectangular
        result = tl.where(distance < 0.5, 1.0, 0.0)
    return result.to(away.dtype)
