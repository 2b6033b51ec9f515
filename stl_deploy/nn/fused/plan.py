"""Plan the layers of a network that run as one block, and the synapses that feed them channels-last."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stl_deploy.nn.fused.block import block
from stl_deploy.nn.fused.input_convolution.convolution import enters, entry_block
from stl_deploy.nn.fused.passes import Form
from stl_deploy.nn.layers import Norm, Synapse, is_by_step
from stl_deploy.nn.neuron import LIF
from stl_deploy.nn.schedule import Sources, Stage, norm_before, over_time, readers

_WEIGHTS = (nn.Conv2d, nn.Linear, Synapse)


class _Unit(NamedTuple):
    """A LIF with its norm before and max pooling behind, if there are any; ``names`` of them, in order.

    entry: the convolution of the network's input in front of them, if a block can hold it.
    """

    names: tuple[str, ...]
    entry: nn.Conv2d | None
    norm: Norm | None
    lif: LIF
    pool: int


def stages(layers: nn.ModuleDict, sources: Sources, steps: int, *, pools: bool) -> list[Stage]:
    """Return the forward pass of a network in blocks.

    pools: poolings belong to them, and nothing reads their inner values.

    Tensors are ``[T, B, *shape]``. Synapses compute an input that is the same at every step once, ``[1, B, *shape]``.
    """
    plain = [name for name, lif in layers.items() if isinstance(lif, LIF) and lif.plain and not lif.soft_reset]
    lif_units = [_unit(name, layers, sources, pools) for name in plain]
    units = {unit.names[-1]: unit for unit in lif_units}
    inside = {name for unit in lif_units for name in unit.names[:-1]}
    order = []
    for name, layer in layers.items():
        if name in units:
            reads = sources[units[name].names[0]]
            reuse = pools and _is_private(reads[0], layers, sources)
            order.append(Stage(name, reads, partial(_run_unit, units[name], steps, reuse)))
        elif name not in inside:
            order.append(Stage(name, sources[name], partial(_run_layer, layer, steps)))
    return order


def _is_private(name: str, layers: nn.ModuleDict, sources: Sources) -> bool:
    """Return whether a layer's output is its own memory with one reader."""
    return name in layers and isinstance(layers[name], _WEIGHTS) and len(readers(name, sources)) == 1


def _unit(name: str, layers: nn.ModuleDict, sources: Sources, pools: bool) -> _Unit:
    lif, names, norm, entry, pool = layers[name], [name], None, None, 1
    assert isinstance(lif, LIF)
    before = norm_before(name, layers, sources)
    if before is not None:
        norm = layers[before]
        names.insert(0, before)
    (before,) = sources[names[0]]
    if before in layers and readers(before, sources) == [names[0]] and _enters(before, layers, sources):
        entry = layers[before]
        names.insert(0, before)
    behind = readers(name, sources)
    if pools and len(behind) == 1 and (side := _side(layers[behind[0]])):
        pool = side
        names.append(behind[0])
    return _Unit(tuple(names), entry, norm, lif, pool)  # type: ignore[arg-type]


def _enters(name: str, layers: nn.ModuleDict, sources: Sources) -> bool:
    """Return whether a layer is a convolution of the network's input that a block can hold."""
    return all(source not in layers for source in sources[name]) and enters(layers[name])


def _side(layer: nn.Module) -> int:
    """Return the side of a max pooling's windows if they tile the map, else 0."""
    if type(layer) is not nn.MaxPool2d or layer.kernel_size != layer.stride or not isinstance(layer.stride, int):
        return 0
    return layer.stride


def _run_unit(unit: _Unit, steps: int, reuse: bool, x: Tensor) -> Tensor:
    lif, by_step = unit.lif, is_by_step(unit.norm)
    form = Form(steps, lif.shape[0], unit.pool, by_step, lif.surrogate_name, lif.detach_reset, reuse)
    if unit.entry is not None:
        if not x.requires_grad:
            return entry_block(x, unit.entry, lif.threshold, lif.decay, unit.norm, form)
        x = _run_layer(unit.entry, steps, x)
    return block(x.expand(steps, *x.shape[1:]) if by_step else x, lif.threshold, lif.decay, unit.norm, form)


def _run_layer(layer: nn.Module, steps: int, *arrived: Tensor) -> Tensor:
    if isinstance(layer, (*_WEIGHTS, nn.Flatten)):
        (x,) = arrived
        folded = x.flatten(0, 1)
        if isinstance(layer, nn.Conv2d):  # blocks take feature maps as they are if they are channels-last
            folded = folded.contiguous(memory_format=torch.channels_last)
        y: Tensor = layer(folded)
        return y.reshape(*x.shape[:2], *y.shape[1:])
    return over_time(layer, *(x.expand(steps, *x.shape[1:]) for x in arrived))
