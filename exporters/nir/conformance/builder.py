"""Build the parts of the kit's graphs: weights whose float32 sums are exact, and inputs that make neurons fire."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Edges = Sequence[tuple[str, str]]
Nodes = dict[str, nir.NIRNode]

STEPS, BATCH = 16, 3
DECAY_STEPS = 2
"""Membrane time constants in time steps: with Euler steps the decay is 1 - 1/2, exact in float32."""


@dataclass(frozen=True)
class Case:
    """One graph of the kit.

    name: unique, a file name. level: what part of the format it exercises. about: one line for the table.
    x: input `[T, B, *shape]`, float32. damage: rewrites the file into another legal form of the same graph.
    """

    name: str
    level: str
    about: str
    graph: nir.NIRGraph
    x: Array
    damage: Callable[[Path], None] | None = field(default=None, repr=False)


class Builder:
    """Random but reproducible parts of one case: everything is drawn from the case's name.

    Weights are multiples of 1/8 below 4 and inputs are 0 or 1, so that the sums of every order of addition are equal.
    """

    def __init__(self, name: str, dt: float) -> None:
        self.name = name
        self.dt = dt
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def weight(self, *shape: int, scale: float = 1.0) -> Array:
        """Return multiples of 1/8, mostly positive so that neurons fire."""
        fan_in = int(np.prod(shape[1:])) or 1
        drawn = self.rng.normal(0.4 * scale / np.sqrt(fan_in), 1.5 * scale / np.sqrt(fan_in), shape)
        return np.asarray(np.round(drawn * 8) / 8, np.float32)

    def bias(self, size: int) -> Array:
        """Return multiples of 1/8 between 0 and 1/2."""
        return np.asarray(self.rng.integers(0, 5, size) / 8, np.float32)

    def x(self, *shape: int, rate: float = 0.4, steps: int = STEPS) -> Array:
        """Return spikes `[T, B, *shape]`."""
        return np.asarray(self.rng.random((steps, BATCH, *shape)) < rate, np.float32)

    def affine(self, inputs: int, outputs: int, scale: float = 1.0) -> nir.Affine:
        """Weights and bias between flat layers."""
        return nir.Affine(self.weight(outputs, inputs, scale=scale), self.bias(outputs))

    def linear(self, inputs: int, outputs: int, scale: float = 1.0) -> nir.Linear:
        """Weights without bias."""
        return nir.Linear(self.weight(outputs, inputs, scale=scale))

    def full(self, shape: Sequence[int], value: float | Array) -> Array:
        """A float32 array of a population's shape."""
        return np.array(np.broadcast_to(np.float32(value), tuple(shape)))

    def lif(self, *shape: int, **options: float | Array) -> nir.LIF:
        """Leaky integrate-and-fire neurons. Euler: v += (v_leak - v + r·x)/2, fires above 1/2."""
        values = {"tau": self.dt * DECAY_STEPS, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0}
        return nir.LIF(**self._filled(shape, values | options))

    def if_(self, *shape: int, **options: float | Array) -> nir.IF:
        """Integrate-and-fire neurons; r = 1/dt, so that the spec's dt·r·x adds x."""
        values = {"r": 1.0 / self.dt, "v_threshold": 1.0, "v_reset": 0.0}
        return nir.IF(**self._filled(shape, values | options))

    def cuba(self, *shape: int, **options: float | Array) -> nir.CubaLIF:
        """Neurons with a synaptic current, both decays 1/2 with Euler steps."""
        tau = self.dt * DECAY_STEPS
        values = {"tau_mem": tau, "tau_syn": tau, "r": 1.0, "v_leak": 0.0}
        values |= {"v_threshold": 0.5, "v_reset": 0.0, "w_in": 2.0}
        return nir.CubaLIF(**self._filled(shape, values | options))

    def _filled(self, shape: Sequence[int], values: Mapping[str, float | Array]) -> dict[str, Array]:
        return {key: self.full(shape, value) for key, value in values.items()}

    def conv(
        self, inputs: int, outputs: int, size: tuple[int, int], kernel: int | tuple[int, int] = 3, **options: Any
    ) -> nir.Conv2d:
        """A convolution; `groups`, `stride`, `padding`, `dilation` as NIR has them."""
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        settings = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **options}
        weight = self.weight(outputs, inputs // settings["groups"], rows, columns)
        return nir.Conv2d(input_shape=size, weight=weight, bias=self.bias(outputs), **settings)

    def conv1(self, inputs: int, outputs: int, size: int, **options: Any) -> nir.Conv1d:
        """A convolution of one axis, kernel 3."""
        settings = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **options}
        weight = self.weight(outputs, inputs // settings["groups"], 3)
        return nir.Conv1d(input_shape=size, weight=weight, bias=self.bias(outputs), **settings)


def graph(
    shape: Sequence[int], nodes: dict[str, nir.NIRNode], out: Sequence[int], edges: Edges | None = None
) -> nir.NIRGraph:
    """A graph with one input and one output; without `edges` the nodes form a chain."""
    whole = {
        "input": nir.Input({"input": np.array(shape)}),
        **nodes,
        "output": nir.Output({"output": np.array(out)}),
    }
    names = list(whole)
    pairs = list(pairwise(names)) if edges is None else list(edges)
    return nir.NIRGraph(nodes=whole, edges=pairs, type_check=False)


class Level:
    """Collects the cases of one level."""

    def __init__(self, level: str, dt: float) -> None:
        self.level, self.dt = level, dt
        self.cases: list[Case] = []

    def builder(self, name: str) -> Builder:
        """Return the builder of the case `name`."""
        return Builder(name, self.dt)

    def add(
        self,
        b: Builder,
        about: str,
        nodes: Nodes,
        shape: Sequence[int] = (12,),
        out: Sequence[int] = (6,),
        edges: Edges | None = None,
        x: Any = None,
        rewrite: Callable[[Path], None] | None = None,
    ) -> None:
        """Add a case; without `edges` its nodes form a chain, without `x` its input is random spikes."""
        whole = graph(shape, nodes, out, edges)
        self.cases.append(Case(b.name, self.level, about, whole, b.x(*shape) if x is None else x, rewrite))
