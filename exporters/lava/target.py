"""Lava's CPU simulation as a Runner, and a Program in floats on raw Lava processes (Dense, LIFReset), without netx."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.remedies import option
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.process import FLOAT_WORKER, Progress, run_worker
from stl_deploy.exporters.netx.chain import Chain, SynapseStage, read_chain
from stl_deploy.exporters.netx.file import read_netx, write_netx
from stl_deploy.exporters.netx.layers import InputLayer, NetxFile
from stl_deploy.exporters.netx.model import NetxRun
from stl_deploy.exporters.netx.target import Loihi, NetxOptions
from stl_deploy.exporters.targets import Model, Network
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.integers.per_pixel import unroll_all
from stl_deploy.integers.real_population import real_population
from stl_deploy.integers.simulate import IntegerRun, as_integers


@dataclass(frozen=True, kw_only=True, eq=False)
class LavaOptions(NetxOptions):
    """numeric: ``fixed``, the netx file in integers, or ``float``, raw floating-point processes."""

    numeric: Literal["fixed", "float"] = "fixed"


class Lava(Loihi):
    """Run the integers of a Program, or of a netx file, on Lava's CPU simulation in its side environment."""

    name = "lava"
    description = "Lava's CPU simulation in its side environment (simulated; not the chip)"
    reads = ("netx",)
    options = LavaOptions
    agrees_with: Model | None = "loihi"

    def __init__(self, network: Network, options: LavaOptions) -> None:
        super().__init__(network, options)
        self._lava = options
        if options.numeric == "float":
            self.agrees_with = None
            if isinstance(network, Path):
                raise InputError(
                    f"{network}: expected a run folder or a .nir file for {option('numeric', 'float')}; found integers"
                )

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        status = environment.status()
        return None if status.ready else status.reason

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; raises ToolError if Lava is missing, fails or takes too long."""
        if self._lava.numeric == "fixed" or self._program is None:
            return super().run(x, record)
        options = self._lava
        result = run_lava_float(self._program, np.asarray(x), deadline=options.deadline, progress=options.progress)
        spikes = {name: np.asarray(s, np.float32) for name, s in result.spikes.items()}
        return Result({"output": result.y}, spikes if record else {})

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file, or the file itself if there is one, on integers ``x``."""
        if self._path is not None:
            return self._run_lava(self._path, x)
        with temporary_folder() as folder:
            write_netx(file, folder / "net.net")
            return self._run_lava(folder / "net.net", x)

    def _run_lava(self, path: Path, x: NDArray[Any]) -> IntegerRun:
        return run_lava(path, x, deadline=self._lava.deadline, progress=self._lava.progress)


def run_lava(
    net_path: Path, x: NDArray[Any], *, deadline: float = 600.0, progress: Progress | None = None
) -> IntegerRun:
    """Run a ``.net`` file on Lava's CPU simulation for integers ``x`` ``[T, B, *input shape]``.

    deadline: seconds without progress after which the run is ended. The result has every layer's spikes, as
    `stl_deploy.exporters.netx.convert.run_file` gives them with ``record=True``.
    Raises InputError for a bad file or input, ToolError if Lava is missing, fails or takes too long.
    """
    net = read_netx(net_path)
    first = net.layers[0]
    if isinstance(first, InputLayer) and first.neuron is not None:
        raise InputError(
            f"{net_path}: x is the bias of its input layer's neurons, which is not set on real Lava here; use our "
            f"integer model ({option('backend', 'loihi')})"
        )
    x = as_integers(x, net.input_shape)
    python = environment.require()
    spikes = run_worker(python, net_path, x, deadline=deadline, progress=progress)
    expected = {key: (*x.shape[:2], *layer.shape) for key, layer in net.spiking}
    shapes = {key: array.shape for key, array in spikes.items()}
    if shapes != expected:
        raise ToolError(f"expected arrays {expected} from Lava; found {shapes}")
    return IntegerRun(spikes[list(expected)[-1]], {key: spikes[key] for key in expected})


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


TARGETS = (Lava,)
