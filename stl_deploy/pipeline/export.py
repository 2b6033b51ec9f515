"""The verb export: one artifact, read back and run against the graph unless told not to, and its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_other, require_suffix, sha256, write_json
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import METADATA_KEY, own_metadata
from stl_deploy.exporters.targets import Format, find_format, format_of, registry, why_unavailable
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.artifacts import Bench, whole_artifact, write
from stl_deploy.pipeline.verify import show
from stl_deploy.runs.manifest import manifest, require_unedited
from stl_deploy.runs.source import PROGRAM, RUN, Source, on_declared_grid, open_program, open_source, program_input

CALIBRATION = 256
"""Training images of a run that integers are chosen by."""


def target_of(output: Path) -> str:
    """The target that a file's suffix tells; raises InputError where it tells none."""
    told = format_of(output)
    if told is None:
        known = ", ".join(f"{one.suffix} ({one.name})" for one in registry().formats.values() if one.suffix)
        raise InputError(
            f"{output}: expected a name that ends in {known}; or name the target, as --to c (in Python to='c') for a "
            "folder of C"
        )
    return told.name


def export(
    source: Path,
    to: str,
    output: Path,
    *,
    dialect: str | None = None,
    input_file: Path | None = None,
    input_name: str | None = None,
    input_grid: int | None = None,
    verified: bool = True,
    overwrite: bool = False,
    deadline: float = 600.0,
    say: Console = QUIET,
    **settings: Any,
) -> dict[str, Any]:
    """Write one artifact and ``<output>.manifest.json``; returns the manifest (JSON-ready).

    input_file: what calibrates integers and what the artifact is verified on; default: the run folder's images, else
    random input on the graph's grid (which is said). input_name: of that file in the manifest; default: its path.
    input_grid: round the input to multiples of 2^-input_grid, and declare that in the artifact. deadline: seconds that
    an outside tool, as a compiler, may take. overwrite: replace a folder whose files were edited.
    settings: the target's own options, as ``form`` of onnx, ``thresholds`` of netx.
    Nothing is left behind if the artifact fails its verification.
    Raises InputError for a wrong call, UnsupportedError where the target cannot hold the network, ParityError where
    the artifact does not spike as it must (a float one as the graph does: on the exact grid it can).
    """
    target = find_format(to)
    if target.suffix is not None:
        require_suffix(output, target.suffix, f" for {to}")
    require_other(output, source)
    if target.folder is not None and not overwrite:
        require_unedited(output)
    opened = open_source(source)
    program = open_program(opened, dialect, say=say)
    x, labels, what = program_input(opened, program, input_file, input_name)
    program, x = on_declared_grid(program, x, input_grid, say)
    common = {
        "origin": {"source": opened.file.name, "sha256": sha256(opened.file)},
        "graph": _graph(opened, program),
        "calibration": _calibration(opened, input_file),
        "x": x,
        "labels": labels,
        "deadline": deadline,
        "say": say,
    }
    say.say(f"exporting {opened.file.name} to {to}")
    with whole_artifact(output, target) as path:
        facts = write(program, target, path, settings, **common)
        if "load" in facts:  # names the file as it will be called
            facts["load"] = facts["load"].replace('"net.nir"', json.dumps(str(output)))
        if verified:
            say.say(f"reading {path.name} back and running it on {what}")
            found = _verified(Bench(program, x), path, target, output, deadline, say)
            facts["verified"] = found if found is None else {"input": what, **found}
        contents = manifest(program, [path], source=common["origin"], **facts)
    write_json(output.with_name(output.name + ".manifest.json"), contents)
    say.say(f"written: {output} and {output.name}.manifest.json")
    if "load" in facts:
        say.say(f"load it there with:\n{facts['load']}")
    return contents


def _verified(
    bench: Bench, path: Path, target: Format, output: Path, deadline: float, say: Console
) -> dict[str, Any] | None:
    """What the comparison found; None, with a warning, where the artifact cannot be run on this machine."""
    reason = why_unavailable(target.load(path))
    if reason is not None:
        say.warn(f"{output} was written but not run: {reason}")
        return None
    bench.artifact(path, target, artifact=str(output), deadline=deadline)
    show(bench.report, say)
    bench.report.require()
    return bench.report.as_dict()


def _graph(source: Source, program: Program) -> nir.NIRGraph | None:
    """The graph as it was read, with the dialect it is meant in, and its input's grid, written beside it.

    None of a Program file, which has none.
    """
    if source.kind == PROGRAM:
        return None
    graph = read_nir(source.file)
    own = own_metadata(graph)
    written = {key: value for key, value in program.metadata["dialect"].items() if value is not None}
    declared = {"input": program.metadata["input"]} if "input" in program.metadata else {}
    graph.metadata = {**graph.metadata, METADATA_KEY: {**own, **declared, "dialect": written}}
    return graph


def _calibration(source: Source, input_file: Path | None) -> Callable[[], NDArray[Any]] | None:
    """A run folder's training images, where no input was given."""
    if source.kind != RUN or input_file is not None or not (source.path / "config.yaml").is_file():
        return None

    def load() -> NDArray[Any]:
        from stl_deploy.runs.inputs import training_input  # torch

        return training_input(source.path, CALIBRATION)

    return load
