"""Decide whether compiled kernels may run: numba installed, on the CPU, not switched off."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from stl_deploy._util import install
from stl_deploy._util.untrusted import one_line

SWITCH = "STL_DEPLOY_FUSED"
"""Environment variable; ``0`` turns the fast path off."""
_PAUSED: ContextVar[bool] = ContextVar("paused", default=False)


@contextmanager
def paused() -> Iterator[None]:
    """Return a context in which neurons run in torch's own operations, so that these can be recorded."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


def ready(x: Tensor) -> bool:
    """Return whether this input can take the fast path; warn once if numba is missing or cannot compile it."""
    if x.device.type != "cpu" or os.environ.get(SWITCH) == "0" or not installed():
        return False
    autocast = torch.is_autocast_enabled("cpu")
    return works(torch.get_autocast_dtype("cpu") if autocast else x.dtype)


def usable(x: Tensor) -> bool:
    """Return whether kernels may run on this input; warn once if numba is missing."""
    return x.device.type == "cpu" and os.environ.get(SWITCH) != "0" and not _PAUSED.get() and installed()


@cache
def installed() -> bool:
    """Return whether numba is installed; warn if not, the first time."""
    if install.is_there("numba"):
        return True
    warnings.warn(
        f"numba is not installed: training and inference take the slower path through torch; {install.command('fast')}",
        stacklevel=2,
    )
    return False


Kernels = Literal["blocks", "synaptic", "everything"]
"""Those of norm, LIF, pooling and the input's convolution; of neurons with a synaptic current or several spikes a step;
all."""


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
