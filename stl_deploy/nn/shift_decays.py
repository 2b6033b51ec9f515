"""Decays of the form 1 - 2^-k, which chips compute by shifting (SynSense Xylo).

k is an integer, fixed or learned: a real k is kept for each neuron and rounded in the forward pass, and its
gradient passes as if it were not (straight-through).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stl_deploy.errors import InputError

MOST = 15
"""The largest k, of four bits."""


def nearest_shift(decay: float) -> int:
    """Return the k of the decay 1 - 2^-k nearest to ``decay`` in the logarithm of the loss; raise InputError for 1."""
    if not 0 <= decay < 1:
        raise InputError(f"expected a decay from 0 to below 1, of the form 1 - 2^-k; found {decay:g}")
    return min(MOST, round(-math.log2(1 - decay)))


def shift_decay(k: Tensor) -> Tensor:
    """Return 1 - 2^-round(k), exact, with the gradient of 1 - 2^-k in k; k is kept within 0 and 15."""
    whole = k.detach().round().clamp(0, MOST).long()
    lost = torch.tensor([2.0**-shift for shift in range(MOST + 1)], dtype=k.dtype, device=k.device)[whole]
    if not k.requires_grad:
        return 1 - lost
    return 1 - lost * (1 - math.log(2) * (k - k.detach()))
