"""Networks to measure: trained runs, the paper's MNIST net, a residual and a recurrent one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.exact import Grid
from stl_deploy.graph.program import Conv, Floats, Input, Linear, Neuron, Operand, Output, Pool, Program, Reshape
from stl_deploy.nn.network import Network
from stl_deploy.passes.exact_grids import finest_exact_grid
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.runs.inputs import encode_split, input_spec
from stl_deploy.training.checkpoint import load_network

GRID, FLOAT = "exact grid", "float weights"
TRAINED = "trained"
_LIVELY = 3.0
"""Untrained dense layers are drawn with this standard deviation times 1/sqrt(fan in), so that all layers spike."""


@dataclass(frozen=True, eq=False)
class Case:
    """A network on the exact grid and with its weights as they are, and input ``x`` ``[T, B, *shape]`` for both.

    labels: ``[B]``, if the network is trained.
    """

    name: str
    weights: str
    programs: Mapping[str, Program]
    x: Floats
    source: str
    labels: NDArray[np.int64] | None = None


def trained(run_dir: Path, samples: int) -> Case:
    """The network of a run folder, named as the folder, on the first ``samples`` test images."""
    network, config = load_network(run_dir)
    return _folded(run_dir.resolve().name, TRAINED, network, config, samples)


def paper_mnist(data_dir: Path, samples: int) -> Case:
    """The paper's MNIST net, untrained, on the first ``samples`` test images."""
    config = apply_overrides(load_config("mnist"), [f"dataset.data_dir={data_dir / 'mnist'}", "neuron.jitter=0.2"])
    return _folded("paper's MNIST net", "untrained", untrained(config), config, samples)


def untrained(config: RunConfig) -> Network:
    """A network with drawn weights whose layers all spike: norms have seen images, dense layers are drawn wider."""
    torch.manual_seed(0)
    data = load_dataset(config.dataset)
    network = Network(config, data.input_shape, data.classes)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=_LIVELY / module.in_features**0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.from_numpy(encode_split(config, data.train, 32).x))
    return network.eval()


def _folded(name: str, weights: str, network: Network, config: RunConfig, samples: int) -> Case:
    data = load_dataset(config.dataset)
    test = encode_split(config, data.test, samples)
    programs = {what: folded_program(network, config, data.test.levels, what == GRID) for what in (GRID, FLOAT)}
    labels = test.labels if weights == TRAINED else None
    return Case(name, weights, programs, test.x, f"{test.x.shape[1]:,} {config.dataset.name} test images", labels)


def folded_program(network: Network, config: RunConfig, levels: int, exact_grid: bool) -> Program:
    """Fold, write, read back and lower."""
    spec = input_spec(config, levels)
    graph = fold(network, coding=spec.coding, fraction_bits=spec.fraction_bits, exact_grid=exact_grid).graph
    with TemporaryDirectory() as folder:
        write_nir(graph, Path(folder) / "net.nir")
        return lower(read_nir(Path(folder) / "net.nir"))


def residual() -> Case:
    """Two residual blocks of convolutions, spikes added to currents, on the digits' test images."""
    return _drawn("residual net", _residual)


def recurrent() -> Case:
    """Two populations, each fed by its own last spikes through a full matrix, on the digits' rows as steps."""
    return _drawn("recurrent net", _recurrent)


def _drawn(name: str, make: Callable[[bool], Program]) -> Case:
    programs = {GRID: make(True), FLOAT: make(False)}
    config = load_config("digits")
    test = encode_split(config, load_dataset(config.dataset).test)
    x = test.x
    if programs[GRID].inputs[0].shape == (8,):
        rows = np.tile(x[0, :, 0].transpose(1, 0, 2), (4, 1, 1))
        x = np.ascontiguousarray(rows)
    return Case(name, "drawn", programs, x, f"{x.shape[1]:,} digits test images")


class _Draw:
    """Nodes with weights from a seed: normal, and on the exact grid if asked."""

    def __init__(self, on_grid: bool, shape: tuple[int, ...]) -> None:
        self.on_grid = on_grid
        self.rng = np.random.default_rng(0)
        self.nodes: list[Input | Conv | Linear | Neuron | Pool | Reshape | Output] = [
            Input(name="input", shape=shape, operands=())
        ]

    def weights(self, name: str, shape: tuple[int, ...], gain: float, arriving: Grid) -> tuple[Floats, Floats]:
        weight = self.rng.normal(0.03, 1, shape) * gain / np.sqrt(np.prod(shape[1:]))
        bias = self.rng.normal(0, 0.1, shape[0])
        if self.on_grid:
            return finest_exact_grid(name, weight, bias, arriving)[:2]
        return weight.astype(np.float32), bias.astype(np.float32)

    def conv(self, name: str, source: str, channels: int, gain: float, arriving: Grid) -> str:
        shape = self._shape(source)
        weight, bias = self.weights(name, (channels, shape[0], 3, 3), gain, arriving)
        self.nodes.append(
            Conv(
                name=name,
                shape=(channels, *shape[1:]),
                operands=(Operand(source),),
                weight=weight,
                bias=bias,
                stride=(1, 1),
                padding=((1, 1), (1, 1)),
                dilation=(1, 1),
                groups=1,
                input_shape=shape,
            )
        )
        return name

    def linear(self, name: str, source: Operand, features: int, inputs: int, gain: float, arriving: Grid) -> str:
        weight, bias = self.weights(name, (features, inputs), gain, arriving)
        self.nodes.append(
            Linear(name=name, shape=(features,), operands=(source,), weight=weight, bias=bias, input_shape=(inputs,))
        )
        return name

    def lif(self, name: str, *sources: Operand) -> str:
        shape = self._shape(sources[0].node)
        theta = self.rng.uniform(0.6, 1.4, (shape[0], *(1,) * (len(shape) - 1))).astype(np.float32)
        self.nodes.append(
            Neuron(
                name=name, shape=shape, operands=sources, decay=np.array(0.7, np.float32), threshold=theta, compare="ge"
            )
        )
        return name

    def _shape(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == name)

    def program(self, last: str) -> Program:
        self.nodes.append(Output(name="output", shape=self._shape(last), operands=(Operand(last),)))
        grid = {"coding": "analog", "fraction_bits": 4, "max": 1.0}
        return Program(tuple(self.nodes), 1e-4, {"input": grid})


_IMAGE, _SPIKES = Grid(4, 1.0), Grid(0, 1.0)
_SHARED = Grid(4, 8.0)
"""For layers whose outputs a neuron adds up: one grid for both, with bits to spare for their sum."""


def _residual(on_grid: bool) -> Program:
    draw = _Draw(on_grid, (1, 8, 8))
    spikes = draw.lif("lif0", Operand(draw.conv("conv0", "input", 16, 4, _IMAGE)))
    for block in ("a", "b"):
        inner = draw.lif(f"{block}.lif1", Operand(draw.conv(f"{block}.conv1", spikes, 16, 2, _SPIKES)))
        back = draw.conv(f"{block}.conv2", inner, 16, 2, _SPIKES)
        spikes = draw.lif(f"{block}.lif2", Operand(back), Operand(spikes))
    draw.nodes.append(Reshape(name="flat", shape=(1024,), operands=(Operand(spikes),), input_shape=(16, 8, 8)))
    return draw.program(draw.lif("lif", Operand(draw.linear("fc", Operand("flat"), 10, 1024, 3, _SPIKES))))


def _recurrent(on_grid: bool) -> Program:
    draw = _Draw(on_grid, (8,))
    source, inputs = "input", 8
    for layer in ("a", "b"):
        forward = draw.linear(f"{layer}.in", Operand(source), 64, inputs, 3, _SHARED)
        # the neuron reads its own loop, which comes after it
        source = draw.lif(f"{layer}.lif", Operand(forward), Operand(f"{layer}.loop", 1))
        draw.linear(f"{layer}.loop", Operand(source), 64, 64, 2, _SHARED)
        inputs = 64
    return draw.program(draw.lif("lif", Operand(draw.linear("fc", Operand(source), 10, 64, 3, _SPIKES))))
