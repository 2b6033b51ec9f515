"""The ECG network on Xylo, from training to the maker's simulator: ``python -m examples.xylo.ecg DATA [RUN] [COUNT]``.

DATA: the folder of QTDB_train.mat and QTDB_test.mat. Trains (or resumes) RUN, default runs/xylo_ecg, exports it, and
runs the test sequences, all or the first COUNT, on our model and, where it is installed, on xylosim. Prints the
accuracy per step and how many spikes, potentials and currents were compared and differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from examples.xylo.on_chip import trained_to_chip
from stl_deploy.config.load import load_config

CONFIG = Path(__file__).with_name("ecg.yaml")


def main(data: str, folder: str = "runs/xylo_ecg", count: str | None = None) -> None:
    """Train, export, run, compare; prints JSON."""
    config = load_config(CONFIG, [f"dataset.path={Path(data).absolute()}"])
    results = trained_to_chip(config, Path(folder), device=None, count=None if count is None else int(count))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
