"""Batch norm and the LIF scan on CUDA, by Triton kernels: the CUDA twin of `stl_deploy.nn.fused`.

The scan is one kernel forward and one backward; a norm that learns adds one for its sums forward, and two backward.

`stl_deploy.nn.lif_scan`, and `stl_deploy.nn.network.Network` with the norm before each LIF, take it where `ready` says
so. Spikes of given currents are those of the torch scan bit for bit; a norm, and sums of gradients over samples, round
otherwise. Not yet run on a GPU: the tests run it in Triton's interpreter, and compile it for several.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache

import torch
from torch import Tensor

from stl_deploy._util.untrusted import one_line
from stl_deploy.nn.surrogate import SURROGATES, Derivative

SWITCH = "STL_DEPLOY_TRITON"
"""Environment variable; ``0`` leaves CUDA to torch's operations."""


def ready(x: Tensor) -> bool:
    """Return whether this tensor's device can run the kernels."""
    return x.is_cuda and os.environ.get(SWITCH) != "0" and installed() and works(x.device)


@cache
def works(device: torch.device) -> bool:
    """Return whether Triton compiles for this card and starts kernels; warn if not, the first time.

    Raises torch.OutOfMemoryError where the card is full, which says nothing of Triton.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x, one = torch.ones(1, 1, 1, device=device, requires_grad=True), torch.ones((), device=device)
            spikes = lif_scan(x, one, one, SURROGATES["arctan"], soft_reset=False, detach_reset=False)
            spikes.sum().backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever its compiler, its launcher or the driver raise
        warnings.warn(
            f"Triton's kernels do not run on {device} ({one_line(error)}): training and inference take the slower path "
            "through torch",
            stacklevel=2,
        )
        return False
    return True


def knows(derivative: Derivative) -> bool:
    """Return whether the kernels have this surrogate."""
    return derivative in SURROGATES.values()


@cache
def installed() -> bool:
    """Return whether Triton is installed (CUDA builds of torch bring it)."""
    return importlib.util.find_spec("triton") is not None


def lif_scan(
    x: Tensor, theta: Tensor, decay: Tensor, derivative: Derivative, *, soft_reset: bool, detach_reset: bool
) -> Tensor:
    """Return spikes ``[T, B, *shape]`` as `stl_deploy.nn.lif_scan.lif_scan`, in the currents' type; loads Triton."""
    from stl_deploy.nn.cuda import scan

    return scan.lif_scan(x, theta, decay, derivative, soft_reset=soft_reset, detach_reset=detach_reset)
