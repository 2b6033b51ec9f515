"""Where a network's neurons would stand on Loihi 1: what messages and hops are priced by."""

from __future__ import annotations

from stl_deploy.energy.prices.chip import CORES, OnChip
from stl_deploy.exporters.netx.chain import read_chain, refusals
from stl_deploy.exporters.netx.chips import load_chips
from stl_deploy.exporters.netx.placement import RESOURCES, place
from stl_deploy.graph.program import Program

CHIP = "loihi1"
MOST = 8 * CORES
"""Cores that a network may need to be placed: eight chips."""


def on_loihi(program: Program) -> OnChip:
    """The ``simple`` and the ``balanced`` placement, or why there is none.

    Thresholds are folded into the weights, one per core, so they take no room.
    """
    chip = load_chips()[CHIP]
    refused = refusals(program)
    if refused:
        return OnChip(chip.name, reason=f"'{refused[0].node}' cannot be placed on {chip.name}: {refused[0].reason}")
    simple = place(program, chip, "simple")
    excess = [(node, one) for node, one in simple.excess if one.kind != "thresholds"]
    for node, one in excess:
        if one.kind == "neuron":
            return OnChip(chip.name, reason=f"'{node}' cannot be placed on {chip.name}: {one}")
    if len(simple.placement.cores) > MOST:
        needed = f"{len(simple.placement.cores):,} cores of {chip.name} would be needed"
        return OnChip(chip.name, reason=f"{needed}, and more than {MOST:,} are not looked at")
    return OnChip(
        chip.name,
        {name: limit for name in RESOURCES if (limit := chip.value(f"{name}_per_core")) is not None},
        (simple.placement, place(program, chip, "balanced").placement),
        tuple(node.name for node in read_chain(program).readout),
        tuple(str(one) if node is None else f"'{node}': {one}" for node, one in excess),
    )
