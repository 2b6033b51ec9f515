"""The Verilog engine on an iCE40 UP5K: clocks from counts, and the power that others measured or stated.

Modelled throughout: no board ran the engine. Other families have no line, as no power of theirs has a source.
"""

from __future__ import annotations

import numpy as np

from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.prices.price_list import Range
from stl_deploy.graph.program import Program

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
LANES = 8
PASS_CLOCKS = 4
"""Of a word of neurons, of which half is kept in a step."""
STRAYS: Range = (1.0, 1.5)
"""Simulated clocks over those of full words: 1.07 (the digits preset) and 1.38 (784-128-100 on MNIST)."""
WEIGHT_MEMORY, STATE_MEMORY = 4 * 16 * 16384, 30 * 4096
"""Bits of the single-port RAMs, which hold weights and thresholds, and of the RAM blocks, which hold potentials."""


def fits(program: Program, counts: Counts) -> bool:
    """Return whether weights of 8 bits, thresholds of 16 and potentials of 24 fit UP5K's memories."""
    weights = sum(int(np.size(getattr(node, "weight", ()))) for node in program.nodes)
    neurons = sum(of_node.neurons for of_node in counts.neurons.values())
    return 8 * weights + 16 * neurons <= WEIGHT_MEMORY and 24 * neurons <= STATE_MEMORY


def clocks(counts: Counts) -> Range:
    """Return the clocks of one inference with 8 lanes: full words of synops and neurons, times the strays."""
    totals = counts.totals
    fitted = (totals.synops + PASS_CLOCKS * totals.neuron_updates) / LANES / counts.batch
    return STRAYS[0] * fitted, STRAYS[1] * fitted


def energy_range(device: str, simulated: float, clock_hz: float) -> Range | None:
    """Return joules of a number of simulated clocks on a device, least and most.

    None for a device without a source, or a design slower than 24 MHz.
    """
    if device != KEY or clock_hz < CLOCK_HZ:
        return None
    return simulated / CLOCK_HZ * WATTS[0], simulated / CLOCK_HZ * WATTS[1]
