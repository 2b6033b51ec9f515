"""The verb simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stl_deploy._util import allocator as _allocator
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, read_inputs, require_other, require_suffix, write_npz
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError, UnavailableError
from stl_deploy.exporters.targets import Decides, Runner, find_runner, make_options, registry, why_unavailable
from stl_deploy.graph.accuracy import accuracy, share_right
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.pipeline.progress import now_and_then
from stl_deploy.runs.source import Source, on_declared_grid, open_program, open_source, read_for


def simulate(
    source: Path,
    input_file: Path,
    backend: str,
    output: Path,
    *,
    record: bool = False,
    dialect: str | None = None,
    input_grid: int | None = None,
    deadline: float = 600.0,
    say: Console = QUIET,
    **settings: Any,
) -> dict[str, Any]:
    """Run a network on an input npz and write ``y`` (and spikes) as npz; returns what was done (JSON-ready).

    input_grid: of a graph, ``x`` is rounded to multiples of 2^-input_grid, and that is declared.
    settings: the backend's own options, as ``thresholds`` of loihi and lava, ``numeric`` of lava.
    Raises InputError for a bad source or input, and for input off the grid that the graph declares, UnsupportedError
    where the target cannot hold the network.
    """
    require_suffix(output, ".npz", " for outputs")
    require_other(output, source, input_file)
    _allocator.keep_large_buffers()
    opened = open_source(source, artifacts=True)
    common = {"deadline": deadline, "progress": now_and_then(say, f"steps on {backend}"), "say": say}
    program: Program | None = None
    x: NetworkInput
    if opened.is_graph:
        program = open_program(opened, dialect, say=say)
        x, labels = read_for(opened, program, input_file)
        program, x = on_declared_grid(program, x, input_grid, say)
    else:
        if input_grid is not None:
            raise InputError(f"{source}: --input-grid is of graphs; an artifact of {opened.kind} has its own grid")
        x, labels = read_inputs(input_file)
    runner = open_backend(opened, program, backend, settings, **common)
    for note in getattr(runner, "notes", ()):
        say.warn(note)
    result = runner.run(x, record)
    decided = accuracy(program, result, labels) if program is not None else _by_artifact(runner, result, labels)
    if decided is None and labels is not None and program is None:
        say.warn(f"no accuracy: {source} does not say what decides on its outputs; simulate the graph it was made from")
    if len(result.outputs) > 1:
        arrays = {f"y__{name}": array for name, array in result.outputs.items()}
    else:
        arrays = {"y": result.y}
    arrays |= {f"spikes__{name}": array for name, array in result.recorded.items()} | dict(result.states)
    write_npz(output, arrays)
    done: dict[str, Any] = {
        "source": str(source),
        "backend": backend,
        "what": runner.description,
        "output": str(output),
        "arrays": {name: list(array.shape) for name, array in arrays.items()},
        "accuracy": decided,
    }
    steps, samples = leading(x)
    say.say(f"ran {counted(samples, 'sample')} of {counted(steps, 'step')} on {runner.description}")
    if decided is not None:
        say.say(f"accuracy {decided:.2%}")
    say.say(f"written: {output}")
    return done


def _by_artifact(runner: Runner, result: Result, labels: NDArray[Any] | None) -> float | None:
    readout = runner.readout if isinstance(runner, Decides) else None
    return None if readout is None else share_right(result, labels, readout)


def open_backend(
    source: Source, program: Program | None, backend: str, settings: dict[str, Any], **common: Any
) -> Runner:
    """A source, or the Program of its graph, on a backend, ready to run.

    Raises InputError where the backend does not take the source, UnsupportedError where its target cannot hold the
    network, UnavailableError where it cannot run on this machine.
    """
    kind = find_runner(backend)
    options = make_options(kind, settings, **common)
    if program is None and source.kind not in kind.reads:
        able = [one.name for one in registry().runners.values() if source.kind in one.reads]
        raise InputError(
            f"{source.path}: expected a backend that reads {source.kind} ({', '.join(able)}); found {backend}"
        )
    reason = why_unavailable(kind)
    if reason is not None:
        raise UnavailableError(f"backend '{backend}' cannot run here: {reason}")
    return kind(source.file if program is None else program, options)
