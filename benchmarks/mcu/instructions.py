"""Instructions of the C for a synop and a neuron update: python -m benchmarks.mcu.instructions [RUN] [-o OUT]

Drawn networks of two sizes at several spike rates, and a trained run: counted by QEMU at -O3, spikes compared. The
energy report's list (energy/chips/c_code.toml) is the fit to the small drawn ones; the others are held out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.c_speed import network, spikes, trained
from benchmarks.mcu.__main__ import measure, missing
from stl_deploy._util.files import write_text
from stl_deploy.energy.measure import measure_energy
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.graph.program import Program
from stl_deploy.integers.real_weights import to_integers

CORES = ("Cortex-M4", "Cortex-M7")
SAMPLES = 4
SMALL, LARGE = (1, 8, 8), (1, 28, 28)
DRAWN = {SMALL: (0.05, 0.1, 0.2, 0.4), LARGE: (0.05, 0.2, 0.5)}


def count(name: str, program: Program, x: NDArray[Any], *, training: bool) -> dict[str, Any]:
    """Synops, updates and instructions of an inference; raises SystemExit if a spike differs."""
    energy = measure_energy(program, x, source=name)
    totals, batch = energy.counts.totals, energy.counts.batch
    row: dict[str, Any] = {
        "network": name,
        "training": training,
        "synops": totals.synops / batch,
        "updates": totals.neuron_updates / batch,
        "instructions": {},
    }
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as folder:
        place = Path(folder) / "c"
        CFormat().write(program, place, COptions(x=x))
        whole = to_integers(x, read_folder(place)[0].input.scale)
        for board in CORES:
            measured = measure(place, whole, board, "-O3")
            if measured.differing:
                raise SystemExit(f"{name} on {board}: {measured.differing} of {measured.compared} spikes differ")
            row["instructions"][board] = measured.instructions
    return row


def fit(rows: list[dict[str, Any]], board: str) -> dict[str, Any]:
    """Least squares of relative errors over the training rows; counted over fitted, of every row."""
    sizes = np.array([[row["synops"], row["updates"]] for row in rows])
    counted = np.array([row["instructions"][board] for row in rows])
    used = np.array([row["training"] for row in rows])
    cost = np.linalg.lstsq(sizes[used] / counted[used, None], np.ones(used.sum()), rcond=None)[0]
    strays = counted / (sizes @ cost)
    return {
        "per_synop": float(cost[0]),
        "per_update": float(cost[1]),
        "strays": {row["network"]: float(stray) for row, stray in zip(rows, strays, strict=True)},
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, held out")
    parser.add_argument("-o", "--output", type=Path, help="folder for mcu-instructions.json")
    arguments = parser.parse_args()
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    rows = []
    for run in arguments.runs:
        program, x = trained(run)
        rows.append(count(run.name, program, x[:, :SAMPLES], training=False))
    for shape, rates in DRAWN.items():
        for rate in rates:
            name = f"{'digits' if shape == SMALL else 'MNIST'} size, {100 * rate:g} %"
            print(f"{name} ...", file=sys.stderr, flush=True)
            x = spikes(shape, rate)[:, :SAMPLES]
            rows.append(count(name, network(shape, (32, 64), 100, 4, rate), x, training=shape == SMALL))
    report = {"rows": rows, "fits": {board: fit(rows, board) for board in CORES}}
    print(json.dumps(report["fits"], indent=1))
    if arguments.output is not None:
        write_text(arguments.output / "mcu-instructions.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
