"""What a conversion tried, what each candidate costs, and the choice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from stl_deploy._util.tables import columns
from stl_deploy.energy.paired import percent
from stl_deploy.passes.spikes_for_relus import Form

Method = Literal["as trained", "calibrated", "with biases", "thresholds learned", "weights learned"]


@dataclass(frozen=True)
class Candidate:
    """A converted network.

    Attributes:
        levels: Levels of a count, or steps of a rate.
        method: How its thresholds were found.
        accuracy: On the held-out samples that candidates are chosen on; None without labels.
        interval: Exact 95 % interval of the accuracy.
        synops: Synaptic events of one inference, counted.
        times_ann: Modelled energy of one inference, streaming, in those of the int8 ANN; None where nothing spikes.
    """

    levels: int
    method: Method
    accuracy: float | None
    interval: tuple[float, float] | None
    synops: float
    times_ann: float | None


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

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return asdict(self)

    @property
    def verdict(self) -> str:
        """One sentence: what was chosen, its accuracy beside the ANN's, and what it is."""
        chosen = self.candidates[self.chosen]
        unit = "levels at one step" if self.form == "counts" else "steps of binary spikes"
        parts = [f"{chosen.levels} {unit}, {chosen.method}"]
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
            parts.append(
                "counts at one step are the quantised ANN, bit for bit; an ANN may use fewer bits and skip zeros, too"
            )
        return "; ".join(parts)

    def __str__(self) -> str:
        """Return a line per candidate and the verdict."""
        head = ["levels", "method", "accuracy", "95 % interval", "synops", "x int8 ANN (modelled)"]
        return "\n".join([*columns([head, *map(_row, self.candidates)]), self.verdict])


def _row(candidate: Candidate) -> list[str]:
    low, high = candidate.interval or (None, None)
    between = "-" if low is None or high is None else f"{percent(low)} to {percent(high)}"
    accuracy = "-" if candidate.accuracy is None else percent(candidate.accuracy)
    times = "-" if candidate.times_ann is None else f"{candidate.times_ann:.2f}"
    return [str(candidate.levels), candidate.method, accuracy, between, f"{candidate.synops:,.0f}", times]
