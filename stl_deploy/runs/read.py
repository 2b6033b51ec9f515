"""`stl_deploy.read`: read a .nir file or a run folder as a `SpikingGraph`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stl_deploy._util.console import Console
from stl_deploy._util.files import read_inputs
from stl_deploy.exporters.nir.detect_writer import resolve_dialect
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.runs.source import RUN, TEST_INPUT, NetworkSource, open_program, open_source, tell


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
    source = open_source(Path(path))
    name = Path(path).resolve().stem
    if source.holds_program:
        program = open_program(source, None if dialect is None else str(dialect))
        return SpikingGraph(program, sample=_sample(source), name=name)
    graph = read_nir(source.file)
    reading = resolve_dialect(graph, dialect, path)
    if reading.told_by == "form":
        warnings.warn(reading.reason, stacklevel=2)
    if reading.unspecified_options:
        warnings.warn(reading.unspecified_options, stacklevel=2)
    return SpikingGraph(graph, reading.dialect, sample=_sample(source), name=name)


def _sample(source: NetworkSource) -> Any:
    """Return the test samples of a run folder; None without."""
    kept = source.path / TEST_INPUT
    return read_inputs(kept)[0] if source.kind == RUN and kept.is_file() else None


def open_network(source: NetworkSource, dialect: str | None = None, *, say: Console | None = None) -> SpikingGraph:
    """Open the network of a run folder or a file for verbs in memory; see `stl_deploy.runs.source.open_program`."""
    if source.holds_program:
        return SpikingGraph(open_program(source, dialect), name=source.file.stem)
    graph = read_nir(source.file)
    reading = resolve_dialect(graph, dialect, source.path)
    tell(reading, say)
    return SpikingGraph(graph, reading.dialect, name=source.file.stem)
