"""Format quantities with a fitting SI prefix, and sizes of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stl_deploy._util.remedies import named
from stl_deploy.errors import InputError

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))


def prefix_of(value: float) -> tuple[float, str]:
    """Return the factor and the prefix under which ``value`` has one to three digits before the point."""
    # 1e-3 is 1 m, 9e-4 is 900 u; below all of them f, and 0 without a prefix
    fitting = (p for p in _PREFIXES if abs(value) >= p[0])
    return next(fitting, _PREFIXES[-1] if value else _PREFIXES[0])


def with_unit(value: float, unit: str) -> str:
    """Format with three digits: ``1.25 µJ``."""
    factor, prefix = prefix_of(value)
    shown = f"{value / factor:.3g}" if abs(value / factor) < 999.5 else f"{value / factor:.0f}"
    return f"{shown} {prefix}{unit}"


def counted(number: int, noun: str) -> str:
    """Format a count: ``1 sample``, ``1,200 samples``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def between(low: str, high: str) -> str:
    """Format a range: ``1.25 µJ to 3 mJ``, or one value if both look alike."""
    return low if low == high else f"{low} to {high}"


def plain(ends: Sequence[float]) -> str:
    """Format a [low, high] range of bare numbers."""
    return between(*(f"{end:.4g}" for end in ends))


def range_with_unit(ends: tuple[float, float], unit: str) -> str:
    """Format a range whose ends each have the prefix that fits."""
    return between(*(with_unit(end, unit) for end in ends))


def bytes_of(size: str | int | None, option: str) -> int | None:
    """Parse ``256K``, ``1M`` or plain bytes; raise InputError for other text."""
    if size is None:
        return None
    text = str(size)
    units = {"K": 1024, "M": 1024**2}
    digits, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not digits.isdecimal() or not int(digits):
        raise InputError(f"{named(option)}: expected bytes, as 262144, 256K or 1M; found '{text}'")
    return int(digits) * unit


def folder_bytes(folder: Path) -> int | None:
    """Return the sizes of all files in a folder, links not followed; None if there is no such folder."""
    if not folder.is_dir():
        return None
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone in between, or not ours to look at
                continue
    return total


def in_words(size: int) -> str:
    """Format as ``512 kB``, ``1.3 GB``; decimal units, as for disks."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
