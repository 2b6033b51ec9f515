"""Run the integer model of a Program, or of a folder that keeps its integers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.exporters.targets import Network, Options, Runner
from stl_deploy.graph.exact import input_grid, round_to_grid
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.integers.bounds import estimated_reach, may_vanish
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import bits_of, to_integers
from stl_deploy.integers.simulate import IntegerRun, simulate
from stl_deploy.integers.store import NAME, read_integers

CALIBRATION = 256
"""Samples of the input that integers are chosen by, where no others are given."""


class IntegerRunner(Runner):
    """Takes real input on its grid and names spikes by NIR node.

    readout: see `stl_deploy.exporters.targets.HasReadout`.
    """

    name = "loihi"
    description = "our integer model of the same integers (simulated)"
    reads = ("c",)

    def __init__(self, network: Network, options: Options, *, graph: IntegerGraph | None = None) -> None:
        self._options = options
        self._program = network if isinstance(network, Program) else None
        self._graph = graph
        self.readout: Readout | None = None
        if isinstance(network, Path):
            own, about = read_integers(network / NAME)
            self._graph, self.readout = graph or own, about.readout

    def of(self, program: Program) -> Self:
        """Return the Runner; raise InputError if its integers were not made from a network of these nodes."""
        if self._graph is not None:
            names = {node.name for node in program.spiking}
            own = {node.name for node in self._graph.populations}
            if names != own:
                raise InputError(
                    f"expected integers that spike in {', '.join(sorted(names))}; found {', '.join(sorted(own))}; "
                    "name the graph that they were made from"
                )
        return copy.copy(self)

    @property
    def input_bits(self) -> int | None:
        """See `stl_deploy.exporters.targets.DeclaresInputGrid`."""
        return None if self._graph is None else bits_of(self._graph.input.scale)

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; a Program's integers are chosen by calibration, else by x."""
        array = one_input(x)
        if self._graph is None:
            assert self._program is not None
            self._graph = choose(self._program, calibration(self._program, self._options, array)).graph
        graph = self._graph
        result = self.integers(graph, to_integers(array, graph.input.scale), record)
        y = (result.y.astype(np.float64) * graph.output.unit).astype(np.float32)
        return Result({graph.output.name: y}, {name: s.astype(np.float32) for name, s in result.spikes.items()})

    def integers(self, graph: IntegerGraph, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run integers."""
        return simulate(graph, x, record=record)


class IntegerProgram(IntegerRunner):
    """Run a program that was generated from the integers; every spike must equal the integer model's."""

    agrees_with = "loihi"

    def within(self, seconds: float) -> Self:
        """Return the same runner with a deadline in seconds for the build and the run each."""
        same = copy.copy(self)
        same._options = replace(self._options, deadline=seconds)
        return same

    def model(self, program: Program) -> IntegerRunner:
        """Return the integer model of the same integers."""
        return IntegerRunner(program, self._options, graph=self._graph)


def calibration(program: Program, options: Options, x: NetworkInput | None) -> NDArray[Any]:
    """Return the calibration samples, on the input's grid; raise InputError if there are none."""
    if options.calibration is not None:
        given = options.calibration()
    elif x is not None:
        given = one_input(x)[:, :CALIBRATION]
    else:
        raise InputError(
            "expected input to choose integers by; found none; give " + remedy(cli="--input X.npz", python="x=")
        )
    return on_grid(program, given)


def overflows(
    program: Program,
    options: Options,
    known: Sequence[Finding],
    limit: int,
    choosing: Callable[[NDArray[Any]], object],
) -> list[Finding]:
    """Return export's refusal of integers that overflow on options.x; nothing without x, or after other errors.

    limit: of a sum. Integers are chosen only where the estimated sums reach it, or weights may round to 0.
    """
    if options.x is None or any(finding.severity == "error" for finding in known):
        return []
    x, grid = one_input(options.x), input_grid(program.metadata)
    largest, scale = float(np.abs(x.astype(np.float64)).max(initial=0)), 1.0
    if grid is not None:
        largest, scale = max(largest, grid.bound), 2.0**grid.fraction_bits
    if not estimated_reach(program, largest * scale) >= limit and not may_vanish(program, scale):  # nor of NaN
        return []
    try:
        choosing(calibration(program, options, x))
    except StlDeployError as error:
        return [from_error(error)]
    return []


def on_grid(program: Program, x: NDArray[Any]) -> NDArray[Any]:
    """Round ``x`` to the input grid that the graph declares, if it declares one."""
    grid = input_grid(program.metadata)
    return x if grid is None else round_to_grid(x, grid.fraction_bits)


def one_input(x: NetworkInput, name: str = "integers") -> NDArray[Any]:
    """Return the only input; raise InputError if there are several."""
    if isinstance(x, Mapping):
        raise InputError(f"expected one input for {name}; found {', '.join(x)}; use another backend or target")
    return np.asarray(x)
