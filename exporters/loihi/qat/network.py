"""From a folded network to a fake-quantised one, and from that to a plain network of whole numbers.

The plain network needs nothing of quantisation: its weights are whole, and its threshold is the float just above K,
so that folding it gives a graph that fires above K. Post-training quantisation takes such a layer as it is
(`stl_deploy.exporters.integers.scales.is_whole`), and the netx file holds exactly the trained integers.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy.config.schema import ConvSpec, DropoutSpec, LayerSpec, LifSpec, LinearSpec, NormSpec, RunConfig
from stl_deploy.exporters.integers.scales import v_decay
from stl_deploy.exporters.loihi.net import IntegerNet, SpikingLayer
from stl_deploy.exporters.loihi.qat.fake_quant import LoihiLIF, WholeSynapse
from stl_deploy.exporters.loihi.quantise import LoihiModel, real_layer
from stl_deploy.exporters.loihi.structure import SynapseStage, structure
from stl_deploy.graph.program import Program
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LIF

Layers = MutableMapping[str, nn.Module] | nn.ModuleDict


def quantised_network(folded: Network, program: Program, model: LoihiModel) -> Network:
    """``folded``, its layers replaced in place as `quantise_layers` does; program: the graph of ``folded``."""
    quantise_layers(folded.layers, program, model)
    return folded


def quantise_layers(layers: Layers, program: Program, model: LoihiModel) -> None:
    """Replace the layers of a chain by fake-quantised ones that begin at the integers of ``model``.

    layers: by the program's names, a linear or conv layer and a LIF for each population; model: the program in
    integers, one threshold per population. The input stays real; the first synapse rounds it to the model's grid.
    """
    input_scale: float | None = model.input_scale
    for stage in structure(program).stages:
        if not isinstance(stage, SynapseStage):
            continue
        real, rows = real_layer(stage, 1.0), model.scales[stage.neuron.name]
        threshold = max(1, int(_layer(model.net, model.keys[stage.neuron.name]).neuron.threshold))
        (weight,) = real.weights
        weight = weight * (rows / threshold).reshape(-1, *[1] * (weight.ndim - 1))
        bias = np.zeros(len(rows)) if real.bias is None else real.bias * rows / threshold
        like, lif = layers[stage.synapse.name], layers[stage.neuron.name]
        assert isinstance(like, nn.Linear | nn.Conv2d)
        assert isinstance(lif, LIF)
        unit = 2.0 ** round(math.log2(threshold))
        layers[stage.synapse.name] = WholeSynapse(
            like, _tensor(weight), _tensor(bias), threshold / (input_scale or 1), float(threshold), unit, input_scale
        )
        layers[stage.neuron.name] = LoihiLIF(lif, threshold, unit, int(v_decay(stage.neuron)))
        input_scale = None


def _layer(net: IntegerNet, key: str) -> SpikingLayer:
    return dict(net.spiking)[key]


def _tensor(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def whole_config(config: RunConfig, network: Network) -> RunConfig:
    """The configuration of the plain network: no norms, no dropout, biases, one threshold per layer, β in 12 bits."""
    decays = [float(lif.decay.detach()) for _, lif in network.lifs]
    kept = [spec for _, spec in config.layers if not isinstance(spec, NormSpec | DropoutSpec)]
    specs: list[LayerSpec] = []
    for spec in kept:
        if isinstance(spec, ConvSpec | LinearSpec):
            specs.append(spec.model_copy(update={"bias": True}))
        elif isinstance(spec, LifSpec):
            specs.append(spec.model_copy(update={"granularity": "layer", "beta": decays.pop(0), "threshold": 1.0}))
        else:
            specs.append(spec)
    neuron = config.neuron.model_copy(
        update={"parametrisation": "raw", "learn_beta": False, "threshold_jitter": 0.0, "threshold": 1.0}
    )
    return config.model_copy(update={"network": tuple(specs), "neuron": neuron})


@torch.no_grad()
def whole_state(network: Network) -> dict[str, Tensor]:
    """The plain network's state: whole weights (the first layer's for real input), biases and thresholds."""
    state: dict[str, Tensor] = {}
    for name, layer in network.layers.items():
        if isinstance(layer, WholeSynapse):
            weight, bias = layer.numbers()
            state[f"layers.{name}.weight"] = weight * (layer.input_scale or 1)
            state[f"layers.{name}.bias"] = bias.clone()
        elif isinstance(layer, LoihiLIF):
            above = torch.nextafter(layer.whole_threshold, torch.tensor(torch.inf))
            state[f"layers.{name}.threshold_parameter"] = above
            state[f"layers.{name}.threshold_init"] = torch.ones(())
            state[f"layers.{name}._fixed_decay"] = layer.decay
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
