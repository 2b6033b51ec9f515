"""Sum over processes with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stl_deploy._util import processes


class Total(torch.autograd.Function):
    """y = Σ x over processes; each x reaches every process's y, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Added up."""
        return _added(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Gradients added up."""
        return _added(grad)


def _added(x: Tensor) -> Tensor:
    y = x.detach().contiguous().clone()
    with processes.others_here("add up"):
        torch.distributed.all_reduce(y)
    return y
