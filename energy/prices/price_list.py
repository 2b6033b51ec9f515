"""Price lists: the cost of one operation, event or second, with source and uncertainty.

One TOML file per hardware in ``energy/prices/lists/``; your own files have the same form::

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

A price may have a published standard deviation ``sigma`` in its own unit. Lists with evidence ``measured`` or
``calibrated`` need it for every price that is not a range: a number, or "not published".

**Scopes**, each with its own terms, so that different kinds of price never mix in one list:

- ``arithmetic``: adders and multipliers alone.
- ``marginal``: one more event on a running chip.
- ``all-in``: a chip's whole energy divided by its events, at one operating point; nothing may be added.
- ``application``: power and energy of a whole task; no price per count.

**Widths**: ``weight_bits`` and ``accumulator_bits`` (default 32) of the priced operands determine the bits of a memory
access, and the prices of state multiplies and shifts that a list leaves out. ``numbers`` is ``integer`` (default) or
``float``. Memories above ``on_chip_bytes`` (default 1 MiB) are DRAM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stl_deploy.energy.counts.neuron_ops import Numbers

Range = tuple[float, float]
"""The low and the high end of a value."""


def middle(values: Range) -> float:
    """Return the arithmetic mean of a range's ends."""
    return (values[0] + values[1]) / 2


def sums(ranges: Iterable[Range]) -> Range:
    """Return the sum of the low ends, and of the high ends."""
    low = high = 0.0
    for each in ranges:
        low, high = low + each[0], high + each[1]
    return low, high


def hull(ranges: Sequence[Range]) -> Range:
    """Return the least of the low ends, and the greatest of the high ends."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


Scope = Literal["arithmetic", "marginal", "all-in", "application"]
Evidence = Literal["measured", "calibrated", "simulated", "secondary", "unverified"]

_ENERGY = {"fJ": 1e-15, "pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0}
UNITS: dict[str, dict[str, float]] = {
    "energy": _ENERGY,
    "memory": {f"{unit}/64bit": factor for unit, factor in _ENERGY.items()},
    "power": {"uW": 1e-6, "mW": 1e-3, "W": 1.0},
    "time": {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0},
    "rate": {"1/s": 1.0},
}
_OPERATIONS = dict.fromkeys(("mac", "ac", "mul", "add", "mul_state", "shift", "div", "lookup"), "energy")
_MEMORIES = ("sram_8KB", "sram_32KB", "sram_1MB", "dram", "dram_ddr", "dram_hbm2", "dram_gddr6")
MAX_BITS = 64
ON_CHIP_BYTES = 1 << 20
NOT_PUBLISHED = "not published"
SYNOPS = ("synop", "synop_dense", "synop_sparse", "synop_conv", "synop_one_to_one")
_NEURONS = ("neuron_active", "neuron_inactive", "neuron_access", "neuron_update", "neuron_ms")
_MESSAGES = ("spike", "spike_out", "spike_in_tile", "message_out", "hop_ew", "hop_ns")
_LATENCIES = (
    *(f"latency_{event}" for event in (*SYNOPS, *_NEURONS, *_MESSAGES, "message_in")),
    *(f"step_sync_{tiles}_tiles" for tiles in (1, 2, 4, 29)),
)
TERMS: Mapping[Scope, Mapping[str, str]] = {
    "arithmetic": _OPERATIONS | dict.fromkeys(_MEMORIES, "memory"),
    "marginal": dict.fromkeys((*SYNOPS, *_NEURONS, *_MESSAGES), "energy")
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

TEXTS = ("title", "node", "source")
BITS = ("weight_bits", "accumulator_bits")
SIZES = (*BITS, "numbers", "on_chip_bytes")


@dataclass(frozen=True)
class Price:
    """One value in SI units (J, J per 64-bit access, W, s or 1/s), or a range ``low``..``high``."""

    low: float
    high: float
    unit: str
    note: str = ""
    sigma: float | None = None
    """Published standard deviation, in SI units as the value."""

    @property
    def ends(self) -> Range:
        """The value or range."""
        return self.low, self.high

    def times(self, factor: float) -> Price:
        """Return this price times a factor, without its deviation."""
        return Price(self.low * factor, self.high * factor, self.unit, self.note)

    @property
    def text(self) -> str:
        """The value with its unit, as in the source."""
        factor = next(units[self.unit] for units in UNITS.values() if self.unit in units)
        low, high = (f"{value / factor:.6g}" for value in (self.low, self.high))
        spread = "" if self.sigma is None else f" ± {self.sigma / factor:.3g}"
        return f"{low}{spread} {self.unit}" if low == high else f"{low} to {high}{spread} {self.unit}"


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
    numbers: Numbers = "integer"
    on_chip_bytes: int = ON_CHIP_BYTES

    @property
    def width(self) -> str:
        """Operand type of one word, as in ``int8`` or ``fp32``."""
        return f"{'fp' if self.numbers == 'float' else 'int'}{self.weight_bits}"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict: each term's value as in the source, and in SI units as [low, high]."""
        return {
            **{key: getattr(self, key) for key in ("name", *TEXTS, "scope", "year", "evidence", "caveat", *SIZES)},
            "terms": {
                term: {"value": price.text, "si": [price.low, price.high], "sigma": price.sigma, "note": price.note}
                for term, price in self.terms.items()
            },
        }


def multiply(prices: PriceList, bits: int, other: int | None = None) -> Price:
    """Return the price of the multiply in a MAC of values of ``bits`` and ``other`` (None: a weight).

    On integers in proportion to both widths; a value of one bit gates the other and multiplies nothing.
    """
    wide = prices.weight_bits
    share = 1.0 if prices.numbers == "float" else bits / wide * (wide if other is None else other) / wide
    return prices.terms["mul"].times(0.0 if 1 in (bits, other) else share)


def synop(prices: PriceList, bits: int, other: int | None = None) -> Price:
    """Return the price of a synop or MAC of such values: the `multiply` and an add."""
    times, add = multiply(prices, bits, other), prices.terms["ac"]
    return Price(times.low + add.low, times.high + add.high, add.unit)


def state_multiply(prices: PriceList) -> Price:
    """Return the price of a multiply of accumulator width: the list's ``mul_state``, else ``mul`` at equal widths.

    Without either: between r and r² times the list's multiply, r the ratio of the widths (an array multiplier grows
    with the product of its operands' widths).
    """
    if "mul_state" in prices.terms:
        return prices.terms["mul_state"]
    narrow = prices.terms["mul"]
    wider = prices.accumulator_bits / prices.weight_bits
    if wider <= 1 or prices.numbers == "float":
        return narrow
    return Price(narrow.low * wider, narrow.high * wider**2, narrow.unit, f"{wider:g} to {wider**2:g} times 'mul'")


DECAY_BITS = 12
"""Bits of a decay in Loihi's, C's and Verilog's integers."""


def leak_multiply(prices: PriceList) -> Price:
    """Return the price of a state times a stored factor: on integers in proportion to the factor's 12 bits."""
    whole = state_multiply(prices)
    share = 1.0 if prices.numbers == "float" else min(1.0, DECAY_BITS / prices.accumulator_bits)
    return whole.times(share)


def shift(prices: PriceList) -> Price:
    """Return the price of a shift by a constant: the list's ``shift``, else from nothing (wiring) to an add."""
    add = prices.terms["add"]
    return prices.terms.get("shift", Price(0.0, add.high, add.unit, "from wiring to an add"))


TABLE_BYTES = 8 * 1024
"""A table of 2,048 values of 32 bits, the smallest memory that lists price."""


def has_tables(prices: PriceList) -> bool:
    """Return whether a list has what `lookup` and `division` need."""
    return {"sram_8KB", "mul", "add"} <= set(prices.terms)


def lookup(prices: PriceList) -> Price:
    """Return the price of a value of exp, tanh and the like: the list's ``lookup``, else a read from a table.

    From one word of an 8 KB SRAM to two, between which a multiply and an add interpolate.
    """
    low, high = (end * prices.accumulator_bits / WORD_BITS for end in sram_access(prices, TABLE_BYTES))
    steps = state_multiply(prices).high + prices.terms["add"].high
    read = Price(low, 2 * high + steps, "pJ", "a read of an 8 KB SRAM, up to two and a line between them")
    return prices.terms.get("lookup", read)


def division(prices: PriceList) -> Price:
    """Return the price of a division by a signal: the list's ``div``, else the reciprocal from a table, times a state.

    Up to one step of Newton's method, two multiplies and an add, refines the reciprocal.
    """
    table, times = lookup(prices), state_multiply(prices)
    high = table.high + 3 * times.high + prices.terms["add"].high
    return prices.terms.get("div", Price(table.low + times.low, high, "pJ", "a reciprocal from a table and a multiply"))


def requantises(prices: PriceList) -> bool:
    """Return whether an activation is stored narrower than it is summed: integers with a wider accumulator."""
    return prices.numbers == "integer" and prices.accumulator_bits > prices.weight_bits


def requantisation(prices: PriceList) -> Price:
    """Charge one activation from accumulator to activation width: a multiply on the accumulator, a shift and a clip."""
    parts = prices.terms.get("mul_scale", state_multiply(prices)), shift(prices), prices.terms["add"]
    return Price(*sums(part.ends for part in parts), parts[0].unit, "multiply, shift and clip")


_POINTS = (("sram_8KB", 8 * 1024), ("sram_32KB", 32 * 1024), ("sram_1MB", 1024 * 1024))
_DRAM = ("dram", "dram_ddr")
WORD_BITS = 64


def has_memory(prices: PriceList) -> bool:
    """Return whether a list prices everything that the models with memory need."""
    needed = {"mac", "ac", "mul", "add", *(term for term, _ in _POINTS)}
    return needed <= set(prices.terms) and not prices.terms.keys().isdisjoint(_DRAM)


def access(prices: PriceList, size: int, on_chip: float = 1.0) -> Range:
    """Return joules of one 64-bit access to a memory of ``size`` bytes: a share ``on_chip``, the rest in DRAM.

    No more of it is on chip than the list's ``on_chip_bytes``.
    """
    # a memory that alone exceeds the chip leaves in part, however the others share
    share = min(on_chip, prices.on_chip_bytes / max(size, 1))
    low, high = sram_access(prices, min(size, prices.on_chip_bytes))
    dram = next(prices.terms[term] for term in _DRAM if term in prices.terms)
    return share * low + (1 - share) * dram.low, share * high + (1 - share) * dram.high


def sram_access(prices: PriceList, size: int) -> Range:
    """Return joules of one 64-bit access to an SRAM of ``size`` bytes, low to high.

    Linear between 0 bytes at 0 J and the list's 8 KB, 32 KB and 1 MB (Lemaire et al. 2022, section 3);
    between 1 MB and a list's larger ``on_chip_bytes`` the last slope goes on.
    """
    upper = next((i for i, (_, at) in enumerate(_POINTS) if size <= at), len(_POINTS) - 1)
    left, low, high = 0, 0.0, 0.0
    if upper:
        term, left = _POINTS[upper - 1]
        low, high = prices.terms[term].low, prices.terms[term].high
    term, right = _POINTS[upper]
    share = (size - left) / (right - left)
    return low + share * (prices.terms[term].low - low), high + share * (prices.terms[term].high - high)


def word_access(prices: PriceList, bits: int, size: int, on_chip: float = 1.0) -> Range:
    """Return joules to move one word of ``bits``, with words packed into 64-bit accesses."""
    low, high = access(prices, size, on_chip)
    return low * bits / WORD_BITS, high * bits / WORD_BITS
