"""Waves of the heartbeat, step by step, on emulated boards: python -m benchmarks.mcu.ecg DATA [RUN] [--samples N]

DATA: the folder of the QT database's two files. RUN: what ``python -m examples.xylo.ecg DATA RUN`` trained, default
runs/xylo_ecg. Exports its network to C, calibrated on training sequences, prints the accuracy of its integers on all
test sequences, and runs the first N on a Cortex-M4 and on RV32IMC: every spike and output must equal the integers'.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.mcu.__main__ import BOARDS, measure
from examples.xylo.ecg import CONFIG
from stl_deploy.config.load import load_config
from stl_deploy.data import load_dataset
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from stl_deploy.runs.inputs import encode_split, training_input

CALIBRATION = 16
LEVEL = "-O2"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/xylo_ecg"))
    parser.add_argument("--samples", type=int, default=2, help="test sequences on each core")
    arguments = parser.parse_args()
    config = load_config(CONFIG, [f"dataset.path={arguments.data.absolute()}"])
    test = encode_split(config, load_dataset(config.dataset).test)
    options = COptions(x=training_input(arguments.run, CALIBRATION), origin={"source": "net.nir"})
    differing = 0
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        folder = Path(name) / "c"
        CFormat().write(lower(read_nir(arguments.run / "net.nir")), folder, options)
        graph, _ = read_folder(folder)
        x = to_integers(test.x, graph.input.scale)
        y = simulate(graph, x).y
        right = float((y.reshape(*y.shape[:2], -1).argmax(axis=2) == test.labels.T).mean())
        print(f"{right:.2%} of {np.size(test.labels):,} steps in the C target's integers (simulated)")
        for board in ("Cortex-M4", "RV32IMC"):
            if BOARDS[board].missing is not None:
                print(BOARDS[board].missing, file=sys.stderr)
                continue
            row = measure(folder, x[:, : arguments.samples], board, LEVEL)
            differing += row.differing
            print(
                f"{board}: flash {row.code + row.constants:,} bytes, RAM {row.ram:,}, "
                f"{row.instructions / len(x):,.0f} instructions a step, {row.differing:,} of {row.compared:,} "
                "spikes and outputs differ"
            )
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
