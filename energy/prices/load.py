"""Read price lists: built-in ones by name, a user's ``.toml`` file by path; every key is checked."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from stl_deploy._util.remedies import did_you_mean, verb
from stl_deploy._util.untrusted import read_text
from stl_deploy.energy.counts.neuron_ops import Numbers
from stl_deploy.energy.prices.price_list import (
    BITS,
    MAX_BITS,
    NOT_PUBLISHED,
    ON_CHIP_BYTES,
    SIZES,
    SYNOPS,
    TERMS,
    TEXTS,
    UNITS,
    Evidence,
    Price,
    PriceList,
    Scope,
)
from stl_deploy.errors import ConfigError, InputError

_FEW = 12
"""Accepted names are listed up to so many."""
_MOST_BYTES = 2**16
_MOST_DOTS = 200
"""In one line: tomllib takes minutes for a key of hundreds of thousands of parts."""
_WITH_SIGMA = ("measured", "calibrated")
_BESIDE = {
    "hop_ew": "hop_ns",
    "hop_ns": "hop_ew",
    "neuron_inactive": "neuron_active",
    "neuron_update": "neuron_access",
}
"""Terms that are read beside another alone."""


def list_prices() -> tuple[PriceList, ...]:
    """Return every built-in price list, by name."""
    return tuple(load_prices(name) for name in _built_in())


def load_prices(name_or_path: str | Path) -> PriceList:
    """Load a built-in price list by name, or a user's ``.toml`` file by path.

    Raises InputError if there is no such list or file, ConfigError for an unknown key, a missing one,
    a negative value, or a value without the unit its term needs.
    """
    if not isinstance(name_or_path, str | Path):
        raise InputError(f"prices: expected names or paths of price lists; found {name_or_path!r}")
    if str(name_or_path) in _built_in():
        return _read_built_in(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix != ".toml":
        close = did_you_mean(str(name_or_path), _built_in(), most=3)
        raise InputError(
            f"expected one of {len(_built_in())} price lists ({verb('prices')}) or the path of a .toml file; found "
            f"'{name_or_path}'{close}"
        )
    text = read_text(path, "a price list's TOML file", _MOST_BYTES)
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise InputError(f"{path}: expected lines of at most {_MOST_DOTS} dots; found a longer dotted key")
    return _parse(text, path.stem, where=f"price list {path}")


@cache
def _read_built_in(name: str) -> PriceList:
    text = (files(__package__) / "lists" / f"{name}.toml").read_text(encoding="utf-8")
    return _parse(text, name, where=f"price list '{name}'")


@cache
def _built_in() -> tuple[str, ...]:
    folder = files(__package__) / "lists"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def _parse(text: str, name: str, *, where: str) -> PriceList:
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not TOML ({error})") from None
    required = (*TEXTS, "scope", "year", "evidence", "terms")
    _refuse_unknown(data, (*required, "caveat", *SIZES), where)
    missing = [key for key in required if key not in data]
    if missing:
        raise ConfigError(f"{where}: key '{missing[0]}' is missing; needed: {', '.join(required)}")
    for key in (*TEXTS, "caveat"):
        if not isinstance(data.get(key, ""), str):
            raise ConfigError(f"{where}: '{key}': expected a text; found {data[key]!r}")
    scope: Scope = _one_of(data, "scope", get_args(Scope), where)
    evidence: Evidence = _one_of(data, "evidence", get_args(Evidence), where)
    if type(data["year"]) is not int:
        raise ConfigError(f"{where}: 'year': expected an integer; found {data['year']!r}")
    for key in BITS:
        if type(data.get(key, 32)) is not int or not 1 <= data.get(key, 32) <= MAX_BITS:
            raise ConfigError(f"{where}: '{key}': expected an integer from 1 to {MAX_BITS}; found {data[key]!r}")
    if not data["source"].strip():
        raise ConfigError(f"{where}: 'source': expected where each price was published; found an empty text")
    on_chip = data.get("on_chip_bytes", ON_CHIP_BYTES)
    if type(on_chip) is not int or on_chip < 1:
        raise ConfigError(f"{where}: 'on_chip_bytes': expected an integer from 1 up; found {on_chip!r}")
    numbers: Numbers = _one_of({"numbers": "integer", **data}, "numbers", get_args(Numbers), where)
    terms = data["terms"]
    if not isinstance(terms, dict) or not terms:
        raise ConfigError(f"{where}: 'terms': expected a table of prices; found {terms!r}")
    _refuse_unknown(terms, TERMS[scope], f"{where}, scope '{scope}'", "term")
    prices = {term: read_price(entry, TERMS[scope][term], f"{where}: '{term}'") for term, entry in terms.items()}
    for term, other in _BESIDE.items():
        if term in prices and other not in prices:
            raise ConfigError(f"{where}: '{term}': expected '{other}' beside it; found none")
    if scope == "marginal" and prices.keys().isdisjoint(SYNOPS):  # events without a price are bounded by it
        raise ConfigError(f"{where}: expected the price of a synaptic event, {' or '.join(SYNOPS)}; found none")
    if evidence in _WITH_SIGMA:
        _need_sigmas(terms, where, evidence)
    about = {key: data[key] for key in (*TEXTS, "year")} | {key: data.get(key, 32) for key in BITS}
    about |= {"numbers": numbers, "on_chip_bytes": on_chip}
    return PriceList(name=name, scope=scope, evidence=evidence, caveat=data.get("caveat", ""), terms=prices, **about)


def _need_sigmas(terms: Mapping[str, Any], where: str, evidence: str) -> None:
    for term, entry in terms.items():
        if "sigma" not in entry and not isinstance(entry["value"], list):
            raise ConfigError(
                f"{where}: '{term}' has no sigma; {evidence} prices say their standard deviation, "
                f'or sigma = "{NOT_PUBLISHED}"'
            )


def _refuse_unknown(data: Mapping[str, Any], known: Collection[str], where: str, what: str = "key") -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        more = len(known) - _FEW
        accepted = ", ".join([*list(known)[:_FEW], *([f"and {more} more"] if more > 0 else [])])
        raise ConfigError(
            f"{where}: expected a {what}: {accepted}; found '{unknown[0]}'{did_you_mean(unknown[0], known, most=3)}"
        )


def _one_of(data: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> Any:
    if data[key] not in choices:
        raise ConfigError(f"{where}: '{key}': expected {', '.join(choices)}; found {data[key]!r}")
    return data[key]


def read_price(entry: Any, kind: str, where: str) -> Price:
    """Parse a price from a TOML table of value, unit, optional sigma and note; raise ConfigError for others."""
    accepted = ", ".join(UNITS[kind])
    if not isinstance(entry, dict) or "value" not in entry or "unit" not in entry:
        raise ConfigError(f"{where}: expected {{ value = …, unit = … }} with unit one of {accepted}; found {entry!r}")
    _refuse_unknown(entry, ("value", "unit", "note", "sigma"), where)
    unit, note = entry["unit"], entry.get("note", "")
    if not isinstance(unit, str) or unit not in UNITS[kind]:
        hint = "; memory is priced per 64-bit access" if kind == "memory" else ""
        raise ConfigError(f"{where}: expected unit {accepted}; found {unit!r}{hint}")
    if not isinstance(note, str):
        raise ConfigError(f"{where}: expected a text as note; found {note!r}")
    value = entry["value"]
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(_is_price(end) for end in ends) or ends[0] > ends[1]:
        raise ConfigError(f"{where}: expected as value a number from 0 up, or a range [low, high]; found {value!r}")
    sigma = entry.get("sigma", NOT_PUBLISHED)
    if sigma != NOT_PUBLISHED and not _is_price(sigma):
        raise ConfigError(
            f'{where}: expected as sigma a number from 0 up, in {unit}, or "{NOT_PUBLISHED}"; found {sigma!r}'
        )
    factor = UNITS[kind][unit]
    spread = None if sigma == NOT_PUBLISHED else sigma * factor
    return Price(ends[0] * factor, ends[1] * factor, unit, note, spread)


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
