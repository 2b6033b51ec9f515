"""Candidates of a conversion: what each costs, the table, the choice and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from stl_deploy._util.json_twin import from_twin
from stl_deploy._util.tables import columns
from stl_deploy._util.units import counted, with_unit
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.paired import percent
from stl_deploy.errors import InputError
from stl_deploy.passes.spikes_for_relus import Form

KEY = "conversion"
"""In a Program's metadata: its conversion, as JSON in a string, which every file of networks holds."""
Method = Literal["as trained", "calibrated", "with biases", "thresholds learned", "weights learned"]


def steps_of(levels: int, form: Form) -> int:
    """Return the steps that a converted network takes: 1 for counts, as many as levels for rates."""
    return 1 if form == "counts" else levels


@dataclass(frozen=True)
class Joules:
    """Modelled joules of one inference, streaming, at the prices that energy quotes.

    Attributes:
        snn: Of the spiking network.
        int8_ann: Of the ANN with 8-bit activations, every zero computed.
        quantised_ann: Of the ANN that the counts are: as few bits, zeros skipped, and all activations or events alone
            moved, whichever costs less. None of rates.
        label: ``modelled``.
    """

    snn: float
    int8_ann: float
    quantised_ann: float | None
    label: str = "modelled"


@dataclass(frozen=True)
class Candidate:
    """A converted network.

    Attributes:
        levels: Levels of a count, or steps of a rate.
        method: How its thresholds were found.
        accuracy: On the held-out samples that candidates are chosen on; None without labels.
        interval: Exact 95 % interval of the accuracy.
        synops: Synaptic events of one inference, counted.
        energy: Joules of both sides; None where nothing spikes.
    """

    levels: int
    method: Method
    accuracy: float | None
    interval: tuple[float, float] | None
    synops: float
    energy: Joules | None


@dataclass(frozen=True)
class Conversion:
    """Candidates of a conversion and the one that was chosen.

    Attributes:
        form: ``counts`` or ``rates``.
        candidates: In the order in which they were tried.
        chosen: Position of the chosen one.
        within: Points that its accuracy may be below the ANN's on the held-out samples.
        held_out: Number of held-out samples, and the ANN's accuracy on them.
        samples: Number of test samples; 0 without labels.
        ann_accuracy, accuracy, interval: On the test samples; None without labels.
    """

    form: Form
    candidates: tuple[Candidate, ...]
    chosen: int
    within: float
    held_out: tuple[int, float | None]
    samples: int = 0
    ann_accuracy: float | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Return the conversion that a Program's metadata state, None without one; raise InputError for another."""
        if KEY not in metadata:
            return None
        try:
            conversion = from_twin(cls, json.loads(metadata[KEY]))
            _ = conversion.candidates[conversion.chosen]
        except (ValueError, TypeError, IndexError, RecursionError):
            raise InputError(f"metadata: expected the record of a conversion in '{KEY}'; found another") from None
        return conversion

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return asdict(self)

    def stated(self) -> dict[str, str]:
        """Return the entry of a Program's metadata."""
        return {KEY: json.dumps(self.as_dict())}

    @property
    def steps(self) -> int:
        """Steps that the network takes."""
        return steps_of(self.candidates[self.chosen].levels, self.form)

    @property
    def verdict(self) -> str:
        """One sentence: what was chosen, its accuracy beside the ANN's, and what it is."""
        chosen = self.candidates[self.chosen]
        unit, kind = ("level", "at one step") if self.form == "counts" else ("step", "of binary spikes")
        parts = [f"{counted(chosen.levels, unit)} {kind}, {chosen.method}"]
        if self.accuracy is not None and self.ann_accuracy is not None and self.interval is not None:
            low, high = (percent(end) for end in self.interval)
            parts[0] += (
                f": {percent(self.accuracy)} (95 % interval {low} to {high}), the ANN {percent(self.ann_accuracy)}"
            )
            parts[0] += f", on {self.samples:,} test samples"
            ann = self.held_out[1]
            if ann is not None and chosen.accuracy is not None and chosen.accuracy < ann - self.within / 100:
                parts.append(f"no candidate came within {self.within:g} points of the ANN on the held-out samples")
        if self.ann_accuracy is None:
            parts.append("no accuracy is known, for the data have no labels")
        if self.form == "counts":
            parts.append("counts at one step are the quantised ANN, bit for bit")
        return "; ".join([*parts, *_opponents(chosen.energy)])

    def __str__(self) -> str:
        """Return a line per candidate, the samples that these accuracies are of, and the verdict."""
        count, ann = self.held_out
        judged = [] if ann is None else [f"accuracy on {count:,} held-out samples, the ANN {percent(ann)}"]
        return "\n".join([*columns([HEAD, *self.rows]), *judged, self.verdict])

    @property
    def rows(self) -> list[list[str]]:
        """The table: a row per candidate, under `HEAD`."""
        return [_row(candidate) for candidate in self.candidates]


HEAD = ["levels", "method", "accuracy", "95 % interval", "synops", "energy (modelled)", "x int8 ANN", "x same-bits ANN"]


def _row(candidate: Candidate) -> list[str]:
    low, high = candidate.interval or (None, None)
    between = "-" if low is None or high is None else f"{percent(low)} to {percent(high)}"
    accuracy = "-" if candidate.accuracy is None else percent(candidate.accuracy)
    cells = [str(candidate.levels), candidate.method, accuracy, between, f"{candidate.synops:,.0f}"]
    energy = candidate.energy
    if energy is None:
        return [*cells, "-", "-", "-"]
    same = "-" if energy.quantised_ann is None else number(energy.snn / energy.quantised_ann)
    return [*cells, with_unit(energy.snn, "J"), number(energy.snn / energy.int8_ann), same]


def _opponents(energy: Joules | None) -> list[str]:
    """Say what the counts cost beside both ANNs, and where a saving comes from; nothing of rates."""
    if energy is None or energy.quantised_ann is None:
        return []
    dense, same = energy.snn / energy.int8_ann, energy.snn / energy.quantised_ann
    costs = f"they cost {number(dense)} times the dense int8 ANN and {number(same)} times the ANN of the same bits that"
    costs += " skips zeros (modelled)"
    saved = ["the saving comes from fewer bits and skipped zeros, not from spikes"] if dense < 1 <= same else []
    return [costs, *saved]
