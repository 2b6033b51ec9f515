"""Test once per process whether the compiled kernels work on this machine."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Literal

import torch

from stl_deploy._util.untrusted import one_line

Kernels = Literal["blocks", "input_dense", "synaptic", "winograd_3", "winograd_5", "everything"]
"""Those of norm, LIF, pooling and the input's convolution; of a dense layer of the input; of neurons with a synaptic
current or several spikes a step; of convolutions by tiles, kernels of 3 by 3 or 5 by 5; all."""


@cache
def works(dtype: torch.dtype, kernels: Kernels = "blocks") -> bool:
    """Return whether these kernels compile and run for numbers of this type; warn if not."""
    try:
        from stl_deploy.nn.fused import warm

        getattr(warm, kernels)(dtype)
    except Exception as error:  # a compiler fails in too many ways to name; torch's path needs none of it
        reason = one_line(error, 200)
        warnings.warn(f"the compiled fast path failed ({reason}); going on in torch, more slowly", stacklevel=3)
        return False
    return True
