"""Numbers as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))
_WHOLE = 1000
"""Means from here up are shown without decimals."""


def joules(value: float | None) -> str:
    """Three digits with the prefix that fits; a dash for None."""
    return "–" if value is None else _prefixed(value, "J")


def _prefixed(value: float, unit: str) -> str:
    factor, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1] if value else (1.0, ""))
    shown = f"{value / factor:.3g}" if abs(value / factor) < 999.5 else f"{value / factor:.0f}"
    return f"{shown}\u00a0{prefix}{unit}"


def ends(values: Sequence[float], unit: str) -> str:
    """A [low, high] range with a unit as one text."""
    low, high = (_prefixed(value, unit) for value in values)
    return low if low == high else f"{low} to {high}"


def plain(values: Sequence[float]) -> str:
    """A [low, high] range of bare numbers."""
    low, high = (f"{value:.4g}" for value in values)
    return low if low == high else f"{low} to {high}"


def span(values: Sequence[float] | None) -> str:
    """A [low, high] range of joules as one text; a dash for None."""
    if values is None:
        return "–"
    return ends(values, "J")


def count(value: float | None) -> str:
    """Digits in groups of three; a dash for None."""
    if value is None:
        return "–"
    whole = value == int(value) or abs(value) >= _WHOLE
    return (f"{value:,.0f}" if whole else f"{value:,.4g}").replace(",", "\u202f")


def counts(values: Sequence[float]) -> str:
    """A [low, high] range of numbers, three digits each."""
    low, high = (count(float(f"{value:.3g}")) for value in values)
    return low if low == high else f"{low} to {high}"


def percent(value: float | None) -> str:
    """A fraction as a percentage with two digits; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}\u00a0%"


def percents(values: Sequence[float]) -> str:
    """A [low, high] range of fractions as percentages."""
    low, high = (percent(value) for value in values)
    return low if low == high else f"{low} to {high}"


def ratio(value: float | None) -> str:
    """Three digits and a times sign; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}×" if value >= _WHOLE else f"{value:#.3g}".rstrip(".") + "×"


def ratios(values: Sequence[float] | None) -> str:
    """A [low, high] range of ratios as one text; a dash for None."""
    if values is None:
        return "–"
    low, high = (ratio(value) for value in values)
    return low if low == high else f"{low} to {high}"
