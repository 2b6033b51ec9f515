"""Quantisation-aware training of any feed-forward graph that integers hold, as a torch module of integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.errors import InputError
from stl_deploy.graph.program import DT, Conv, Input, Linear, Neuron, Node, Output, Pool, Program, is_spike_max_pool
from stl_deploy.integers.lava_layers import check_kind
from stl_deploy.integers.net import LOIHI, WIDE
from stl_deploy.integers.per_pixel import average_thresholds
from stl_deploy.integers.qat.fake_quant import LoihiLIF, WholeSynapse
from stl_deploy.integers.qat.network import plain_numbers, quantise_layers
from stl_deploy.integers.quantise import choose
from stl_deploy.nn.neuron import LI, LIF


class QuantisedGraph(nn.Module):
    """A network in integers, ``[T, B, *shape]`` to the output of every step ``[T, B, *shape]``.

    In training mode gradients reach every weight and threshold (see `fake_quant`); in eval mode spikes are those of the
    integers.

    Args:
        program: What integers and `stl_deploy.integers.qat.network` can hold.
        calibration: Input ``[T, B, *shape]`` that the first integers are chosen on.
        host: Whether netx holds the program, so that the host computes its readout.

    Raises:
        UnsupportedError: If integers or these layers cannot hold the program, by node.
        InputError: For input off the program's grid.
    """

    def __init__(self, program: Program, calibration: NDArray[Any], *, host: bool = False) -> None:
        super().__init__()
        self._program = average_thresholds(program)
        self._layers: dict[str, nn.Module] = {}
        for node in self._program.nodes:
            if isinstance(node, Neuron):
                if not is_spike_max_pool(self._program, node):
                    self._layers[node.name] = LIF(node.shape) if node.spiking else LI(node.shape)
            elif not isinstance(node, Input | Output):
                check_kind(node)
                if isinstance(node, Linear | Conv):
                    self._layers[node.name] = _like(node)
        start = choose(self._program, calibration, "folded", LOIHI if host else WIDE)
        quantise_layers(self._layers, self._program, start, host=host)
        self.layers = nn.ModuleList(self._layers.values())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output at every step."""
        (entry,) = self._program.inputs
        if x.dim() != len(entry.shape) + 2 or tuple(x.shape[2:]) != entry.shape:
            raise InputError(f"expected input [T, B, {', '.join(map(str, entry.shape))}]; found {list(x.shape)}")
        values = {entry.name: x}
        for node in self._program.nodes:
            if node is not entry:
                values[node.name] = self._run(node, values)
        return values[self._program.outputs[0].name]

    def _run(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """Return a node's output; of a layer that reaches neurons, its input, as neurons sum all their layers."""
        layer, sources = self._layers.get(node.name), [self._program.by_name[source.node] for source in node.operands]
        x, *others = (values[source.name] for source in sources)
        if isinstance(layer, LoihiLIF):
            first, *beside = (self._layers[source.name] for source in sources)
            apart = [(synapse, other.flatten(0, 1)) for synapse, other in zip(beside, others, strict=True)]
            sums: Tensor = first(x.flatten(0, 1), *apart)
            spikes: Tensor = layer(sums.reshape(*x.shape[:2], *node.shape))
            return spikes
        if isinstance(node, Neuron) and layer is None:
            (pool,) = sources
            assert isinstance(pool, Pool)
            return _pooled(pool, values[pool.operands[0].node], functional.max_pool2d)
        x, frames = sum(others, start=x), x.shape[:2]
        if isinstance(layer, WholeSynapse):
            return x
        if isinstance(layer, LI):
            x = layer(x)
        elif isinstance(node, Pool):
            x = _pooled(node, x, partial(functional.avg_pool2d, divisor_override=node.divisor))
        elif layer is not None:
            x = layer(x.flatten(0, 1))
        return x.reshape(*frames, *node.shape)

    @torch.no_grad()
    def whole(self, metadata: Mapping[str, Any]) -> Program:
        """Return the layers with the trained integers; ``metadata``: of the graph."""
        nodes = (self._whole(node, self._layers.get(node.name)) for node in self._program.nodes)
        return Program(tuple(nodes), DT, dict(metadata))

    def _whole(self, node: Node, layer: nn.Module | None) -> Node:
        if isinstance(node, Neuron) and isinstance(layer, LIF | LI):
            decay = _array(layer.decay)
            if not isinstance(layer, LoihiLIF):
                return replace(node, decay=decay)
            threshold = _array(layer.whole_threshold)
            return replace(node, decay=decay, threshold=threshold, gain=None, offset=None, compare="gt")
        if isinstance(node, Linear | Conv) and layer is not None:
            weight, bias = plain_numbers(layer)
            return replace(node, weight=_array(weight), bias=None if bias is None else _array(bias))
        return node


def _pooled(pool: Pool, x: Tensor, how: Callable[..., Tensor]) -> Tensor:
    (top, bottom), (left, right) = pool.padding
    maps = how(functional.pad(x.flatten(0, 1), (left, right, top, bottom)), pool.kernel, pool.stride)
    return maps.reshape(*x.shape[:2], *maps.shape[1:])


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return array


def _like(node: Linear | Conv) -> nn.Linear | nn.Conv2d:
    """Return torch's layer of a node, with its weights."""
    if isinstance(node, Linear):
        made: nn.Linear | nn.Conv2d = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    else:
        padding = tuple(before for before, _ in node.padding)
        sizes = dict(stride=node.stride, padding=padding, dilation=node.dilation, groups=node.groups)
        channels = node.weight.shape[1] * node.groups
        made = nn.Conv2d(channels, node.weight.shape[0], node.weight.shape[2:], **sizes)  # type: ignore[arg-type]
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(node.weight))
        assert made.bias is not None
        made.bias.copy_(torch.zeros(len(node.weight)) if node.bias is None else torch.from_numpy(node.bias))
    return made
