"""The pipeline's door: export a Program to a netx file, and run it by NIR node names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import ParityError
from stl_deploy.exporters.netx.net import same_net
from stl_deploy.exporters.netx.netx import read_netx, write_netx
from stl_deploy.exporters.netx.quantise import LoihiModel, quantise
from stl_deploy.exporters.netx.ranges import measure_ranges
from stl_deploy.exporters.netx.simulate import Spikes, simulate
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Floats, Program
from stl_deploy.integers.ranges import require_seen
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.scales import ThresholdForm
from stl_deploy.integers.simulate import IntegerRun


@dataclass(frozen=True)
class LoihiRun:
    """``y`` ``[T, B, *shape]`` after the host's readout; ``spikes`` by NIR node name, if recorded."""

    y: Floats
    spikes: Mapping[str, Spikes]


def export_netx(
    program: Program,
    path: Path,
    *,
    calibration: NDArray[Any],
    input_scale: float = 1.0,
    thresholds: ThresholdForm = "folded",
) -> LoihiModel:
    """Quantise ``program`` (see `quantise`), check u and v, write the netx file, read it back, compare every number.

    Raises UnsupportedError (also where u or v overflows on calibration data: by node, with the remedy), InputError, or
    ParityError if the file does not hold what was written.
    """
    model = quantise(program, calibration, input_scale=input_scale, thresholds=thresholds)
    ranges = measure_ranges(model.net, to_integers(calibration, input_scale))
    require_seen(ranges)
    model = replace(model, ranges=ranges)
    write_netx(model.net, path)
    if not same_net(read_netx(path), model.net):
        raise ParityError(f"{path}: the file read back differs from the network that was written")
    return model


def simulate_loihi(model: LoihiModel, x: NDArray[Any], *, record: bool = False) -> LoihiRun:
    """Run the integer model on real input ``x`` ``[T, B, *shape]`` on the input grid."""
    return by_node(model, simulate(model.net, to_integers(x, model.input_scale), record=record))


def by_node(model: LoihiModel, run: IntegerRun) -> LoihiRun:
    """A run of the integer network (ours, or Lava's) with the host's readout, keyed by NIR node names."""
    steps, samples = run.y.shape[:2]
    y: Floats = run.y.reshape(steps * samples, *run.y.shape[2:]).astype(np.float32)
    for node in model.host:
        y = apply(node, y)
    shapes = {node: model.shapes.get(node, run.spikes[key].shape[2:]) for node, key in model.keys.items() if run.spikes}
    spikes = {node: run.spikes[model.keys[node]].reshape(steps, samples, *shape) for node, shape in shapes.items()}
    return LoihiRun(y.reshape(steps, samples, *y.shape[1:]), spikes)
