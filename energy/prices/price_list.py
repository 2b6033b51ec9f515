"""Price lists: what one operation, event or second costs, from whom, and how well that is known.

One TOML file per hardware in ``prices/``; a user's own file has the same form::

    title = "45 nm, 32-bit float"
    scope = "arithmetic"       # arithmetic | marginal | all-in | application
    node = "45 nm"
    year = 2014
    evidence = "secondary"     # measured | calibrated | simulated | secondary | unverified
    source = "Horowitz, ISSCC 2014, energy table"
    caveat = "arithmetic only"

    [terms]
    mac = { value = 4.6, unit = "pJ" }
    dram = { value = [1300, 2600], unit = "pJ/64bit", note = "a range" }

**Scopes.** ``arithmetic``: the adders and multipliers alone. ``marginal``: what one more event costs
on a chip that is running. ``all-in``: a chip's whole energy divided by its events, at one operating
point; nothing may be added to it. ``application``: power and energy of a whole task; prices no count.
Each scope has its own terms, so that prices of different meaning cannot stand in one list.

``weight_bits`` and ``accumulator_bits`` (32 if left out) say how wide the operands are that the list
prices; they decide how many bits a memory access moves.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from stl_deploy.errors import ConfigError, InputError

Range = tuple[float, float]
"""The low and the high end of a value."""
Scope = Literal["arithmetic", "marginal", "all-in", "application"]
Evidence = Literal["measured", "calibrated", "simulated", "secondary", "unverified"]

_ENERGY = {"fJ": 1e-15, "pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0}
_UNITS: dict[str, dict[str, float]] = {
    "energy": _ENERGY,
    "memory": {f"{unit}/64bit": factor for unit, factor in _ENERGY.items()},
    "power": {"uW": 1e-6, "mW": 1e-3, "W": 1.0},
    "time": {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0},
    "rate": {"1/s": 1.0},
}
_OPERATIONS = dict.fromkeys(("mac", "ac", "mul", "add"), "energy")
_MEMORIES = ("sram_8KB", "sram_32KB", "sram_1MB", "dram", "dram_ddr", "dram_hbm2", "dram_gddr6")
MAX_BITS = 64
_SYNOPS = ("synop", "synop_dense", "synop_sparse", "synop_conv", "synop_one_to_one")
_NEURONS = ("neuron_active", "neuron_inactive", "neuron_access", "neuron_update", "neuron_ms")
_MESSAGES = ("spike", "spike_out", "spike_in_tile", "message_out", "hop_ew", "hop_ns")
_LATENCIES = (
    *(f"latency_{event}" for event in (*_SYNOPS, *_NEURONS, *_MESSAGES, "message_in")),
    *(f"step_sync_{tiles}_tiles" for tiles in (1, 2, 4, 29)),
)
TERMS: Mapping[Scope, Mapping[str, str]] = {
    "arithmetic": _OPERATIONS | dict.fromkeys(_MEMORIES, "memory"),
    "marginal": dict.fromkeys((*_SYNOPS, *_NEURONS, *_MESSAGES), "energy")
    | dict.fromkeys(_LATENCIES, "time")
    | {"idle_power": "power", "step_time": "time"},
    "all-in": {"synop": "energy", "mac": "energy"},
    "application": {
        "idle_power": "power",
        "active_power": "power",
        "dynamic_energy_per_inference": "energy",
        "active_energy_per_inference": "energy",
        "inferences_per_second": "rate",
    },
}
"""The terms that a list of each scope may hold, and the kind of unit of each."""

_FEW = 12
"""Accepted names are listed up to so many."""
_TEXTS = ("title", "node", "source")
_BITS = ("weight_bits", "accumulator_bits")


@dataclass(frozen=True)
class Price:
    """One value in SI units (J, J per 64-bit access, W, s or 1/s), or a range ``low``..``high``."""

    low: float
    high: float
    unit: str
    note: str = ""

    @property
    def text(self) -> str:
        """The value as the source gives it, with its unit."""
        factor = next(units[self.unit] for units in _UNITS.values() if self.unit in units)
        low, high = (f"{value / factor:.6g}" for value in (self.low, self.high))
        return f"{low} {self.unit}" if low == high else f"{low} to {high} {self.unit}"


@dataclass(frozen=True)
class PriceList:
    """The prices of one hardware under one scope, for operands of ``weight_bits`` and ``accumulator_bits``."""

    name: str
    title: str
    scope: Scope
    node: str
    year: int
    evidence: Evidence
    source: str
    caveat: str
    terms: Mapping[str, Price]
    weight_bits: int = 32
    accumulator_bits: int = 32

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; each term's value as its source gives it, and in SI units as [low, high]."""
        return {
            **{key: getattr(self, key) for key in ("name", *_TEXTS, "scope", "year", "evidence", "caveat", *_BITS)},
            "terms": {
                term: {"value": price.text, "si": [price.low, price.high], "note": price.note}
                for term, price in self.terms.items()
            },
        }


def list_prices() -> tuple[PriceList, ...]:
    """Every price list that comes with stl-deploy, by name."""
    return tuple(load_prices(name) for name in _built_in())


def load_prices(name_or_path: str | Path) -> PriceList:
    """A built-in price list by name, or a user's ``.toml`` file by path.

    Raises InputError if there is no such list or file, ConfigError for an unknown key, a missing one,
    a negative value, or a value without the unit its term needs.
    """
    if str(name_or_path) in _built_in():
        name = str(name_or_path)
        text = (files(__package__) / "lists" / f"{name}.toml").read_text(encoding="utf-8")
        return _parse(text, name, where=f"price list '{name}'")
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise InputError(
            f"no price list '{name_or_path}'{_did_you_mean(str(name_or_path), _built_in())}; 'stl-deploy prices' lists "
            f"all {len(_built_in())}; or give the path of a .toml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"price list {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"price list {path}: not a text file; expected TOML") from None
    return _parse(text, path.stem, where=f"price list {path}")


def _built_in() -> tuple[str, ...]:
    folder = files(__package__) / "lists"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def _parse(text: str, name: str, *, where: str) -> PriceList:
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not TOML ({error})") from None
    required = (*_TEXTS, "scope", "year", "evidence", "terms")
    _refuse_unknown(data, (*required, "caveat", *_BITS), where)
    missing = [key for key in required if key not in data]
    if missing:
        raise ConfigError(f"{where}: key '{missing[0]}' is missing; needed: {', '.join(required)}")
    for key in (*_TEXTS, "caveat"):
        if not isinstance(data.get(key, ""), str):
            raise ConfigError(f"{where}: '{key}' is {data[key]!r}; a text is accepted")
    scope: Scope = _one_of(data, "scope", get_args(Scope), where)
    evidence: Evidence = _one_of(data, "evidence", get_args(Evidence), where)
    if type(data["year"]) is not int:
        raise ConfigError(f"{where}: 'year' is {data['year']!r}; a whole number is accepted")
    for key in _BITS:
        if type(data.get(key, 32)) is not int or not 1 <= data.get(key, 32) <= MAX_BITS:
            raise ConfigError(f"{where}: '{key}' is {data[key]!r}; a whole number from 1 to {MAX_BITS} is accepted")
    terms = data["terms"]
    if not isinstance(terms, dict) or not terms:
        raise ConfigError(f"{where}: 'terms' is {terms!r}; a table of prices is accepted")
    _refuse_unknown(terms, TERMS[scope], f"{where}, scope '{scope}'", "term")
    prices = {term: _price(entry, TERMS[scope][term], f"{where}: '{term}'") for term, entry in terms.items()}
    about = {key: data[key] for key in (*_TEXTS, "year")} | {key: data.get(key, 32) for key in _BITS}
    return PriceList(name=name, scope=scope, evidence=evidence, caveat=data.get("caveat", ""), terms=prices, **about)


def _refuse_unknown(data: Mapping[str, Any], known: Collection[str], where: str, what: str = "key") -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        more = len(known) - _FEW
        accepted = ", ".join([*list(known)[:_FEW], *([f"and {more} more"] if more > 0 else [])])
        raise ConfigError(
            f"{where}: unknown {what} '{unknown[0]}'{_did_you_mean(unknown[0], known)}; accepted: {accepted}"
        )


def _did_you_mean(name: str, known: Collection[str]) -> str:
    """The names that come closest, or nothing."""
    within = [one for one in sorted(known) if name and name in one]
    near = list(dict.fromkeys([*get_close_matches(name, known, n=3), *within]))[:3]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _one_of(data: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> Any:
    if data[key] not in choices:
        raise ConfigError(f"{where}: '{key}' is {data[key]!r}; accepted: {', '.join(choices)}")
    return data[key]


def _price(entry: Any, kind: str, where: str) -> Price:
    accepted = ", ".join(_UNITS[kind])
    if not isinstance(entry, dict) or "value" not in entry or "unit" not in entry:
        raise ConfigError(f"{where} is {entry!r}; expected {{ value = …, unit = … }} with unit one of: {accepted}")
    _refuse_unknown(entry, ("value", "unit", "note"), where)
    unit, note = entry["unit"], entry.get("note", "")
    if not isinstance(unit, str) or unit not in _UNITS[kind]:
        hint = "; memory is priced per 64-bit access" if kind == "memory" else ""
        raise ConfigError(f"{where} has unit {unit!r}; accepted: {accepted}{hint}")
    if not isinstance(note, str):
        raise ConfigError(f"{where} has note {note!r}; a text is accepted")
    value = entry["value"]
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(_is_price(end) for end in ends) or ends[0] > ends[1]:
        raise ConfigError(f"{where} has value {value!r}; a number from 0 up, or a range [low, high], is accepted")
    factor = _UNITS[kind][unit]
    return Price(ends[0] * factor, ends[1] * factor, unit, note)


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
