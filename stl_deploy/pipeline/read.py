"""`stl_deploy.read`: a .nir file or a run folder as a `SpikingGraph`."""

from __future__ import annotations

from pathlib import Path

from stl_deploy._util.files import read_inputs
from stl_deploy.errors import InputError
from stl_deploy.graph.dialect import Dialect, load_dialect
from stl_deploy.graph.io.nir_file import read_nir
from stl_deploy.graph.lower import own_metadata
from stl_deploy.pipeline.source import TEST_INPUT, open_source
from stl_deploy.pipeline.spiking_graph import SpikingGraph


def read(path: str | Path, dialect: str | Dialect | None = None) -> SpikingGraph:
    """Read a .nir file or a run folder.

    dialect: how the file is meant: a preset's name, a .json file, or a `Dialect`; default: the file's own metadata.
    Of a run folder the test images become the graph's ``sample``.
    Raises InputError for a file that cannot be read, or whose metadata do not say how it is meant; GraphError naming
    the node where the graph is no network.

        net = stl_deploy.read("their.nir", dialect="snntorch")
    """
    source = open_source(Path(path))
    graph = read_nir(source.file)
    chosen = load_dialect(dialect) if isinstance(dialect, str) else dialect
    if chosen is None and "dialect" not in own_metadata(graph):
        raise InputError(
            f"{path}: the file does not say how it is meant; name the framework that wrote it: dialect='snntorch', or "
            "another that 'stl-deploy targets' lists"
        )
    kept = source.path / TEST_INPUT
    sample = read_inputs(kept)[0] if source.kind == "run" and kept.is_file() else None
    return SpikingGraph(graph, chosen, sample=sample, name=Path(path).resolve().stem)
