"""Check whether a device's RAM holds a network: blocks of every memory, counted as yosys lays them out."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass

from stl_deploy._util.remedies import option
from stl_deploy.exporters.verilog.devices import DEVICES, GENERIC, Device, Family
from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.memories import memories_of, parameters_of, tables_of
from stl_deploy.exporters.verilog.plan import Plan
from stl_deploy.graph.program import Conv, Linear, Neuron, Program
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.net import STATE_SHIFT


@dataclass(frozen=True)
class Memory:
    """One of the engine's memories. rom: never written."""

    name: str
    width: int
    words: int
    rom: bool


def memories(plan: Plan) -> list[Memory]:
    """Return the engine's memories, without bits that are the same in all words of a table: yosys leaves them out."""
    made = memories_of(plan)
    sizes = parameters_of(plan, made)
    return [
        Memory("weights", sizes["LANES"] * sizes["WEIGHT_BITS"], sizes["WEIGHT_WORDS"], True),
        Memory("potentials", sizes["LANES"] * (sizes["STATE_BITS"] - STATE_SHIFT), sizes["STATE_WORDS"], False),
        Memory("their 64ths", sizes["LANES"] * STATE_SHIFT, sizes["STATE_WORDS"], False),
        Memory("spikes", sizes["LANES"] * sizes["SPIKE_BITS"], sizes["SPIKE_WORDS"], False),
        Memory("inputs", sizes["IN_BITS"], sizes["INPUT_WORDS"], False),
        *(Memory(name, varying_bits(words), len(words), True) for name, (words, _) in tables_of(made, sizes).items()),
    ]


def varying_bits(words: list[int]) -> int:
    """Return how many bits are not the same in all words."""
    any_1 = functools.reduce(operator.or_, words, 0)
    all_1 = functools.reduce(operator.and_, words, any_1)
    return (any_1 & ~all_1).bit_count()


def memory_bits(plan: Plan) -> int:
    """Return the bits of all memories together."""
    return sum(memory.width * memory.words for memory in memories(plan))


def blocks_of(memory: Memory, family: Family) -> int:
    """Return RAM blocks for a memory; 0 if logic cells are cheaper.

    Chooses as yosys's memory_libmap, which drops fractions of the cost to beat: a bit of a ROM in logic costs 1/16, one
    of a RAM 1, a LUT RAM of 16 x 4 bits 4, a block what its library says.
    """
    bits = memory.width * memory.words
    others = bits / 16 if memory.rom else float(bits)
    if family.lut_ram and not memory.rom:
        others = min(others, _mapped(memory, 4, 16, 4, min(4, memory.width) if family.scaled else 4)[1])
    blocks, cost = 0, math.inf
    for wide in family.widths:
        depth = 1 << (family.block_bits // wide).bit_length() - 1
        count, cells = _mapped(memory, wide, depth, min(wide, family.byte), family.cost)
        if blocks == 0 or cells < math.floor(cost):
            blocks, cost = count, cells
    return blocks if cost < math.floor(others) else 0


def _mapped(memory: Memory, wide: int, depth: int, byte: int, cost: int) -> tuple[int, float]:
    """Return the cells of ``depth`` words of ``wide`` bits for a memory, and yosys's cost of them.

    Beside the cells: half a bit of multiplexer for each bit of each further bank, half a bit for each bank that is
    written, and 2 for the read port.
    """
    banks = math.ceil(memory.words / depth)
    width = memory.width if memory.rom else byte * math.ceil(memory.width / byte)
    cells = math.ceil(banks * width / wide)
    chosen = (banks - 1) * memory.width + (banks if banks > 1 and not memory.rom else 0)
    return cells, cost * cells + chosen / 2 + 2


def loaded_blocks(plan: Plan, device: Device) -> tuple[int, int]:
    """Return the single-port RAMs that weights take, and the available ones."""
    if device.family is None or device.family.loaded is None:
        return 0, 0
    weights = memories(plan)[0]
    count, width, words = device.family.loaded
    return math.ceil(weights.width / width) * math.ceil(weights.words / words), count


def ram_blocks(plan: Plan, device: Device) -> int:
    """Return RAM blocks of all memories on a device."""
    if device.family is None:
        return 0
    engine = memories(plan)
    return sum(blocks_of(memory, device.family) for memory in (engine[1:] if device.loaded else engine))


def holds(plan: Plan, device: Device) -> bool:
    """Return whether the device's RAM holds the network."""
    used, there = loaded_blocks(plan, device)
    return device.family is None or (used <= there and ram_blocks(plan, device) <= device.blocks)


def too_large(program: Program, device: Device) -> str | None:
    """Return why a device cannot hold a network, whatever its integers are; None if they decide."""
    if device.family is None:
        return None
    count, width, words = device.family.loaded or (device.blocks, device.family.block_bits, 1)
    weights = sum(node.weight.size for node in program.of(Conv)) + sum(node.weight.size for node in program.of(Linear))
    neurons = sum(math.prod(node.shape) for node in program.of(Neuron))
    potentials = device.blocks * device.family.block_bits // (STATE_SHIFT + 2)
    if weights > count * width * words:
        return f"it has {weights:,} weights; {device.title} has {count * width * words:,} bits for weights"
    if neurons > potentials:
        return f"it has {neurons:,} neurons; {device.title} has memory for the potentials of at most {potentials:,}"
    return None


def require_fits(plan: Plan, device: Device) -> None:
    """Raise UnsupportedError if a device has too few RAM blocks, with the largest layer and a device that fits."""
    if holds(plan, device):
        return
    used, there = loaded_blocks(plan, device)
    taken, parts = ram_blocks(plan, device), []
    if taken > device.blocks:
        parts.append(f"{taken} RAM blocks, {taken - device.blocks} more than its {device.blocks}")
    if used > there:
        parts.append(f"{used} single-port RAMs, {used - there} more than its {there}")
    fewer = _fewer_lanes(plan, device)
    large = [device_type.name for device_type in DEVICES.values() if holds(plan, device_type)]
    ways = [option("lanes", fewer)] * (fewer is not None) + [option("device", name) for name in large[:1]]
    larger = f"{option('device', GENERIC.name)} writes it for another, larger FPGA"
    layer = max(plan.layers, key=lambda layer: layer.layout.words)
    refuse(
        layer,
        "device-too-small",
        f"{device.title} is too small: with {plan.lanes} lanes the network takes {', and '.join(parts)} "
        f"({memory_bits(plan):,} bits; the device has {device.bits:,})",
        f"use {' or '.join(ways)}" if ways else f"make the network smaller: no device here holds it; {larger}",
    )


def _fewer_lanes(plan: Plan, device: Device) -> int | None:
    """Return the most lanes below the plan's with which the device holds the network; None if there are none."""
    lanes = plan.lanes // 2 if memory_bits(plan) <= 2 * device.bits else 0  # padding at most doubles the words
    while lanes >= 1:
        if holds(make_plan(plan.graph, lanes, device), device):
            return lanes
        lanes //= 2
    return None
