"""Compare conditions in pairs of the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from examples.study.noise import KINDS
from examples.study.select import Record, Value, accuracy, datasets, labels_of, name, pairs, where
from examples.study.statistics import Paired, holm, paired

SIGNIFICANT = 0.05
Found = Mapping[int, Record]


@dataclass(frozen=True)
class Comparison:
    """Difference of ``first`` and ``second``, seed by seed; adjusted: p of the t-test by Holm over its family."""

    label: str
    pair: Paired
    adjusted: float | None

    @property
    def finding(self) -> str:
        """``higher``, ``lower`` or ``within noise``; ``untested`` where no p is defined."""
        if self.adjusted is None:
            return "untested"
        if self.adjusted >= SIGNIFICANT:
            return "within noise"
        return "higher" if self.pair.difference.value > 0 else "lower"


@dataclass(frozen=True)
class Row:
    """To be compared: records by seed of two methods, in one value."""

    label: str
    first: Found
    second: Found
    value: Value = accuracy


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """The rows that have a pair, as one family: their p-values are adjusted together."""
    common = [(row.label, *pairs(row.first, row.second, row.value)) for row in rows]
    paired_by_label = [(label, paired(first, second)) for label, first, second in common if first]
    adjusted = iter(holm([pair.p_t for _, pair in paired_by_label if pair.p_t is not None]))
    return [Comparison(label, pair, None if pair.p_t is None else next(adjusted)) for label, pair in paired_by_label]


def modes(records: Sequence[Record]) -> list[Row]:
    """Learning modes against each other."""
    return [
        Row(f"{name(of)}: {a.upper()} - {b.upper()}", where(records, of, mode=a), where(records, of, mode=b))
        for of in datasets(records)
        for a, b in (("stl", "sl"), ("stl", "tl"), ("stl", "ann"), ("sl", "ann"))
    ]


def thresholds(records: Sequence[Record]) -> list[Row]:
    """Both forms of learned thresholds against fixed ones, at each initial threshold."""
    rows = []
    for dataset, initial in product(datasets(records), labels_of(records, "initial")):
        fixed = where(records, dataset, mode="sl", parametrisation="raw", initial=initial)
        for form, said in (("raw", "STL"), ("positive", "STL, θ₀·exp(ρ)")):
            learned = where(records, dataset, mode="stl", parametrisation=form, initial=initial)
            rows.append(Row(f"{name(dataset)}, θ₀ = {initial:g}: {said} - SL", learned, fixed))
    return rows


def granularity(records: Sequence[Record]) -> list[Row]:
    """Thresholds per layer, channel and neuron against fixed ones."""
    rows = []
    for dataset, norm in product(datasets(records), (False, True)):
        said = "with batch norm" if norm else "without batch norm"
        fixed = where(records, dataset, granularity="none", norm=norm)
        for of in labels_of(records, "granularity"):
            if of != "none":
                learned = where(records, dataset, granularity=of, norm=norm)
                rows.append(Row(f"{name(dataset)}, {said}: per {of} - fixed", learned, fixed))
    return rows


def noise(records: Sequence[Record]) -> list[Row]:
    """Accuracy under each kind of noise, mean over its levels, against SL and TL."""
    rows = []
    for dataset, kind, other in product(datasets(records), KINDS, ("sl", "tl")):
        by_mode = [where(records, dataset, mode=mode) for mode in ("stl", other)]
        label = f"{name(dataset)}, {kind}, mean over levels: STL - {other.upper()}"
        rows.append(Row(label, *by_mode, _mean_under(kind)))
    return rows


def depth(records: Sequence[Record]) -> list[Row]:
    """STL against SL and ANN, at each depth."""
    rows = []
    for dataset, layers in product(datasets(records), labels_of(records, "layers")):
        stl, sl, ann = (where(records, dataset, mode=mode, layers=layers) for mode in ("stl", "sl", "ann"))
        rows.append(Row(f"{name(dataset)}, {layers} hidden: STL - SL", stl, sl))
        rows.append(Row(f"{name(dataset)}, {layers} hidden: STL - ANN", stl, ann))
    return rows


def _mean_under(kind: str) -> Value:
    return lambda record: 100 * fmean(record["noise"][kind].values())
