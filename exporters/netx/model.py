"""A Program in netx's form: its integers, their file, and runs of the file by the Program's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import ShapeError
from stl_deploy._util.remedies import require_one_of
from stl_deploy.config.options import ThresholdForm
from stl_deploy.errors import ParityError
from stl_deploy.exporters.netx.chain import read_chain
from stl_deploy.exporters.netx.convert import as_stored, run_file, to_file, to_graph
from stl_deploy.exporters.netx.file import read_netx, write_netx
from stl_deploy.exporters.netx.layers import NetxFile, same_file
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Floats, Neuron, Node, Program, Shape
from stl_deploy.integers.building import Hardware
from stl_deploy.integers.net import DECAY_ONE, LOIHI
from stl_deploy.integers.per_pixel import average_thresholds, unroll_convolutions
from stl_deploy.integers.quantise import IntegerModel, in_integers
from stl_deploy.integers.quantise import quantise as choose_integers
from stl_deploy.integers.ranges import WEIGHT_TOPS, LayerRange, first_that_holds, ranges, require_seen
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.simulate import IntegerRun

_PREPARED: Mapping[str, Callable[[Program], Program]] = {
    "projected": average_thresholds,
    "unrolled": unroll_convolutions,
}


@dataclass(frozen=True, eq=False)
class NetxModel:
    """A netx file and its context.

    Attributes:
        file: The layers, by the names of the Program's populations.
        host: The readout after the last spikes, which the host computes in float32.
        input_scale: Factor from real input to integers.
        thresholds: The form of the thresholds.
        shapes: Of the Program's populations; the file's layers may be flat.
        integers: Source of the file; None for a file that was read.
        ranges: Of u and v on calibration data, if measured.
    """

    file: NetxFile
    host: tuple[Node, ...]
    input_scale: float
    thresholds: ThresholdForm
    shapes: Mapping[str, Shape]
    integers: IntegerModel | None = None
    ranges: tuple[LayerRange, ...] = ()

    @cached_property
    def keys(self) -> dict[str, str]:
        """Key ``layer<i>`` of each population of the Program, in order."""
        return {layer.node: key for key, layer in self.file.spiking if layer.node is not None}


@dataclass(frozen=True)
class NetxRun:
    """``y`` ``[T, B, *shape]`` after the host's readout; ``spikes`` by the Program's populations, if recorded."""

    y: Floats
    spikes: Mapping[str, NDArray[np.uint8]]


def quantise(
    program: Program,
    calibration: NDArray[Any],
    *,
    input_scale: float = 1.0,
    thresholds: ThresholdForm = "folded",
    weight_top: int = WEIGHT_TOP,
) -> NetxModel:
    """Choose the integers of a chain as Lava runs them (`stl_deploy.integers.quantise.quantise`).

    weight_top: the largest weight.
    Raises UnsupportedError for what netx cannot hold, InputError for input off the grid or an unknown form.
    """
    require_one_of(thresholds, ThresholdForm, "thresholds")
    prepared = _PREPARED[thresholds](program) if thresholds in _PREPARED else program
    read_chain(prepared)
    hardware = Hardware(thresholds, pixels=False, accumulator=LOIHI, weight_top=weight_top, as_run=as_stored)
    chosen = choose_integers(
        prepared, calibration, input_scale=input_scale, hardware=hardware, host=True, reference=program
    )
    shapes = {node.name: node.shape for node in program.spiking}
    file = to_file(chosen.graph)
    return NetxModel(file, chosen.host, input_scale, thresholds, shapes, chosen)


def export_netx(
    program: Program,
    path: Path,
    *,
    calibration: NDArray[Any],
    input_scale: float = 1.0,
    thresholds: ThresholdForm = "folded",
) -> NetxModel:
    """Quantise ``program``, check u and v, write the netx file, read it back, and compare every number.

    Raises UnsupportedError (also where u or v overflows on calibration data: by node, with the remedy), InputError, or
    ParityError if the file does not hold what was written.
    """
    model = checked_model(program, calibration, input_scale=input_scale, thresholds=thresholds)
    save_netx(model, path)
    return model


def save_netx(model: NetxModel, path: Path) -> None:
    """Write the netx file, read it back, and raise ParityError if it does not hold what was written."""
    write_netx(model.file, path)
    if not same_file(read_netx(path), model.file):
        raise ParityError(f"{path}: the file read back differs from the network that was written")


def checked_model(
    program: Program, calibration: NDArray[Any], *, input_scale: float = 1.0, thresholds: ThresholdForm = "folded"
) -> NetxModel:
    """Quantise ``program`` and measure u and v; raise as `export_netx`, and write nothing.

    Where u or v overflows, weights are chosen smaller; integers that were trained stay.
    """

    def made(weight_top: int) -> NetxModel:
        model = quantise(program, calibration, input_scale=input_scale, thresholds=thresholds, weight_top=weight_top)
        names = {key: node for node, key in model.keys.items()}
        measured = ranges(to_graph(model.file), np.asarray(to_integers(calibration, input_scale), np.int32))
        measured = tuple(replace(layer, node=names[layer.node]) for layer in measured)
        require_seen(measured, input_scale)
        return replace(model, ranges=measured)

    return first_that_holds(made, (WEIGHT_TOP,) if in_integers(program) else WEIGHT_TOPS)


def run_model(model: NetxModel, x: NDArray[Any], *, record: bool = False) -> NetxRun:
    """Run the integers on real input ``x`` ``[T, B, *shape]`` on the input grid."""
    return by_node(model, run_file(model.file, to_integers(x, model.input_scale), record=record))


def by_node(model: NetxModel, run: IntegerRun) -> NetxRun:
    """Return a run of the file (ours, or Lava's) with the host's readout, by the Program's populations."""
    steps, samples = run.y.shape[:2]
    y: Floats = run.y.reshape(steps * samples, *run.y.shape[2:]).astype(np.float32)
    for node in model.host:
        y = apply(node, y)
    for name, key in model.keys.items():
        if key in run.spikes and math.prod(run.spikes[key].shape[2:]) != math.prod(model.shapes[name]):
            shapes = f"{list(model.shapes[name])}; found {list(run.spikes[key].shape[2:])}"
            raise ShapeError(f"node '{name}': expected neurons {shapes}")
    spikes = {
        node: run.spikes[key].reshape(steps, samples, *model.shapes[node])
        for node, key in model.keys.items()
        if key in run.spikes
    }
    return NetxRun(y.reshape(steps, samples, *y.shape[1:]), spikes)


def layer_facts(model: NetxModel, program: Program) -> list[dict[str, Any]]:
    """Return facts of each layer, JSON-ready; ``beta`` is the requested decay, ``beta_held`` its value in 12 bits."""
    layers, facts_by_layer = dict(model.file.spiking), []
    for fit in () if model.integers is None else model.integers.fits:
        key, neuron = model.keys[fit.node], program.by_name[fit.node]
        assert isinstance(neuron, Neuron)
        held = layers[key].neuron
        facts = {
            "node": fit.node,
            "key": key,
            "weight_top": fit.weight_top,
            "threshold_low": int(held.threshold.min()),
            "threshold_high": int(held.threshold.max()),
            "beta": 0.0 if neuron.decay is None else float(neuron.decay.flat[0]),
            "beta_held": float(np.max((DECAY_ONE - held.v_decay) / DECAY_ONE)),
            "spikes_compared": fit.spikes_compared,
            "spikes_differing": fit.spikes_differing,
        }
        facts_by_layer.append(facts)
    return facts_by_layer
