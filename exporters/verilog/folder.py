"""Write a Verilog folder from integers, and read one back only if its text matches its integers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.verilog.devices import DEVICES, GENERIC, Device, device_of
from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.memories import flash_image, memories_of
from stl_deploy.exporters.verilog.plan import Plan, recorded
from stl_deploy.exporters.verilog.render import DEVICE, render, require_prefix
from stl_deploy.exporters.verilog.simulator import Simulation, input_text
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.store import (
    NAME,
    About,
    folder_bytes,
    folder_text,
    largest_node,
    read_integers,
    write_integers,
    write_texts,
)

GOLDEN_SAMPLES = 2
FLASH = "weights.bin"
"""With the prefix: content of the serial flash, for devices whose weight memory is filled after configuration."""


def write_folder(graph: IntegerGraph, plan: Plan, about: About, folder: Path, x: NDArray[np.int32]) -> None:
    """Write every file of a Verilog folder, by `make_plan` of its graph.

    x: integers, of whose first samples golden vectors are made. UP5K's weights come from a serial flash, as a bitstream
    cannot fill its large memories.
    """
    first = x[:, :GOLDEN_SAMPLES].astype(np.int32)
    texts = {**render(plan, about), **golden(plan, first)}
    write_texts(folder, texts, largest_node(graph))
    if plan.loaded:
        (folder / f"{about.prefix}_{FLASH}").write_bytes(flash_image(plan, memories_of(plan)))
    write_integers(graph, about, folder / NAME)


def golden(plan: Plan, x: NDArray[np.int32]) -> dict[str, str]:
    """Return the testbench's input, and its expected result: the integer model's outputs and spikes."""
    steps, samples = x.shape[:2]
    count, run = math.prod(plan.graph.output.shape), recorded(plan, x)
    y = run.y.swapaxes(0, 1).reshape(-1, count)
    outputs = "".join(f"{value} {int(i == count - 1)}\n" for row in y.tolist() for i, value in enumerate(row))
    lines = []
    layers = [(number, layer) for number, layer in enumerate(plan.layers) if layer.spiking]
    for sample in range(samples):
        for step in range(steps):
            for number, layer in layers:
                words = layer.layout.spread(run.spikes[layer.name][step, sample].astype(np.int64))
                for index, word in enumerate(words.tolist()):
                    bits = "".join(f"{spikes:0{plan.widths.spikes}b}" for spikes in reversed(word))
                    lines.append(f"{number} {index} {bits}\n")
    return {
        "golden/input.txt": input_text(x, count),
        "golden/outputs.txt": outputs,
        "golden/spikes.txt": "".join(lines),
    }


def read_folder(folder: Path) -> tuple[IntegerGraph, Simulation]:
    """Read the integers and regenerate their design; raise InputError for files that are missing, damaged or edited."""
    graph, about = read_integers(folder / NAME)
    prefix = _prefix(folder, about)
    # Lanes and device are no integers: they are taken from the text, which must then be what they make.
    lanes = _lanes(folder / f"{prefix}_ports.vh")
    try:
        plan = make_plan(graph, lanes, _device(folder / f"{prefix}_defines.vh"))
    except UnsupportedError as error:
        raise InputError(f"{folder / NAME}: {error}") from None
    files = render(plan, about)
    for name, text in files.items():
        if folder_text(folder / name) != text:
            raise InputError(
                f"{folder / name}: expected what stl-deploy makes of {NAME}; found other text, which would be compiled "
                "and run; export it again, or run your own text with make sim"
            )
    flash = folder / f"{prefix}_{FLASH}"
    if plan.loaded and folder_bytes(flash) != flash_image(plan, memories_of(plan)):
        raise InputError(f"{flash}: expected the weights of {NAME}; found other bytes; export it again")
    return graph, Simulation(files, plan, prefix)


def _prefix(folder: Path, about: About) -> str:
    """Return the prefix that the integers' file states; it names files, and no one else's."""
    try:
        return require_prefix(about.prefix)
    except InputError as error:
        raise InputError(f"{folder / NAME}: {error}") from None


def _device(path: Path) -> Device:
    name = folder_text(path).split("\n", 1)[0].removeprefix(DEVICE)
    if name != GENERIC.name and name not in DEVICES:
        raise InputError(f"{path}: expected a device in its first line; found none; export it again")
    return device_of(name)


def _lanes(path: Path) -> int:
    for line in folder_text(path).splitlines():
        if line.startswith("localparam LANES = ") and line[19:-1].isdecimal() and len(line) < 30:
            return int(line[19:-1])
    raise InputError(f"{path}: expected LANES in it; found none; export it again")


def manifest_facts(plan: Plan) -> dict[str, Any]:
    """Return a manifest's facts of a plan."""
    return {
        "device": plan.device.name,
        "lanes": plan.lanes,
        "state_bits": plan.widths.state,
        "state_words": plan.state_words,
        "spike_words": plan.frame * plan.kept_steps,
        "entries": len(plan.entries),
    }
