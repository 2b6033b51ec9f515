"""Plan the layers of a network that run as one on CUDA."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from stl_deploy.nn.cuda.scan import lif_scan
from stl_deploy.nn.neuron import LIF
from stl_deploy.nn.schedule import Sources, Stage, norm_before, over_time
from stl_deploy.nn.surrogate import SURROGATES


def stages(layers: nn.ModuleDict, sources: Sources) -> list[Stage]:
    """Return the forward pass of a network, each LIF fused with the norm before it; tensors are ``[T, B, *shape]``."""
    lifs = {name: layer for name, layer in layers.items() if isinstance(layer, LIF) and layer.plain}
    norms = {name: norm_before(name, layers, sources) for name in lifs}
    order = []
    for name, layer in layers.items():
        if name in lifs:
            before = norms[name]
            norm = None if before is None else layers[before]
            order.append(Stage(name, sources[before or name], partial(_run, lifs[name], norm)))
        elif name not in norms.values():
            order.append(Stage(name, sources[name], partial(over_time, layer)))
    return order


def _run(lif: LIF, norm: nn.Module | None, x: Tensor) -> Tensor:
    assert norm is None or isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    derivative = SURROGATES[lif.surrogate_name]
    resets = dict(soft_reset=lif.soft_reset, detach_reset=lif.detach_reset)
    return lif_scan(x, lif.threshold, lif.decay, derivative, **resets, norm=norm)
