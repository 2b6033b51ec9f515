"""Whether the compiled kernels work on this machine: asked once per process, before the first step."""

from __future__ import annotations

import warnings
from functools import cache

import torch

from stl_deploy._util.untrusted import one_line


@cache
def works(dtype: torch.dtype, winograd: bool = False) -> bool:
    """Whether all kernels compile and run for currents of this type; warns if not.

    winograd: those of the convolutions of fewer multiplications.
    """
    try:
        from stl_deploy.nn.fused import warm

        (warm.warm_winograd if winograd else warm.warm)(dtype)
    except Exception as error:  # a compiler fails in too many ways to name; torch's path needs none of it
        reason = one_line(error, 200)
        warnings.warn(f"the compiled fast path failed ({reason}); going on in torch, more slowly", stacklevel=3)
        return False
    return True
