"""From folded stages back to a torch network, and on to the canonical NIR graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import METADATA_KEY
from stl_deploy.graph.program import DT, Floats, Shape
from stl_deploy.nn.layers import Sum, SumPool2d, Vote
from stl_deploy.nn.network import INPUT, Network
from stl_deploy.nn.neuron import LI, LIF, RLIF
from tests.oracles.fold.rounding import vote_weight
from tests.oracles.fold.stages import Stages, recurrence
from tests.oracles.fold.time import representable_decay, time_constants


def folded_network(network: Network, stages: Stages) -> Network:
    """The network with the stages' numbers, without norms and dropout; same layer names, evaluation mode."""
    folded = copy.deepcopy(network).cpu().eval()
    for name, layer in list(folded.layers.items()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            folded.remove(name)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            synapse = stages.synapses[name]
            layer.weight = nn.Parameter(_tensor(synapse.weight))
            layer.bias = nn.Parameter(_tensor(synapse.bias))
        elif isinstance(layer, LIF):
            folded.layers[name] = _lif(layer, stages, name)
        elif isinstance(layer, LI):
            folded.layers[name] = LI(layer.shape, decay=representable_decay(float(layer.decay.detach())))
    return folded.requires_grad_(False)


def _lif(layer: LIF, stages: Stages, name: str) -> LIF:
    population = stages.populations[name]
    kind = RLIF if isinstance(layer, RLIF) else LIF
    rule: dict[str, Any] = {"surrogate": layer.surrogate, "detach_reset": layer.detach_reset}
    rule["reset"] = "subtract" if layer.soft_reset else "zero"
    lif = kind(layer.shape, granularity="layer", parametrisation="raw", decay=population.decay, **rule)
    if isinstance(lif, RLIF):
        lif.recurrent.weight = nn.Parameter(_tensor(stages.synapses[recurrence(name)].weight))
    lif.threshold_parameter = nn.Parameter(torch.from_numpy(population.threshold.copy()))
    return lif.eval()


def dialect_of(network: Network) -> Dialect:
    """The dialect of the graph that `to_nir` makes; raises InputError where neurons reset in two ways.

    A soft reset subtracts the very number that a node stores, so that must be θ itself and the comparison ``>=``.
    """
    by_reset = {layer.soft_reset: name for name, layer in network.lifs}
    if len(by_reset) > 1:
        raise InputError(
            f"layer '{by_reset[True]}' resets by subtraction and layer '{by_reset[False]}' to 0, which our graphs do "
            "not hold side by side; give all neurons the same reset"
        )
    return Dialect(dt=DT, compare="ge", reset="subtract") if True in by_reset else Dialect(dt=DT)


def to_nir(folded: Network, metadata: Mapping[str, Any]) -> nir.NIRGraph:
    """The canonical graph of a folded network, from ``input`` to ``output``, nodes named as the layers.

    metadata: with the dialect that `dialect_of` gives. float32; θ per neuron, stored as the float just below it, so
    that NIR's ``v > θ`` is our ``v >= θ``, but as it is under a soft reset; spiking max pooling as a SumPool2d
    ``<name>_sum`` and a Threshold ``<name>`` of 1/2; the vote as a Linear. A `Sum` is no node: an edge leads from each
    of its terms to each of its readers.
    """
    shapes = {INPUT: folded.input_shape, **folded.shapes}
    nodes: dict[str, nir.NIRNode] = {INPUT: nir.Input({"input": np.array(folded.input_shape)})}
    edges: list[tuple[str, str]] = []
    name, shape = INPUT, folded.input_shape
    for name, layer in folded.layers.items():
        shape = shapes[name]
        if isinstance(layer, Sum):
            continue
        made = _nodes(name, layer, shapes[folded.sources[name][0]], shape)
        edges += [(term, next(iter(made))) for term in _terms(folded, folded.sources[name])]
        edges += pairwise(made)
        if isinstance(layer, RLIF):
            edges.append((recurrence(name), name))
        nodes.update(made)
    nodes["output"] = nir.Output({"output": np.array(shape)})
    edges.append((name, "output"))
    return nir.NIRGraph(nodes, edges, metadata={METADATA_KEY: dict(metadata)}, type_check=False)


def _terms(folded: Network, sources: Sequence[str]) -> list[str]:
    """The nodes whose outputs add up to what a reader of ``sources`` reads."""
    found: list[str] = []
    for source in sources:
        inner = source in folded.layers and isinstance(folded.layers[source], Sum)
        found += _terms(folded, folded.sources[source]) if inner else [source]
    return found


def _nodes(name: str, layer: nn.Module, before: Shape, after: Shape) -> dict[str, nir.NIRNode]:
    match layer:
        case nn.Conv2d():
            return {name: _conv(layer, before)}
        case nn.Linear():
            return {name: nir.Affine(_array(layer.weight), _array(layer.bias))}
        case RLIF():
            back = nir.Linear(_array(layer.recurrent.weight))
            return {name: _neuron(layer, after), recurrence(name): back}
        case LIF():
            return {name: _neuron(layer, after)}
        case LI():
            return {name: _integrator(layer, after)}
        case nn.MaxPool2d():
            summed = nir.SumPool2d(_pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding))
            return {f"{name}_sum": summed, name: nir.Threshold(np.full(after, 0.5, np.float32))}
        case nn.AvgPool2d():
            return {name: nir.AvgPool2d(_pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding))}
        case SumPool2d():
            return {name: nir.SumPool2d(_pair(layer.kernel_size), _pair(layer.stride), _pair(0))}
        case nn.Flatten():
            return {name: nir.Flatten({"input": np.array(before)}, -len(before), -1)}
        case Vote():
            votes = np.repeat(np.eye(after[0], dtype=np.float32), layer.population, axis=1)
            return {name: nir.Linear(votes * vote_weight(layer.population))}
    raise InputError(f"layer '{name}': a {type(layer).__name__} has no form in NIR")


def _conv(layer: nn.Conv2d, before: Shape) -> nir.Conv2d:
    return nir.Conv2d(
        input_shape=(before[1], before[2]),
        weight=_array(layer.weight),
        stride=_ints(layer.stride),
        padding=_ints(layer.padding),
        dilation=_ints(layer.dilation),
        groups=layer.groups,
        bias=_array(layer.bias),
    )


def _neuron(layer: LIF, shape: Shape) -> nir.NIRNode:
    threshold = np.broadcast_to(_array(layer.threshold), shape)
    if not layer.soft_reset:
        threshold = np.nextafter(threshold, np.float32(-np.inf))
    zeros, ones = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    beta = float(layer.decay)
    if beta == 1:
        return nir.IF(r=ones * np.float32(1 / DT), v_threshold=threshold, v_reset=zeros)
    constants = time_constants(beta)
    return nir.LIF(
        tau=ones * constants.tau, r=ones * constants.r, v_leak=zeros, v_threshold=threshold, v_reset=zeros.copy()
    )


def _integrator(layer: LI, shape: Shape) -> nir.NIRNode:
    ones, beta = np.ones(shape, np.float32), float(layer.decay)
    if beta == 1:
        return nir.I(r=ones * np.float32(1 / DT))
    constants = time_constants(beta)
    return nir.LI(tau=ones * constants.tau, r=ones * constants.r, v_leak=np.zeros(shape, np.float32))


def _tensor(array: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
    return torch.from_numpy(array).to(torch.float32)


def _array(tensor: Tensor | None) -> Floats:
    assert tensor is not None
    return tensor.detach().cpu().to(torch.float32, copy=True).numpy()


def _ints(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, tuple) else (value, value)
    return int(height), int(width)


def _pair(value: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(_ints(value))
