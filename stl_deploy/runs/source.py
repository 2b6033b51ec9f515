"""What a verb works on: a run folder, a .nir file, or an artifact of another format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import leading, read_inputs
from stl_deploy._util.remedies import option, remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.detect_writer import DialectChoice, resolve_dialect
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.program.file import read_program
from stl_deploy.exporters.targets import format_of, registry
from stl_deploy.graph.program import CAPTURED, Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.network_input import compared, drawn

RUN, GRAPH, PROGRAM = "run", "nir", "program"
TEST_INPUT = "test.npz"
"""The file of a run folder that keeps the test samples, encoded."""


@dataclass(frozen=True)
class Source:
    """A SOURCE as given: its kind (``run``, or the name of a format), the path given, and what holds the network."""

    kind: str
    path: Path
    file: Path

    @property
    def is_graph(self) -> bool:
        """Whether it holds a network, so that every verb takes it."""
        return self.kind in (RUN, GRAPH, PROGRAM)


def is_network_file(path: Path) -> bool:
    """Whether this is, by its name, a .nir or .program file: what verbs of run folders take instead of one.

    Raises InputError for an artifact of another format.
    """
    return format_of(path) is not None and open_source(path).kind in (GRAPH, PROGRAM)


def open_source(path: Path, *, artifacts: bool = False) -> Source:
    """Tell what ``path`` is; artifacts: the verb takes every format's, not only graphs.

    Raises InputError if it does not exist, or is nothing that the verb takes.
    """
    if (path / "net.nir").is_file():
        return Source(RUN, path, path / "net.nir")
    if not path.exists():
        raise InputError(f"{path}: expected {_accepted(artifacts)}; found no such file or folder")
    told = format_of(path)
    if told is None or not (artifacts or told.name in (GRAPH, PROGRAM)):
        found = named(path) if told is None else f"an artifact of {told.name}"
        if path.is_dir() and told is None:
            found = "a folder without net.nir"
            if (path / "model.safetensors").is_file():
                found = "a trained run without its graph; make it with " + remedy(
                    cli=f"stl-deploy fold {path}",
                    python=f"stl_deploy.verbs.fold(Path({str(path)!r}), Path({str(path / 'net.nir')!r}))",
                )
        raise InputError(f"{path}: expected {_accepted(artifacts)}; found {found}")
    return Source(told.name, path, path)


def named(path: Path) -> str:
    """What stands at a path that is of no kind we know, for messages."""
    if path.is_dir():
        return "another folder"
    if not path.is_file():
        return "a pipe or device"
    return f"'{path.suffix}'" if path.suffix else "a name without an ending"


def _accepted(artifacts: bool) -> str:
    if not artifacts:
        return "a run folder, a .nir or a .program file"
    names = (one.suffix or f"a folder with {one.folder}" for one in registry().formats.values())
    return f"a run folder, {', '.join(names)}"


def open_program(
    source: Source, dialect: str | None = None, *, say: Console | None = None, or_spec: bool = False
) -> Program:
    """The Program of a run folder or .nir file; ``dialect``: a preset's name or a .json file.

    Where none is given and the file's metadata hold none, the writer's, if the file's form gives it away: ``say`` is
    told so, and what the file cannot say. or_spec: go on under ``spec`` where nothing says how the file is meant.
    Raises InputError or GraphError where the file or the dialect cannot be read, or nothing says what it is.
    """
    program, reading = open_reading(source, dialect, or_spec=or_spec)
    tell(reading, say)
    return program


def tell(reading: DialectChoice, say: Console | None) -> None:
    """Say how a file was read where it does not say so, and what it leaves open."""
    if say is not None:
        if reading.told_by == "form":
            say.say(reading.reason)
        if reading.unspecified_options:
            say.warn(reading.unspecified_options)


def open_reading(source: Source, dialect: str | None = None, *, or_spec: bool = False) -> tuple[Program, DialectChoice]:
    """The same, and how the file was read; the metadata of a NIR graph's Program hold the dialect."""
    if source.kind == PROGRAM:
        return _open_program_file(source, dialect)
    graph = read_nir(source.file)
    reading = resolve_dialect(graph, dialect, source.path, or_spec=or_spec)
    program = lower(graph, reading.dialect)
    return replace(program, metadata={**program.metadata, "dialect": reading.dialect.as_dict()}), reading


def _open_program_file(source: Source, dialect: str | None) -> tuple[Program, DialectChoice]:
    if dialect is not None:
        raise InputError(f"{source.path}: a dialect is of .nir files; a .program file leaves nothing open")
    program = read_program(source.file)
    return program, DialectChoice(Dialect(dt=program.dt), "metadata", "Dialect: none needed, as the file is a Program.")


def read_for(source: Source, program: Program, file: Path) -> tuple[NetworkInput, NDArray[np.int64] | None]:
    """Input and labels of an npz file (see `read_inputs`); warns where its steps seem to stand where its samples do.

    Files hold ``[T, B, *shape]``, and a graph may come from a module, or an x from data, that have ``[B, T, *shape]``.
    """
    x, labels = read_inputs(file)
    usual, learnt = _usual_steps(source, program)
    steps, samples = leading(x)
    if swapped(steps, samples, usual):
        warnings.warn(
            f"{file}: x is read as [T, B, ...], {counted(steps, 'step')} of {counted(samples, 'sample')}; "
            f"{learnt} on {counted(samples, 'step')}: if x "
            "is [B, T, ...], swap its first two axes",
            stacklevel=2,
        )
    return x, labels


def _usual_steps(source: Source, program: Program) -> tuple[int | None, str]:
    """On how many steps the network was captured or trained, where that is known, and which of them, in words."""
    captured = program.metadata.get(CAPTURED)
    if isinstance(captured, Mapping):
        return captured.get("steps"), "this graph was captured from a module"
    config = source.path / "config.yaml"
    if source.kind != RUN or not config.is_file():
        return None, ""
    from stl_deploy.config.load import load_config

    return load_config(config).dataset.T, "this network was trained"


def swapped(steps: int, samples: int, usual: Any) -> bool:
    """Whether so many steps of so many samples look like axes that have changed places; usual: steps of the capture."""
    return bool(steps != usual and samples == usual)


def program_input(
    source: Source, program: Program, file: Path | None
) -> tuple[NetworkInput, NDArray[np.int64] | None, str]:
    """What to run a network on, its labels if there are any, and what that is in words.

    The npz file given; else a run folder's test samples; else `drawn`. Of a file as many samples as `compared` allows.
    """
    if file is None and source.kind == RUN and (source.path / TEST_INPUT).is_file():
        file = source.path / TEST_INPUT
    if file is None:
        x, what = drawn(program)
        return x, None, what
    return compared(program, *read_for(source, program, file), str(file))


def input_of(source: Source, given: Path | None) -> Path:
    """The input file given, else a run folder's own test samples; raises InputError if there are none."""
    if given is not None:
        return given
    kept = source.path / TEST_INPUT
    if source.kind != RUN or not kept.is_file():
        raise InputError(
            f"{source.path}: energy depends on activity; give the input with {option('input_file', 'X.npz')}"
        )
    return kept
