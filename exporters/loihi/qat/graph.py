"""Quantisation-aware training of any chain that Loihi can hold: a graph becomes a torch module of whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.errors import InputError
from stl_deploy.exporters.loihi.pixels import project_thresholds
from stl_deploy.exporters.loihi.qat.fake_quant import LoihiLIF, WholeSynapse
from stl_deploy.exporters.loihi.qat.network import quantise_layers
from stl_deploy.exporters.loihi.quantise import quantise
from stl_deploy.exporters.loihi.structure import FlattenStage, PoolStage, Stage, SynapseStage, structure
from stl_deploy.graph.exact import input_scale
from stl_deploy.graph.program import Conv, Linear, Node, Program
from stl_deploy.nn.layer_graph import LayerGraph
from stl_deploy.nn.neuron import LIF


class QuantisedChain(nn.Module):
    """A chain of layers in Loihi's whole numbers, ``[T, B, *shape]`` to the output of every step ``[T, B, *shape]``.

    program: what Loihi can hold; calibration: input ``[T, B, *shape]`` that the first integers are chosen on. In
    training mode gradients reach every weight and threshold (see `fake_quant`); in eval mode spikes are those of the
    integers. Raises UnsupportedError where Loihi cannot hold the program, InputError for input off its grid.
    """

    def __init__(self, program: Program, calibration: NDArray[Any]) -> None:
        super().__init__()
        self._program = project_thresholds(program)
        start = quantise(self._program, calibration, input_scale=input_scale(program))
        chain = structure(self._program)
        self._stages = chain.stages
        synapses = [stage for stage in chain.stages if isinstance(stage, SynapseStage)]
        self._layers: dict[str, nn.Module] = {}
        for stage in synapses:
            self._layers |= {stage.synapse.name: _like(stage.synapse), stage.neuron.name: LIF(stage.neuron.shape)}
        quantise_layers(self._layers, self._program, start)
        self._host = [(node, _like(node) if isinstance(node, Linear) else nn.Flatten(2)) for node in chain.host]
        self.layers = nn.ModuleList([*self._layers.values(), *(module for _, module in self._host)])

    def forward(self, x: Tensor) -> Tensor:
        """The chain's output at every step."""
        shape = self._program.inputs[0].shape
        if x.dim() != len(shape) + 2 or tuple(x.shape[2:]) != shape:
            raise InputError(f"expected input [T, B, {', '.join(map(str, shape))}]; found {list(x.shape)}")
        for stage in self._stages:
            x = self._run(stage, x)
        for _, module in self._host:
            x = module(x)
        return x

    def _run(self, stage: Stage, x: Tensor) -> Tensor:
        if isinstance(stage, FlattenStage):
            return x.flatten(2)
        apart = x.flatten(0, 1)
        if isinstance(stage, PoolStage):
            padding = tuple(before for before, _ in stage.pool.padding)
            pooled = functional.max_pool2d(apart, stage.pool.kernel, stage.pool.stride, padding)
            return pooled.reshape(*x.shape[:2], *pooled.shape[1:])
        sums: Tensor = self._layers[stage.synapse.name](apart)
        spikes: Tensor = self._layers[stage.neuron.name](sums.reshape(*x.shape[:2], *sums.shape[1:]))
        return spikes

    @torch.no_grad()
    def whole(self, metadata: Mapping[str, Any]) -> LayerGraph:
        """The layers with the whole numbers that were trained; ``metadata``: of the graph."""
        changed: dict[str, Node] = {}
        for stage in self._stages:
            if isinstance(stage, SynapseStage):
                changed |= self._whole_stage(stage)
        for node, module in self._host:
            if isinstance(node, Linear) and isinstance(module, nn.Linear):
                changed[node.name] = replace(node, weight=_array(module.weight), bias=_array(module.bias))
        return LayerGraph(tuple(changed.get(node.name, node) for node in self._program.nodes), dict(metadata))

    def _whole_stage(self, stage: SynapseStage) -> dict[str, Node]:
        synapse, lif = self._layers[stage.synapse.name], self._layers[stage.neuron.name]
        assert isinstance(synapse, WholeSynapse)
        assert isinstance(lif, LoihiLIF)
        weight, bias = synapse.numbers()
        neuron = replace(
            stage.neuron,
            decay=np.asarray(lif.decay.detach().cpu(), np.float32),
            threshold=np.asarray(lif.whole_threshold.detach().cpu(), np.float32),
            gain=None,
            offset=None,
            compare="gt",
        )
        numbers = {"weight": _array(weight * (synapse.input_scale or 1)), "bias": _array(bias)}
        return {neuron.name: neuron, stage.synapse.name: replace(stage.synapse, **numbers)}  # type: ignore[arg-type]


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return found


def _like(node: Linear | Conv) -> nn.Linear | nn.Conv2d:
    """torch's layer of a node, with its weights."""
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


__all__ = ["QuantisedChain"]
