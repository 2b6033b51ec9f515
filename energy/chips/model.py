"""Chips as data: floor power, stepping power, time, and the price lists of their events.

One TOML file each in ``models/``. Every quantity has a unit, and a standard deviation where one was published.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, get_args

from stl_deploy.energy.prices.load import load_prices, read_price
from stl_deploy.energy.prices.price_list import Evidence, Price, PriceList, Range, hull
from stl_deploy.errors import ConfigError

_TEXTS = ("title", "source", "caveat")
_QUANTITIES = {
    "stepping": "power",
    "core": "power",
    "least_step": "time",
    "real_time_step": "time",
}
_NUMBERS = ("cores", "neurons_per_core", "tile")


@dataclass(frozen=True)
class ChipModel:
    """One chip.

    Attributes:
        floors: Published powers of the idle chip, by regime (boot, warm, ...).
        running: Regimes that an inference may run in; their floors are the bracket.
        stepping: Additional power while steps are made.
        core: Power of each core but the first (included in stepping) while it works, not while the chip waits.
        events: Price lists whose bracket is the events' energy. Empty if only whole-chip powers are known; the chip
            then needs a given step time.
        latencies: List of latencies, for chips whose step ends when all cores are done.
        least_step: Shortest possible step.
        real_time_step: Fixed step duration by definition.
        cores, neurons_per_core, tile: Of one chip.
    """

    name: str
    title: str
    evidence: Evidence
    source: str
    caveat: str
    events: tuple[PriceList, ...]
    latencies: PriceList | None = None
    cores: int = 1
    neurons_per_core: int = 1
    tile: int = 1
    floors: Mapping[str, Price] = field(default_factory=dict)
    running: tuple[str, ...] = ()
    stepping: Price | None = None
    core: Price | None = None
    least_step: Price | None = None
    real_time_step: Price | None = None

    def floor(self, regime: str | None = None) -> Price | None:
        """Return the power of one regime, or the bracket over the regimes of an inference; None without any."""
        prices = [self.floors[name] for name in ((regime,) if regime else self.running)]
        if not prices:
            return None
        low, high = hull([price.ends for price in prices])
        sigmas = [price.sigma for price in prices if price.sigma is not None]
        return replace(prices[-1], low=low, high=high, sigma=max(sigmas, default=None))

    @property
    def regime(self) -> str | None:
        """Name of the regimes that an inference is priced in."""
        names = " or ".join(self.running)
        return f"{names}, stepping" if names and self.stepping is not None else names or None

    def standing(self, seconds: Range, chips: int, regime: str | None = None) -> tuple[Range | None, Range | None]:
        """Return joules of floor and stepping of ``chips`` that work for ``seconds``."""
        return _flow(self.floor(regime), seconds, chips), _flow(self.stepping, seconds, chips)

    def working(self, seconds: Range, cores: int) -> Range | None:
        """Return joules of ``cores`` cores, less the first, over ``seconds``; None if no core power is known."""
        return _flow(self.core, seconds, max(cores - 1, 0))


def _flow(power: Price | None, seconds: Range, chips: int) -> Range | None:
    # power and time are of one run: the least of both, the most of both
    return None if power is None else (power.low * seconds[0] * chips, power.high * seconds[1] * chips)


@cache
def chip_models() -> tuple[ChipModel, ...]:
    """Return every built-in chip, by name."""
    folder = files(__package__) / "models"
    tomls = sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name)
    return tuple(parse_chip(item.read_text(encoding="utf-8"), item.name.removesuffix(".toml")) for item in tomls)


def chip_model(name: str) -> ChipModel:
    """Return a built-in chip by name; raise ConfigError with the known names if there is none."""
    for model in chip_models():
        if model.name == name:
            return model
    raise ConfigError(f"expected a chip: {', '.join(model.name for model in chip_models())}; found '{name}'")


def parse_chip(text: str, name: str) -> ChipModel:
    """Parse a chip from TOML; raise ConfigError for an unknown key, unit or evidence, and for missing keys."""
    where = f"chip '{name}'"
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML ({error})") from None
    known = {*_TEXTS, *_QUANTITIES, *_NUMBERS, "evidence", "events", "latencies", "floors", "running"}
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{where}: expected keys {', '.join(sorted(known))}; found '{unknown[0]}'")
    needed = [*_TEXTS, "evidence", *([] if data.get("floors") and "events" in data else ["events"])]
    if missing := [key for key in needed if not data.get(key)]:
        raise ConfigError(
            f"{where}: expected {', '.join(_TEXTS)}, evidence and events; found no '{missing[0]}', or an empty one"
        )
    if data["evidence"] not in get_args(Evidence):
        raise ConfigError(f"{where}: 'evidence': expected {', '.join(get_args(Evidence))}; found {data['evidence']!r}")
    numbers: dict[str, Any] = {key: data[key] for key in _NUMBERS if key in data}
    if wrong := [key for key, value in numbers.items() if type(value) is not int or value < 1]:
        raise ConfigError(f"{where}: '{wrong[0]}': expected an integer from 1 up; found {numbers[wrong[0]]!r}")
    given: dict[str, Any] = {
        key: read_price(data[key], kind, f"{where}: '{key}'") for key, kind in _QUANTITIES.items() if key in data
    }
    given |= {key: data[key] for key in _TEXTS} | numbers | _regimes(data, where)
    latencies = load_prices(data["latencies"]) if "latencies" in data else None
    events = tuple(load_prices(entry) for entry in data["events"])
    return ChipModel(name=name, evidence=data["evidence"], events=events, latencies=latencies, **given)


def _regimes(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    floors = data.get("floors", {})
    if not isinstance(floors, dict):
        raise ConfigError(f"{where}: 'floors': expected a table of powers by regime; found {floors!r}")
    running = data.get("running", [])
    if not isinstance(running, list) or set(running) - set(floors) or bool(floors) != bool(running):
        raise ConfigError(f"{where}: 'running': expected regimes of 'floors': {', '.join(floors)}; found {running!r}")
    priced = {name: read_price(value, "power", f"{where}: 'floors.{name}'") for name, value in floors.items()}
    return {"floors": priced, "running": tuple(running)}
