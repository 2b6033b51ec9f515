"""The Verilog engine on an iCE40 UP5K: the power that others measured or stated.

Modelled throughout: no board ran the engine. Other families have no line, as no power of theirs has a source.
"""

from __future__ import annotations

from stl_deploy.energy.prices.price_list import Evidence, Range

KEY, TITLE = "up5k", "Lattice iCE40 UP5K, Verilog target"
CLOCK_HZ = 24e6
"""Both sources state power at this clock."""
CORE_VOLTS, CLOCK_AMPERES = 1.219, 1162e-6
"""The core's supply, and its current with a clock and 28 cells: github.com/tinyvision-ai-inc/ice40_power, measured."""
MOST_WATTS = 12.05e-3
"""SYNtzulu's most, an engine of the same cells, memories and clock (doi 10.1109/TCSI.2024.3450966)."""
WATTS: Range = (CORE_VOLTS * CLOCK_AMPERES, MOST_WATTS)
POWER = (
    f"{1e3 * WATTS[0]:.2f} mW (the clock alone, measured by tinyVision.ai's ice40_power) to {1e3 * WATTS[1]:.2f} mW "
    "(the most that SYNtzulu states, doi 10.1109/TCSI.2024.3450966)"
)
SOURCE = f"modelled: time at 24 MHz, times {POWER}"
READ_IN = "https://github.com/tinyvision-ai-inc/ice40_power; doi 10.1109/TCSI.2024.3450966"
EVIDENCE: Evidence = "unverified"


def energy_range(device: str, simulated: float, clock_hz: float) -> Range | None:
    """Return joules of a number of simulated clocks on a device, least and most.

    None for a device without a source, or a design slower than 24 MHz.
    """
    if device != KEY or clock_hz < CLOCK_HZ:
        return None
    return simulated / CLOCK_HZ * WATTS[0], simulated / CLOCK_HZ * WATTS[1]
