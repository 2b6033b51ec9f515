"""Weights in 8 bits, so that trained models are small enough to ship."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SCALE = ".scale"
_TINY = torch.finfo(torch.float32).tiny
_MOST = 127


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Synaptic weights ``[outputs, ...]`` as int8 and scales ``[outputs]``, kept as ``NAME.scale``; others as given."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.dim() > 1:
            scale = tensor.flatten(1).abs().amax(1).clamp(min=_TINY) / _MOST
            small[name] = (tensor / _over(scale, tensor)).round().to(torch.int8)
            small[name + _SCALE] = scale
        else:
            small[name] = tensor
    return small


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As float32 what `packed` made, and float16; others as given."""
    wide: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            wide[name] = tensor.float() * _over(tensors[name + _SCALE], tensor)
        elif not name.endswith(_SCALE):
            wide[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return wide


def _over(scale: Tensor, weights: Tensor) -> Tensor:
    return scale.reshape(-1, *(1,) * (weights.dim() - 1))
