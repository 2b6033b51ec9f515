"""Run a Program in floating point on raw Lava processes (Dense, LIFReset): no integers, no netx."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.process import FLOAT_WORKER, Progress, run_worker
from stl_deploy.exporters.netx.chain import Chain, SynapseStage, read_chain
from stl_deploy.exporters.netx.model import NetxRun
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Floats, Program
from stl_deploy.integers.per_pixel import unroll_all
from stl_deploy.integers.scales import real_population


def run_lava_float(
    program: Program, x: NDArray[Any], *, deadline: float = 600.0, progress: Progress | None = None
) -> NetxRun:
    """Run ``x`` ``[T, B, *shape]`` on Lava's floating-point processes, convolutions and pools as dense layers.

    Lava computes in float64: on an exact grid every spike is the reference's. Spikes are keyed by NIR node name.
    Raises UnsupportedError for nodes that Lava's LIF cannot hold or that are too large as dense layers, InputError for
    an input that does not fit, ToolError if Lava is missing, fails or takes too long.
    """
    shape = program.inputs[0].shape
    if x.ndim < 2 or x.shape[2:] != shape or x.size == 0:
        raise InputError(f"expected input [T, B, {', '.join(map(str, shape))}]; found {list(x.shape)}")
    parts = read_chain(unroll_all(program))
    names, layers = _layers(parts)
    python = environment.require()
    with temporary_folder() as folder:
        path = folder / "layers.npz"
        write_npz(path, layers)
        flat = x.reshape(*x.shape[:2], -1).astype(np.float64)
        spikes = run_worker(python, path, flat, deadline=deadline, progress=progress, script=FLOAT_WORKER)
    return _result(program, parts, {name: spikes[f"layer{i}"] for i, name in enumerate(names)})


def _layers(parts: Chain) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Return names of the spiking nodes, and the worker's data of each: weights, bias, threshold, decay."""
    names: list[str] = []
    layers: dict[str, NDArray[Any]] = {}
    for stage in parts.layers:
        if not isinstance(stage, SynapseStage):
            continue
        synapse, neuron, index = stage.synapse, stage.neuron, len(names)
        bias = None if synapse.bias is None else synapse.bias.astype(np.float64)
        real = real_population(neuron, [synapse.weight.astype(np.float64)], bias)
        theta = real.theta if neuron.compare == "gt" else np.nextafter(real.theta, -np.inf)
        layers[f"weight{index}"] = real.weights[0]
        layers[f"bias{index}"] = np.zeros(len(real.theta)) if real.bias is None else real.bias
        layers[f"threshold{index}"] = theta
        layers[f"decay{index}"] = np.array(0.0 if neuron.decay is None else float(neuron.decay.flat[0]))
        names.append(neuron.name)
    return names, layers


def _result(program: Program, parts: Chain, spikes_by_layer: dict[str, NDArray[np.uint8]]) -> NetxRun:
    steps, samples = next(iter(spikes_by_layer.values())).shape[:2]
    y: Floats = list(spikes_by_layer.values())[-1].reshape(steps * samples, -1).astype(np.float32)
    for node in parts.readout:
        y = apply(node, y)
    if not parts.readout:
        y = y.reshape(-1, *program.outputs[0].shape)
    spikes = {name: s.reshape(steps, samples, *program.by_name[name].shape) for name, s in spikes_by_layer.items()}
    return NetxRun(y.reshape(steps, samples, *y.shape[1:]), spikes)
