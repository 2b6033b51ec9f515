"""Format ratios, shares and ranges."""

from __future__ import annotations

from stl_deploy._util.units import between, prefix_of
from stl_deploy.energy.prices.price_list import Range


def si(values: Range, unit: str) -> str:
    """Format a range with one prefix, two digits at each end."""
    factor, prefix = prefix_of(values[1])
    low, high = (f"{float(f'{value / factor:.2g}'):g}" for value in values)
    return f"{between(low, high)} {prefix}{unit}"


def number(ratio: float) -> str:
    """Format with two digits, three next to 1, without an exponent where plain digits are short."""
    if 0.95 <= ratio < 1.095:
        return f"{ratio:.3g}" if ratio < 0.9995 else f"{ratio:.2f}"
    return f"{ratio:#.2g}".rstrip(".") if ratio < 99.5 else f"{ratio:,.0f}"


def percent(rate: float) -> str:
    """Format a share with two digits."""
    return f"{100 * rate:.2g} %"
