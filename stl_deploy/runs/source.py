"""Open a verb's SOURCE: a run folder, a .nir file, or an artifact of another format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stl_deploy._util.caller import warn_caller
from stl_deploy._util.console import Console
from stl_deploy._util.files import as_path, read_inputs
from stl_deploy._util.remedies import option, remedy, verb
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.detect_writer import DialectChoice, resolve_dialect
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.program.file import SUFFIX as PROGRAM_SUFFIX
from stl_deploy.exporters.program.file import read_program
from stl_deploy.exporters.targets import describe_path, format_of, registry
from stl_deploy.graph.axis_order import axes_in_doubt
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.network_input import ProgramInput, check_numbers, compared, drawn, presented
from stl_deploy.pipeline.spiking_graph import SpikingGraph

RUN, GRAPH, PROGRAM = "run", "nir", "program"
FOLDER, UNTRAINED = "folder", "untrained"
GRAPHS = ("net.nir", "net.program")
"""The graph of a run folder: one of these files."""
TEST_INPUT = "test.npz"
"""The file of a run folder that keeps the test samples, encoded."""


@dataclass(frozen=True)
class NetworkSource:
    """A SOURCE: its kind (``run``, or the name of a format), its path, and the file that holds the network."""

    kind: str
    path: Path
    file: Path

    @property
    def is_graph(self) -> bool:
        """Whether it holds a network, so that every verb takes it."""
        return self.kind in (RUN, GRAPH, PROGRAM)

    @property
    def holds_program(self) -> bool:
        """Whether the file is a .program, which leaves nothing open: of networks that NIR cannot hold."""
        return self.file.suffix == PROGRAM_SUFFIX


def kind_of(path: Path) -> str | None:
    """Say what a path is: a run, UNTRAINED (a preset, a configuration, FILE.py:NAME), FOLDER (of .nir files), a format.

    None: nothing that is known, or nothing at all. torch is loaded only for the name of a preset.
    """
    if ".py:" in str(path) or path.suffix in (".yaml", ".yml"):
        return UNTRAINED
    if graph_of(path) is not None:
        return RUN
    if path.exists():
        of = format_of(path)
        return of.name if of is not None else FOLDER if nir_files(path) else None
    from stl_deploy.config.load import preset_names

    return UNTRAINED if str(path) in preset_names() else None


def nir_files(folder: Path) -> list[Path]:
    """Return the .nir files of a folder, sorted by name; a run folder has none."""
    if not folder.is_dir() or graph_of(folder) is not None:
        return []
    return sorted(file for file in folder.glob("*.nir") if file.is_file())


def is_network_file(path: Path) -> bool:
    """Return whether the name is a .nir or .program file, which verbs take instead of a run folder.

    Raises InputError for an artifact of another format.
    """
    if graph_of(path) is not None:  # a run folder, seen without importing the formats
        return False
    return format_of(path) is not None and open_source(path).kind in (GRAPH, PROGRAM)


def open_source(path: Path, *, artifacts: bool = False) -> NetworkSource:
    """Identify ``path``; artifacts: the verb takes every format's, not only graphs.

    Raises InputError if it does not exist, or the verb does not take its kind.
    """
    if (graph := graph_of(path)) is not None:
        return NetworkSource(RUN, path, graph)
    if not path.exists():
        raise InputError(f"{path}: expected {_accepted(artifacts)}; found no such file or folder", slug="no-such-file")
    artifact = format_of(path)
    if artifact is not None and (artifacts or artifact.name in (GRAPH, PROGRAM)):
        return NetworkSource(artifact.name, path, path)
    slug, actual, how = "not-a-source", describe_path(path), None
    if artifact is not None:
        actual = f"an artifact of {artifact.name}"
        how = f"give the graph it was made from, or run the artifact with {verb('simulate')}"
    elif (path / "model.safetensors").is_file():
        slug, actual = "no-graph", "a trained run without its graph"
        call = f"stl_deploy.verbs.fold(Path({str(path)!r}))"
        how = remedy(cli=f"make it with stl-deploy fold {path}", python=f"make it with {call}")
    elif path.is_dir():
        actual = "a folder without net.nir"
    raise InputError(f"{path}: expected {_accepted(artifacts)}; found {actual}", slug=slug, remedy=how)


def graph_of(run_dir: Path) -> Path | None:
    """Return the file of a run folder that holds its network: ``net.nir``, or ``net.program`` where NIR cannot."""
    return next((run_dir / name for name in GRAPHS if (run_dir / name).is_file()), None)


def _accepted(artifacts: bool) -> str:
    if not artifacts:
        return "a run folder, a .nir or a .program file"
    names = (kind.suffix or f"a folder with {kind.folder}" for kind in registry().formats.values())
    return f"a run folder, {', '.join(names)}"


def open_program(
    source: NetworkSource, dialect: str | None = None, *, say: Console | None = None, or_spec: bool = False
) -> Program:
    """Read the Program of a run folder or .nir file; ``dialect``: a preset's name or a .json file.

    Without a dialect here or in the metadata, the writer's applies if the file's form gives it away: ``say`` prints it,
    and the open points. or_spec: use ``spec`` if nothing determines the dialect.
    Raises InputError or GraphError if the file or the dialect cannot be read, or nothing determines the dialect.
    """
    program, reading = open_reading(source, dialect, or_spec=or_spec)
    tell(reading, say)
    return program


def tell(reading: DialectChoice, say: Console | None) -> None:
    """Print how a file was read if it does not declare that, and its open points."""
    if say is not None:
        if reading.told_by == "form":
            say.say(reading.reason)
        if reading.unspecified_options:
            say.warn(reading.unspecified_options)


def open_reading(
    source: NetworkSource, dialect: str | None = None, *, or_spec: bool = False
) -> tuple[Program, DialectChoice]:
    """Read as `open_program`, and return the reading; the metadata of a NIR graph's Program hold the dialect."""
    if source.holds_program:
        return _open_program_file(source, dialect)
    graph = read_nir(source.file)
    reading = resolve_dialect(graph, dialect, source.path, or_spec=or_spec)
    program = lower(graph, reading.dialect)
    return replace(program, metadata={**program.metadata, "dialect": reading.dialect.as_dict()}), reading


def _open_program_file(source: NetworkSource, dialect: object) -> tuple[Program, DialectChoice]:
    if dialect is not None:
        raise InputError(f"{source.path}: dialects apply to .nir files; a .program file is complete")
    program = read_program(source.file)
    return program, DialectChoice(Dialect(dt=program.dt), "metadata", "Dialect: none needed, as the file is a Program.")


def read_for(
    source: NetworkSource, program: Program, file: Path, *, any_target: bool = False
) -> tuple[NetworkInput, NDArray[Any] | None]:
    """Read input and labels of an npz file as `read_inputs`; warn if time and batch axes seem swapped.

    Files hold ``[T, B, *shape]``, and a graph may come from a module, or an x from data, that have ``[B, T, *shape]``.
    """
    x, labels = read_inputs(file, any_target=any_target, given=partial(presented, program))
    check_numbers(program, x)
    if (doubt := axes_in_doubt(program.metadata, x, _trained_steps(source))) is not None:
        warnings.warn(f"{file}: {doubt}", stacklevel=2)
    return x, labels


def _trained_steps(source: NetworkSource) -> int | None:
    config = source.path / "config.yaml"
    if source.kind != RUN or not config.is_file():
        return None
    from stl_deploy.config.load import load_config

    return load_config(config).dataset.T


def run_of(source: NetworkSource) -> Path | None:
    """Return the run folder that a source is, or that a ``net.nir`` lies in with its configuration; None without."""
    folder = source.path if source.kind == RUN else source.path.parent
    whole = (folder / "config.yaml").is_file() and (source.kind == RUN or source.path.name in GRAPHS)
    return folder if whole else None


def program_input(source: NetworkSource, program: Program, file: Path | None) -> ProgramInput:
    """Return a network's input: the npz file given; else its run folder's test samples; else `drawn`.

    Of a file as many samples as `compared` allows.
    """
    folder = run_of(source) or (source.path if source.kind == RUN else None)
    if file is None and folder is not None and (folder / TEST_INPUT).is_file():
        file = folder / TEST_INPUT
    if file is None:
        return drawn(program)
    return compared(program, *read_for(source, program, file), str(file))


def input_of(source: NetworkSource, given: Path | None) -> Path:
    """Return the given input file, else a run folder's own test samples; raise InputError if there are none."""
    if given is not None:
        return given
    kept = source.path / TEST_INPUT
    if source.kind != RUN or not kept.is_file():
        raise InputError(
            f"{source.path}: energy depends on activity; give the input with {option('input_file', 'X.npz')}"
        )
    return kept


def read(path: str | Path, dialect: str | Path | Mapping[str, Any] | Dialect | None = None) -> SpikingGraph:
    """Read a .nir file, a .program file or a run folder.

    A run folder's test samples become the graph's ``sample``.

    Args:
        path: The file or folder.
        dialect: Conventions of the file: a preset's name, a .json file, its keys, or a `Dialect`. Default: the file's
            metadata, else the framework recognised from the file, named in a warning.

    Raises:
        InputError: For an unreadable file, or one without a recognisable dialect.
        GraphError: If the graph is not a valid network; names the node.

    Examples:
        >>> net = stl_deploy.read("their.nir", dialect="snntorch")
    """
    source = open_source(as_path(path))
    net, reading = _network(source, dialect)
    if reading.told_by == "form":
        warn_caller(reading.reason)
    if reading.unspecified_options:
        warn_caller(reading.unspecified_options)
    net.name, kept = source.path.resolve().stem, source.path / TEST_INPUT
    if source.kind == RUN and kept.is_file():
        net.sample, _ = read_inputs(kept)
    return net


def open_network(source: NetworkSource, dialect: str | None = None, *, say: Console | None = None) -> SpikingGraph:
    """Open the network of a run folder or a file for verbs in memory; see `stl_deploy.runs.source.open_program`."""
    net, reading = _network(source, dialect)
    tell(reading, say)
    return net


def _network(
    source: NetworkSource, dialect: str | Path | Mapping[str, Any] | Dialect | None
) -> tuple[SpikingGraph, DialectChoice]:
    if source.holds_program:
        program, reading = _open_program_file(source, dialect)
        return SpikingGraph(program, name=source.file.stem), reading
    graph = read_nir(source.file)
    reading = resolve_dialect(graph, dialect, source.path)
    return SpikingGraph(graph, reading.dialect, name=source.file.stem), reading
