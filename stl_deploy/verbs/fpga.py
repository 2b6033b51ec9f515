"""The verbs synthesise and fpga-run: place and route a Verilog folder, and run it on a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_inputs, write_json, write_npz
from stl_deploy.energy.chips.fpga import SOURCE, energy_range
from stl_deploy.exporters.integer_runner import one_input
from stl_deploy.exporters.verilog.board import run_on_board
from stl_deploy.exporters.verilog.folder import read_folder
from stl_deploy.exporters.verilog.simulator import MISSING, Simulation, simulators
from stl_deploy.exporters.verilog.synthesis import synthesise as place_and_route
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate as run_integers
from stl_deploy.verbs.arguments import Deadline

SAMPLES = 2
"""Of the input, to count clocks by."""


def synthesise(
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder written by export --to verilog.")],
    device: Annotated[str, Option(metavar="DEVICE", help="up5k, hx8k, ecp5-25f, ecp5-85f or gw1nr-9.")],
    *,
    input_file: Annotated[
        Path | None,
        Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape]: simulate it to count clocks for the latency."),
    ] = None,
    seeds: Annotated[int, Option(help="Number of placements to try.")] = 3,
    grade: Annotated[int | None, Option(help="Speed grade of an ECP5: 6 (default), 7 or 8.")] = None,
    output: Annotated[Path | None, Option("-o", "--output", metavar="FILE", help="The bitstream.")] = None,
    deadline: Deadline = 3600.0,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Place and route a Verilog folder on a device; write the bitstream and ``<folder>.DEVICE.json``.

    input_file: input whose first samples are simulated for the latency (clock cycles over the routed clock rate).
    grade: speed grade of an ECP5 (default: 6, the slowest).
    Raises InputError, UnsupportedError and ToolError as `stl_deploy.exporters.verilog.synthesis.synthesise`.
    """
    tries = range(1, seeds + 1)
    routed = place_and_route(folder, device, seeds=tries, grade=grade, output=output, deadline=deadline, say=say)
    result: dict[str, Any] = {
        "folder": str(folder),
        **routed.as_dict(),
        **_latency(folder, routed.clock_hz, input_file),
    }
    if input_file is not None and result["latency_s"] is None:
        say.warn(f"no latency: {MISSING}")
    rows = [[name, f"{used:,}", f"{routed.available[name]:,}"] for name, used in routed.used.items()]
    say.table(["placed and routed", "used", "there are"], rows)
    clocks = ", ".join(f"{seed.clock_hz / 1e6:.1f}" for seed in routed.seeds)
    best = f"{routed.clock_hz / 1e6:.1f} MHz"
    say.say(f"clock: {best} (seeds: {clocks}), by timing analysis of the routed design")
    if result["latency_s"] is not None:
        say.say(
            f"latency: {1e3 * result['latency_s']:.3f} ms an inference ({result['clocks_per_inference']:,.0f} "
            "simulated clocks over that clock)"
        )
    if result["energy_J"] is not None:
        least, most = result["energy_J"]
        say.say(f"energy: {1e6 * least:.1f} to {1e6 * most:.1f} µJ an inference ({SOURCE})")
    say.say(f"bitstream: {routed.bitstream}; not run on a board")
    write_json(folder.with_name(f"{folder.name}.{device}.json"), result)
    return result


def _latency(folder: Path, clock_hz: float, input_file: Path | None) -> dict[str, Any]:
    """Return simulated clocks of an inference and its time, None without input or simulator."""
    if input_file is None or not simulators():
        return {"clocks_per_inference": None, "latency_s": None, "energy_J": None}
    _, design = read_folder(folder)
    clocks = clocks_per_inference(design, input_file)
    energy = energy_range(design.plan.device.name, clocks, clock_hz)
    return {"clocks_per_inference": clocks, "latency_s": clocks / clock_hz, "energy_J": energy}


def clocks_per_inference(design: Simulation, input_file: Path) -> float:
    """Simulate the first samples of a file and return the clocks of an inference."""
    x, _ = read_inputs(input_file)
    whole = to_integers(one_input(x, "verilog")[:, :SAMPLES], design.plan.graph.input.scale)
    _, clocks = design.run(whole)
    return clocks / float(whole.shape[1])


def fpga_run(
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder written by export --to verilog.")],
    port: Annotated[Path, Option(metavar="PORT", help="The board's serial port, as /dev/ttyUSB1.")],
    input_file: Annotated[Path, Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape].")],
    output: Annotated[Path | None, Option("-o", "--output", metavar="Y.npz", help="File for y.")] = None,
    *,
    baud: Annotated[int, Option(help="Bits per second.")] = 115200,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Send an input to a board step by step, and compare its outputs with the integer model's.

    output: file for ``y``. Raises InputError for invalid arguments, ToolError if the board does not answer.
    """
    say.warn("fpga-run is untested on hardware: the serial line was simulated, no board has run it")
    graph, design = read_folder(folder)
    x, _ = read_inputs(input_file)
    whole = to_integers(one_input(x, "fpga-run"), graph.input.scale)
    samples = whole.shape[1]
    y = run_on_board(
        design.plan, port, whole, baud=baud, on_sample=lambda done: say.say(f"{done} of {samples} samples")
    )
    differing = int(np.count_nonzero(y != run_integers(graph, whole).y))
    if output is not None:
        write_npz(output, {"y": (y * graph.output.unit).astype(np.float32)})
    say.say(f"{differing:,} of {y.size:,} outputs differ from the integer model")
    return {"port": str(port), "label": "measured", "compared": y.size, "differing": differing}
