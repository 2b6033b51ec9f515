"""When to learn thresholds: STL against SL in each condition and at each level, and the rule in words they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import fmean

from examples.study.comparisons import Comparison, Found, Row, compare
from examples.study.select import Record, Value, accuracy, datasets, where

WORTH = 0.5
"""Points of accuracy that learning thresholds must bring to be advised; set before the records."""
_CONDITION = ("factor", "initial", "T", "epochs", "budget", "norm")
_HELD = {"folded": "integers, thresholds in the weights", "per-layer": "integers, one threshold a layer"}


@dataclass(frozen=True)
class Condition:
    """A row of the table, the levels that it is a part of, and the mean accuracies in percent of SL and STL."""

    row: Row
    levels: tuple[str, ...]

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of SL and of STL, over the seeds that both have."""
        seeds = sorted(set(self.row.first) & set(self.row.second))
        sl, stl = ([self.row.value(by_seed[seed]) for seed in seeds] for by_seed in (self.row.second, self.row.first))
        return fmean(sl), fmean(stl)


def conditions(records: Sequence[Record]) -> list[Condition]:
    """Those that have a pair, in the order of the records."""
    rows: list[Condition] = []
    for dataset in datasets(records):
        keys = dict.fromkeys(tuple(record["labels"][key] for key in _CONDITION) for record in records)
        for key in keys:
            labels = dict(zip(_CONDITION, key, strict=True))
            stl, sl = (where(records, dataset, mode=mode, **labels) for mode in ("stl", "sl"))
            if set(stl) & set(sl):
                rows += _rows(stl, sl)
    return rows


def levels(found: Sequence[Condition]) -> list[Row]:
    """Each level's rows as one: by seed, the mean of what they hold (of seeds that all of them have)."""
    starts = [condition.levels for condition in found if len(condition.levels) > 1]
    others = [condition.levels for condition in found if len(condition.levels) == 1]
    names = dict.fromkeys(
        [*(name for level in zip(*starts, strict=True) for name in level), *(one for (one,) in others)]
    )
    rows = []
    for name in names:
        there = [condition.row for condition in found if name in condition.levels]
        first = _mean([(row.first, row.value) for row in there])
        second = _mean([(row.second, row.value) for row in there])
        rows.append(Row(name, first, second, _of_mean))
    return rows


def advice(records: Sequence[Record]) -> str:
    """The rule in words, drawn from the levels and conditions alone."""
    rows = conditions(records)
    of_levels = compare(levels(rows))
    by_finding = {
        "Learn thresholds": [c for c in of_levels if c.finding == "higher" and _gain(c) >= WORTH],
        f"Higher by less than {WORTH:g} points": [c for c in of_levels if c.finding == "higher" and _gain(c) < WORTH],
        "Do not learn them (lower)": [c for c in of_levels if c.finding == "lower"],
        "Not shown to pay (within noise)": [c for c in of_levels if c.finding == "within noise"],
        "Too few seeds to tell": [c for c in of_levels if c.finding == "untested"],
    }
    told_anyway = list(by_finding)[:-1]
    lines = [
        f"- **{said}:** {'; '.join(map(_phrase, these)) or 'at no level'}."
        for said, these in by_finding.items()
        if these or said in told_anyway
    ]
    single = [c for c in compare([condition.row for condition in rows]) if c.finding in ("higher", "lower")]
    singles = "; ".join(f"{c.label} ({c.finding}, {_gain(c):+.2f})" for c in single)
    lines.append(f"- **Single conditions outside noise:** {singles or 'none'}.")
    return "\n".join([*lines, *_regained(rows, records), *_budgets(rows)])


def hidden_synops(record: Record) -> float:
    """Synops per sample behind the first layer of a dense net: what its spikes cross, by the test split's rates."""
    features = [layer["features"] for layer in record["config"]["network"] if layer["kind"] == "linear"]
    rates = record["test"]["rates"].values()
    spikes = [float(rate) * neurons for rate, neurons in zip(rates, features, strict=True)]
    return float(int(record["labels"]["T"]) * sum(map(mul, spikes, features[1:])))


def _budgets(found: Sequence[Condition]) -> Iterator[str]:
    """Whether both modes kept to the budget, beside the same nets without one."""
    for condition in found:
        labels = next(iter(condition.row.first.values()))["labels"]
        if labels["factor"] in ("deep", "budget"):
            sl, stl = (fmean(map(hidden_synops, of.values())) for of in (condition.row.second, condition.row.first))
            yield f"- {condition.row.label}: SL {sl:,.0f}, STL {stl:,.0f} synops behind the first layer."


def _rows(stl: Found, sl: Found) -> Iterator[Condition]:
    one = next(iter(stl.values()))
    labels = one["labels"]
    norm = "batch norm" if labels["norm"] else "no batch norm"
    hidden = sum(layer["kind"] == "linear" for layer in one["config"]["network"]) - 1
    factor = labels["factor"]
    if factor == "start":
        parts = (f"θ₀ = {labels['initial']:g}", f"T = {labels['T']}", norm)
        yield Condition(Row(", ".join(parts), stl, sl), parts)
        return
    if factor == "integers":
        named: dict[str, Value] = {"two convolutions, as trained": accuracy}
        named |= {f"two convolutions, {said}": _held(form) for form, said in _HELD.items()}
    else:
        level = {
            "deep": f"{hidden} hidden layers",
            "few": f"{labels['epochs']} epochs",
            "budget": f"{hidden} hidden layers at {labels['budget']:,.0f} synops",
        }[factor]
        named = {level: accuracy}
    for level, value in named.items():
        yield Condition(Row(f"{level}, {norm}", stl, sl, value), (level,))


def _held(form: str) -> Value:
    return lambda record: 100 * float(record["integers"][form])


def _mean(parts: Sequence[tuple[Found, Value]]) -> Mapping[int, Record]:
    seeds = set.intersection(*(set(found) for found, _ in parts))
    return {seed: {"mean": fmean(value(found[seed]) for found, value in parts)} for seed in sorted(seeds)}


def _of_mean(record: Record) -> float:
    return float(record["mean"])


def _gain(comparison: Comparison) -> float:
    return comparison.pair.difference.value


def _phrase(comparison: Comparison) -> str:
    difference = comparison.pair.difference
    if difference.half is None:
        return f"{comparison.label} ({difference.value:+.2f})"
    low, high = difference.value - difference.half, difference.value + difference.half
    return f"{comparison.label} ({difference.value:+.2f} points, {low:+.2f} to {high:+.2f})"


def _regained(found: Sequence[Condition], records: Sequence[Record]) -> Iterator[str]:
    """Return each bad initial threshold's cost to SL against other conditions', and STL's recovery."""
    good = {float(record["labels"]["initial"]) for record in records if record["labels"]["factor"] != "start"}
    by_level = {row.label: row for row in levels(found)}
    for base in sorted(good):
        best = by_level.get(f"θ₀ = {base:g}")
        for row in by_level.values():
            if best is not None and row.label.startswith("θ₀") and row is not best:
                lost, gained = (
                    compare([Row("", best.second, row.second, _of_mean)]),
                    compare([Row("", row.first, row.second, _of_mean)]),
                )
                if lost and gained:
                    yield (
                        f"- {row.label} instead of {base:g} costs SL {_gain(lost[0]):.2f} points on average over "
                        f"T and batch norm; learning regains {_gain(gained[0]):+.2f} of them."
                    )
