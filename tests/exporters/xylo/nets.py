"""Small Programs that Xylo holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np

from stl_deploy.graph.program import Input, Linear, Neuron, Node, Operand, Output, Program, Synapse

F = np.float32
GRADED = {"input": {"coding": "graded"}}


def neuron(name: str, size: int, sources: tuple[Operand, ...], *, mem: int = 2, syn: int = 1, **fields: Any) -> Neuron:
    """A population with shifts for decays; several spikes a step."""
    synapse = Synapse("exp_add", F(1 - 2.0**-syn), None)
    given: dict[str, Any] = {
        "threshold": F(3),
        "compare": "ge",
        "reset": "subtract",
        "multi_spike": True,
        "synapse": synapse,
    }
    return Neuron(name=name, shape=(size,), operands=sources, decay=F(1 - 2.0**-mem), **given | fields)


def linear(name: str, weight: Any, sources: tuple[Operand, ...]) -> Linear:
    weight = np.asarray(weight, F)
    return Linear(
        name=name, shape=(len(weight),), operands=sources, weight=weight, bias=None, input_shape=weight.shape[1:]
    )


def whole(rng: np.random.Generator, out: int, size: int) -> Any:
    """Integer weights of which each row has one of 127, so that no rescaling moves them."""
    weight = rng.integers(-60, 61, (out, size))
    weight[np.arange(out), rng.integers(0, size, out)] = 127
    return weight


def chain(
    sizes: tuple[int, ...] = (4, 8, 6, 3),
    *,
    seed: int = 0,
    recurrent: bool = True,
    readout: bool = False,
    **fields: Any,
) -> Program:
    """input, (linear, lif) for each size, output; thresholds learned per neuron. readout: the last is an LI.

    recurrent: the first hidden population hears itself a step late. fields: of every hidden population.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Node] = [Input(name="input", shape=(sizes[0],), operands=())]
    for place, (before, size) in enumerate(pairwise(sizes), 1):
        last = place == len(sizes) - 1
        weights = [linear(f"linear{place}", whole(rng, size, before), (Operand(nodes[-1].name),))]
        if recurrent and place == 1 and not last:
            weights.append(linear("back", whole(rng, size, size) // 4, (Operand("lif1", 1),)))
        theta = rng.integers(40, 300, size).astype(F)
        own: dict[str, Any] = {"threshold": theta} | ({} if last else fields)
        if last:
            own |= {"multi_spike": False} | ({"threshold": None} if readout else {})
        nodes += [*weights, neuron(f"lif{place}", size, tuple(Operand(one.name) for one in weights), **own)]
    nodes.append(Output(name="output", shape=nodes[-1].shape, operands=(Operand(nodes[-1].name),)))
    return Program(tuple(nodes), 1e-3, GRADED)


def graph_of(program: Program) -> nir.NIRGraph:
    """The same as a NIR file of Rockpool's dialect would hold it."""
    nodes: dict[str, Any] = {}
    for node in program.nodes:
        if isinstance(node, Input):
            nodes[node.name] = nir.Input({"input": np.array(node.shape)})
        elif isinstance(node, Output):
            nodes[node.name] = nir.Output({"output": np.array(node.shape)})
        elif isinstance(node, Linear):
            nodes[node.name] = nir.Linear(node.weight)
        elif isinstance(node, Neuron):
            assert node.synapse is not None
            assert node.decay is not None
            taus = {"tau_mem": _tau(node.decay, node), "tau_syn": _tau(node.synapse.decay, node)}
            ones = np.ones(node.shape, F)
            common = {**taus, "r": ones, "v_leak": 0 * ones, "w_in": ones}
            if node.threshold is None:
                nodes[node.name] = nir.CubaLI(**common)
            else:
                theta = ones * node.threshold
                nodes[node.name] = nir.CubaLIF(**common, v_threshold=theta, v_reset=0 * ones)
    edges = [(source.node, node.name) for node in program.nodes for source in node.operands]
    spikes = {node.name: {"spikes_per_step": "one"} for node in program.spiking if not node.multi_spike}
    dialect = {"preset": "rockpool", "nodes": spikes} if spikes else {"preset": "rockpool"}
    metadata = {"stl_deploy": {"input": {"coding": "graded"}, "dialect": dialect}}
    return nir.NIRGraph(nodes, edges, metadata=metadata, type_check=False)


def _tau(decay: Any, node: Neuron) -> Any:
    return np.full(node.shape, -1e-3 / np.log(np.float64(decay)), np.float64) * np.ones(node.shape)


def changed(program: Program, name: str, **fields: Any) -> Program:
    """The same with fields of one node replaced."""
    nodes = tuple(replace(node, **fields) if node.name == name else node for node in program.nodes)
    return Program(nodes, program.dt, program.metadata)


def counts(program: Program, *, steps: int = 30, batch: int = 5, seed: int = 1) -> Any:
    """Spike counts that drive a network, ``[T, B, channels]``."""
    rng = np.random.default_rng(seed)
    shape = (steps, batch, *program.inputs[0].shape)
    return rng.integers(0, 4, shape) * (rng.random(shape) < 0.4)
