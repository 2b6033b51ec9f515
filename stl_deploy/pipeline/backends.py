"""One way to run anything: a source and a backend's name give a `Result`, keyed by NIR node names where it has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError
from stl_deploy.exporters.integers.scales import ThresholdForm
from stl_deploy.exporters.lava.driver import run_lava
from stl_deploy.exporters.lava.floats import run_lava_float
from stl_deploy.exporters.loihi.export import by_node, export_netx
from stl_deploy.exporters.loihi.netx import read_netx
from stl_deploy.exporters.loihi.quantise import LoihiModel, to_integers
from stl_deploy.exporters.loihi.simulate import IntegerRun, simulate
from stl_deploy.exporters.loihi.structure import structure
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import Result, run
from stl_deploy.pipeline.source import NetworkInput, Source, open_program

Backend = Literal["reference", "onnx", "loihi", "lava"]
Numeric = Literal["fixed", "float"]
CHUNK = 64
"""Samples run at a time, to bound memory."""
CALIBRATION = 256
"""Samples of the input that the integers are chosen by, where no others are given."""


@dataclass(frozen=True)
class Options:
    """How a run is done. record: keep every spiking node's spikes. deadline: seconds, for Lava.

    numeric: of Lava, ``fixed`` the netx file in integers, or ``float`` raw floating-point processes.
    """

    record: bool = False
    thresholds: ThresholdForm = "folded"
    deadline: float = 600.0
    progress: Callable[[int, int], None] | None = None
    numeric: Numeric = "fixed"


def run_backend(
    source: Source, x: NetworkInput, backend: str, options: Options | None = None, dialect: str | None = None
) -> Result:
    """Run ``x`` ``[T, B, *shape]``, or one array for each input, through ``source`` on ``backend``.

    Raises InputError where the backend does not take the source, UnsupportedError where its target cannot hold the
    network, ToolError where Lava is missing or fails.
    """
    options = options or Options()
    if backend not in get_args(Backend):
        raise InputError(f"no backend '{backend}'; accepted: {', '.join(get_args(Backend))}")
    if options.numeric == "float" and (backend != "lava" or source.kind not in ("run", "nir")):
        raise InputError("--numeric float is of --backend lava and takes a run folder or a .nir file")
    if source.kind == "onnx":
        _only(source, backend, ("onnx",))
        opened = OnnxModel.load(source.file)
        return opened.run(x, record=tuple(opened.interface.spikes) if options.record else (), chunk=CHUNK)
    if source.kind == "net":
        _only(source, backend, ("loihi", "lava"))
        x = _one(x, backend)
        return _integer_result(run_net(source.file, x, backend, options), options)
    program = open_program(source, dialect)
    if backend == "reference":
        return run(program, x, record=spiking(program) if options.record else (), chunk=CHUNK)
    if backend == "onnx":
        return _on_onnx(program, x, options)
    x = _one(x, backend)
    if backend == "lava" and options.numeric == "float":
        found = run_lava_float(program, x, deadline=options.deadline, progress=options.progress)
        recorded = {name: np.asarray(s, np.float32) for name, s in found.spikes.items()} if options.record else {}
        return Result({"output": found.y}, recorded)
    with temporary_folder() as folder:
        path = folder / "net.net"
        model = export_netx(
            program,
            path,
            calibration=x[:, :CALIBRATION],
            input_scale=input_scale(program),
            thresholds=options.thresholds,
        )
        return run_model(model, path, x, backend, options)


def _on_onnx(program: Program, x: NetworkInput, options: Options) -> Result:
    with temporary_folder() as folder:
        path = folder / "net.onnx"
        export_onnx(program, path, record=options.record)
        return OnnxModel.load(path).run(x, record=spiking(program) if options.record else (), chunk=CHUNK)


def _one(x: NetworkInput, backend: str) -> NDArray[Any]:
    if isinstance(x, Mapping):
        raise InputError(f"backend '{backend}' takes one input, not {', '.join(x)}; accepted: reference, onnx")
    return x


def run_model(model: LoihiModel, path: Path, x: NDArray[Any], backend: str, options: Options) -> Result:
    """Run an exported Loihi model for real input on its grid; spikes keyed by NIR node names."""
    found = by_node(model, run_net(path, to_integers(x, model.input_scale), backend, options))
    recorded = {name: np.asarray(s, np.float32) for name, s in found.spikes.items()} if options.record else {}
    return Result({"output": found.y}, recorded)


def model_of_file(path: Path, program: Program) -> LoihiModel:
    """A .net file as the Loihi form of ``program``: its layers matched to spiking nodes by the names in the file.

    Raises InputError if the file is not made from this graph, UnsupportedError if the graph has no Loihi form.
    """
    net, names = read_netx(path), spiking(program)
    shapes = {node.name: node.shape for node in program.spiking}
    keys = {layer.node: key for key, layer in net.spiking if layer.node is not None}
    if tuple(keys) != names:
        raise InputError(
            f"{path}: holds layers {', '.join(keys) or 'without names'}; the graph spikes in {', '.join(names)}"
        )
    return LoihiModel(net, keys, structure(program).host, input_scale(program), "folded", (), shapes=shapes)


def run_net(path: Path, x: NDArray[Any], backend: str, options: Options) -> IntegerRun:
    """Run a netx file for whole-number input on our integer model (``loihi``) or on Lava."""
    if backend == "lava":
        return run_lava(path, x, deadline=options.deadline, progress=options.progress)
    return simulate(read_netx(path), x, record=options.record)


def spiking(program: Program) -> tuple[str, ...]:
    """Names of the spiking nodes, in order."""
    return tuple(node.name for node in program.spiking)


def input_scale(program: Program) -> float:
    """Real input times this is whole numbers: the input grid that the graph's metadata declares, else 1."""
    grid = input_grid(program.metadata)
    return 2.0**grid.fraction_bits if grid is not None else 1.0


def _integer_result(found: IntegerRun, options: Options) -> Result:
    recorded = {key: np.asarray(s, np.float32) for key, s in found.spikes.items()} if options.record else {}
    return Result({"output": np.asarray(found.y, np.float32)}, recorded)


def _only(source: Source, backend: str, accepted: tuple[str, ...]) -> None:
    if backend not in accepted:
        raise InputError(f"{source.path}: backend '{backend}' does not take it; accepted: {', '.join(accepted)}")
