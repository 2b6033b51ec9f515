"""Networks on FPGAs: spikes compared in simulation, then placed and routed.

python -m benchmarks.fpga RUN DEVICE LANES adds a row to fpga.json in docs/measurements, from which fpga.md is made.
RUN is a run folder with net.nir and test.npz.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import read_inputs, write_json, write_text
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.energy.chips.fpga import SOURCE, energy_range
from stl_deploy.exporters.integer_runner import on_grid, one_input
from stl_deploy.exporters.verilog.clocks import clocks_of
from stl_deploy.exporters.verilog.devices import device_of
from stl_deploy.exporters.verilog.fits import ram_blocks
from stl_deploy.exporters.verilog.folder import read_folder, write_folder
from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.render import PREFIX, engine_text
from stl_deploy.exporters.verilog.simulator import Simulation
from stl_deploy.exporters.verilog.synthesis import NETLIST, after_synthesis, synthesise
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About
from stl_deploy.runs.source import open_program, open_source

CALIBRATION = 256


def main() -> None:
    """Measure one row, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("device")
    parser.add_argument("lanes", type=int)
    parser.add_argument("--samples", type=int, default=None, help="of the test input, to simulate; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grade", type=int, default=None, help="speed grade of an ECP5; default: 6")
    parser.add_argument("--netlist", type=int, default=0, help="samples, to simulate after synthesis, too")
    parser.add_argument("-o", type=Path, default=Path("docs/measurements"))
    given = parser.parse_args()
    row = measure(given.run, given.device, given.lanes, given.samples, given.seeds, given.netlist, given.grade)
    path = given.o / "fpga.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    key = ("network", "device", "lanes", "grade")
    rows = [kept for kept in rows if any(kept.get(name) != row[name] for name in key)] + [row]
    write_json(path, sorted(rows, key=lambda kept: tuple(str(kept.get(name)) for name in key)))
    write_text(given.o / "fpga.md", page(rows))


def measure(
    run: Path, device: str, lanes: int, samples: int | None, seeds: int, netlist: int, grade: int | None = None
) -> dict[str, Any]:
    """One network on one device: spikes that differ, clocks, cells, RAM blocks, clock, latency."""
    program = open_program(open_source(run))
    x, labels = read_inputs(run / "test.npz")
    x = on_grid(program, one_input(x))
    graph = choose(program, x[:, :CALIBRATION]).graph
    whole = np.asarray(to_integers(x[:, :samples], graph.input.scale), np.int32)
    with temporary_folder() as work:
        plan = make_plan(graph, lanes, device_of(device))
        write_folder(graph, plan, About(title=run.name, prefix=PREFIX), work / "v", whole)
        _, design = read_folder(work / "v")
        outcome, clocks = design.run(whole, deadline=3600.0)
        model = simulate(graph, whole, record=True)
        after = _after_synthesis(design, whole[:, :netlist]) if netlist else None
        placed = synthesise(work / "v", device, seeds=range(1, seeds + 1), grade=grade, say=Console())
    compared = sum(spikes.size for spikes in model.spikes.values())
    differing = sum(int((outcome.spikes[name] != model.spikes[name]).sum()) for name in model.spikes)
    return {
        "network": run.name,
        "lanes": lanes,
        "engine": hashlib.sha256(engine_text("snn_engine.v").encode()).hexdigest()[:7],
        "weight_bits": design.plan.widths.weight,
        "samples": whole.shape[1],
        **_correct(outcome.y, labels),
        "spikes_compared": compared,
        "spikes_differing": differing,
        "outputs_differing": int((outcome.y != model.y).sum()),
        "after_synthesis": after,
        "clocks_computed": float(clocks_of(design.plan, whole).mean()),
        "ram_blocks_computed": ram_blocks(design.plan, design.plan.device),
        "energy_J": energy_range(design.plan.device.name, clocks / whole.shape[1], placed.clock_hz),
        "clocks_per_inference": clocks / whole.shape[1],
        "latency_s": clocks / whole.shape[1] / placed.clock_hz,
        **{name: value for name, value in placed.as_dict().items() if name not in ("bitstream", "label")},
    }


def _correct(y: NDArray[np.int32], labels: NDArray[np.int64] | None) -> dict[str, int | None]:
    """Classes that are right, of samples or, where labels ``[T, B]`` are of each step, of steps."""
    if labels is None:
        return {"correct": None, "of": None}
    of_steps = labels.ndim == 2
    classes = (y if of_steps else y.sum(axis=0)).argmax(axis=-1)
    labels = labels[:, : y.shape[1]] if of_steps else labels[: y.shape[1]]
    return {"correct": int((classes == labels).sum()), "of": labels.size}


def _after_synthesis(design: Simulation, x: NDArray[np.int32]) -> dict[str, int]:
    """Spikes compared, and those that differ, of the design as cells."""
    family = "ice40" if design.plan.device.name in ("up5k", "hx8k") else "ecp5"
    outcome, _ = after_synthesis(design, family).run(x, deadline=3600.0, design=NETLIST, simulator="verilator")
    model = simulate(design.plan.graph, x, record=True)
    differing = sum(int((outcome.spikes[name] != model.spikes[name]).sum()) for name in model.spikes)
    compared = sum(spikes.size for spikes in model.spikes.values())
    return {"samples": x.shape[1], "compared": compared, "differing": differing}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    seeds = ", ".join(f"{seed['clock_hz'] / 1e6:.1f}" for seed in row["seeds"])
    after, energy, used = row.get("after_synthesis"), row.get("energy_J"), row["used"]
    single = f" + {used['single_port_rams']} single-port" if "single_port_rams" in used else ""
    adders = f" + {used['adders']:,} adders" if "adders" in used else ""
    return (
        row["network"],
        row["device"] + (f", grade {row['grade']}" if row.get("grade") else ""),
        str(row["lanes"]),
        row["engine"],
        f"{row['weight_bits']} bits",
        f"{row['correct']:,} of {row.get('of', row['samples']):,}",
        f"{row['spikes_differing']:,} of {row['spikes_compared']:,}",
        f"{after['differing']:,} of {after['compared']:,} ({after['samples']} samples)" if after else "-",
        f"{used['cells']:,} of {row['available']['cells']:,}{adders}",
        f"{used['ram_blocks']} of {row['available']['ram_blocks']}{single}",
        f"{row['clock_hz'] / 1e6:.1f} ({seeds})",
        f"{row['clocks_per_inference']:,.0f}",
        f"{1e3 * row['latency_s']:.3f} ms",
        f"{1e6 * energy[0]:.1f} to {1e6 * energy[1]:.0f} µJ at 24 MHz" if energy else "-",
    )


def page(rows: list[dict[str, Any]]) -> str:
    """docs/measurements/fpga.md."""
    head = (
        "network",
        "device",
        "lanes",
        "engine",
        "weights",
        "correct",
        "spikes that differ",
        "after synthesis",
        "cells",
        "RAM blocks",
        "clock, MHz",
        "clocks",
        "latency",
        "energy, modelled",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    tools = sorted({f"{name} {text}" for row in rows for name, text in row["tools"].items()})
    return f"""# FPGAs: what was placed and routed

Made by `make fpga`; nothing ran on a board. Spikes: simulated, Verilog against the integer model. Cells, RAM blocks and
clock: placed and routed, with the serial line; the clock is that of the fastest seed, all seeds in brackets. Latency:
mean simulated clocks of an inference over that clock. After synthesis: the simulated netlist (cell models are yosys's,
ECP5's block RAM and multiplier ours).

Networks: digits is the preset; digits_4bit and digits_2bit are digits after `quantise --weight-bits 4 --epochs 15`
and `2` (float: 98.61 %); mnist_up5k is `benchmarks/fpga_mnist.yaml` (97.59 % of 10,000 in integers; rows have the
first 500), mnist_4bit and mnist_2bit after `quantise --epochs 2` (97.46 % and 96.01 %); mnist_conv is
`benchmarks/fpga_mnist_conv.yaml` (99.34 % of 10,000 in integers; float: 99.36 %; the row has the first 100);
n_mnist_small is the preset, after 1,000 recordings (the first 20 of 100); ecg is the configuration of
`benchmarks.ecg_windows` (64 steps). "engine" is the beginning of the SHA-256 of `snn_engine.v`. "grade" is an ECP5's
speed grade: 6, the slowest, or 8.

Random graphs of every node kind, engine 1b0d82f: 500 (`make explore`), 0 spikes and outputs differ.

Energy, {SOURCE}.

{chr(10).join(lines)}

Tools: {"; ".join(tools)}.
"""


if __name__ == "__main__":
    main()
