"""Model the energy of an inference on UP5K from published currents.

Modelled: nothing was measured here.
"""

from __future__ import annotations

from stl_deploy.exporters.verilog.devices import Device

CLOCK_HZ = 24e6
"""Both sources state power at this clock."""
CORE_VOLTS, CLOCK_AMPERES = 1.219, 1162e-6
"""The core's supply, and its current with a clock and 28 cells: github.com/tinyvision-ai-inc/ice40_power, measured."""
MOST_WATTS = 12.05e-3
"""SYNtzulu's most, an engine of the same cells, memories and clock (doi 10.1109/TCSI.2024.3450966)."""
SOURCE = (
    "modelled: time at 24 MHz, times 1.42 mW (the clock alone, measured by tinyVision.ai's ice40_power) to 12.05 mW "
    "(the most that SYNtzulu states, doi 10.1109/TCSI.2024.3450966)"
)


def energy_range(device: Device, clocks: float, clock_hz: float) -> tuple[float, float] | None:
    """Return joules of a number of clocks, least and most; None for a device without a source, or below 24 MHz."""
    if device.name != "up5k" or clock_hz < CLOCK_HZ:
        return None
    seconds = clocks / CLOCK_HZ
    return seconds * CORE_VOLTS * CLOCK_AMPERES, seconds * MOST_WATTS
