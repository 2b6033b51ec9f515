"""Convert a folded network to a fake-quantised one, and that to a plain network of integers.

The plain network needs nothing of quantisation: its weights are whole, and its threshold is the float just above K,
so that folding it gives a graph that fires above K. Post-training quantisation takes such a layer as it is
(`stl_deploy.integers.scales.candidates`), and the netx file or C program holds exactly the trained integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy.config.schema import (
    ConvSpec,
    DropoutSpec,
    LayerSpec,
    LifSpec,
    LinearSpec,
    LiSpec,
    NormSpec,
    ResidualSpec,
    RunConfig,
)
from stl_deploy.errors import ParityError
from stl_deploy.graph.program import Conv, Doubles, Input, Linear, Neuron, Node, Program, is_spike_max_pool
from stl_deploy.integers.fan_in import Value, fan_in, values
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.graph import ConvNode, DenseNode, IntegerGraph, IntegerLIF
from stl_deploy.integers.lava_layers import require_trainable
from stl_deploy.integers.net import DECAY_ONE
from stl_deploy.integers.qat.fake_quant import LoihiLIF, WholeReadout, WholeSynapse
from stl_deploy.integers.quantise import IntegerModel
from stl_deploy.integers.real_population import real_population
from stl_deploy.integers.real_weights import real_weights, split_biases
from stl_deploy.integers.scales import WEIGHT_TOP, v_decay
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LI, LIF
from stl_deploy.nn.population import Population
from stl_deploy.passes.base import by_row

Layers = MutableMapping[str, nn.Module] | nn.ModuleDict


def quantised_network(
    folded: Network, program: Program, start: IntegerModel, *, host: bool, weight_top: int = WEIGHT_TOP
) -> Network:
    """Replace the layers of ``folded`` in place, as `quantise_layers` does; program: the graph of ``folded``.

    Raises UnsupportedError for what does not train in integers.
    """
    require_trainable(program)
    quantise_layers(folded.layers, program, start, host=host, weight_top=weight_top)
    return folded


def quantise_layers(
    layers: Layers, program: Program, start: IntegerModel, *, host: bool, weight_top: int = WEIGHT_TOP
) -> None:
    """Replace layers by fake-quantised ones that begin at the integers of ``start``.

    layers: by the program's names, linear and conv layers, a LIF for each population, a LI for neurons without
    threshold; start: the program in integers, one threshold per population. The input stays real; the first synapse
    rounds it to the grid. host: readouts stay real, for the host computes them. weight_top: the largest weight.
    The program is trainable (`stl_deploy.integers.lava_layers.require_trainable`). Raises UnsupportedError for readouts
    that integers do not hold.
    """
    known = values(program, start.graph.input.scale)
    for neuron in program.spiking:
        if not is_spike_max_pool(program, neuron):
            _quantise_population(layers, program, neuron, known, start, weight_top)
    if host:
        return
    for node in program.nodes:
        if isinstance(node, Linear | Conv):
            like = layers[node.name]
            if isinstance(like, nn.Linear | nn.Conv2d):
                layers[node.name] = WholeReadout(like)
        elif isinstance(node, Neuron) and not node.spiking:
            layers[node.name] = LI(node.shape, decay=(DECAY_ONE - _integrator_decay(node)) / DECAY_ONE)


def require_same_integers(layers: Layers, graph: IntegerGraph) -> None:
    """Raise ParityError if a population of ``graph`` lacks the integers that ``layers`` trained.

    layers: by the names of the graph's nodes, as `quantise_layers` leaves them.
    """
    modules = dict(layers.items())
    for node in graph.populations:
        lif = modules.get(node.name)
        if isinstance(lif, LoihiLIF):
            differing = [what for what, fits in _compared(modules, graph, node, lif) if not fits]
            if differing:
                raise ParityError(
                    f"'{node.name}': {differing[0]} of the exported integers differs from the one that was trained"
                )


def _compared(layers: Layers, graph: IntegerGraph, node: IntegerLIF, lif: LoihiLIF) -> Iterator[tuple[str, bool]]:
    """Yield a population's properties, and whether each equals the trained one."""
    synapses = [layers[source.node] for source in node.operands]
    bias: NDArray[Any] | None = None
    for source, synapse in zip(node.operands, synapses, strict=True):
        weights = graph.by_name[source.node]
        assert isinstance(synapse, WholeSynapse)
        assert isinstance(weights, DenseNode | ConvNode)
        trained, own = synapse.numbers()
        bias = bias if own is None else _whole(own)
        yield f"the weight of '{source.node}'", np.array_equal(weights.weight, _whole(trained))
    held = np.zeros(()) if node.bias is None else node.bias.reshape(-1)
    yield "the bias", bool((held == (0 if bias is None else bias)).all())
    yield "the threshold", bool((node.neuron.threshold == _whole(lif.whole_threshold)).all())
    yield "the decay", bool(np.all(node.neuron.v_decay == lif.v_decay))


def _whole(numbers: Tensor) -> NDArray[np.int64]:
    integers: NDArray[np.int64] = numbers.detach().cpu().numpy().astype(np.int64)
    return integers


def _quantise_population(
    layers: Layers, program: Program, neuron: Neuron, known: dict[str, Value], start: IntegerModel, weight_top: int
) -> None:
    paths = fan_in(program, neuron, known)
    real = real_population(neuron, real_weights(paths, neuron), split_biases(paths, neuron)[0])
    population, rows = start.graph.by_name[neuron.name], start.row_scales[neuron.name]
    assert isinstance(population, IntegerLIF)
    threshold = max(1, int(population.neuron.threshold))
    unit, first = 2.0 ** round(math.log2(threshold)), None
    for leaf, weight in zip(paths.leaves, real.weights, strict=True):
        node = leaf.node
        assert node is not None
        like = layers[node.name]
        assert isinstance(like, nn.Linear | nn.Conv2d)
        bias = np.zeros(len(rows)) if real.bias is None else real.bias * rows / threshold
        weight = weight / leaf.unit * by_row(rows / threshold, weight.ndim)
        entering = 1 / leaf.unit if leaf.unit != 1 or _reads_input(program, node) else None
        synapse = WholeSynapse(
            like,
            _tensor(weight),
            _tensor(bias) if first is None else None,
            threshold * leaf.unit,
            float(threshold),
            unit,
            entering,
            start.graph.accumulator,
            weight_top,
        )
        if first is None:
            first = synapse
        else:
            synapse.beside(first)
        layers[node.name] = synapse
    lif = layers[neuron.name]
    assert isinstance(lif, LIF)
    layers[neuron.name] = LoihiLIF(lif, threshold, unit, int(v_decay(neuron)), start.graph.accumulator)


def _reads_input(program: Program, node: Node) -> bool:
    before = [program.by_name[source.node] for source in node.operands]
    return any(
        isinstance(source, Input) or (not isinstance(source, Neuron) and _reads_input(program, source))
        for source in before
    )


def _integrator_decay(node: Neuron) -> int:
    lost = v_decay(node)
    if node.decay is None or not isinstance(lost, int) or node.gain is not None or node.offset is not None:
        refuse(node, "readout", "it is no plain leaky integrator", "read out with v = β·v + x, one β for all")
    if node.synapse is not None:
        refuse(node, "synapse", "it has a synaptic current", "use neurons without synaptic current")
    return lost


def _tensor(numbers: Doubles) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))


def whole_config(config: RunConfig, network: Network) -> RunConfig:
    """Return the plain network's configuration: no norms, no dropout, biases, one threshold per layer, 12-bit β."""
    decays = [float(layer.decay.detach()) for layer in network.layers.values() if isinstance(layer, Population)]
    specs = _whole_specs([spec for _, spec in config.layers], decays)
    neuron = config.neuron.model_copy(
        update={"parametrisation": "raw", "learn_decay": False, "jitter": 0.0, "threshold": 1.0}
    )
    return config.model_copy(update={"network": specs, "neuron": neuron})


def _whole_specs(specs: Iterable[LayerSpec], decays: list[float]) -> tuple[LayerSpec, ...]:
    """Return the plain specs. decays: of the populations to come, in order; those of ``specs`` are taken off."""
    specs_of_integers: list[LayerSpec] = []
    for spec in specs:
        if isinstance(spec, NormSpec | DropoutSpec):
            continue
        update: dict[str, object] = {}
        if isinstance(spec, ConvSpec | LinearSpec):
            update = {"bias": True}
        elif isinstance(spec, LifSpec):
            update = {"granularity": "layer", "decay": decays.pop(0), "threshold": 1.0}
        elif isinstance(spec, LiSpec):
            update = {"decay": decays.pop(0)}
        elif isinstance(spec, ResidualSpec):
            update = {"layers": _whole_specs(spec.layers, decays)}
            update["shortcut"] = _whole_specs(spec.shortcut, decays)
        specs_of_integers.append(spec.model_copy(update=update))
    return tuple(specs_of_integers)


def plain_numbers(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weights and biases of the plain layer, whose input is not scaled."""
    if isinstance(layer, WholeSynapse):
        weight, bias = layer.numbers()
        return weight * (layer.input_scale or 1), bias
    if isinstance(layer, WholeReadout):
        return layer.numbers()
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer.weight, layer.bias


@torch.no_grad()
def whole_state(network: Network) -> dict[str, Tensor]:
    """Return the plain network's state: integer weights (scaled for real input and averages), biases, thresholds."""
    state: dict[str, Tensor] = {}
    for name, layer in network.layers.items():
        if isinstance(layer, WholeSynapse | WholeReadout):
            weight, bias = plain_numbers(layer)
            assert bias is not None
            state[f"layers.{name}.weight"], state[f"layers.{name}.bias"] = weight, bias.clone()
        elif isinstance(layer, LoihiLIF):
            above = torch.nextafter(layer.whole_threshold, torch.tensor(torch.inf))
            state[f"layers.{name}.threshold_parameter"] = above
            state[f"layers.{name}.threshold_init"] = torch.ones(())
        if isinstance(layer, Population):
            state[f"layers.{name}._fixed_decay"] = layer.decay
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
