"""Verify artifacts and backends against the graph, in memory."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import ShapeError
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.remedies import named, option
from stl_deploy._util.working import now_and_then
from stl_deploy.config.options import VerifyOptions
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import (
    DeclaresInputGrid,
    Format,
    Runner,
    describe_path,
    format_of,
    registry,
    suggest,
)
from stl_deploy.graph.exact import Grid, input_scale, on_grid
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.artifacts import ParityBench, labels_of, open_runner, ready
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.pipeline.parity import ParityReport


@runtime_checkable
class Compiled(Protocol):
    """A Runner that is compiled."""

    def compiled_with(self, flags: Sequence[str]) -> Runner:
        """Return the same Runner, built with more flags."""
        ...


def verify(
    program: Program,
    against: Sequence[Path | str],
    x: NetworkInput,
    options: VerifyOptions,
    *,
    labels: NDArray[Any] | None = None,
    say: Console = QUIET,
) -> ParityReport:
    """Run the program and each artifact (or the program on each backend) on ``x`` ``[T, B, *shape]`` and compare.

    against: an artifact's path, or the name of a backend. labels: ``[B]``, for accuracies. x is rounded to
    ``options.input_grid``; None: to the grid that an artifact was exported for, where that is another than the
    program's. A file that computes something else on purpose, as an ONNX file with sums in float64, must equal the
    reference of that, and its difference from the program is reported. ``options.cflags``: of all that is compiled.
    Raises InputError for files that cannot be read or do not belong to the graph, ToolError if a tool fails.
    """
    runners = registry().runners
    common: dict[str, Any] = {"deadline": options.deadline, "progress": now_and_then(say, "steps")}
    names = labels_of(Path(item) for item in against if str(item) not in runners or format_of(Path(item)))
    formats = {path: _format(path) for path in names}
    loaded = {path: of.load(path) for path, of in formats.items()}
    bits = {names[path]: runner.input_bits for path, runner in loaded.items() if isinstance(runner, DeclaresInputGrid)}
    rounded = options.input_grid
    if not isinstance(x, Mapping):
        theirs = _their_grid(math.log2(input_scale(program)) if rounded is None else rounded, bits, say)
        rounded = theirs if rounded is None else rounded
    program, x = on_declared_grid(program, x, rounded, say)
    _require_whole(x, [name for name, own_bits in bits.items() if own_bits == 0])
    kinds = [type(runner) for runner in loaded.values()] + [runners[str(i)] for i in against if Path(i) not in names]
    flags = None if options.cflags is None else _flags(options.cflags, against, kinds)
    bench = ParityBench(program, x, labels)
    for item in dict.fromkeys(against):
        path = Path(item)
        if path not in names:
            kind = runners[str(item)]
            runner = open_runner(kind, program, program, say=say, **common)
            bench.compare(kind.name, _built_with(flags, runner), program)
            continue
        runner = _built_with(flags, ready(loaded[path], program, options.deadline))
        try:
            bench.compare(names[path], runner, path, artifact=str(path))
        except ShapeError as error:
            raise InputError(
                f"{path}: expected an artifact of this network; found one of another ({error}); verify it against "
                "the graph that it was made from"
            ) from None
        if options.lava:
            bench.cross_check(path, formats[path], names[path], {loaded[path].name}, say, **common)
    return replace(bench.report, silent=bench.silent and not options.allow_silent)


def _flags(cflags: str, against: Sequence[Path | str], kinds: Iterable[type[Runner]]) -> list[str]:
    """Split compiler flags as a shell does; raise InputError where that fails, or nothing is compiled."""
    if not any(issubclass(kind, Compiled) for kind in kinds):
        given = ", ".join(str(item) for item in against)
        raise InputError(f"{named('cflags')}: expected a C folder or the backend c to verify; found {given}")
    try:
        return shlex.split(cflags)
    except ValueError as error:
        raise InputError(
            f"{named('cflags')}: expected flags as a shell splits them; found '{cflags}' ({error})"
        ) from None


def _built_with(flags: Sequence[str] | None, runner: Runner) -> Runner:
    return runner.compiled_with(flags) if flags is not None and isinstance(runner, Compiled) else runner


def _their_grid(own: float, bits: Mapping[str, int | None], say: Console) -> int | None:
    """Return the coarsest input grid of the artifacts, in bits; None if it is ``own``."""
    declared = {name: own_bits for name, own_bits in bits.items() if own_bits}
    if not declared or min(declared.values()) == own:
        return None
    name, coarsest = min(declared.items(), key=lambda entry: entry[1])
    say.say(f"{name} was exported for input in multiples of 2^-{coarsest}")
    return coarsest


def _require_whole(x: NetworkInput, names: Sequence[str]) -> None:
    """Raise InputError for fractions in the input of artifacts that take integers alone."""
    if names and not isinstance(x, Mapping) and not on_grid(x, Grid(0, np.inf)):
        raise InputError(
            f"{names[0]} was exported for integers as input; found fractions; export it again with "
            f"{option('input_grid', 'BITS')}, which rounds to multiples of 2^-BITS"
        )


def _format(path: Path) -> Format:
    of = format_of(path)
    if of is not None and path.exists():
        return of
    actual = describe_path(path) if path.exists() else "no such file or folder"
    formats = ", ".join(kind.suffix or f"a folder with {kind.folder}" for kind in registry().formats.values())
    runners = registry().runners
    hint = suggest(str(path), runners)
    raise InputError(f"{path}: expected {formats} or a backend ({', '.join(runners)}); found {actual}{hint}")
