"""The verb simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import allocator as _allocator
from stl_deploy._util.console import Console
from stl_deploy._util.files import leading, read_inputs, write_npz
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.targets import Runner, find_runner, make_options, registry
from stl_deploy.graph.accuracy import accuracy, share_right
from stl_deploy.graph.run import Result
from stl_deploy.pipeline.progress import now_and_then
from stl_deploy.pipeline.source import Source, open_program, open_source


def simulate(
    source: Path,
    input_file: Path,
    backend: str,
    output: Path,
    *,
    record: bool = False,
    dialect: str | None = None,
    deadline: float = 600.0,
    say: Console | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Run a network on an input npz and write ``y`` (and spikes) as npz; returns what was done (JSON-ready).

    settings: the backend's own options, as ``thresholds`` of loihi and lava, ``numeric`` of lava.
    Raises InputError for a bad source or input, UnsupportedError where the target cannot hold the network.
    """
    say = say or Console(quiet=True)
    _allocator.keep_large_buffers()
    opened = open_source(source, artifacts=True)
    x, labels = read_inputs(input_file)
    common = {"deadline": deadline, "progress": now_and_then(say, f"steps on {backend}")}
    if opened.is_graph:
        open_program(opened, dialect, say=say)
    runner = open_backend(opened, backend, settings, dialect, **common)
    for note in getattr(runner, "notes", ()):
        say.warn(note)
    result = runner.run(x, record)
    decided = _accuracy(opened, result, labels, dialect)
    if len(result.outputs) > 1:
        arrays = {f"y__{name}": array for name, array in result.outputs.items()}
    else:
        arrays = {"y": result.y}
    write_npz(output, arrays | {f"spikes__{name}": array for name, array in result.recorded.items()})
    done: dict[str, Any] = {
        "source": str(source),
        "backend": backend,
        "what": runner.description,
        "output": str(output),
        "arrays": {name: list(array.shape) for name, array in arrays.items()},
        "accuracy": decided,
    }
    steps, samples = leading(x)
    say.say(f"ran {samples} samples of {steps} steps on {runner.description}")
    if decided is not None:
        say.say(f"accuracy {decided:.2%}")
    say.say(f"written: {output}")
    return done


def open_backend(
    source: Source, backend: str, settings: dict[str, Any] | None = None, dialect: str | None = None, **common: Any
) -> Runner:
    """A source on a backend, ready to run.

    Raises InputError where the backend does not take the source, UnsupportedError where its target cannot hold the
    network, ToolError where it cannot run on this machine.
    """
    kind = find_runner(backend)
    options = make_options(kind, settings or {}, **common)
    if not source.is_graph and source.kind not in kind.reads:
        able = [one.name for one in registry().runners.values() if source.kind in one.reads]
        raise InputError(
            f"{source.path}: expected a backend that reads {source.kind} ({', '.join(able)}); found {backend}"
        )
    reason = kind.available()
    if reason is not None:
        raise ToolError(f"backend '{backend}' cannot run here: {reason}")
    return kind(open_program(source, dialect) if source.is_graph else source.file, options)


def _accuracy(source: Source, result: Result, labels: NDArray[np.int64] | None, dialect: str | None) -> float | None:
    """By the readout that the graph's metadata names; other artifacts name none, so their scores are summed."""
    if labels is not None and source.is_graph:
        return accuracy(open_program(source, dialect), result, labels)
    return share_right(result, labels)
