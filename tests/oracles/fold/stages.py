"""A trained network taken apart for folding: synapses in float64 with their norm already in them, and their neurons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Doubles, Floats
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LIF, RLIF
from stl_deploy.nn.to_program import unsound
from tests.oracles.fold.norm import Norm, fold_norm
from tests.oracles.fold.time import representable_decay


@dataclass
class Synapse:
    """A conv or linear layer: weight ``[out, in, ...]`` and bias ``[out]``, float64 until they are rounded."""

    weight: Doubles
    bias: Doubles


@dataclass
class Population:
    """A LIF layer: θ that broadcasts to its shape, the decay as NIR can hold it, and the synapse right before it.

    recurrent: the synapse that its own spikes come back through, in a recurrent layer.
    """

    threshold: Floats
    decay: float
    synapse: str | None
    recurrent: str | None = None


def recurrence(name: str) -> str:
    """The name of the synapse through which the spikes of layer ``name`` come back to it."""
    return f"{name}_recurrent"


@dataclass
class Stages:
    """The network's layers that hold numbers, by name; passes change them in place."""

    synapses: dict[str, Synapse]
    populations: dict[str, Population]


def take_apart(network: Network) -> Stages:
    """Read the trained numbers, folding each norm into the synapse before it.

    Raises InputError for a network in mode ``ann``, a norm without running statistics or without a synapse
    right before it, a value that is not finite or that no training gives, and thresholds <= 0 (naming the neurons).
    """
    if network.mode == "ann":
        raise InputError("an ANN has no spikes to deploy; train with mode stl, sl or tl")
    if (damage := unsound(network)) is not None:
        raise InputError(f"{damage}, which no training gives; train again, or load whole weights")
    stages = Stages({}, {})
    for name, layer in network.layers.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            stages.synapses[name] = _synapse(layer)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            previous = network.sources[name][0]
            if previous not in stages.synapses:
                raise InputError(f"layer '{name}': a norm folds into the conv or linear right before it; there is none")
            synapse = stages.synapses[previous]
            synapse.weight, synapse.bias = fold_norm(synapse.weight, synapse.bias, _norm(name, layer))
        elif isinstance(layer, LIF):
            stages.populations[name] = _population(name, layer, _synapse_before(network, name))
            if isinstance(layer, RLIF):
                stages.populations[name].recurrent = recurrence(name)
                stages.synapses[recurrence(name)] = _synapse(layer.recurrent)
    for name, synapse in stages.synapses.items():
        if not (np.isfinite(synapse.weight).all() and np.isfinite(synapse.bias).all()):
            raise InputError(f"layer '{name}': weights are not finite after folding; was the training diverging?")
    return stages


def _synapse_before(network: Network, name: str) -> str | None:
    """The synapse that a layer reads, through norms and dropout; None if it reads something else."""
    while (name := network.sources[name][0]) in network.layers:
        layer = network.layers[name]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            return name
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            return None
    return None


def _synapse(layer: nn.Conv2d | nn.Linear) -> Synapse:
    weight = _doubles(layer.weight)
    return Synapse(weight, np.zeros(len(weight)) if layer.bias is None else _doubles(layer.bias))


def _norm(name: str, layer: nn.modules.batchnorm._BatchNorm) -> Norm:
    if layer.running_mean is None or layer.running_var is None:
        raise InputError(f"layer '{name}': a norm without running statistics cannot be folded; train with them")
    channels = layer.num_features
    return Norm(
        mean=_doubles(layer.running_mean),
        var=_doubles(layer.running_var),
        scale=_doubles(layer.weight) if layer.affine else np.ones(channels),
        shift=_doubles(layer.bias) if layer.affine else np.zeros(channels),
        eps=layer.eps,
    )


def _population(name: str, layer: LIF, synapse: str | None) -> Population:
    threshold = layer.threshold.detach().cpu().to(torch.float32).numpy()
    refused = np.argwhere(~(threshold > 0))
    if len(refused):
        listed = ", ".join(str(index.tolist()) for index in refused[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise InputError(
            f"layer '{name}': thresholds <= 0 at {listed}{more} (the first is {threshold[tuple(refused[0])]:g}); such "
            "neurons fire without input, so they cannot be folded: train with parametrisation 'positive', or "
            "remove the neurons"
        )
    beta = float(layer.decay.detach())
    return Population(threshold.copy(), representable_decay(beta), synapse)


def _doubles(tensor: Tensor) -> Doubles:
    return tensor.detach().cpu().to(torch.float64, copy=True).numpy()
