"""Choose a network's integers for Xylo by calibration input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.xylo.devices import DEVICES, Device, excesses, find_device
from stl_deploy.exporters.xylo.layout import Layout, PlacedPopulation
from stl_deploy.exporters.xylo.quantise import (
    Extremes,
    Order,
    Row,
    Shifts,
    decay_findings,
    order,
    proved,
    rows,
    scales,
)
from stl_deploy.exporters.xylo.quantise import specification as make_specification
from stl_deploy.exporters.xylo.simulate import ChipNetwork, evolve, simulate, spike_counts
from stl_deploy.exporters.xylo.specification import HIDDEN_CAP, INPUT_CAP, SHIFT_TOP
from stl_deploy.exporters.xylo.structure import Structure, structure
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.run import CHUNK, Result, run

TRIED = 16
"""Calibration samples on which weight shifts are compared."""


@dataclass(frozen=True)
class Fit:
    """Result of one population on the calibration input.

    scale: least and greatest of its neurons'. differing: spikes (None of a population without) unlike the reference's,
    of compared. proved: no input can take its states out of 16 bits. saturated: neuron-steps in which they were cut.
    """

    node: str
    scale: tuple[float, float]
    compared: int
    differing: int | None
    proved: bool
    saturated: int


@dataclass(frozen=True, eq=False)
class Chosen:
    """The network on a chip, and its fit."""

    network: ChipNetwork
    device: Device
    shifts: Shifts
    fits: tuple[Fit, ...]


def choose(
    program: Program,
    x: NDArray[Any],
    *,
    device: str | None = None,
    round_decays: bool = False,
    source: str = "a network",
) -> Chosen:
    """Choose integers. x: real calibration input ``[T, B, *shape]``, spike counts 0 to 15.

    device: a name of `DEVICES`; None: the first that holds the network. Raises UnsupportedError if the chip cannot
    hold it, or a decay is no shift and round_decays is False; InputError for input that is no spike counts.
    """
    net = structure(program)
    for population in net.populations:
        for finding in decay_findings(population.neuron, round_decays):
            _raise(finding)
    chip = fitting(net) if device is None else find_device(device)
    for finding in excesses(net, chip):
        _raise(finding)
    counts = spike_counts(x, net.input.shape)
    extremes = Extremes()
    names = [node.name for node in program.spiking]
    expected = run(program, counts, record=names, observe=extremes, chunk=CHUNK)
    row_of = rows(net, extremes.largest)
    placed = order(net)
    if chip.heard == chip.hidden:  # the maker's function for such a chip takes a row of output weights for each neuron
        placed = replace(placed, heard=sum(population.size for population in net.hidden))
    builder = _Builder(program, net, row_of, placed, chip, source)
    shifts = builder.best(counts[:, :TRIED], expected.first(TRIED))
    network = builder.network(shifts)
    result, chip_run = evolve(network, counts, True, simulate)
    most = {net.input.name: INPUT_CAP} | {population.name: HIDDEN_CAP for population in net.hidden}
    fits = []
    for row in row_of.values():
        population, scale = row.population, scales(row, net.input.name, shifts)
        numbers = list(placed.numbers[population.name])
        spikes = expected.recorded.get(population.name)
        fit = Fit(
            population.name,
            (float(scale.min()), float(scale.max())),
            0 if spikes is None else spikes.size,
            None if spikes is None else int((result.recorded[population.name] != spikes).sum()),
            proved(row, network.spec, placed, most, net.input.name),
            int((chip_run.saturated_out if population.output else chip_run.saturated)[numbers].sum()),
        )
        fits.append(fit)
    return Chosen(network, chip, shifts, tuple(fits))


def fitting(net: Structure) -> Device:
    """Return the first chip that holds the network, or the one with the fewest excesses."""
    lacking = {chip.name: sum(f.severity == "error" for f in excesses(net, chip)) for chip in DEVICES.values()}
    return DEVICES[min(lacking, key=lambda name: lacking[name])]


def _raise(finding: Finding) -> None:
    if finding.severity == "error":
        raise UnsupportedError(finding.reason, node=finding.node or "graph", slug=finding.slug, remedy=finding.remedy)


class _Builder:
    """Build the network on the chip at given shifts, and compare shifts."""

    def __init__(
        self, program: Program, net: Structure, row_of: Mapping[str, Row], placed: Order, chip: Device, source: str
    ) -> None:
        self._program, self._net, self._row_of, self._placed = program, net, row_of, placed
        self._chip, self._source = chip, source

    def network(self, shifts: Shifts) -> ChipNetwork:
        spec = make_specification(self._net, self._row_of, self._placed, shifts)
        populations = tuple(
            PlacedPopulation(
                population.name,
                population.neuron.shape,
                population.output,
                self._placed.numbers[population.name],
                population.depth,
                scales(self._row_of[population.name], self._net.input.name, shifts),
                population.neuron.spiking,
            )
            for population in self._net.populations
        )
        layout = Layout(
            self._chip.name,
            self._source,
            self._net.input.name,
            self._net.input.shape,
            populations,
            self._net.output.name,
            self._net.output.shape,
            self._net.host.astype(np.float32),
            readout_of(self._program.metadata),
        )
        return ChipNetwork(spec, layout)

    def best(self, x: NDArray[Any], expected: Result) -> Shifts:
        """Return the shifts with the least error on ``x``: input and recurrent together first, then each."""
        best, least = Shifts(0, 0, 0), math.inf
        for together in (("input", "recurrent"), ("recurrent",), ("output",)):
            for shift in range(SHIFT_TOP):
                shifts = replace(best, **dict.fromkeys(together, shift))
                error = self._error(shifts, x, expected)
                if error < least:
                    best, least = shifts, error
        return best

    def _error(self, shifts: Shifts, x: NDArray[Any], expected: Result) -> float:
        """Return the share of differing spikes, plus the error of read potentials; infinite if a state is cut."""
        result, chip = evolve(self.network(shifts), x, True, simulate)
        if chip.saturated.any() or chip.saturated_out.any():
            return math.inf
        error = sum(float((result.recorded[name] != spikes).mean()) for name, spikes in expected.recorded.items())
        if not all(population.neuron.spiking for population in self._net.outputs):
            y = expected.y
            error += float(np.abs(result.y - y).mean() / max(float(np.abs(y).mean()), 1e-12))
        return error
