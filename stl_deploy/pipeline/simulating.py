"""The verb simulate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.console import Console
from stl_deploy.errors import InputError
from stl_deploy.exporters.loihi.scales import ThresholdForm
from stl_deploy.files import read_input, write_npz
from stl_deploy.pipeline.backends import Options, run_backend
from stl_deploy.pipeline.source import open_source

_WHAT = {
    "reference": "the reference run (numpy, float32)",
    "onnx": "ONNX Runtime",
    "loihi": "our integer model of Lava's fixed point (simulated; not Lava itself, not the chip)",
    "lava": "Lava's CPU simulation (simulated; not the chip)",
}


def simulate(
    source: Path,
    input_file: Path,
    backend: str,
    output: Path,
    *,
    record: bool = False,
    dialect: str | None = None,
    thresholds: ThresholdForm = "folded",
    deadline: float = 600.0,
    say: Console | None = None,
) -> dict[str, Any]:
    """Run a network on an input npz and write ``y`` (and spikes) as npz; returns what was done (JSON-ready).

    Raises InputError for a bad source or input, UnsupportedError where the target cannot hold the network.
    """
    say = say or Console(quiet=True)
    opened = open_source(source, ("run", "nir", "onnx", "net"))
    x, labels = read_input(input_file)
    options = Options(record, thresholds, deadline, _progress(say))
    result = run_backend(opened, x, backend, options, dialect)
    if len(result.outputs) > 1:
        arrays = {f"y__{name}": array for name, array in result.outputs.items()}
    else:
        arrays = {"y": result.y}
    write_npz(output, arrays | {f"spikes__{name}": array for name, array in result.recorded.items()})
    done: dict[str, Any] = {
        "source": str(source),
        "backend": backend,
        "what": _WHAT[backend],
        "output": str(output),
        "arrays": {name: list(array.shape) for name, array in arrays.items()},
        "accuracy": None,
    }
    say.say(f"ran {x.shape[1]} samples of {x.shape[0]} steps on {_WHAT[backend]}")
    if labels is not None and len(result.outputs) == 1 and result.y.ndim == 3:
        done["accuracy"] = accuracy(result.y, labels)
        say.say(f"accuracy {done['accuracy']:.2%}")
    say.say(f"written: {output}")
    return done


def accuracy(y: Any, labels: Any) -> float:
    """Share of samples whose output, summed over time, is largest at the label; y ``[T, B, classes]``."""
    if y.ndim != 3:
        raise InputError(f"outputs of shape {list(y.shape[2:])} are no class scores")
    return float(np.mean(y.sum(axis=0).argmax(axis=1) == labels))


def _progress(say: Console) -> Callable[[int, int], None]:
    return lambda done, total: say.say(f"lava: {done} of {total} steps")
