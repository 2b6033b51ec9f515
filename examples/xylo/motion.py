"""Four motions seen by a smart watch, on Xylo IMU: ``python -m examples.xylo.motion [RUN]``.

The data are BasicMotions of the UEA archive (80 recordings of 3 axes of acceleration and 3 of rotation, 10 steps a
second), which the package aeon (BSD-3-Clause) ships: ``pip install --no-deps aeon``. Trains (or resumes) RUN, default
runs/xylo_motion, within the limits of Xylo IMU, exports it, and runs the test recordings on our model and, where it is
installed, on xylosim.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.xylo.on_chip import trained_to_chip
from stl_deploy.config.load import load_config
from stl_deploy.errors import ToolError

CONFIG = Path(__file__).with_name("motion.yaml")


def main(folder: str = "runs/xylo_motion") -> None:
    """Train, export, run, compare; prints JSON."""
    data = Path(f"{folder}.npz").absolute()
    data.parent.mkdir(parents=True, exist_ok=True)
    write_data(recordings(), data)
    config = load_config(CONFIG, [f"dataset.path={data}"])
    print(json.dumps(trained_to_chip(config, Path(folder), device="imu"), indent=2))


def recordings() -> Path:
    """The folder of the two files in the installed package, which is not imported; raises ToolError without it."""
    spec = find_spec("aeon")
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    for place in places:
        folder = place / "datasets" / "data" / "BasicMotions"
        if folder.is_dir():
            return folder
    raise ToolError("expected the package aeon, which ships BasicMotions; found none; pip install --no-deps aeon")


def write_data(folder: Path, path: Path) -> None:
    """Both files as an npz of own data: x ``[N, 100, 6]``, y, x_test, y_test and class names."""
    (x, y), (x_test, y_test) = (read_ts(folder / f"BasicMotions_{part}.ts") for part in ("TRAIN", "TEST"))
    classes = sorted(set(y))
    labels = [np.array([classes.index(name) for name in names]) for names in (y, y_test)]
    np.savez(path, x=x, y=labels[0], x_test=x_test, y_test=labels[1], classes=np.array(classes))


def read_ts(path: Path) -> tuple[NDArray[Any], list[str]]:
    """Recordings ``[N, T, axes]`` and class names of a .ts file: a line each, axes and the name behind colons."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip() and line[0] not in "#@"]
    recordings = [line.strip().split(":") for line in lines]
    axes = [[np.array(axis.split(","), np.float32) for axis in axes] for *axes, _ in recordings]
    return np.stack([np.stack(channels, axis=1) for channels in axes]), [name for *_, name in recordings]


if __name__ == "__main__":
    main(*sys.argv[1:])
