"""The claims of the paper's abstract, each held against this study's records by a rule that stood before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from examples.study.comparisons import Comparison, Found, Row, compare
from examples.study.select import Record, Records, Value, datasets, labels_of, name, where


@dataclass(frozen=True)
class Claim:
    """A claim, what of it is measured (STL minus the other, in ``unit``), and the sign that confirms it."""

    claim: str
    row: Row
    unit: str
    confirmed_by: Literal["higher", "lower"]


@dataclass(frozen=True)
class Answer:
    """The records' answer to a claim."""

    claim: Claim
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """``holds``, ``the opposite``, ``within noise`` or ``untested``."""
        finding = self.comparison.finding
        if finding in ("higher", "lower"):
            return "holds" if finding == self.claim.confirmed_by else "the opposite"
        return finding


def answers(records: Records) -> list[Answer]:
    """Every claim that has records; their p-values are adjusted together."""
    makers = {"modes": _accurate, "noise": _robust, "depth": _deep}
    return _answered([claim for part, make in makers.items() for claim in make(records.get(part) or [])])


def deep_answers(records: Sequence[Record]) -> list[Answer]:
    """Energy and accuracy of the convolutional nets of part ``deep``, at each depth: a family of its own."""
    return _answered(list(_convolutional(records)))


def _answered(claims: Sequence[Claim]) -> list[Answer]:
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


def _convolutional(records: Sequence[Record]) -> Iterator[Claim]:
    """At each depth, and whether the spiking net's cost falls with depth beside its ANN's."""
    for dataset in datasets(records):
        depths = sorted(labels_of(records, "layers"))
        beside_ann: dict[int, Found] = {}
        for layers in depths:
            stl, sl, ann = (where(records, dataset, mode=mode, layers=layers) for mode in ("stl", "sl", "ann"))
            there = f"{name(dataset)}, {layers} convolutions"
            yield Claim("more accurate than SL", Row(f"{there}: test accuracy, STL - SL", stl, sl), "points", "higher")
            yield Claim(
                "as accurate as the ANN", Row(f"{there}: test accuracy, STL - ANN", stl, ann), "points", "higher"
            )
            for what, value in (("synops", synops), ("modelled energy", quoted_snn)):
                row = Row(f"{there}: {what}, STL / SL - 1", *_share(stl, sl, value, value), _percent)
                yield Claim("low energy when deep", row, "%", "lower")
            beside_ann[layers], none = _share(stl, stl, quoted_snn, quoted_ann)
            row = Row(f"{there}: modelled energy, STL / ANN - 1", beside_ann[layers], none, _percent)
            yield Claim("low energy when deep", row, "%", "lower")
        least, most = beside_ann[depths[0]], beside_ann[depths[-1]]
        label = f"{name(dataset)}, {depths[0]} to {depths[-1]} convolutions: growth of modelled energy, STL / ANN"
        yield Claim("low energy when deep", Row(label, most, least, _percent), "% of the ANN's", "lower")


def synops(record: Record) -> float:
    """Per inference."""
    return float(record["counts"]["synops_AC"] + record["counts"]["synops_MAC"])


def quoted_snn(record: Record) -> float:
    """Joules of the spiking net in the cell of the grid that is quoted."""
    return float(_quoted(record)["snn_joules"])


def quoted_ann(record: Record) -> float:
    """Joules of its trained ANN in that cell."""
    return float(_quoted(record)["ann_joules"])


def _quoted(record: Record) -> Record:
    cell: Record = next(cell for cell in record["counts"]["grid"] if cell["quoted"])
    return cell


def _share(first: Found, second: Found, value: Value, of: Value) -> tuple[Found, Found]:
    """By seed, how many percent of the second's the first's value is more than it, and none."""
    seeds = sorted(set(first) & set(second))
    return (
        {seed: {"percent": 100 * (value(first[seed]) / of(second[seed]) - 1)} for seed in seeds},
        {seed: {"percent": 0.0} for seed in seeds},
    )


def _percent(record: Record) -> float:
    return float(record["percent"])


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
    """Return the costs of these networks' ANN twins, in the same place."""
    return {seed: {"counts": {"snn_joules": record["counts"]["ann_joules"]}} for seed, record in found.items()}
