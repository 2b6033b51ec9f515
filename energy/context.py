"""Inputs of an energy report besides the network and its counts, as the ANN twin's activity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy.energy.chips.time import StepTimes, check_step_times
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.paired import MetricScore
from stl_deploy.energy.prices.chip import Checked, OnChip
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.errors import InputError


@dataclass(frozen=True)
class AnnTwin:
    """MACs of a trained ANN with a nonzero input (``macs_nonzero``), of all its MACs, summed over ``samples``.

    macs: dense MACs of the same passes. source: which network. accuracy: of it on these samples, or None.
    by_layer: share of each layer's MACs whose input was not zero; empty where only the sum is known.
    frames: passes for each of these samples, whose mean the accuracy is of. nonzero_weights: share of each layer's
    weights that are not zero; empty: as in the spiking network. fetched: share of each layer's weights that meet a
    nonzero input, the mean over passes; empty: as many as MACs, at most all. right: ``[B]``, whether it
    decides each sample right, for a paired comparison. scores: ``[B, classes]``, for a metric of the user's. summed:
    whether it sees the sum of a sequence's steps.
    """

    macs_nonzero: int
    macs: int
    samples: int
    source: str
    accuracy: float | None = None
    by_layer: Mapping[str, float] = field(default_factory=dict)
    frames: int = 1
    nonzero_weights: Mapping[str, float] = field(default_factory=dict)
    fetched: Mapping[str, float] = field(default_factory=dict)
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    summed: bool = False
    scores: NDArray[Any] | None = field(default=None, compare=False, repr=False)

    @property
    def fraction(self) -> float:
        """Share of the MACs that zero-skipping hardware computes."""
        return self.macs_nonzero / self.macs if self.macs else 0.0

    def active(self, layer: str) -> float:
        """Return the share of a layer's MACs with nonzero input; the share of all layers if only that is known."""
        return self.by_layer[layer] if self.by_layer else self.fraction

    def check(self, counts: Counts) -> None:
        """Raise InputError unless one pass of the twin has as many MACs as one pass of the counted network."""
        passes = counts.totals.ann_macs_exact // counts.batch
        if self.macs != passes * self.samples:
            raise InputError(
                f"{self.source}: one pass has {self.macs // self.samples:,} MACs, the spiking network {passes:,}; "
                f"train the twin with the same configuration and {option('mode', 'ann')}"
            )


def twin_json(twin: AnnTwin | None, counts: Counts, first_layer: Sequence[str]) -> dict[str, Any]:
    """Return the energy JSON's ``ann_twin``: MACs per inference, dense and with zeros skipped.

    Unmeasured, the second is bounded: at most every MAC; at least the first layer's non-zero inputs of samples
    that are the same at every step (the twin sees them as they are).
    """
    dense = counts.totals.ann_macs_exact / counts.batch
    data: dict[str, Any] = {"macs_dense": dense}
    if twin is None:
        # a first layer that repeats shows the twin each of its events once, not T times
        still = [counts.repeating[name].synops for name in first_layer if name in counts.repeating]
        least = sum(still) / counts.T / counts.batch
        return data | {
            "label": "unmeasured",
            "macs_zero_skipping": [least, dense],
            "text": "the twin's own zero activations were not measured: between these bounds (train one: mode ann)",
        }
    summed = ", which sees the sum of all steps in one frame" if twin.summed else ""
    frames = f": of each of the {twin.frames} frames that its accuracy is of" if twin.frames > 1 else ""
    return data | {
        "label": "measured",
        "macs_zero_skipping": [twin.macs_nonzero / twin.samples] * 2,
        "active_fraction": twin.fraction,
        "active_by_layer": dict(twin.by_layer),
        "samples": twin.samples,
        "source": twin.source,
        "accuracy": twin.accuracy,
        "text": "MACs on non-zero inputs, counted in the trained twin" + summed + frames,
    }


DEFAULT_PRICES = (
    "horowitz45_fp32",
    "horowitz45_int8",
    "horowitz45_int8_acc32",
    "loihi1_davies2018",
    "loihi1_sanafe",
)
_NO_PLACEMENT, _UNCHECKED = OnChip(), Checked()


@dataclass(frozen=True, kw_only=True)
class Context:
    """Inputs of an energy report besides the network and its counts.

    Attributes:
        prices: Names of built-in price lists, paths of ``.toml`` files, or lists.
        source: Name of the counted network.
        twin: Activity of a trained ANN of the same topology; without it, its zeros are bounded.
        chip: Placement of the neurons, for lists that price messages and hops between cores.
        checked: Chips that cannot hold the network, and its clocks on UP5K; without clocks, UP5K has no line.
        step_time: Measured seconds of one time step by chip, instead of predicted ones.
        score: The user's metric of the network and its twin, instead of accuracy.
        notes: Assumptions, one sentence each.

    Raises:
        InputError: For step times of unknown chips, or that are not seconds.
    """

    prices: Sequence[str | Path | PriceList] = DEFAULT_PRICES
    source: str = ""
    twin: AnnTwin | None = None
    chip: OnChip = _NO_PLACEMENT
    checked: Checked = _UNCHECKED
    step_time: StepTimes | None = None
    score: MetricScore | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise InputError for invalid step times."""
        check_step_times(self.step_time)

    def price_lists(self) -> list[PriceList]:
        """Return the price lists; raise ConfigError for a bad one."""
        return [entry if isinstance(entry, PriceList) else load_prices(entry) for entry in self.prices]


class ContextKeywords(TypedDict, total=False):
    """Fields of `Context`."""

    prices: Sequence[str | Path | PriceList]
    source: str
    twin: AnnTwin | None
    chip: OnChip
    checked: Checked
    step_time: StepTimes | None
    score: MetricScore | None
    notes: Sequence[str]
