"""The LIF scan's equations (`stl_deploy.nn.lif_scan`) as Triton kernels: each program takes a block of neurons.

Arrays are contiguous ``[T, B, M]``, one step ``step`` = B·M numbers from the next; thresholds ``[M]``. Potentials have
the type ``wide``, float32 or float64. ``u = r·β + x`` must not be contracted to one operation, so kernels are launched
with ``enable_fp_fusion=False``.
"""

from __future__ import annotations

from typing import Any

import triton
from triton import language as tl


@triton.jit
def forward(
    x: Any, theta: Any, decay: Any, spikes: Any, trace: Any, steps: Any, step: Any, size: Any,
    keep: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Spikes, and potentials before the reset where ``keep``; one program per block and sample."""
    neurons = tl.program_id(0) * block + tl.arange(0, block)
    inside = neurons < size
    level = tl.load(theta + neurons, mask=inside, other=0.0)
    beta = tl.load(decay)
    rest = tl.zeros((block,), dtype=wide)
    place = tl.program_id(1).to(tl.int64) * size + neurons
    for _ in range(steps):
        u = rest * beta + tl.load(x + place, mask=inside, other=0.0).to(wide)
        fired = u >= level
        tl.store(spikes + place, tl.where(fired, 1.0, 0.0).to(spikes.dtype.element_ty), mask=inside)
        if keep:
            tl.store(trace + place, u, mask=inside)
        rest = tl.where(fired, 0.0, u)
        place += step


@triton.jit
def backward(
    grad: Any, trace: Any, theta: Any, decay: Any, grad_x: Any, of_theta: Any, of_decay: Any,
    steps: Any, step: Any, batch: Any, size: Any, samples: Any,
    surrogate: tl.constexpr, detach: tl.constexpr, learns_decay: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """∂x of every step; sums of ∂θ and ∂β over the program's ``samples`` samples, ``[parts, M]``."""
    neurons = tl.program_id(0) * block + tl.arange(0, block)
    inside = neurons < size
    level = tl.load(theta + neurons, mask=inside, other=0.0)
    beta = tl.load(decay)
    sum_theta = tl.zeros((block,), dtype=wide)
    sum_decay = tl.zeros((block,), dtype=wide)
    first = tl.program_id(1).to(tl.int64) * samples
    begin = first * size + neurons
    for _ in range(1, steps):
        begin += step  # to the last step; a product could overflow 32 bits
    for _ in range(first, min(first + samples, batch)):
        place = begin
        begin += size
        of_rest = tl.zeros((block,), dtype=wide)
        u = tl.load(trace + place, mask=inside, other=0.0)
        for t in range(steps):
            fired = u >= level
            of_spike = tl.load(grad + place, mask=inside, other=0.0).to(wide)
            if not detach:
                of_spike -= u * of_rest
            of_spike *= slope(u - level, surrogate)
            sum_theta -= of_spike
            of_u = tl.where(fired, 0.0, of_rest) + of_spike
            tl.store(grad_x + place, of_u.to(grad_x.dtype.element_ty), mask=inside)
            place -= step
            if t < steps - 1:
                u = tl.load(trace + place, mask=inside, other=0.0)
                if learns_decay:
                    sum_decay += of_u * tl.where(u >= level, 0.0, u)
            of_rest = of_u * beta
    part = tl.program_id(1).to(tl.int64) * size + neurons
    tl.store(of_theta + part, sum_theta, mask=inside)
    if learns_decay:
        tl.store(of_decay + part, sum_decay, mask=inside)


@triton.jit
def slope(away: Any, surrogate: tl.constexpr) -> Any:
    """The surrogate derivative at u − θ (`stl_deploy.nn.surrogate`, by position in ``SURROGATES``)."""
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
