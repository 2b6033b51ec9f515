"""Batch norm over the samples of all processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from stl_deploy._util import processes
from stl_deploy.nn.layers import StepNorm2d, follow, is_by_step, wide
from stl_deploy.training import distributed

if TYPE_CHECKING:
    from stl_deploy.nn.network import Network


class SharedNorm(StepNorm2d):
    """Replacement for any norm of a network, ``[T, B, C, ...]``, with its parameters and buffers.

    In training its statistics are those of the whole batch, added up over the processes (torch's SyncBatchNorm needs
    CUDA), and gradients pass through the sums: the same as one process's norm but for the order of summation.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self._by_step = is_by_step(norm)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, same shape; in training of bfloat16 in float32."""
        if not self.training:
            flat = x.flatten(0, 1)
            normed = functional.batch_norm(
                flat, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return normed.view_as(x)
        x = wide(x)
        axes = [axis for axis in range(x.dim()) if axis != 2 and not (axis == 0 and self._by_step)]
        here = math.prod(x.shape[axis] for axis in axes)
        count = distributed.total(torch.tensor(float(here), dtype=torch.float64))
        n = float(count)
        mean = distributed.total(x.sum(axes, keepdim=True)) / n
        centred = x - mean
        squares = distributed.total(centred.square().sum(axes, keepdim=True))
        follow(self, mean.detach().flatten(1), squares.detach().flatten(1), n)
        channels = [1, 1, -1, *(1,) * (x.dim() - 3)]
        return centred * torch.rsqrt(squares / n + self.eps) * self.weight.view(channels) + self.bias.view(channels)


def share_norms(network: Network) -> None:
    """Replace every norm by a `SharedNorm`, if several processes train."""
    if processes.world_size() == 1:
        return
    for name, layer in network.layers.items():
        if isinstance(layer, _BatchNorm):
            network.layers[name] = SharedNorm(layer)
