"""The verb simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import allocator as _allocator
from stl_deploy._util.console import Console
from stl_deploy._util.files import leading, read_inputs, write_npz
from stl_deploy.exporters.integers.scales import ThresholdForm
from stl_deploy.exporters.verify import accuracy, share_right
from stl_deploy.graph.run import Result
from stl_deploy.pipeline.backends import Numeric, Options, run_backend
from stl_deploy.pipeline.progress import tenths
from stl_deploy.pipeline.source import Source, open_program, open_source

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
    numeric: Numeric = "fixed",
    say: Console | None = None,
) -> dict[str, Any]:
    """Run a network on an input npz and write ``y`` (and spikes) as npz; returns what was done (JSON-ready).

    Raises InputError for a bad source or input, UnsupportedError where the target cannot hold the network.
    """
    say = say or Console(quiet=True)
    _allocator.keep_large_buffers()
    opened = open_source(source, ("run", "nir", "onnx", "net"))
    x, labels = read_inputs(input_file)
    options = Options(record, thresholds, deadline, tenths(say, "steps on Lava"), numeric)
    result = run_backend(opened, x, backend, options, dialect)
    decided = _accuracy(opened, result, labels, dialect)
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
        "accuracy": decided,
    }
    steps, samples = leading(x)
    say.say(f"ran {samples} samples of {steps} steps on {_WHAT[backend]}")
    if decided is not None:
        say.say(f"accuracy {decided:.2%}")
    say.say(f"written: {output}")
    return done


def _accuracy(source: Source, result: Result, labels: NDArray[np.int64] | None, dialect: str | None) -> float | None:
    """By the readout that the graph's metadata names; .onnx and .net files name none, so their scores are summed."""
    if labels is not None and source.kind in ("run", "nir"):
        return accuracy(open_program(source, dialect), result, labels)
    return share_right(result, labels)
