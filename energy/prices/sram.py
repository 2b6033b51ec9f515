"""Price one 64-bit memory access: SRAM by its size, DRAM for the share that does not fit."""

from __future__ import annotations

from stl_deploy.energy.prices.price_list import PriceList, Range

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
