"""Power-of-two grids for weights and biases, chosen so that float32 sums are exact (see `graph.exact`).

For one layer: inputs are multiples of 2^-p with magnitude at most X; each output adds up the terms w·x and the
bias. With weights and bias on the grid 2^-k every partial sum is a multiple of 2^-(k+p), and none is larger than
M = max over outputs of X·Σ|w| + |b|. All are exact in float32 if M ≤ 2^(24−k−p). `choose` takes the finest such k.

Numbers whose sums are exact as they are stay so: whole weights for an input in 256ths may be multiples of 256, and
their biases of 1.
"""

from __future__ import annotations

import numpy as np

from stl_deploy.errors import InputError
from stl_deploy.graph.exact import (
    MANTISSA_BITS,
    Grid,
    fraction_bits,
    largest_difference,
    largest_sum,
    round_to_grid,
)
from stl_deploy.graph.program import Doubles, Floats
from stl_deploy.passes.base import LayerGrid

_COARSEST = -24
_FINEST = 100


def finest_exact_grid(
    node: str, weight: Doubles, bias: Doubles, arriving: Grid, mantissa: int = MANTISSA_BITS
) -> tuple[Floats, Floats, LayerGrid]:
    """Round a layer's weight and bias to the finest grid on which its sums are exact, if they are not as they are.

    mantissa: bits that sums may take. Returns the rounded float32 weight and bias, and the grid. Raises InputError if
    the weights are so uneven that no grid keeps them (the sum of magnitudes is not finite or zero grids are left).
    """
    magnitude = largest_sum(weight, bias, arriving)
    if not np.isfinite(magnitude):
        raise InputError(f"layer '{node}': weights add up to {magnitude}; no grid holds them")
    given = Grid(max(fraction_bits(weight) + arriving.fraction_bits, fraction_bits(bias)), magnitude)
    if given.bits <= mantissa:
        own = max(fraction_bits(weight), fraction_bits(bias))
        return weight.astype(np.float32), bias.astype(np.float32), LayerGrid(node, own, given.bits, 0.0)
    finest = mantissa - arriving.fraction_bits - int(np.ceil(np.log2(max(magnitude, 2.0**-60))))
    for k in range(min(finest, _FINEST), _COARSEST, -1):
        w, b = round_to_grid(weight, k), round_to_grid(bias, k)
        grid = Grid(k + arriving.fraction_bits, largest_sum(w, b, arriving))
        if grid.bits <= mantissa:
            change = max(largest_difference(w, weight), largest_difference(b, bias))
            return w, b, LayerGrid(node, k, grid.bits, change)
    raise InputError(f"layer '{node}': sums of {magnitude:g} fit on no grid")
