"""Place neurons onto cores, and report every excess over a limit of the chip (``chips.toml``).

**Model.** A core holds consecutive neurons of one layer, in (C, H, W) order. One byte per synapse (the 8-bit weight
alone: indices and headers come on top, so memory is a lower bound); convolutions unrolled, kernels not shared. One
input axon per neuron of the layer before that reaches the core. One output axon per neuron and core of the next layer
that it reaches (the last layer's: one each). ``simple`` fills one core after the other; ``balanced`` spreads a
layer evenly over as many cores as ``simple`` takes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.chain import FlattenStage, PoolStage, SynapseStage, read_chain
from stl_deploy.graph.placement import PlacedCore, Placement
from stl_deploy.graph.program import Conv, Linear, Pool, Program

Way = Literal["simple", "balanced"]
RESOURCES = ("neurons", "in_axons", "out_axons", "synapse_bytes")
"""Resources of a core that are counted."""
AT_ONCE = 2**25
"""Pairs of a core and an input that are looked at together."""


@dataclass(frozen=True)
class Excess:
    """A resource over its limit: needed and allowed.

    kind: ``neuron``, where not even one fits on a core; ``thresholds``, which take no room once they are folded;
    else ``core`` or ``chip``.
    """

    what: str
    needed: int
    limit: str
    kind: Literal["neuron", "thresholds", "core", "chip"]

    def __str__(self) -> str:
        return f"{self.what}: {self.needed:,} needed, the limit is {self.limit}"


@dataclass(frozen=True)
class Placed:
    """A placement of a Program on a chip, and its excesses by node (None: the chip as a whole)."""

    chip: str
    placement: Placement
    excess: tuple[tuple[str | None, Excess], ...]


@dataclass(frozen=True, eq=False)
class _Layer:
    node: str
    synapse: Linear | Conv | Pool
    neurons: int
    fan_in: int
    theta: NDArray[Any]

    def in_axons(self, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return distinct neurons (or inputs) that reach the neurons from each cut to the next."""
        if isinstance(self.synapse, Linear):
            return np.full(len(cuts) - 1, self.fan_in)
        shared = self.synapse.input_shape[0] // _groups(self.synapse)
        return np.concatenate([part.sum(axis=(1, 2, 3)) for part in _reached(self.synapse, cuts)]) * shared

    def fed(self, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many cores, from each cut to the next, each neuron (or input) before the layer reaches."""
        if isinstance(self.synapse, Linear):
            return np.full(self.fan_in, len(cuts) - 1)
        by_group = sum(part.sum(axis=0) for part in _reached(self.synapse, cuts))
        return np.repeat(by_group, self.synapse.input_shape[0] // _groups(self.synapse), axis=0).reshape(-1)

    def simple(self, size: int) -> NDArray[np.int64]:
        """Cut after every ``size`` neurons."""
        return np.append(np.arange(0, self.neurons, size), self.neurons)


def place(program: Program, chip: Chip, way: Way = "simple") -> Placed:
    """Place a Program; raise UnsupportedError if Loihi cannot hold its structure at all."""
    layers = list(_layers(program))
    excess: list[tuple[str | None, Excess]] = []
    cuts = []
    for layer in layers:
        size, over = _block(layer, chip)
        excess += [(layer.node, item) for item in over]
        cut = layer.simple(size)
        cuts.append(np.linspace(0, layer.neurons, len(cut)).astype(int) if way == "balanced" else cut)
    feeds = [layer.fed(cut) for layer, cut in zip(layers[1:], cuts[1:], strict=True)]
    feeds.append(np.ones(layers[-1].neurons, int))
    cores = [core for layer, cut, fed in zip(layers, cuts, feeds, strict=True) for core in _cores(layer, cut, fed)]
    excess += list(_over(chip, cores, layers))
    return Placed(chip.key, Placement(way, tuple(cores)), tuple(excess))


def _layers(program: Program) -> Iterator[_Layer]:
    for stage in read_chain(program).layers:
        if isinstance(stage, FlattenStage):
            continue
        neuron = stage.neuron
        assert neuron.threshold is not None
        theta = np.broadcast_to(neuron.threshold, neuron.shape).reshape(-1)
        if isinstance(stage, PoolStage):
            yield _Layer(neuron.name, stage.pool, theta.size, int(np.prod(stage.pool.kernel)), theta)
        elif isinstance(stage, SynapseStage):
            yield _Layer(neuron.name, stage.synapse, theta.size, stage.synapse.weight[0].size, theta)


def _block(layer: _Layer, chip: Chip) -> tuple[int, list[Excess]]:
    """Return the most neurons of a layer on one core, at least 1, and the limits that even one neuron exceeds."""
    over = []
    size = layer.neurons
    per_core, memory, axons = (
        chip.value(name) for name in ("neurons_per_core", "synapse_bytes_per_core", "in_axons_per_core")
    )
    if per_core is not None:
        size = min(size, per_core)
    if memory is not None:
        if layer.fan_in > memory:
            limit = str(chip.limits["synapse_bytes_per_core"])
            over.append(Excess("synapse memory of one neuron, bytes", layer.fan_in, limit, "neuron"))
        size = max(1, min(size, memory // layer.fan_in))
    if axons is not None:
        alone = int(layer.in_axons(np.array([0, 1]))[0])
        if alone > axons:
            over.append(Excess("input axons of one neuron", alone, str(chip.limits["in_axons_per_core"]), "neuron"))
        else:
            while size > 1 and layer.in_axons(layer.simple(size)).max() > axons:
                size = max(1, size * 9 // 10)
    return size, over


def _cores(layer: _Layer, cuts: NDArray[np.int64], fed: NDArray[np.int64]) -> Iterator[PlacedCore]:
    """Yield the cores. fed: of each neuron, how many cores of the next layer it reaches."""
    for first, last, in_axons in zip(cuts[:-1].tolist(), cuts[1:].tolist(), layer.in_axons(cuts).tolist(), strict=True):
        neurons = last - first
        thresholds = len(np.unique(layer.theta[first:last]))
        amounts = (neurons, in_axons, int(fed[first:last].sum()), neurons * layer.fan_in)
        yield PlacedCore(layer.node, first, last, dict(zip(RESOURCES, amounts, strict=True)), thresholds)


def _over(chip: Chip, cores: list[PlacedCore], layers: list[_Layer]) -> Iterator[tuple[str | None, Excess]]:
    """Yield the excesses of the cores, worst core of each layer, and of the chip as a whole."""
    for layer in layers:
        own = [core for core in cores if core.node == layer.node]
        outputs, thresholds = max(core.used["out_axons"] for core in own), max(core.thresholds for core in own)
        checks: tuple[tuple[str, str, int, Literal["core", "thresholds"]], ...] = (
            ("output axons of one core", "out_axons_per_core", outputs, "core"),
            ("thresholds of one core as trained", "thresholds_per_core", thresholds, "thresholds"),
        )
        for what, limit, most, kind in checks:
            value = chip.value(limit)
            if value is not None and most > value:
                yield layer.node, Excess(what, most, str(chip.limits[limit]), kind)
    for what, limit, total in (
        ("cores", "cores", len(cores)),
        ("neurons", "neurons_per_chip", sum(layer.neurons for layer in layers)),
        ("synapses", "synapses_per_chip", sum(core.used["synapse_bytes"] for core in cores)),
    ):
        value = chip.value(limit)
        if value is not None and total > value:
            yield None, Excess(what, total, str(chip.limits[limit]), "chip")


def _groups(node: Conv | Pool) -> int:
    return node.groups if isinstance(node, Conv) else node.input_shape[0]


def _reached(node: Conv | Pool, cuts: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """Yield the image places that a conv's or pool's outputs from each cut to the next read, some cuts at a time."""
    groups = _groups(node)
    step = max(1, AT_ONCE // (groups * node.input_shape[1] * node.input_shape[2]))
    return (_read(node, groups, cuts[i : i + step + 1]) for i in range(0, len(cuts) - 1, step))


def _read(node: Conv | Pool, groups: int, cuts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return ``[cores, groups, H, W]``; the channels of a group are read together."""
    out_c, out_h, out_w = node.shape
    _, in_h, in_w = node.input_shape
    kernel = node.weight.shape[2:] if isinstance(node, Conv) else node.kernel
    dilation = node.dilation if isinstance(node, Conv) else (1,) * len(node.kernel)
    outputs = np.arange(cuts[0], cuts[-1])
    block = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))
    group = outputs // (out_h * out_w) // (out_c // groups)
    top = outputs // out_w % out_h * node.stride[0] - node.padding[0][0]
    left = outputs % out_w * node.stride[1] - node.padding[1][0]
    reached = np.zeros((len(cuts) - 1, groups, in_h, in_w), bool)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row, column = top + i * dilation[0], left + j * dilation[1]
            inside = (row >= 0) & (row < in_h) & (column >= 0) & (column < in_w)
            reached[block[inside], group[inside], row[inside], column[inside]] = True
    return reached


EVIDENCE = {
    "A": "the maker's document",
    "B": "code that ran on the chip",
    "C": "a third party's page",
    "D": "unverified",
}
_FILE = Path(__file__).with_name("chips.toml")


@dataclass(frozen=True)
class Limit:
    """A number, its source, and its grade of evidence (see the file)."""

    value: int
    source: str
    grade: str

    def __str__(self) -> str:
        return f"{self.value:,} ({self.source}; {EVIDENCE[self.grade]})"


@dataclass(frozen=True)
class Chip:
    """limits: by name, as in the file; a missing limit is unknown."""

    key: str
    name: str
    limits: Mapping[str, Limit]

    def value(self, limit: str) -> int | None:
        """Return the number, or None if it is unknown."""
        return self.limits[limit].value if limit in self.limits else None


def load_chips() -> dict[str, Chip]:
    """Return every chip by its key."""
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {
        key: Chip(key, entry["name"], {name: Limit(**limit) for name, limit in entry["limits"].items()})
        for key, entry in data.items()
    }
