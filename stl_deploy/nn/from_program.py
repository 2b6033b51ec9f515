"""Copy the numbers of a folded Program into the layers of its source network."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy.graph.program import Conv, Linear, Neuron, Program
from stl_deploy.nn.neuron import LI, LIF, RLIF
from stl_deploy.nn.population import Population
from stl_deploy.nn.to_program import recurrence

if TYPE_CHECKING:
    from stl_deploy.nn.network import Network


def with_numbers(network: Network, program: Program) -> Network:
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
