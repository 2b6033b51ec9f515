"""Compare spikes of two runs, node by node: the only comparer.

Spiking nets are judged by their spikes. A tolerance on numbers is meaningless: one unit in the last place moves a
spike, and all later ones follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import ShapeError
from stl_deploy._util.remedies import option
from stl_deploy.errors import CheckFailed, ParityError
from stl_deploy.graph.margins import Margin, margins_at
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import NetworkInput, Result

Arrays = Mapping[str, NDArray[Any]]
Label = Literal["measured", "simulated"]
"""Evidence of a run: it ran here and was read off, or ran on a simulator of hardware."""
MODEL_NAMES = {"reference": "the graph", "loihi": "the integers"}
"""The models that runs are compared with, by the name in ``against``, as readers know them."""


@dataclass(frozen=True)
class Divergence:
    """The first value of a node that differs: earliest step, then sample, then neuron.

    expected: the reference's value; found: the run's. margin: the reference's, where the input was at hand.
    """

    node: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    expected: float
    found: float
    margin: Margin | None = None

    def __str__(self) -> str:
        where = f"'{self.node}', step {self.step}, sample {self.sample}, neuron {list(self.neuron)}"
        digits = 6 if f"{self.expected:g}" != f"{self.found:g}" else 9
        text = f"{where}: expected {self.expected:.{digits}g}, found {self.found:.{digits}g}"
        return text if self.margin is None else f"{text}, {self.margin}"


@dataclass(frozen=True)
class NodeParity:
    """One node of one run against the reference.

    compared: values compared (0: the run or the reference lacks the node); differing: how many are unequal.
    largest: greatest absolute difference. near_threshold: reference potentials near θ, None if not counted.
    """

    node: str
    compared: int
    differing: int
    largest: float
    first: Divergence | None
    near_threshold: int | None = None

    @property
    def agreement(self) -> float | None:
        """Share of equal values; None if nothing was compared."""
        return 1 - self.differing / self.compared if self.compared else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return _json(self) | {"agreement": self.agreement}


ROUNDING = 2.0**-17
"""Difference of outputs that sums of another order may make, relative to the largest output: 64 units of float32."""


@dataclass(frozen=True)
class ParityRow:
    """One line of a parity table: an artifact's spikes against the model's, and the claim's label."""

    artifact: str
    compared: int
    differing: int
    accuracy: float | None = None
    exact: bool = False
    first_divergence: str = ""
    label: Label = "measured"
    note: str = ""


@dataclass(frozen=True)
class RunParity:
    """One run against another, ``against``: its spiking nodes in graph order, and its outputs.

    states: potentials and currents of both runs. required: every spike, and every state, must agree.
    is_rounding: off exact grids, what differs is explained by rounding: see `up_to_rounding`.
    artifact: its path, as it was given; backend: the runner.
    """

    run: str
    nodes: tuple[NodeParity, ...]
    outputs: tuple[NodeParity, ...]
    accuracy: float | None = None
    against: str = ""
    required: bool = True
    artifact: str | None = None
    backend: str | None = None
    label: Label = "measured"
    note: str = ""
    states: tuple[NodeParity, ...] = ()
    is_rounding: bool = False

    @property
    def compared(self) -> int:
        """Spikes (and silences) compared."""
        return sum(node.compared for node in self.nodes)

    @property
    def differing(self) -> int:
        """Differing spikes (and silences)."""
        return sum(node.differing for node in self.nodes)

    @property
    def agreement(self) -> float | None:
        """Share of equal spikes; None if nothing was compared."""
        return 1 - self.differing / self.compared if self.compared else None

    @property
    def exact(self) -> bool:
        """Whether every spiking node was compared and spikes alike.

        Without spiking nodes, every output must be equal. Either up to rounding (`up_to_rounding`); no state differs.
        """
        if self.is_rounding:
            compared = all(node.compared for node in self.nodes or self.outputs)
            return compared and not any(node.differing for node in self.states)
        return all(node.compared and not node.differing for node in (*(self.nodes or self.outputs), *self.states))

    def up_to_rounding(self, expected: Arrays, *, by_layer: bool) -> RunParity:
        """Accept what rounding explains, with a note.

        expected: outputs of the reference, from which those of a network without spiking nodes may differ by at most
        `ROUNDING`. by_layer: whether spikes move by rounding, see `stl_deploy.graph.by_layer.moves_by_rounding`.
        """
        differing = [node for node in self.outputs if node.differing]
        if not (by_layer if self.nodes else differing):
            return self
        if self.nodes:
            note = f"{self.differing:,} spikes differ by rounding: on the run's own, each layer parts at its thresholds"
        else:
            if not all(node.largest <= ROUNDING * _largest_finite(expected[node.node]) for node in differing):
                return self
            note = f"outputs differ by rounding, by at most {max(node.largest for node in differing):.2g}"
        return replace(self, is_rounding=True, note=f"{self.note}; {note}" if self.note else note)

    @property
    def first(self) -> Divergence | None:
        """The root of the differences: the earliest step, in it the first layer in graph order."""
        differences = [node.first for node in (*(self.nodes or self.outputs), *self.states) if node.first is not None]
        return min(differences, key=lambda divergence: divergence.step, default=None)

    @property
    def row(self) -> ParityRow:
        """Return its row of the parity table."""
        first = "" if self.first is None else str(self.first)
        numbers = (self.compared, self.differing, self.accuracy)
        return ParityRow(self.run, *numbers, self.required, first, self.label, self.note)

    def require(self) -> None:
        """Raise ParityError, naming the first difference, unless the run is exact."""
        if self.exact:
            return
        missing = [node.node for node in self.nodes or self.outputs if not node.compared]
        if missing:
            raise ParityError(f"{self.run}: node '{missing[0]}' was not recorded, so its spikes cannot be compared")
        count = f"{self.differing:,} of {self.compared:,} spikes differ" if self.nodes else "outputs differ"
        if any(node.differing for node in self.states) and not self.differing:
            count = "potentials or currents differ"
        raise ParityError(
            f"{self.run}: {count} from {MODEL_NAMES.get(self.against, self.against)}, first in {self.first}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {
            "run": self.run,
            "artifact": self.artifact,
            "backend": self.backend,
            "label": self.label,
            "against": self.against,
            "required": self.required,
            "exact": self.exact,
            "compared": self.compared,
            "differing": self.differing,
            "agreement": self.agreement,
            "accuracy": self.accuracy,
            "first": None if self.first is None else _json(self.first),
            "nodes": [node.as_dict() for node in self.nodes],
            "outputs": [node.as_dict() for node in self.outputs],
            **({"states": [node.as_dict() for node in self.states]} if self.states else {}),
        }


def compare(
    program: Program,
    expected: Result,
    found: Result,
    run: str,
    *,
    x: NetworkInput | None = None,
    near: Mapping[str, int] | None = None,
    **about: Any,
) -> RunParity:
    """Compare a run of ``program`` with another, spike by spike; nodes that one of them lacks are not compared.

    x: the input, to measure the margin where they part. near: counts of potentials near θ, by node. about: the other
    fields of `RunParity`. Raises InputError where arrays of one node differ in shape.
    """
    nodes = tuple(
        replace(_one(run, node.name, expected.recorded, found.recorded), near_threshold=(near or {}).get(node.name))
        for node in program.compared
    )
    if x is not None:
        nodes = _with_margins(nodes, program, x)
    names = [node.name for node in program.outputs]
    # without spikes rounding is accepted, and no news: the first difference is the first that is none
    within = {} if nodes else {name: ROUNDING * _largest_finite(expected.outputs[name]) for name in names}
    outputs = tuple(_one(run, name, expected.outputs, found.outputs, within.get(name, 0)) for name in names)
    both = (name for name in expected.states if name in found.states)
    states = tuple(compare_node(name, expected.states[name], found.states[name], run) for name in both)
    return RunParity(run, nodes, outputs, states=states, **about)


def fired(program: Program, values: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the spikes among what layers put out: of a Cell, those of its values that are integers."""
    spikes: dict[str, Floats] = {}
    for name, array in values.items():
        fires = program.by_name[name].fires
        if np.all(fires):
            spikes[name] = array
        elif np.any(fires):
            spikes[name] = array.reshape(*array.shape[:2], -1)[..., fires]
    return spikes


def require_spikes(silent: bool, *, allowed: bool) -> None:
    """Raise CheckFailed for a network that was silent, which proves nothing, unless that is allowed."""
    if silent and not allowed:
        raise CheckFailed(
            f"no layer spiked on x, which proves nothing: give input that drives the network, under the dialect that "
            f"its file was written in, or {option('allow_silent')}",
            slug="silent",
        )


class Tally:
    """Compare arrays ``[T, B, *shape]`` by name, part after part of the samples. ``nodes``: results so far."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeParity] = {}
        self._samples = 0

    def add(self, expected: Arrays, found: Arrays) -> None:
        """Add the next samples: every array of ``found``, with its twin in ``expected``."""
        samples = next((array.shape[1] for array in found.values()), 0)
        self.add_nodes([compare_node(name, expected[name], found[name]) for name in found], samples)

    def add_nodes(self, nodes: Iterable[NodeParity], samples: int) -> None:
        """Add the next ``samples``, compared already."""
        for node in nodes:
            first = None if node.first is None else replace(node.first, sample=node.first.sample + self._samples)
            part, before = replace(node, first=first), self.nodes.get(node.node)
            self.nodes[node.node] = part if before is None else _joined(before, part)
        self._samples += samples

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(node.compared for node in self.nodes.values())

    @property
    def differing(self) -> int:
        """Differing values."""
        return sum(node.differing for node in self.nodes.values())


def compare_node(
    node: str, expected: NDArray[Any], found: NDArray[Any], run: str = "", within: float = 0
) -> NodeParity:
    """Compare two arrays ``[T, B, *shape]`` of one node; raise InputError if their shapes differ.

    within: differences up to this are counted, but the first beyond it is named, if there is any.
    """
    if expected.shape != found.shape:
        raise ShapeError(
            f"run '{run}' has shape {list(found.shape)} for node '{node}', the reference {list(expected.shape)}; "
            "run both on the same input"
        )
    unequal = expected != found
    differing = int(unequal.sum())
    if not differing:
        return NodeParity(node, expected.size, 0, 0.0, None)
    with np.errstate(invalid="ignore"):
        beyond = unequal & ~(np.abs(expected.astype(np.float64) - found) <= within)  # NaN is beyond everything
    unequal = beyond if beyond.any() else unequal
    step, sample, *neuron = (int(i) for i in np.unravel_index(int(unequal.argmax()), unequal.shape))
    at = (step, sample, *neuron)
    first = Divergence(node, step, sample, tuple(neuron), float(expected[at]), float(found[at]))
    largest = float(np.abs(expected[unequal].astype(np.float64) - found[unequal]).max())
    return NodeParity(node, expected.size, differing, largest, first)


def _json(part: NodeParity | Divergence) -> dict[str, Any]:
    """Return the fields by name; None for NaN and infinity, which JSON lacks and a damaged file may put out."""

    def finite(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in pairs}

    return asdict(part, dict_factory=finite)


def _largest_finite(values: NDArray[Any]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))


def _one(run: str, node: str, base: Arrays, other: Arrays, within: float = 0) -> NodeParity:
    if node not in base or node not in other:
        return NodeParity(node, 0, 0, 0.0, None)
    return compare_node(node, base[node], other[node], run, within)


def _joined(one: NodeParity, other: NodeParity) -> NodeParity:
    firsts = [node.first for node in (one, other) if node.first is not None]
    near = None if one.near_threshold is None else one.near_threshold + (other.near_threshold or 0)
    return NodeParity(
        one.node,
        one.compared + other.compared,
        one.differing + other.differing,
        float(np.maximum(one.largest, other.largest)),  # NaN stays NaN
        min(firsts, key=lambda first: (first.step, first.sample), default=None),
        near,
    )


def _with_margins(nodes: Sequence[NodeParity], program: Program, x: NetworkInput) -> tuple[NodeParity, ...]:
    firsts = [node.first for node in nodes if node.first is not None]
    margins = margins_at(program, x, {first.node: (first.step, first.sample, first.neuron) for first in firsts})
    return tuple(
        node if node.first is None else replace(node, first=replace(node.first, margin=margins.get(node.node)))
        for node in nodes
    )


_NAMED = 8
"""Layers that a warning names; of more it gives the number."""


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def rate_warnings(rates: Mapping[str, float]) -> tuple[str, ...]:
    """Warn of layers whose spikes prove nothing: silent or saturated ones, by spikes per neuron and step."""
    silent, full = ([name for name, rate in rates.items() if rate == bound] for bound in (0, 1))
    warnings = []
    if silent:
        warnings.append(
            f"no spike in {_first_of(silent)} on x: a silent layer proves nothing; give input that drives it"
        )
    if full:
        warnings.append(
            f"every neuron of {_first_of(full)} spikes at every step on x: a saturated layer proves nothing"
        )
    return tuple(warnings)


class FiringRates:
    """Count the spikes of each layer, part after part of the samples."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, recorded: Arrays) -> None:
        """Add the next samples' spikes ``[T, B, *shape]`` by layer."""
        for name, spikes in recorded.items():
            fired, values = self._counts.get(name, (0, 0))
            self._counts[name] = fired + int(np.count_nonzero(spikes)), values + spikes.size

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of layers that were silent, or saturated, in every part; see `rate_warnings`."""
        return rate_warnings({name: fired / values for name, (fired, values) in self._counts.items() if values})

    @property
    def silent(self) -> bool:
        """Whether no layer spiked in any part; False if none was counted."""
        return bool(self._counts) and not any(fired for fired, _ in self._counts.values())

    @property
    def dead(self) -> dict[str, str]:
        """The layers that were silent, or saturated, in every part, with that word."""
        alike = {name: fired for name, (fired, values) in self._counts.items() if values and fired in (0, values)}
        return {name: "saturated" if fired else "silent" for name, fired in alike.items()}
