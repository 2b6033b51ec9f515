"""What one memory access costs: SRAM by its size, and DRAM for the share that does not fit, per 64-bit access."""

from __future__ import annotations

from stl_deploy.energy.prices.price_list import PriceList, Range

_POINTS = (("sram_8KB", 8 * 1024), ("sram_32KB", 32 * 1024), ("sram_1MB", 1024 * 1024))
_DRAM = ("dram", "dram_ddr")
WORD_BITS = 64


def has_memory(prices: PriceList) -> bool:
    """Whether a list prices everything that the memory-inclusive models need."""
    needed = {"mac", "ac", "mul", "add", *(term for term, _ in _POINTS)}
    return needed <= set(prices.terms) and not prices.terms.keys().isdisjoint(_DRAM)


def access(prices: PriceList, size: int, resident: int = 0) -> Range:
    """Joules of one 64-bit access to a memory of ``size`` bytes, of ``resident`` bytes that all must be kept.

    The capacity is the network's: where more must be kept than the list's ``on_chip_bytes``, every memory has the same
    share on chip, and the rest of its accesses go to DRAM. So a little more costs a little more.
    """
    on_chip = min(1.0, prices.on_chip_bytes / max(size, resident, 1))
    low, high = sram_access(prices, min(size, prices.on_chip_bytes))
    dram = next(prices.terms[term] for term in _DRAM if term in prices.terms)
    return on_chip * low + (1 - on_chip) * dram.low, on_chip * high + (1 - on_chip) * dram.high


def sram_access(prices: PriceList, size: int) -> Range:
    """Joules of one 64-bit access to an SRAM of ``size`` bytes, low to high.

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


def word_access(prices: PriceList, bits: int, size: int, resident: int = 0) -> Range:
    """Joules to move one word of ``bits`` when words are packed into 64-bit accesses."""
    low, high = access(prices, size, resident)
    return low * bits / WORD_BITS, high * bits / WORD_BITS
