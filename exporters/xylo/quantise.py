"""Quantise a network for Xylo: each neuron has a scale of its own, and thresholds stay one per neuron.

Under a soft reset, ``(w, θ, bias, i, v) -> s·(w, θ, bias, i, v)`` leaves every spike as it is, so each neuron's row may
have the largest s at which its weights fit in 8 bits and its threshold, bias and states in 16. States are bounded by
what the calibration input shows, times `MARGIN`: that is no proof, so saturation is counted in every run.
Decays become shifts: states keep 1 - 2^-dash of themselves in a step.
The three weight shifts are those with the fewest differing spikes on the calibration input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy._util.units import between
from stl_deploy.exporters.xylo.specification import (
    DASH_TOP,
    STATE_TOP,
    WEIGHT_TOP,
    Ints,
    Specification,
)
from stl_deploy.exporters.xylo.structure import ChipPopulation, Edge, Structure
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.neurons import NeuronState
from stl_deploy.graph.program import Doubles, Floats, Neuron, Node

MARGIN = 1.5
"""Room above the largest state seen on the calibration input."""
Numbers = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shifts:
    """Bits that input, recurrent and output weights are shifted to the left."""

    input: int
    recurrent: int
    output: int


@dataclass(frozen=True, eq=False)
class Row:
    """A population before rounding.

    edges: with the population's gains in their weights. bias, theta: ``[neurons]``; theta is 0 where it does not
    spike. largest: states seen, ``[neurons]``.
    """

    population: ChipPopulation
    edges: tuple[Edge, ...]
    dash: Dashes
    bias: Doubles
    theta: Doubles
    largest: Doubles


class Extremes:
    """Observe a run: largest currents and potentials of each population, seen before spikes are subtracted."""

    def __init__(self) -> None:
        self.largest: dict[str, Doubles] = {}

    def __call__(self, node: Node, x: Floats, y: Floats) -> None:
        """Follow one population over ``x`` ``[T, B, *shape]``."""
        if not isinstance(node, Neuron) or node.synapse is None:
            return
        state, out = NeuronState(node, x.shape[1]), np.empty(x.shape[1:], np.float32)
        most = self.largest.setdefault(node.name, np.zeros(int(np.prod(node.shape))))
        entry = _filter_gain(node)
        for step in x:
            assert state.i is not None
            before = state.i.copy()
            state.charge(step)
            current = np.abs(before) + np.abs(step) * (1 if node.synapse.gain is None else node.synapse.gain) * entry
            for values in (current * (1 if node.gain is None else node.gain), state.v):
                np.maximum(most, np.abs(values).reshape(len(values), -1).max(axis=0), out=most)
            state.release(out)


def _filter_gain(node: Neuron) -> NDArray[np.float32]:
    """Return the gain on the input that makes the chip's rule, decay before input, equal to the node's.

    ``exp_add`` is that rule. ``euler`` adds the input after the decay: dividing by the decay makes them equal.
    """
    assert node.synapse is not None
    if node.synapse.rule == "exp_add":
        return np.ones((), np.float32)
    return np.asarray(1 / np.maximum(node.synapse.decay, np.float32(2**-15)), np.float32)


def rows(structure: Structure, largest: Mapping[str, Doubles]) -> dict[str, Row]:
    """Return every population before rounding; largest: as `Extremes` finds it."""
    return {population.name: _row(population, largest[population.name]) for population in structure.populations}


def _row(population: ChipPopulation, largest: Doubles) -> Row:
    neuron = population.neuron
    assert neuron.synapse is not None

    def each(values: NDArray[np.float32] | float | None, default: float) -> Doubles:
        given = default if values is None else values
        return np.broadcast_to(given, neuron.shape).astype(np.float64).reshape(-1)

    gain = each(neuron.gain, 1) * each(neuron.synapse.gain, 1) * each(_filter_gain(neuron), 1)
    edges = tuple(replace(edge, weight=edge.weight * gain[:, None]) for edge in population.edges)
    return Row(population, edges, dashes(neuron), each(neuron.offset, 0), each(neuron.threshold, 0), largest)


def scales(row: Row, source_input: str, shifts: Shifts) -> Doubles:
    """Return the scale of each neuron, ``[neurons]``: the largest at which nothing leaves its width."""
    limit = np.full(row.population.size, np.inf)
    with np.errstate(divide="ignore"):
        for edge in row.edges:
            shift = _shift(row.population, edge.source == source_input, shifts)
            limit = np.minimum(limit, WEIGHT_TOP * 2.0**shift / np.abs(edge.weight).max(axis=1))
        for values, most in ((row.theta, STATE_TOP), (row.bias, STATE_TOP), (row.largest, STATE_TOP / MARGIN)):
            limit = np.minimum(limit, most / np.abs(values))
    return np.where(np.isfinite(limit), limit, 1.0)


def _shift(population: ChipPopulation, from_input: bool, shifts: Shifts) -> int:
    return shifts.output if population.output else shifts.input if from_input else shifts.recurrent


@dataclass(frozen=True, eq=False)
class Order:
    """Chip numbers by population, and how many hidden neurons, from the first, hear and, to the last, are heard."""

    numbers: Mapping[str, tuple[int, ...]]
    hear: int
    heard: int


def order(structure: Structure) -> Order:
    """Number the neurons: those that read the input first, those that outputs read last.

    A population that does both lies between; one that does neither lies on the side where it makes the larger of the
    two windows smaller.
    """
    hears, heard = structure.hears, structure.heard
    kinds = {population.name: (population.name in hears, population.name in heard) for population in structure.hidden}
    orders = []
    for ranks in (
        ((True, False), (True, True), (False, False), (False, True)),
        ((True, False), (False, False), (True, True), (False, True)),
    ):
        hidden = sorted(structure.hidden, key=lambda population: ranks.index(kinds[population.name]))
        numbers, total = _numbered(hidden)
        last = max((max(numbers[name]) + 1 for name in hears), default=0)
        first = min((min(numbers[name]) for name in heard), default=total)
        orders.append(Order(numbers | _numbered(structure.outputs)[0], last, total - first))
    return min(orders, key=lambda order: max(order.hear, order.heard))


def _numbered(populations: tuple[ChipPopulation, ...] | list[ChipPopulation]) -> tuple[Numbers, int]:
    numbers, total = Numbers(), 0
    for population in populations:
        numbers[population.name] = tuple(range(total, total + population.size))
        total += population.size
    return numbers, total


def specification(structure: Structure, made: Mapping[str, Row], placed: Order, shifts: Shifts) -> Specification:
    """Return the chip's integers at these shifts."""
    entry = structure.input.name
    hidden = sum(population.size for population in structure.hidden)
    outputs = sum(population.size for population in structure.outputs)
    channels = int(np.prod(structure.input.shape))
    weights_in = np.zeros((channels, hidden), np.int32)
    weights_rec, weights_out = np.zeros((hidden, hidden), np.int32), np.zeros((hidden, outputs), np.int32)
    fields: dict[str, Ints] = {}
    for name, size in (("", hidden), ("_out", outputs)):
        fields |= {f"{what}{name}": np.zeros(size, np.int32) for what in ("dash_mem", "dash_syn", "threshold")}
        fields["bias_out" if name else "bias_hidden"] = np.zeros(size, np.int32)
    for row in made.values():
        group, at = row.population, list(placed.numbers[row.population.name])
        scale, ending = scales(row, entry, shifts), "_out" if group.output else ""
        for edge in row.edges:
            shift = _shift(group, edge.source == entry, shifts)
            whole = np.clip(np.round(edge.weight * scale[:, None] / 2**shift), -WEIGHT_TOP, WEIGHT_TOP).astype(np.int32)
            if edge.source == entry:
                weights_in[:, at] += whole.T
            else:
                target = weights_out if group.output else weights_rec
                target[np.ix_(list(placed.numbers[edge.source]), at)] += whole.T
        fields[f"dash_mem{ending}"][at], fields[f"dash_syn{ending}"][at] = row.dash.mem, row.dash.syn
        fields["bias_out" if group.output else "bias_hidden"][at] = np.round(row.bias * scale)
        fields[f"threshold{ending}"][at] = _thresholds(row, scale)
    return Specification(
        weights_in=weights_in[:, : max(1, placed.hear), None],
        weights_rec=weights_rec[..., None],
        weights_out=weights_out[hidden - max(1, placed.heard) :],
        aliases=np.full(hidden, -1, np.int32),
        weight_shift_in=shifts.input,
        weight_shift_rec=shifts.recurrent,
        weight_shift_out=shifts.output,
        **fields,
    )


def _thresholds(row: Row, scale: Doubles) -> Ints:
    """Return integer thresholds, at least 1; out of reach without spikes. ``v > θ`` fires from the next integer."""
    if not row.population.neuron.spiking:
        return np.full(len(scale), STATE_TOP, np.int32)
    whole = np.floor(row.theta * scale) + 1 if row.population.neuron.compare == "gt" else np.round(row.theta * scale)
    return np.asarray(np.clip(whole, 1, STATE_TOP), np.int32)


def proved(row: Row, spec: Specification, placed: Order, most: Mapping[str, int], entry: str) -> bool:
    """Return whether no input can take a population's states out of 16 bits.

    With at most n spikes of each source a step, a current stays within ``Σ n·|w|·2^dash_syn`` before it decays, and a
    potential within ``i·2^dash_mem`` plus what is left of the threshold.
    """
    population = row.population
    at = list(placed.numbers[population.name])
    reach = np.zeros(population.size)
    for edge in row.edges:
        if edge.source == entry:
            block = spec.weights_in[:, at, 0].astype(np.float64) * 2**spec.weight_shift_in
        elif population.output:
            sources = np.array(placed.numbers[edge.source]) - (spec.hidden - spec.heard)
            block = spec.weights_out[np.ix_(sources, np.array(at))].astype(np.float64) * 2**spec.weight_shift_out
        else:
            sources = np.array(placed.numbers[edge.source])
            block = spec.weights_rec[np.ix_(sources, np.array(at))][..., 0] * 2.0**spec.weight_shift_rec
        reach += most[edge.source] * np.abs(block).sum(axis=0)
    dash_mem, dash_syn = (row.dash.mem.astype(np.float64), row.dash.syn.astype(np.float64))
    bias = (spec.bias_out if population.output else spec.bias_hidden)[at]
    current = (reach + 1) * 2.0**dash_syn
    potential = (current + np.abs(bias) + 1) * 2.0**dash_mem
    return bool((current <= STATE_TOP).all() and (potential <= STATE_TOP).all())


_SAME = 2.0**-22
"""A decay so near to 1 - 2^-k is meant to be it: files hold time constants in float32."""


@dataclass(frozen=True, eq=False)
class Dashes:
    """A population's shifts, ``[neurons]``. moved: the most that a decay changes by."""

    mem: Ints
    syn: Ints
    moved: float


def dashes(neuron: Neuron) -> Dashes:
    """Return the nearest shifts of a population with a synapse; nearest in the logarithm of 1 - decay."""
    assert neuron.decay is not None
    assert neuron.synapse is not None
    (mem, moved_mem), (syn, moved_syn) = (
        _nearest(np.broadcast_to(decay, neuron.shape)) for decay in (neuron.decay, neuron.synapse.decay)
    )
    return Dashes(mem, syn, max(moved_mem, moved_syn))


def _nearest(decay: NDArray[np.float32]) -> tuple[Ints, float]:
    kept = decay.astype(np.float64).reshape(-1)
    with np.errstate(divide="ignore"):
        exact = -np.log2(np.maximum(1 - kept, 2.0 ** -(DASH_TOP + 1)))
    dash = np.clip(np.round(exact), 0, DASH_TOP).astype(np.int32)
    moved = np.abs(1 - 2.0**-dash - kept)
    return dash, float(np.where(moved <= _SAME, 0, moved).max())


def decay_findings(neuron: Neuron, rounds: bool) -> Iterator[Finding]:
    """Yield an error for decays that the chip lacks, or a warning if they may be rounded.

    rounds: whether the user took the nearest shifts.
    """
    if neuron.decay is None:
        return
    decays = {"membrane": neuron.decay} | ({"synapse": neuron.synapse.decay} if neuron.synapse is not None else {})
    nearest = {name: _nearest(np.broadcast_to(decay, neuron.shape)) for name, decay in decays.items()}
    moved = max(moved for _, moved in nearest.values())
    if not moved:
        return
    kept = ", ".join(f"{name} {_range(decay)}" for name, decay in decays.items())
    shifts = " and ".join(_range(shift) for shift, _ in nearest.values())
    reason = (
        f"its decays ({kept}) are not 1 - 2^-k with k from 0 to {DASH_TOP}; the nearest, k of {shifts}, move a decay "
        f"by up to {moved:.3g}"
    )
    remedy = f"train with decay_form shift, or export with the nearest, {option('round_decays')}"
    if rounds:
        yield Finding("decays-rounded", "warning", neuron.name, reason, "compare the agreement that export reports")
    else:
        yield Finding("decay-is-no-shift", "error", neuron.name, reason, remedy)


def _range(values: NDArray[np.float32] | Ints) -> str:
    return between(f"{np.min(values):.4g}", f"{np.max(values):.4g}")
