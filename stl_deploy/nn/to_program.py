"""Express a trained network as a Program: its layers as nodes, in trained precision, before anything is folded.

A norm keeps its mean apart (s·(b-μ)+β is not s·b+(β-sμ) in the last bit). A missing bias is zeros. The weights of a
vote are on their grid and float32, so that nothing rounds them again. The spikes of a recurrent population come back
through weights of their own, a step late. A sum is no node but several sources; dropout is none. Neurons fire at
v >= θ. `with_numbers` leads back: it copies a folded Program's numbers into the layers of its network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy.errors import InputError
from stl_deploy.graph import program as ir
from stl_deploy.graph.exact import SPIKES
from stl_deploy.graph.program import DT, Conv, Doubles, InputCoding, Linear, Neuron, Program, Shape
from stl_deploy.nn.adapting import ALIF
from stl_deploy.nn.layered import Layered
from stl_deploy.nn.layers import Sum, SumPool2d, Vote
from stl_deploy.nn.neuron import LI, LIF, RLIF
from stl_deploy.nn.population import Population
from stl_deploy.nn.schedule import INPUT
from stl_deploy.passes.exact_grids import finest_exact_grid

L = TypeVar("L", bound=Layered)
_Norms = nn.modules.batchnorm._BatchNorm


def recurrence(name: str) -> str:
    """Return the name of the recurrent weights of layer ``name``."""
    return f"{name}_recurrent"


def to_program(network: Layered, coding: InputCoding, fraction_bits: int = 0, bound: float = 1.0) -> ir.Program:
    """Return the Program of a network in evaluation mode; see `stl_deploy.nn.network.Network.program`."""
    _require_spiking(network)
    made = _Nodes(network)
    for name, layer in network.layers.items():
        made.add(name, layer)
    *_, last = network.layers
    end = ir.Output(name="output", shape=network.shapes[last], operands=made.sources_of(last))
    metadata = {"input": {"coding": coding, "fraction_bits": fraction_bits, "max": bound}}
    return ir.Program((*made.nodes.values(), end), DT, metadata)


class _Nodes:
    def __init__(self, network: Layered) -> None:
        self.network = network
        self.shapes: dict[str, Shape] = {INPUT: network.input_shape, **network.shapes}
        self.nodes: dict[str, ir.Node] = {INPUT: ir.Input(name=INPUT, shape=network.input_shape, operands=())}

    def sources_of(self, *names: str) -> tuple[ir.Operand, ...]:
        """Return the nodes whose outputs sum to these layers' output: a sum's terms, dropout's source."""
        return tuple(ir.Operand(node) for name in names for node in self._terms(name))

    def _terms(self, name: str) -> Iterator[str]:
        if name in self.network.layers and isinstance(self.network.layers[name], Sum | nn.Dropout):
            for source in self.network.sources[name]:
                yield from self._terms(source)
        else:
            yield name

    def add(self, name: str, layer: nn.Module) -> None:
        reads = self.network.sources[name]
        common: dict[str, Any] = {"name": name, "shape": self.shapes[name], "operands": self.sources_of(*reads)}
        before = self.shapes[reads[0]]
        match layer:
            case Sum() | nn.Dropout():
                return
            case RLIF():
                weights = _weights(layer.recurrent, name)
                weights = {"weight": weights["weight"].astype(np.float64), "bias": None}
                back = recurrence(name)
                common["operands"] += (ir.Operand(back, 1),)
                self.nodes[name] = _neuron(layer, common)
                self.nodes[back] = ir.Linear(
                    name=back, shape=layer.shape, operands=(ir.Operand(name),), input_shape=layer.shape, **weights
                )
            case LIF():
                self.nodes[name] = _neuron(layer, common)
            case LI():
                self.nodes[name] = ir.Neuron(
                    **common, decay=_floats(layer.decay), threshold=None, synapse=_synapse(layer)
                )
            case _Norms():
                self._require_weights_before(name)
                self.nodes[name] = ir.Norm(**common, **_norm(name, layer))
            case _:
                self.nodes[name] = _plain(layer, common, before, name)

    def _require_weights_before(self, name: str) -> None:
        (before,) = self.network.sources[name]
        if not isinstance(self.nodes.get(before), ir.Linear | ir.Conv):
            raise InputError(f"layer '{name}': a norm folds into the conv or linear right before it; there is none")


def _plain(layer: nn.Module, common: dict[str, Any], before: Shape, name: str) -> ir.Node:
    match layer:
        case nn.Conv2d():
            return ir.Conv(
                **common,
                **_weights(layer, name),
                stride=_pair(layer.stride),
                padding=_pads(layer.padding),
                dilation=_pair(layer.dilation),
                groups=layer.groups,
                input_shape=before,
            )
        case nn.Linear():
            return ir.Linear(**common, **_weights(layer, name), input_shape=before)
        case nn.MaxPool2d() | nn.AvgPool2d() | SumPool2d():
            kernel = _pair(layer.kernel_size)
            window: dict[str, Any] = {"kernel": kernel, "stride": _pair(layer.stride), "input_shape": before}
            window["padding"] = _pads(getattr(layer, "padding", 0))
            if isinstance(layer, nn.MaxPool2d):
                return ir.MaxPool(**common, **window)
            return ir.Pool(**common, **window, divisor=1 if isinstance(layer, SumPool2d) else prod(kernel))
        case nn.Flatten():
            return ir.Reshape(**common, input_shape=before)
        case Vote():
            share = np.repeat(np.eye(common["shape"][0], dtype=np.float32), layer.population, axis=1)
            return ir.Linear(**common, weight=share * vote_weight(layer.population), bias=None, input_shape=before)
    raise InputError(f"layer '{name}': a {type(layer).__name__} has no form in NIR")


def vote_weight(population: int) -> np.float32:
    """Return 1/population on the finest grid on which the sum of all votes is exact."""
    weight, _, _ = finest_exact_grid("vote", np.full((1, population), 1 / population), np.zeros(1), SPIKES)
    return np.float32(weight[0, 0])


def _require_spiking(network: Layered) -> None:
    if network.mode == "ann":
        raise InputError("an ANN has no spikes to deploy; train with mode stl, sl or tl")
    if (damage := unsound(network)) is not None:
        raise InputError(f"{damage}, which no training gives; train again, or load whole weights")
    by_reset = {layer.soft_reset: name for name, layer in network.lifs}
    if len(by_reset) > 1:
        raise InputError(
            f"layer '{by_reset[True]}' resets by subtraction and layer '{by_reset[False]}' to 0, which our graphs do "
            "not hold side by side; give all neurons the same reset"
        )
    for name, layer in network.lifs:
        _require_positive(name, _floats(layer.threshold))


@torch.no_grad()
def unsound(network: Layered) -> str | None:
    """Return, in words, values that no training gives; None if all is well.

    A norm's negative variance, a threshold that is not finite, or one that is not above 0 under parametrisation
    ``positive``.
    """
    for name, layer in network.layers.items():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if layer.running_var is not None and bool((layer.running_var < 0).any()):
                return f"layer '{name}' has a negative variance"
        elif isinstance(layer, LIF):
            theta = layer.threshold
            if not bool(theta.isfinite().all()):
                return f"layer '{name}' has a threshold of infinity or NaN"
            if layer.parametrisation == "positive" and bool((theta <= 0).any()):
                return f"layer '{name}' has a threshold of {float(theta.min()):g} under parametrisation 'positive'"
    return None


def _require_positive(name: str, threshold: np.ndarray[Any, Any]) -> None:
    refused = np.argwhere(~(threshold > 0))
    if len(refused):
        listed = ", ".join(str(index.tolist()) for index in refused[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise InputError(
            f"layer '{name}': thresholds <= 0 at {listed}{more} (the first is {threshold[tuple(refused[0])]:g}); such "
            "neurons fire without input, so they cannot be folded: train with parametrisation 'positive', or "
            "remove the neurons"
        )


def _neuron(layer: LIF, common: dict[str, Any]) -> ir.Neuron:
    several = layer.multi_spike > 1
    adaptation = None
    if isinstance(layer, ALIF):
        decay, jump = (_floats(layer.get_buffer(name)) for name in ("adaptation_decay", "jump"))
        adaptation = ir.Adaptation(decay, jump, layer.subtracts)
    return ir.Neuron(
        **common,
        decay=_floats(layer.decay),
        threshold=_floats(layer.threshold),
        synapse=_synapse(layer),
        compare="ge",
        reset="subtract" if layer.soft_reset else "value",
        multi_spike=several,
        cap=layer.multi_spike if several else None,
        adaptation=adaptation,
    )


def _synapse(layer: LIF | LI) -> ir.Synapse | None:
    decay = layer.synapse_decay
    return None if decay is None else ir.Synapse("exp_add", _floats(decay), None)


def _norm(name: str, layer: _Norms) -> dict[str, Any]:
    if layer.running_mean is None or layer.running_var is None:
        raise InputError(f"layer '{name}': a norm without running statistics cannot be folded; train with them")
    channels = layer.num_features
    scale = _doubles(layer.weight) if layer.affine else np.ones(channels)
    return {
        "mean": _doubles(layer.running_mean),
        "scale": scale / np.sqrt(_doubles(layer.running_var) + layer.eps),
        "shift": _doubles(layer.bias) if layer.affine else np.zeros(channels),
    }


def _weights(layer: nn.Conv2d | nn.Linear, name: str) -> dict[str, Any]:
    weight = _trained(layer.weight)
    arrays = {"weight": weight, "bias": np.zeros(len(weight)) if layer.bias is None else _doubles(layer.bias)}
    if not all(_is_finite(array) for array in arrays.values()):
        raise InputError(f"layer '{name}': weights are not finite after folding; was the training diverging?")
    return arrays


def _is_finite(array: NDArray[np.floating[Any]]) -> bool:
    with np.errstate(all="ignore"):  # a finite sum has finite terms, and takes no array as large as the weights
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _trained(tensor: Tensor) -> NDArray[np.floating[Any]]:
    """Return a copy in float32 where that holds every value (weights are most of a network), else in float64."""
    kind = np.float64 if tensor.dtype == torch.float64 else np.float32
    return np.array(tensor.detach().cpu().numpy(), kind)


def _doubles(tensor: Tensor) -> Doubles:
    return np.array(tensor.detach().cpu().numpy(), np.float64)


def _floats(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return tensor.detach().cpu().float().numpy().copy()


def _pair(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, Sequence) else (value, value)
    return int(height), int(width)


def _pads(value: Any) -> tuple[tuple[int, int], ...]:
    return tuple((size, size) for size in _pair(value))


def with_numbers(network: L, program: Program) -> L:
    """Return a copy of ``network`` with a folded Program's numbers, without norms and dropout, in evaluation mode."""
    folded = copy.deepcopy(network).cpu().eval()
    for name, layer in list(folded.layers.items()):
        node = program.by_name.get(name)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            folded.remove(name)
        elif isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(node, Conv | Linear):
            bias = np.zeros(len(node.weight), np.float32) if node.bias is None else node.bias
            layer.weight, layer.bias = nn.Parameter(_tensor(node.weight)), nn.Parameter(_tensor(bias))
        elif isinstance(layer, LIF) and isinstance(node, Neuron):
            folded.layers[name] = _lif(layer, node, program.by_name.get(recurrence(name)))
        elif isinstance(layer, LI) and isinstance(node, Neuron) and node.decay is not None:
            folded.layers[name] = _held(LI(layer.shape, **_synapse_of(layer)), node)
    return folded.requires_grad_(False)


def _lif(layer: LIF, node: Neuron, back: object) -> LIF:
    assert node.threshold is not None
    assert node.decay is not None
    kind = RLIF if isinstance(layer, RLIF) else LIF
    rule: dict[str, Any] = {"surrogate": layer.surrogate, "detach_reset": layer.detach_reset}
    rule["reset"] = "subtract" if layer.soft_reset else "zero"
    rule |= {"multi_spike": layer.multi_spike, **_synapse_of(layer)}
    lif = _held(kind(layer.shape, granularity="layer", parametrisation="raw", **rule), node)
    if isinstance(lif, RLIF) and isinstance(back, Linear):
        lif.recurrent.weight = nn.Parameter(_tensor(back.weight))
    theta = node.threshold if node.compare == "ge" else np.nextafter(node.threshold, np.float32(np.inf))
    lif.threshold_parameter = nn.Parameter(_tensor(theta))
    return lif.eval()


def _synapse_of(layer: LI | LIF) -> dict[str, Any]:
    return {"synapse_decay": 0.5} if layer.synaptic else {}


P = TypeVar("P", bound=Population)


def _held(made: P, node: Neuron) -> P:
    """Fix the node's decays in the layer."""
    assert node.decay is not None
    made.hold_decays(_tensor(node.decay), None if node.synapse is None else _tensor(node.synapse.decay))
    return made


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
