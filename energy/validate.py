"""Compare the models with published measurements: prediction, measurement, error, and held-out families.

``measured.toml`` lists measurements with their sources and a ``family``: one network, or one series of networks by the
same authors. Scores are by family. A family is held out if the model was fitted to none of its measurements; families
used for fitting are listed separately. Devices that run ANNs are scored leaving out one network at a time.

Predictions come from the functions that price a network: counts from `stl_deploy.energy.prices.events`, steps from
`stl_deploy.energy.chips.time`, floor and stepping from `ChipModel.standing`. Unpublished spike counts are bounded.
Errors compare the middles of ranges; both ranges, and the width ratio of the predicted one, are listed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.energy.chips.baselines import Device, Row, devices
from stl_deploy.energy.chips.model import ChipModel, chip_model, chip_models
from stl_deploy.energy.chips.time import Work, step_time
from stl_deploy.energy.prices.bill import Biller
from stl_deploy.energy.prices.events import Events, price_events
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import PriceList, Range, hull, middle, sums
from stl_deploy.errors import ConfigError

Verdict = Literal["good", "rough", "bad", "bracketed", "wide"]
Quantity = Literal["energy", "power", "time"]
Split = Literal["training", "held out", "shortcut"]
GOOD, ROUGH, WIDE = 0.25, 2.0, 5.0
"""Good: within 25 %. Rough: within a factor 2. Bracketed: the measurement is inside a range at most 5 times wide. Wide:
inside a wider one, which says nothing."""

_SI = {"pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "mW": 1e-3, "us": 1e-6, "ms": 1e-3}


@dataclass(frozen=True)
class Check:
    """One prediction against one measurement, both [low, high] in ``unit``.

    model: a price list, a chip or a device. split: ``shortcut`` for a wrong way of counting that is in use.
    error: middle over middle, less 1. inside: whether the prediction's range holds the measurement's middle.
    sigma: published standard deviation of the measurement. met_at: how far from the low to the high bound of the
    counts the measurement lies (for a rate-coded network: the rate that would reproduce it); None without bounds.
    """

    case: str
    family: str
    model: str
    quantity: Quantity
    split: Split
    predicted: Range
    measured: Range
    unit: str
    per: str
    how: str
    error: float
    inside: bool
    verdict: Verdict
    sigma: float | None
    met_at: float | None
    source: str
    note: str

    @property
    def width(self) -> float | None:
        """High over low end of the prediction; None from 0."""
        return self.predicted[1] / self.predicted[0] if self.predicted[0] else None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        ends = {"predicted": list(self.predicted), "measured": list(self.measured)}
        return asdict(self) | ends | {"width": self.width}


@dataclass(frozen=True)
class Score(JsonTwin):
    """Errors of one model on one family: mean and worst absolute error, and the measurements within its ranges.

    fitted: measurements of the family that the model was fitted to; where there are any, the family is not held out,
    and errors are of the other rows. width: of the widest range. None without any other row.
    """

    model: str
    quantity: Quantity
    family: str
    fitted: int
    others: int
    mean_error: float | None
    worst_error: float | None
    inside: int
    width: float | None

    @property
    def held_out(self) -> bool:
        """Whether the model was fitted to no measurement of this family."""
        return not self.fitted


_LABELS: Mapping[str, Split] = {"training": "training", "held_out": "held out", "shortcut": "shortcut"}
_IDENTITY = ("source", "kind", "unit", "measured", "series_x", "series_y")
"""Fields that identify a measurement, whatever its entry is called."""


def validate() -> tuple[Check, ...]:
    """Compare every model with every measurement of its training or held-out data; raise ConfigError for a leak."""
    data = tomllib.loads((files(__package__) / "measured.toml").read_text(encoding="utf-8"))
    return (*checks_of(data), *(check for device in devices() for check in _device(device)))


def checks_of(data: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return the checks of a measurement file; raise ConfigError if a split leaks or names an unknown entry."""
    known: dict[str, Mapping[str, Any]] = {}
    for entry in data["measurement"]:
        if entry["id"] in known:
            raise ConfigError(f"[[measurement]]: expected each id once; found '{entry['id']}' twice")
        known[entry["id"]] = entry
    checks, seen = list[Check](), dict[tuple[str, str], tuple[str, str]]()
    for split in data["split"]:
        model = split["model"]
        for side, label in _LABELS.items():
            for name in split.get(side, []):
                if name not in known:
                    raise ConfigError(f"split of '{model}': expected an id of [[measurement]]; found '{name}'")
                if side != "shortcut":
                    _no_leak(model, side, known[name], seen)
                checks.append(_check(known[name], model, label, split.get("floor")))
    return tuple(checks)


def scores(checks: Sequence[Check]) -> tuple[Score, ...]:
    """Return one row per model, quantity and family: held-out families first, the worst error first."""
    kinds = dict.fromkeys((c.model, c.quantity, c.family) for c in checks)
    rows = [_score(*kind, [c for c in checks if (c.model, c.quantity, c.family) == kind]) for kind in kinds]
    return tuple(sorted(rows, key=lambda row: (not row.held_out, -(row.worst_error or 0.0))))


def _score(model: str, quantity: Quantity, family: str, checks: Sequence[Check]) -> Score:
    others = [c for c in checks if c.split == "held out"]
    errors = [abs(c.error) for c in others]
    widths = [width for c in others if (width := c.width) is not None]
    return Score(
        model=model,
        quantity=quantity,
        family=family,
        fitted=sum(c.split == "training" for c in checks),
        others=len(others),
        mean_error=sum(errors) / len(errors) if errors else None,
        worst_error=max(errors, default=None),
        inside=sum(c.inside for c in others),
        width=max(widths, default=None),
    )


def _no_leak(model: str, side: str, entry: Mapping[str, Any], seen: dict[tuple[str, str], tuple[str, str]]) -> None:
    """Raise ConfigError if ``model`` has this measurement, under any id, on its other side."""
    # by content, not by id: one measurement under two ids would leak all the same
    what = repr([entry.get(key) for key in _IDENTITY])
    name, other = seen.setdefault((model, what), (entry["id"], side))
    if other != side:
        both = f"'{entry['id']}' in both" + ("" if name == entry["id"] else f", there as '{name}'")
        raise ConfigError(f"split of '{model}': expected each measurement in training or held out; found {both}")


def _check(case: Mapping[str, Any], model: str, split: Split, floor: str | None) -> Check:
    chip = next((chip for chip in chip_models() if chip.name == model), None)
    if case["kind"] == "step":
        predicted = _step(case, chip_model(model))
    elif chip is not None:
        predicted = _on_chip(case, chip, floor)
    else:
        predicted = _events(case, load_prices(model))
    unit = _SI[case["unit"]]
    shown = predicted[0] / unit, predicted[1] / unit
    measured = _measured(case)
    # counts of one value bound nothing, and dividing by their width would fail
    bounded = "high" in case and shown[1] > shown[0]
    return _judged(
        case=case["case"],
        family=case["family"],
        model=model,
        quantity="time" if case["kind"] == "step" else "power" if case["unit"] == "mW" else "energy",
        split=split,
        predicted=shown,
        measured=measured,
        sigma=case.get("sigma"),
        met_at=(middle(measured) - shown[0]) / (shown[1] - shown[0]) if bounded else None,
        **{key: case[key] for key in ("unit", "per", "how", "source", "note")},
    )


def _judged(*, predicted: Range, measured: Range, **rest: Any) -> Check:
    """Return the check with its error and verdict."""
    (low, high), actual = predicted, middle(measured)
    error = middle(predicted) / actual - 1
    inside = low <= actual <= high
    verdict = _verdict(low, high, error, inside)
    return Check(predicted=predicted, measured=measured, error=error, inside=inside, verdict=verdict, **rest)


def _verdict(low: float, high: float, error: float, inside: bool) -> Verdict:
    if abs(error) <= GOOD:
        return "good"
    if inside:
        if not low or high > WIDE * low:
            return "wide"
        return "bracketed" if high > ROUGH * low else "rough"
    return "rough" if 1 / ROUGH <= 1 + error <= ROUGH else "bad"


def _on_chip(case: Mapping[str, Any], chip: ChipModel, floor: str | None) -> Range:
    """Return floor (``total`` alone) and stepping over the measured time, events, and known power of the network.

    floor: the regime that was measured, where an inference may run in several.
    """
    # the measured time, not the predicted: an error of time must not count as one of power
    seconds = (case["seconds"], case["seconds"])
    standing, stepping = chip.standing(seconds, case.get("chips", 1), floor)
    drawn = case.get("network_mW", 0.0) * 1e-3 * seconds[0]
    events = [_events(case, prices) for prices in chip.events] if {"counts", "low"} & set(case) else [(0.0, 0.0)]
    parts = [stepping] if case["kind"] == "dynamic" else [standing, stepping]
    parts += [_cores(case, chip), (drawn, drawn), hull(events)]
    return sums(part for part in parts if part)


def _cores(case: Mapping[str, Any], chip: ChipModel) -> Range | None:
    """Return joules of the case's cores over the predicted part of the measured time."""
    if "cores" not in case or chip.core is None:
        return None
    low, high = (min(case["seconds"], case["steps"] * seconds) for seconds in _step(case, chip))
    return chip.working((low, high), case["cores"])


def _events(case: Mapping[str, Any], prices: PriceList) -> Range:
    """Return joules of the counts; under an arithmetic list every synop is an add and nothing else is priced."""
    low, high = case.get("low", case.get("counts")), case.get("high", case.get("counts"))
    return _priced(low, prices)[0], _priced(high, prices)[1]


def _priced(counts: Mapping[str, Any], prices: PriceList) -> Range:
    counted: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in counts.items()}
    events = Events(**counted)
    if prices.scope == "arithmetic":
        synops, ac = events.synop_dense + events.synop_conv + events.synop_one_to_one, prices.terms["ac"]
        return synops * ac.low, synops * ac.high
    biller = Biller(prices, 1)
    price_events(events, prices, biller)
    return biller.bill().priced


def _step(case: Mapping[str, Any], chip: ChipModel) -> Range:
    """Return seconds of a step of the neurocores, as chip lines predict it, without waiting for a host."""
    low, high = (step_time([_work(layer, chip, end) for layer in case["layers"]], chip) for end in (0, 1))
    return low[0], high[1]


def _work(layer: Mapping[str, Any], chip: ChipModel, end: int) -> Work:
    def value(key: str) -> float:
        amount = layer.get(key, 0.0)
        return float(amount[end] if isinstance(amount, list) else amount)

    cores = layer.get("cores", -(-layer["neurons"] // chip.neurons_per_core))
    return Work(
        neurons=layer["neurons"],
        touched=value("touched") if "touched" in layer else layer["neurons"],
        spikes=value("spikes"),
        synops_dense=value("synops_dense"),
        synops_conv=value("synops_conv"),
        received=value("received"),
        cores=cores,
        share=1 / cores,
    )


def _measured(case: Mapping[str, Any]) -> Range:
    if "series_x" not in case:
        low, high = case["measured"]
        return low, high
    slope = float(np.polyfit(case["series_x"], case["series_y"], 1)[0])
    return slope, slope


def _device(device: Device) -> list[Check]:
    """Predict every published network of a device from its others (leave one out); a single one is its training."""
    if len(device.rows) == 1:
        return _row(device, device.rows[0], "training")
    return [check for row in device.rows for check in _row(device.without(row), row, "held out")]


def _row(device: Device, row: Row, split: Split) -> list[Check]:
    joules, seconds = device.predict(row.macs)
    return [
        _judged(
            case=f"ANN '{row.net}', {row.macs:,} MACs, batch 1, {quantity}",
            family="MLPerf Tiny" if "MLPerf" in device.source else "Blouw 2019, ANN",
            model=device.name,
            quantity=quantity,
            split=split,
            predicted=(low / _SI[unit], high / _SI[unit]),
            measured=(measured / _SI[unit], measured / _SI[unit]),
            unit=unit,
            per="inference",
            how="measured",
            sigma=None,
            met_at=None,
            source=device.source,
            note="",
        )
        for quantity, (low, high), measured, unit in (
            ("energy", joules, row.joules, "uJ"),
            ("time", seconds, row.seconds, "us"),
        )
    ]
