"""The claims of the paper's abstract, each held against this study's records by a rule that stood before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from examples.study.comparisons import Comparison, Found, Row, compare
from examples.study.select import Record, Records, datasets, labels_of, name, where


@dataclass(frozen=True)
class Claim:
    """A claim, what of it is measured (STL minus the other, in ``unit``), and the sign that confirms it."""

    claim: str
    row: Row
    unit: str
    confirmed_by: Literal["higher", "lower"]


@dataclass(frozen=True)
class Answer:
    """What the records say to a claim."""

    claim: Claim
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """``holds``, ``the opposite``, ``within noise`` or ``untested``."""
        found = self.comparison.finding
        if found in ("higher", "lower"):
            return "holds" if found == self.claim.confirmed_by else "the opposite"
        return found


def answers(records: Records) -> list[Answer]:
    """Every claim that has records; their p-values are adjusted together."""
    makers = {"modes": _accurate, "noise": _robust, "depth": _deep}
    claims = [claim for part, make in makers.items() for claim in make(records.get(part) or [])]
    claims = [claim for claim in claims if set(claim.row.first) & set(claim.row.second)]
    compared = compare([claim.row for claim in claims])
    return [Answer(claim, comparison) for claim, comparison in zip(claims, compared, strict=True)]


def _accurate(records: Sequence[Record]) -> Iterator[Claim]:
    for other in ("sl", "tl"):
        for dataset in datasets(records):
            two = where(records, dataset, mode="stl"), where(records, dataset, mode=other)
            row = Row(f"{name(dataset)}: test accuracy, STL - {other.upper()}", *two)
            yield Claim(f"more accurate than {other.upper()}", row, "points", "higher")


def _robust(records: Sequence[Record]) -> Iterator[Claim]:
    """Accuracy that noise takes away, so that a better clean accuracy is not counted twice."""
    for dataset in datasets(records):
        two = where(records, dataset, mode="stl"), where(records, dataset, mode="sl")
        row = Row(f"{name(dataset)}: accuracy lost to noise (mean of kinds and levels), STL - SL", *two, _lost)
        yield Claim("robust to noisy data", row, "points", "lower")


def _deep(records: Sequence[Record]) -> Iterator[Claim]:
    """Of the deepest network."""
    for dataset in datasets(records):
        deepest = max(labels_of(records, "layers"))
        stl, sl = (where(records, dataset, mode=mode, layers=deepest) for mode in ("stl", "sl"))
        there = f"{name(dataset)}, {deepest} hidden layers"
        rates = "stable transmission, appropriate rates"
        row = Row(f"{there}: silent or saturated hidden neurons, STL - SL", stl, sl, _idle)
        yield Claim(rates, row, "% of neurons", "lower")
        row = Row(f"{there}: spread (sd) of spike rates over hidden layers, STL - SL", stl, sl, _unsteady)
        yield Claim(rates, row, "points", "lower")
        energy = "low energy when deep"
        row = Row(f"{there}: modelled energy per inference, STL - SL", stl, sl, _nanojoules)
        yield Claim(energy, row, "nJ", "lower")
        row = Row(f"{there}: modelled energy per inference, STL - ANN", stl, _anns(stl), _nanojoules)
        yield Claim(energy, row, "nJ", "lower")


def _lost(record: Record) -> float:
    noisy = [accuracy for levels in record["noise"].values() for accuracy in levels.values()]
    return 100 * (float(record["clean"]) - fmean(noisy))


def _hidden(record: Record, key: str) -> list[float]:
    """Of each hidden layer; the last one that fires is the readout's."""
    return [float(value) for value in record["test"][key].values()][:-1]


def _idle(record: Record) -> float:
    return 100 * (fmean(_hidden(record, "silent")) + fmean(_hidden(record, "saturated")))


def _unsteady(record: Record) -> float:
    return 100 * pstdev(_hidden(record, "rates"))


def _nanojoules(record: Record) -> float:
    return 1e9 * float(record["counts"]["snn_joules"])


def _anns(found: Found) -> Found:
    """What the ANN twins of these networks cost, in the same place."""
    return {seed: {"counts": {"snn_joules": record["counts"]["ann_joules"]}} for seed, record in found.items()}
