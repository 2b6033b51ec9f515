"""Schedule a network's forward pass as a list of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stl_deploy.nn.layers import StepNorm1d, StepNorm2d, Sum, is_by_step, require_values
from stl_deploy.nn.neuron import LI, LIF

Sources = Mapping[str, tuple[str, ...]]
"""The layers that each layer reads."""
_OVER_TIME = (Sum, LIF, LI, StepNorm1d, StepNorm2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, StepNorm1d, StepNorm2d)
"""By exact type: a subclass may have statistics of more than what arrives, as several processes' do."""


INPUT = "input"
"""The network's input, among the sources of its layers."""


class Stage(NamedTuple):
    """``run`` maps the outputs of ``reads``, ``[T, B, *shape]`` each, to the output of layer ``name``."""

    name: str
    reads: tuple[str, ...]
    run: Callable[..., Tensor]


def layerwise(layers: nn.ModuleDict, sources: Sources) -> list[Stage]:
    """Schedule each layer by itself."""
    return [Stage(name, sources[name], partial(over_time, layer)) for name, layer in layers.items()]


def readers(name: str, sources: Sources) -> list[str]:
    """Return the layers that read ``name``, once per read."""
    return [reader for reader, names in sources.items() for source in names if source == name]


def norm_before(name: str, layers: nn.ModuleDict, sources: Sources) -> str | None:
    """Return the batch norm before a layer that can be fused with it (no other reader), if there is one.

    None where it is in evaluation mode and gradients are wanted: they would not pass.
    """
    (before,) = sources[name]
    if before not in layers or readers(before, sources) != [name]:
        return None
    norm = layers[before]
    known = type(norm) in _NORMS and norm.weight is not None
    return before if known and (norm.training or not torch.is_grad_enabled()) else None


def over_time(layer: nn.Module, *arrived: Tensor) -> Tensor:
    """Return a layer's output ``[T, B, *shape]``; memoryless layers see time folded into the batch."""
    x, *_ = arrived
    if type(layer) in _NORMS and layer.training:
        require_values(x[:, :, 0].numel() / (len(x) if is_by_step(layer) else 1))
    if isinstance(layer, _OVER_TIME):
        y: Tensor = layer(*arrived)
        return y
    y = layer(x.flatten(0, 1))
    return y.reshape(*x.shape[:2], *y.shape[1:])
