"""Chips as data: floor power, stepping power, time, and the price lists of their events.

One TOML file each in ``models/``. Every quantity has a unit, and a standard deviation where one was published.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, get_args

from stl_deploy.energy.prices.load import load_prices, read_price
from stl_deploy.energy.prices.price_list import Evidence, Price, PriceList
from stl_deploy.errors import ConfigError

_TEXTS = ("title", "source", "caveat")
_QUANTITIES = {
    "floor": "power",
    "stepping": "power",
    "least_step": "time",
    "host_step": "time",
    "real_time_step": "time",
}
_NUMBERS = ("cores", "neurons_per_core", "tile")


@dataclass(frozen=True)
class ChipModel:
    """One chip. floor: power of a chip that is ready; None where none was published. stepping: on top in steps.

    events: price lists, the bracket of which is the events' energy. latencies: the list of its latencies, for chips
    that step when all cores are done. least_step: no step is shorter. host_step: how long steps took that waited for
    the host. real_time_step: steps that last so long by definition. cores, neurons_per_core, tile: of one chip.
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
    floor: Price | None = None
    stepping: Price | None = None
    least_step: Price | None = None
    host_step: Price | None = None
    real_time_step: Price | None = None


@cache
def chip_models() -> tuple[ChipModel, ...]:
    """Every chip that comes with stl-deploy, by name."""
    folder = files(__package__) / "models"
    found = sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name)
    return tuple(parse_chip(item.read_text(encoding="utf-8"), item.name.removesuffix(".toml")) for item in found)


def chip_model(name: str) -> ChipModel:
    """A built-in chip by name; raises ConfigError naming those there are."""
    for model in chip_models():
        if model.name == name:
            return model
    raise ConfigError(f"expected a chip: {', '.join(model.name for model in chip_models())}; found '{name}'")


def parse_chip(text: str, name: str) -> ChipModel:
    """A chip from TOML; raises ConfigError for an unknown key, unit or evidence, and for missing keys."""
    where = f"chip '{name}'"
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML ({error})") from None
    known = {*_TEXTS, *_QUANTITIES, *_NUMBERS, "evidence", "events", "latencies"}
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{where}: expected keys {', '.join(sorted(known))}; found '{unknown[0]}'")
    if missing := [key for key in (*_TEXTS, "evidence", "events") if not data.get(key)]:
        raise ConfigError(
            f"{where}: expected {', '.join(_TEXTS)}, evidence and events; found no '{missing[0]}', or an empty one"
        )
    if data["evidence"] not in get_args(Evidence):
        raise ConfigError(f"{where}: 'evidence': expected {', '.join(get_args(Evidence))}; found {data['evidence']!r}")
    numbers: dict[str, Any] = {key: data[key] for key in _NUMBERS if key in data}
    if wrong := [key for key, value in numbers.items() if type(value) is not int or value < 1]:
        raise ConfigError(f"{where}: '{wrong[0]}': expected a whole number from 1 up; found {numbers[wrong[0]]!r}")
    given: dict[str, Any] = {
        key: read_price(data[key], kind, f"{where}: '{key}'") for key, kind in _QUANTITIES.items() if key in data
    }
    given |= {key: data[key] for key in _TEXTS} | numbers
    latencies = load_prices(data["latencies"]) if "latencies" in data else None
    events = tuple(load_prices(entry) for entry in data["events"])
    return ChipModel(name=name, evidence=data["evidence"], events=events, latencies=latencies, **given)
