"""Limits of the three Xylo chips.

Sources: Rockpool's pages "xylo-overview", "deploy_to_xylo", "xylo-imu-intro" and "xylo-audio3-intro" (evidence A), and
the mappers of Rockpool 3.1.0 (B). Whether readout weights count as fan-out is known to samna's validator alone (D).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stl_deploy._util.remedies import require_one_of
from stl_deploy.exporters.xylo.structure import Structure
from stl_deploy.graph.findings import Finding


@dataclass(frozen=True)
class Device:
    """One chip. title: its name; package: of Rockpool's modules for it; finder: in it, of connected boards.

    hear, heard: hidden neurons that may read the input, and that outputs may read. fan_out: targets of one hidden
    neuron. synapses: recurrent weights in all.
    """

    name: str
    title: str
    package: str
    finder: str
    hidden: int
    hear: int
    heard: int
    outputs: int
    fan_out: int
    synapses: int
    channels: int = 16


DEVICES = {
    chip.name: chip
    for chip in (
        Device("audio2", "Xylo Audio 2", "syns61201", "find_xylo_a2_boards", 1000, 1000, 1000, 8, 64, 32_000),
        Device("audio3", "Xylo Audio 3", "syns65302", "find_xylo_a3_boards", 992, 128, 128, 16, 1024, 31_744),
        Device("imu", "Xylo IMU", "syns63300", "find_xylo_imu_boards", 496, 128, 128, 16, 512, 31_744),
    )
}
"""Audio 3 has 32 outputs (A), but its mapper warns above 16 (B): 16 is what is taken here."""


def find_device(name: str) -> Device:
    """Return the chip of that name; raise InputError with the known names."""
    require_one_of(name, DEVICES, "device")
    return DEVICES[name]


def excesses(structure: Structure, device: Device) -> Iterator[Finding]:
    """Yield an error for each limit of the chip that the network exceeds, with the excess."""
    hidden, outputs = structure.hidden, structure.outputs
    hears = [population for population in hidden if population.name in structure.hears]
    heard = [population for population in hidden if population.name in structure.heard]
    yield from _over(device, "input channels", math.prod(structure.input.shape), device.channels, structure.input.name)
    for what, count, most in (
        ("hidden neurons", sum(population.size for population in hidden), device.hidden),
        ("output neurons", sum(population.size for population in outputs), device.outputs),
        ("hidden neurons that read the input", sum(population.size for population in hears), device.hear),
        ("hidden neurons that outputs read", sum(population.size for population in heard), device.heard),
        (
            "recurrent weights",
            sum(int(targets(structure, population.name).sum()) for population in hidden),
            device.synapses,
        ),
    ):
        yield from _over(device, what, count, most, None)
    for population in hidden:
        recurrent = int(targets(structure, population.name).max(initial=0))
        yield from _over(device, "targets of one hidden neuron", recurrent, device.fan_out, population.name)
        both = int(
            (targets(structure, population.name) + targets(structure, population.name, outputs=True)).max(initial=0)
        )
        if recurrent <= device.fan_out < both:
            yield Finding(
                "fan-out-with-outputs",
                "warning",
                population.name,
                f"{both} targets of one hidden neuron with the outputs; {device.title} has {device.fan_out}, and "
                "whether outputs count is not documented",
                "let the maker's tool validate the configuration",
            )


def targets(structure: Structure, name: str, *, outputs: bool = False) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Count the hidden (or output) neurons that each neuron of a population reaches, ``[neurons]``."""
    readers = structure.outputs if outputs else structure.hidden
    counts = [
        np.count_nonzero(edge.weight, axis=0)
        for population in readers
        for edge in population.edges
        if edge.source == name
    ]
    size = next(population.size for population in structure.hidden if population.name == name)
    return np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(size, np.int64)


def _over(device: Device, what: str, count: int, most: int, node: str | None) -> Iterator[Finding]:
    if count > most:
        slug = "too-many-" + what.replace(" ", "-")
        others = "a smaller network" if device.name == "audio3" else "a smaller network, or another device"
        yield Finding(slug, "error", node, f"{count:,} {what}; {device.title} holds {most:,}", f"use {others}")
