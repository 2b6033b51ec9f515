"""Small networks of every kind that is folded, with numbers that are the same on every machine, and their artifacts."""

from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import nn

import stl_deploy
from stl_deploy.config.load import config_of
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.targets import find_format
from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.program import Program
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LIF
from stl_deploy.pipeline.artifacts import write
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from tests.graph.nets import chain, lif
from tests.pipeline.digest import of_folder, of_hdf5, of_onnx

CONV = {"kind": "conv", "channels": 6, "padding": 1}
_BLOCK = [CONV, {"kind": "norm"}, {"kind": "lif"}]
_END = [{"kind": "flatten"}, {"kind": "linear", "features": 20}, {"kind": "lif"}, {"kind": "vote", "population": 2}]
NETWORKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "sew": (
        [
            *_BLOCK,
            {"kind": "residual", "layers": [*_BLOCK, CONV, {"kind": "dropout", "p": 0.1}, {"kind": "lif"}]},
            {
                "kind": "residual",
                "layers": [CONV | {"channels": 8, "stride": 2}, {"kind": "norm"}, {"kind": "lif"}],
                "shortcut": [
                    {"kind": "conv", "channels": 8, "kernel": 1, "stride": 2},
                    {"kind": "norm"},
                    {"kind": "lif"},
                ],
            },
            {"kind": "pool", "op": "avg"},
            *_END,
        ],
        {},
    ),
    "rlif": (
        [
            {"kind": "flatten"},
            {"kind": "linear", "features": 24, "bias": True},
            {"kind": "rlif"},
            {"kind": "linear", "features": 10},
            {"kind": "li"},
        ],
        {"decay": 0.75},
    ),
    "soft": (
        [
            *_BLOCK,
            {"kind": "pool"},
            CONV | {"bias": True},
            {"kind": "lif", "granularity": "channel"},
            {"kind": "pool", "op": "sum"},
            *_END,
        ],
        {"reset": "subtract", "decay": 0.9},
    ),
    "avg3": ([CONV, {"kind": "lif"}, {"kind": "pool", "op": "avg", "kernel": 3}, *_END], {"decay": 1.0}),
    "norms": (
        [
            CONV,
            {"kind": "norm"},
            {"kind": "lif", "granularity": "channel"},
            {"kind": "pool"},
            CONV | {"channels": 8, "bias": True},
            {"kind": "norm"},
            {"kind": "lif", "granularity": "channel"},
            {"kind": "pool", "op": "avg"},
            {"kind": "flatten"},
            {"kind": "linear", "features": 30},
            {"kind": "norm"},
            {"kind": "lif"},
            {"kind": "dropout"},
            {"kind": "linear", "features": 30, "bias": True},
            {"kind": "lif"},
            {"kind": "vote", "population": 3},
        ],
        {},
    ),
    "sums": (
        [
            CONV | {"channels": 4},
            {"kind": "lif", "decay": 1.0, "granularity": "channel"},
            {"kind": "pool", "op": "sum"},
            {"kind": "flatten"},
            {"kind": "linear", "features": 40},
            {"kind": "norm"},
            {"kind": "lif", "decay": 0.0},
            {"kind": "vote", "population": 4},
        ],
        {"learn_decay": False},
    ),
}


def network(name: str, mode: str = "stl") -> Network:
    """One of `NETWORKS`, with numbers from numpy alone and thresholds that no exponential makes."""
    layers, neuron = NETWORKS[name]
    config = config_of({"dataset": {"name": "digits", "T": 4}, "network": layers, "neuron": neuron})
    net, rng = Network(config, (1, 8, 8), 10), np.random.default_rng(3)
    _fill(net, rng)
    return net.eval()


@torch.no_grad()
def _fill(net: nn.Module, rng: np.random.Generator) -> None:
    for layer in net.modules():
        if isinstance(layer, LIF):
            size = layer.threshold_init.shape
            layer.threshold_init.copy_(torch.from_numpy(rng.integers(24, 48, size) / 32))
        for name, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if "threshold" in name or "decay" in name or not value.is_floating_point():
                continue
            fan_in = float(np.prod(value.shape[1:])) ** 0.5
            drawn = rng.integers(-1000, 1400, value.shape) / 640 / fan_in
            value.copy_(torch.from_numpy(np.abs(drawn) + 0.5 if name in ("running_var", "weight_g") else drawn))


def captured() -> SpikingGraph:
    """A module of plain torch and our neurons, captured."""
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        LIF((4, 8, 8), decay=0.8, learn_threshold=False, stateful=True),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
        LIF((10,), decay=0.7, reset="subtract", learn_threshold=False, stateful=True),
    ).eval()
    _fill(module, np.random.default_rng(4))

    def rest() -> None:
        for layer in module:
            if isinstance(layer, LIF):
                layer.reset()

    return stl_deploy.capture(module, images(), time="step", reset=rest)


def foreign() -> nir.NIRGraph:
    """A file of someone else's: leaks, reset values, a scale, thresholds of each neuron."""
    rng = np.random.default_rng(5)
    first, last = lif((12,), v_leak=0.25, tau=3e-4), lif((5,), v_reset=0.125, tau=5e-4)
    first.v_threshold = (rng.integers(24, 48, 12) / 32).astype(np.float32)
    last.v_threshold = (rng.integers(24, 48, 5) / 32).astype(np.float32)
    return chain(
        [16],
        nir.Affine(rng.integers(-99, 120, (12, 16)) / np.float32(97), rng.integers(-9, 9, 12) / np.float32(31)),
        nir.Scale((rng.integers(9, 20, 12) / 16).astype(np.float32)),
        first,
        nir.Linear(rng.integers(-99, 140, (5, 12)) / np.float32(89)),
        last,
    )


def images() -> np.ndarray[Any, np.dtype[np.float32]]:
    """``[4, 8, 1, 8, 8]``, multiples of 1/16."""
    drawn = np.random.default_rng(6).integers(0, 17, (1, 8, 1, 8, 8)) / 16
    return np.repeat(drawn, 4, axis=0).astype(np.float32)


def digests(folder: Path) -> dict[str, Any]:
    """The digest of every artifact, by network and file."""
    found: dict[str, Any] = {}
    for name in NETWORKS:
        for thresholds in ("keep", "weights") if name in ("rlif", "soft", "norms") else ("keep",):
            key = name if thresholds == "keep" else f"{name}, {thresholds}"
            folded = fold(network(name), coding="analog", fraction_bits=4, thresholds=thresholds)  # type: ignore[arg-type]
            write_nir(folded.graph, folder / f"{key}.nir")
            found |= _artifacts(folder, key, lower(read_nir(folder / f"{key}.nir")))
    net = captured()
    write_nir(net.graph, folder / "captured.nir")
    found |= _artifacts(folder, "captured", net.program)
    net = SpikingGraph(foreign(), Dialect()).fold(thresholds="weights", input_grid=4)
    write_nir(net.graph, folder / "foreign.nir")
    found |= _artifacts(folder, "foreign", net.program)
    return found


def _artifacts(folder: Path, name: str, program: Program) -> dict[str, str]:
    found = {f"{name}.nir": of_hdf5(folder / f"{name}.nir")}
    shape = program.inputs[0].shape
    x = images().reshape(4, -1, *shape)
    x = x if input_grid(program.metadata) is not None else np.round(x)
    for target, suffix, digest in (("onnx", ".onnx", of_onnx), ("netx", ".net", of_hdf5), ("c", "_c", of_folder)):
        path = folder / f"{name}{suffix}"
        try:
            write(program, find_format(target), path, calibration=lambda: x, x=x)
        except UnsupportedError as error:
            found[path.name] = f"refused: {error.slug} at {error.node}"
        else:
            found[path.name] = digest(path)
    return found
