"""Positions of a graph's neurons on the chip: ``neurons.json`` beside a specification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import read_json
from stl_deploy.errors import InputError
from stl_deploy.exporters.xylo.specification import Specification
from stl_deploy.graph.program import Shape
from stl_deploy.graph.readout import KEY, Readout, readout_of

NAME = "neurons.json"
VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PlacedPopulation:
    """A population of the graph on the chip.

    output: whether these are output neurons. neurons: chip numbers, flattened in the graph's order. skew: how many
    steps later than in the graph they act. scale: the chip's value of one unit of the graph's potential, per neuron.
    spikes: whether it spikes; else its potential is the value.
    """

    node: str
    shape: Shape
    output: bool
    neurons: tuple[int, ...]
    skew: int
    scale: NDArray[np.float64]
    spikes: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """A graph's names on the chip.

    weights: ``[outputs of the graph, output neurons]``, applied by the host to the output neurons' values (spikes, or
    potentials divided by their scale); the graph's output has ``output_shape``. source: the file it was made from.
    """

    device: str
    source: str
    input: str
    input_shape: Shape
    populations: tuple[PlacedPopulation, ...]
    output: str
    output_shape: Shape
    weights: NDArray[np.float32]
    readout: Readout

    @property
    def skew(self) -> int:
        """Steps that the chip needs after the last one of the input."""
        return max(population.skew for population in self.populations)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "schema_version": VERSION,
            "device": self.device,
            "source": self.source,
            "input": {"node": self.input, "shape": list(self.input_shape)},
            "populations": [
                {
                    "node": population.node,
                    "shape": list(population.shape),
                    "where": "output" if population.output else "hidden",
                    "neurons": list(population.neurons),
                    "skew": population.skew,
                    "scale": population.scale.tolist(),
                    "spikes": population.spikes,
                }
                for population in self.populations
            ],
            "output": {"node": self.output, "shape": list(self.output_shape), "weights": self.weights.tolist()},
            "readout": self.readout.as_dict(),
        }


def read_layout(path: Path, spec: Specification) -> Layout:
    """Read ``neurons.json`` of a folder and check it against its specification.

    Raises InputError where it is damaged or names neurons that the specification does not have.
    """
    data = read_json(path)
    try:
        layout = _layout(data)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: expected what export wrote; found damage ({error}); export it again") from None
    if (reason := _misfit(layout, spec)) is not None:
        raise InputError(f"{path}: {reason}; export it again")
    return layout


def _layout(data: Mapping[str, Any]) -> Layout:
    if _typed(int, data["schema_version"]) != VERSION:
        raise ValueError(f"schema_version {data['schema_version']!r}, not {VERSION}")
    populations = tuple(
        PlacedPopulation(
            _typed(str, entry["node"]),
            _shape(entry["shape"]),
            {"output": True, "hidden": False}[entry["where"]],
            tuple(_typed(int, number) for number in entry["neurons"]),
            _typed(int, entry["skew"]),
            np.array(entry["scale"], np.float64),
            _typed(bool, entry["spikes"]),
        )
        for entry in data["populations"]
    )
    weights = np.array(data["output"]["weights"], np.float64)
    if not (np.abs(weights) <= np.finfo(np.float32).max).all():
        raise ValueError("weights beyond float32")
    return Layout(
        _typed(str, data["device"]),
        _typed(str, data["source"]),
        _typed(str, data["input"]["node"]),
        _shape(data["input"]["shape"]),
        populations,
        _typed(str, data["output"]["node"]),
        _shape(data["output"]["shape"]),
        weights.astype(np.float32),
        readout_of({KEY: _typed(dict, data["readout"])}),
    )


def _typed(kind: type[T], value: Any) -> T:
    """The value; raises TypeError unless it is exactly of this kind."""
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__}, not {kind.__name__}")
    return value


def _shape(sizes: Any) -> Shape:
    shape = tuple(_typed(int, size) for size in sizes)
    if not all(size >= 1 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape


def _misfit(layout: Layout, spec: Specification) -> str | None:
    """Return why a layout does not belong to a specification, in words."""
    if math.prod(layout.input_shape) != spec.channels:
        return f"expected an input of {spec.channels} channels; found {list(layout.input_shape)}"
    for output, size in ((False, spec.hidden), (True, spec.outputs)):
        numbers = sorted(
            number for population in layout.populations if population.output == output for number in population.neurons
        )
        if numbers != list(range(size)):
            return f"expected each of {size} {'output' if output else 'hidden'} neurons once; found others"
    if len({population.node for population in layout.populations}) < len(layout.populations):
        return "expected each population once; found a name twice"
    for population in layout.populations:
        count, are_scales = math.prod(population.shape), (population.scale > 0) & (population.scale < np.inf)
        if len(population.neurons) != count or population.scale.shape != (count,) or not are_scales.all():
            return f"'{population.node}': expected {count} neurons with finite scales above 0; found others"
        if not 0 <= population.skew <= spec.hidden + 1:
            return f"'{population.node}': expected a skew of 0 to {spec.hidden + 1} steps; found {population.skew}"
    if layout.weights.shape != (math.prod(layout.output_shape), spec.outputs):
        return f"expected weights of the outputs [{math.prod(layout.output_shape)}, {spec.outputs}]; found others"
    return None
