"""Simulate a network or an artifact on a backend, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, part_of
from stl_deploy._util.working import now_and_then
from stl_deploy.config.options import SimulateOptions, of_target
from stl_deploy.errors import InputError, UnavailableError
from stl_deploy.exporters.targets import (
    HasReadout,
    Network,
    Runner,
    complete_runner,
    find_runner,
    format_of,
    make_options,
    registry,
    why_unavailable,
)
from stl_deploy.graph.check import require_taken
from stl_deploy.graph.compare import FiringRates
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout, accuracy, readout_of, share_right
from stl_deploy.graph.run import CHUNK, NetworkInput, Result, Stream
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.pipeline.results import Simulation

_KEPT = 2**24
"""Spikes and silences that a run keeps at once to count them."""


def simulate(
    network: Network,
    x: NetworkInput,
    backend: str,
    options: SimulateOptions,
    *,
    labels: NDArray[Any] | None = None,
    say: Console = QUIET,
) -> Simulation:
    """Run a Program, or an artifact that the backend reads, on ``x`` ``[T, B, *shape]``.

    labels: ``[B]``, for the accuracy. Raises InputError for input that does not fit or is off the grid that the Program
    declares, and for an unknown backend or option, UnsupportedError where its target cannot hold the network,
    UnavailableError where it cannot run on this machine.
    """
    if isinstance(network, Program):
        network, x = on_declared_grid(network, x, options.input_grid, say)
    runner = open_backend(network, backend, options, say)
    for note in getattr(runner, "notes", ()):
        say.warn(note)
    decides = labels is not None and (isinstance(network, Program) or isinstance(runner, HasReadout))
    if isinstance(network, Program) and network.compared and backend == "reference" and not options.record:
        result, rates = _counted(network, runner, x)
    else:
        result, rates = runner.run(x, options.record or (decides and _few(network, x))), FiringRates()
        rates.add(result.recorded)
    if isinstance(network, Program):
        rule, right = readout_of(network.metadata), accuracy(network, result, labels)
    else:
        readout = runner.readout if isinstance(runner, HasReadout) else None
        rule, right = readout or Readout(), None if readout is None else share_right(result, labels, readout)
    spikes, states = (result.recorded, result.states) if options.record else ({}, {})
    return Simulation(
        backend, result.outputs, spikes, rule, states, right, runner.description, rates.warnings, rates.silent
    )


def _few(network: Network, x: NetworkInput) -> bool:
    """Return whether all layers' spikes may be kept for their rates alone; an artifact's layers are not known."""
    steps, samples = leading(x)
    return samples <= (network.samples_within(_KEPT, steps) if isinstance(network, Program) else CHUNK)


def _counted(network: Network, runner: Runner, x: NetworkInput) -> tuple[Result, FiringRates]:
    """Run part after part of the samples and count each part's spikes, so that only one part's are kept."""
    assert isinstance(network, Program)
    steps, samples = leading(x)
    size, rates, outputs = network.samples_within(_KEPT, steps), FiringRates(), list[Mapping[str, NDArray[Any]]]()
    for start in range(0, samples, size):
        part = runner.run(part_of(x, slice(None), slice(start, start + size)), True)
        rates.add(part.recorded)
        outputs.append(part.outputs)
    return Result({name: np.concatenate([part[name] for part in outputs], axis=1) for name in outputs[0]}, {}), rates


def open_backend(network: Network, backend: str, options: SimulateOptions, say: Console = QUIET) -> Runner:
    """Open a Program or an artifact on a backend, ready to run; raise as `simulate`."""
    kind = find_runner(backend)
    complete_runner(kind)
    common = {"deadline": options.deadline, "progress": now_and_then(say, f"steps on {backend}"), "say": say}
    made = make_options(kind, of_target(options), **common)
    if isinstance(network, Program):
        require_taken(network, kind.takes, kind.name)
    else:
        _require_read(network, kind)
    reason = why_unavailable(kind)
    if reason is not None:
        raise UnavailableError(f"backend '{backend}' cannot run here: {reason}")
    return kind(network, made)


def open_stream(program: Program, backend: str, given: Callable[[Any], NetworkInput]) -> Stream:
    """Open a Program on a backend, to be run step by step; raise as `SpikingGraph.stream`."""
    kind = find_runner(backend)
    complete_runner(kind)
    if kind.session is None:
        able = [runner.name for runner in registry().runners.values() if getattr(runner, "session", None)]
        raise InputError(f"backend: expected one that runs single steps ({', '.join(able)}); found {backend}")
    require_taken(program, kind.takes, kind.name)
    return kind.session(program, given)


def _require_read(artifact: Path, kind: type[Runner]) -> None:
    of = format_of(artifact)
    if of is not None and of.name not in kind.reads:
        able = [runner.name for runner in registry().runners.values() if of.name in runner.reads]
        raise InputError(f"{artifact}: expected a backend that reads {of.name} ({', '.join(able)}); found {kind.name}")
