"""FPGAs by name: their RAM, and the blocks that the engine's memories take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stl_deploy._util.suggest import did_you_mean
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.verilog.memories import memories_of, parameters_of
from stl_deploy.exporters.verilog.plan import Plan

GENERIC = "generic"


@dataclass(frozen=True)
class Device:
    """block_bits: of one RAM block; widths: that it can be read in. UP5K's single-port RAMs are not used.

    Sources: the counts that nextpnr reports for each device.
    """

    name: str
    title: str
    cells: int
    blocks: int
    block_bits: int
    widths: tuple[int, ...]


_ICE40 = (4096, (16, 8, 4, 2))
_ECP5 = (18432, (36, 18, 9, 4, 2, 1))
DEVICES = {
    device.name: device
    for device in (
        Device("up5k", "Lattice iCE40 UP5K", 5280, 30, *_ICE40),
        Device("hx8k", "Lattice iCE40 HX8K", 7680, 32, *_ICE40),
        Device("ecp5-25f", "Lattice ECP5 25F", 24288, 56, *_ECP5),
        Device("ecp5-85f", "Lattice ECP5 85F", 83640, 208, *_ECP5),
        Device("gw1nr-9", "Gowin GW1NR-9", 8640, 26, 18432, (32, 16, 8, 4, 2, 1)),
    )
}


def device_of(name: str) -> Device:
    """The device of that name; raises InputError naming those there are."""
    if name == GENERIC:
        return Device(GENERIC, "any", 0, 0, 0, ())
    if name not in DEVICES:
        known = ", ".join([*DEVICES, GENERIC])
        raise InputError(f"--device: expected one of {known}; found '{name}'{did_you_mean(name, DEVICES)}")
    return DEVICES[name]


def memory_sizes(plan: Plan) -> dict[str, tuple[int, int]]:
    """(bits of a word, words) of each of the engine's memories."""
    sizes = parameters_of(plan, memories_of(plan))
    tap = sizes["STATE_ADDR"] + sizes["WEIGHT_ADDR"]
    return {
        "weights": (sizes["LANES"] * sizes["WEIGHT_BITS"], sizes["WEIGHT_WORDS"]),
        "potentials": (sizes["LANES"] * sizes["STATE_BITS"], sizes["STATE_WORDS"]),
        "spikes": (sizes["LANES"], sizes["SPIKE_WORDS"]),
        "inputs": (sizes["IN_BITS"], sizes["INPUT_WORDS"]),
        "rows": (sizes["FAN_BITS"] + sizes["ROW_TAP_ADDR"], sizes["ROW_WORDS"]),
        "columns": (sizes["FAN_BITS"] + sizes["COL_TAP_ADDR"], sizes["COL_WORDS"]),
        "row taps": (tap, sizes["ROW_TAPS"]),
        "column taps": (tap, sizes["COL_TAPS"]),
    }


def memory_bits(plan: Plan) -> int:
    """Bits of all memories together."""
    return sum(width * depth for width, depth in memory_sizes(plan).values())


def capacity(device: Device) -> int:
    """Bits of RAM on a device."""
    return device.blocks * device.block_bits


def blocks_of(width: int, depth: int, device: Device) -> int:
    """RAM blocks for a memory: the fewest over the widths that a block can have."""
    return min(
        math.ceil(width / wide) * math.ceil(depth / (device.block_bits // wide if wide % 9 else 18432 // wide))
        for wide in device.widths
    )


def require_fits(plan: Plan, device: Device) -> None:
    """Raise UnsupportedError where the memories take more bits than the device has, naming the largest layer."""
    if not device.blocks:
        return
    total, held = memory_bits(plan), capacity(device)
    if total <= held:
        return
    large = [one.name for one in DEVICES.values() if capacity(one) >= total]
    layer = max(plan.passes, key=lambda one: one.layout.words)
    raise UnsupportedError(
        f"{device.title} holds {held:,} bits; the network takes {total:,}, {total - held:,} too many",
        node=layer.name,
        slug="device-too-small",
        remedy=f"use --device {large[0]}" if large else "make the network smaller; no device here holds it",
    )
