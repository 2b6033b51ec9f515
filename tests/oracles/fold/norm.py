"""BatchNorm into the synapses before it.

In evaluation mode BatchNorm is affine per channel: y = γ·(x − μ)/√(σ² + ε) + β. With x = W·s + b,

    s_c = γ_c / √(σ_c² + ε)      W'_c = s_c·W_c      b'_c = s_c·(b_c − μ_c) + β_c

The identity is exact in real arithmetic, at the borders too: padding pads the input with zeros, and zeros add nothing
to either side. It is computed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stl_deploy.graph.program import Doubles


@dataclass(frozen=True)
class Norm:
    """BatchNorm's running statistics and affine parameters, each ``[channels]``."""

    mean: Doubles
    var: Doubles
    scale: Doubles
    shift: Doubles
    eps: float


def fold_norm(weight: Doubles, bias: Doubles, norm: Norm) -> tuple[Doubles, Doubles]:
    """Weight ``[channels, ...]`` and bias ``[channels]`` that do the work of synapse and norm together."""
    return scaled(weight, bias - norm.mean, norm.scale / np.sqrt(norm.var + norm.eps), norm.shift)


def scaled(weight: Doubles, bias: Doubles, scale: Doubles, shift: Doubles) -> tuple[Doubles, Doubles]:
    """Weight and bias of ``scale·(W·x + b) + shift``, each ``[channels]`` but the weight."""
    return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)), scale * bias + shift
