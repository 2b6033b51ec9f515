"""Quantisation-aware training of any feed-forward graph that integers hold, as a torch module of integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import DT, Conv, Linear, Neuron, Node, Pool, Program, is_spike_max_pool
from stl_deploy.integers.lava_layers import require_trainable
from stl_deploy.integers.net import LOIHI, WIDE
from stl_deploy.integers.per_pixel import average_thresholds
from stl_deploy.integers.qat.fake_quant import LoihiLIF, WholeSynapse
from stl_deploy.integers.qat.network import plain_numbers, quantise_layers
from stl_deploy.integers.quantise import IntegerModel, choose
from stl_deploy.integers.ranges import OVERFLOWS, WEIGHT_TOPS, first_that_holds, ranges, require_seen
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.simulate import entered_by
from stl_deploy.nn.neuron import LI, LIF
from stl_deploy.nn.program_module import ProgramModule


class QuantisedGraph(ProgramModule):
    """A network in integers, ``[T, B, *shape]`` to the output of every step ``[T, B, *shape]``.

    In training mode gradients reach every weight and threshold (see `fake_quant`); in eval mode the spikes equal the
    integers'.

    Args:
        program: Network that integers and `stl_deploy.integers.qat.network` can represent.
        calibration: Input ``[T, B, *shape]`` for choosing the initial integers.
        host: Whether netx holds the program, so that the host computes its readout. Where sums or potentials of the
            calibration go beyond Loihi's 24 bits, the integers are those of C all the same.

    Attributes:
        beyond_loihi: Why they are, or None.
        weight_top: The largest weight that keeps the calibration's sums within 24 bits.

    Raises:
        UnsupportedError: If integers or these layers cannot represent a node.
        InputError: For input off the program's grid.
    """

    def __init__(self, program: Program, calibration: NDArray[Any], *, host: bool = False) -> None:
        require_trainable(program)
        program = average_thresholds(program)
        layers: dict[str, nn.Module] = {}
        for node in program.nodes:
            if isinstance(node, Neuron):
                if is_spike_max_pool(program, node):
                    layers[node.name] = _MaxPool(program.by_name[node.operands[0].node])
                else:
                    layers[node.name] = LIF(node.shape) if node.spiking else LI(node.shape)
            elif isinstance(node, Linear | Conv):
                layers[node.name] = _like(node)
        self.beyond_loihi: UnsupportedError | None = None
        chosen: tuple[IntegerModel, int] | None = None
        if host:
            try:
                chosen = _on_loihi(program, calibration)
            except UnsupportedError as error:
                if error.slug not in OVERFLOWS:
                    raise
                self.beyond_loihi, host = error, False
        start, self.weight_top = chosen or (choose(program, calibration, "folded", WIDE), WEIGHT_TOP)
        quantise_layers(layers, program, start, host=host, weight_top=self.weight_top)
        super().__init__(program, layers=layers)

    def _taken(self, x: Tensor) -> Tensor:
        """Return the input as floats, also integers and bools, which the module takes, too."""
        whole = isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex())
        return super()._taken(x.to(self._type()) if whole else x)

    def _run(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """Return a node's output; of a layer that reaches neurons, its input, as neurons sum all their layers."""
        layer = self.layer(node)
        arrived = [values[operand.node] for operand in node.operands]
        if isinstance(layer, WholeSynapse):
            return sum(arrived[1:], start=arrived[0])
        if isinstance(layer, LoihiLIF):
            first, *beside = (self.layer(self._program.by_name[operand.node]) for operand in node.operands)
            assert isinstance(first, WholeSynapse)
            x, *others = (value.flatten(0, 1) for value in arrived)
            sums = first(x, *zip(beside, others, strict=True))
            spikes: Tensor = layer(sums.reshape(*arrived[0].shape[:2], *node.shape))
            return spikes
        if isinstance(layer, _MaxPool):
            largest: Tensor = layer(values[layer.pool.operands[0].node])
            return largest
        return super()._run(node, values)

    @torch.no_grad()
    def program(self) -> Program:
        """Return the Program of the integers as they are now."""
        nodes = tuple(self._trained(node) for node in self._program.nodes)
        return Program(nodes, DT, self._program.metadata)

    def _trained(self, node: Node) -> Node:
        layer = self.layer(node)
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


def _on_loihi(program: Program, calibration: NDArray[Any]) -> tuple[IntegerModel, int]:
    """Choose integers for Loihi's 24 bits, and the largest weight; raises UnsupportedError for what goes beyond."""

    def made(weight_top: int) -> tuple[IntegerModel, int]:
        start = choose(program, calibration, "folded", LOIHI, weight_top)
        scale = start.graph.input.scale
        x = np.asarray(to_integers(calibration, scale), np.int32)
        require_seen(ranges(entered_by(start.graph, x), x), scale)
        return start, weight_top

    return first_that_holds(made, WEIGHT_TOPS)


class _MaxPool(nn.Module):
    """Max pooling of the spikes ``[T, B, *shape]`` that a sum pool and a threshold pool."""

    def __init__(self, pool: Node) -> None:
        super().__init__()
        assert isinstance(pool, Pool)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = self.pool.padding
        padded = functional.pad(x.flatten(0, 1), (left, right, top, bottom))
        maps = functional.max_pool2d(padded, self.pool.kernel, self.pool.stride)
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
