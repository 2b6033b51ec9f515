"""The models against published measurements: prediction, measurement, error, good or bad.

The cases stand in ``measured.toml`` with their sources. Event counts go through the very rules that
price a network (`stl_deploy.energy.prices.events`). Where spikes were not published the counts are bounds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from stl_deploy.energy.prices.bill import Biller
from stl_deploy.energy.prices.events import Events, price_events
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import PriceList, Range

Verdict = Literal["good", "rough", "bad", "bracketed"]
Role = Literal["prediction", "consistency", "shortcut"]
GOOD, ROUGH, WIDE = 0.25, 2.0, 2.0
"""Good: within 25 %. Rough: within a factor 2. Bracketed: they meet, but one of them is more than a factor 2 wide."""

_SI = {"uJ": 1e-6, "mJ": 1e-3, "mW": 1e-3}


@dataclass(frozen=True)
class Check:
    """One prediction against one measurement, both [low, high] in ``unit``.

    role: ``consistency`` where a price or the power comes from the same measurement, ``shortcut`` for a wrong way of
    counting that is in use; neither says how well the models predict.
    error: of the nearer end against the measurement's nearer end, relative; 0 where the ranges meet.
    met_at: how far from the low to the high bound of the counts the measurement lies (for a rate-coded
    network: the rate that would reproduce it); None without bounds.
    """

    case: str
    price: str
    predicted: Range
    measured: Range
    unit: str
    per: str
    how: str
    error: float
    verdict: Verdict
    role: Role
    met_at: float | None
    source: str
    note: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"predicted": list(self.predicted), "measured": list(self.measured)}


def validate() -> tuple[Check, ...]:
    """Every case under every price list that applies to it."""
    text = (files(__package__) / "measured.toml").read_text(encoding="utf-8")
    return tuple(check for case in tomllib.loads(text)["case"] for check in _checks(case))


def _checks(case: Mapping[str, Any]) -> list[Check]:
    if not case["lists"]:
        return [_check(case, None)]
    return [_check(case, load_prices(name)) for name in case["lists"]]


def _check(case: Mapping[str, Any], prices: PriceList | None) -> Check:
    unit = _SI[case["unit"]]
    static = case.get("static_W", 0.0) * case.get("seconds", 0.0)
    low, high = case.get("low", case.get("counts")), case.get("high", case.get("counts"))
    predicted = (static + _events(low, prices)[0], static + _events(high, prices)[1])
    measured = _measured(case)
    shown = (predicted[0] / unit, predicted[1] / unit)
    error = _error(shown, measured)
    met = _share(shown, measured) if "high" in case else None
    return Check(
        case=case["name"],
        price="static power x time" if prices is None else prices.name,
        predicted=shown,
        measured=measured,
        error=error,
        verdict=_verdict(shown, measured, error),
        role=case.get("role", "prediction"),
        met_at=met,
        **{key: case[key] for key in ("unit", "per", "how", "source", "note")},
    )


def _events(counts: Mapping[str, Any], prices: PriceList | None) -> Range:
    """Joules of the counts; under an arithmetic list every synop is an add and nothing else is paid."""
    if prices is None:
        return 0.0, 0.0
    events = Events(**counts)
    if prices.scope == "arithmetic":
        synops, ac = events.synop_dense + events.synop_conv + events.synop_one_to_one, prices.terms["ac"]
        return synops * ac.low, synops * ac.high
    biller = Biller(prices, 1)
    price_events(events, prices, biller)
    return biller.bill().priced


def _measured(case: Mapping[str, Any]) -> Range:
    if "fit" not in case:
        low, high = case["measured"]
        return low, high
    slope, intercept = np.polyfit(case["series_x"], case["series_y"], 1)
    value = float(slope if case["fit"] == "slope" else intercept)
    return value, value


def _error(predicted: Range, measured: Range) -> float:
    if predicted[1] < measured[0]:
        return predicted[1] / measured[0] - 1
    return predicted[0] / measured[1] - 1 if predicted[0] > measured[1] else 0.0


def _share(predicted: Range, measured: Range) -> float:
    return (sum(measured) / 2 - predicted[0]) / (predicted[1] - predicted[0])


def _verdict(predicted: Range, measured: Range, error: float) -> Verdict:
    if not error:
        return "bracketed" if any(high > WIDE * low for low, high in (predicted, measured)) else "good"
    if abs(error) <= GOOD:
        return "good"
    factor = 1 + error
    return "rough" if 1 / ROUGH <= factor <= ROUGH else "bad"
