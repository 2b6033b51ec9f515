"""The verb export: one artifact, read back and run against the graph unless told not to, and its manifest."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from stl_deploy._util.console import Console
from stl_deploy._util.files import make_place, sha256
from stl_deploy.errors import InputError
from stl_deploy.exporters.integers.scales import ThresholdForm
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.interface import Form, Precision
from stl_deploy.graph.dialect import load_dialect
from stl_deploy.graph.frameworks.restate import restate
from stl_deploy.graph.io.nir_file import read_nir, write_nir
from stl_deploy.graph.lower import METADATA_KEY, metadata_dialect, own_metadata
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.manifest import manifest, write_manifest
from stl_deploy.pipeline.netx import write_netx_file
from stl_deploy.pipeline.source import NetworkInput, Source, open_program, open_source, program_input
from stl_deploy.pipeline.verify import check_against, require, show

Target = Literal["nir", "onnx", "netx"]
_SUFFIX = {"nir": ".nir", "onnx": ".onnx", "netx": ".net"}


@dataclass(frozen=True)
class ExportOptions:
    """thresholds: of netx. form and precision: of ONNX. reader: of NIR, the framework that the graph is restated for.

    input_file: calibrates netx and is what the artifact is verified on.
    """

    dialect: str | None = None
    thresholds: ThresholdForm = "folded"
    form: Form = "sequence"
    precision: Precision = "float32"
    reader: str | None = None
    input_file: Path | None = None
    verified: bool = True


def target_of(output: Path) -> str:
    """The target that a file's suffix tells; raises InputError where it tells none."""
    for target, suffix in _SUFFIX.items():
        if output.suffix == suffix:
            return target
    accepted = ", ".join(f"{suffix} ({target})" for target, suffix in _SUFFIX.items())
    raise InputError(f"{output}: the suffix tells no target; accepted: {accepted}, or name the target with to=")


def with_input(options: ExportOptions | None, input_file: Path | None) -> ExportOptions:
    """The options with an input file, where they name none."""
    options = options or ExportOptions()
    return options if options.input_file is not None else replace(options, input_file=input_file)


def export(
    source: Path, to: str, output: Path, options: ExportOptions | None = None, *, say: Console | None = None
) -> dict[str, Any]:
    """Write one artifact and ``<output>.manifest.json``; returns the manifest (JSON-ready).

    The input for calibration and verification is the options' file, else the run folder's test images, else random
    input on the graph's grid (which is said). Nothing is left behind if the artifact fails its verification.
    Raises InputError for a wrong call, UnsupportedError where the target cannot hold the network, ParityError where
    a float artifact does not spike like the graph (on the exact grid it must).
    """
    say, options = say or Console(quiet=True), options or ExportOptions()
    if to not in get_args(Target):
        raise InputError(f"no target '{to}'; accepted: {', '.join(get_args(Target))}")
    if output.suffix != _SUFFIX[to]:
        raise InputError(f"{output}: files for {to} end in {_SUFFIX[to]}; name it so")
    if options.precision != "float32" and to != "onnx":
        raise InputError(f"--exact, --int8 and --integer are of onnx; a {to} file has no such form")
    if options.reader is not None and to != "nir":
        raise InputError(f"--for restates a .nir file for a reader; a {to} file has no such form")
    opened = open_source(source)
    program = open_program(opened, options.dialect)
    x, what = program_input(opened, program, options.input_file)
    make_place(output)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".stl-deploy-") as folder:
        path = Path(folder) / output.name
        facts = _write(opened, program, to, path, options, x, say)
        if options.verified:
            facts["verified"] = _verify(program, path, x, what, say)
        contents = manifest(program, [path], source=_provenance(opened), **facts)
        for file in sorted(Path(folder).iterdir()):
            file.replace(output.parent / file.name)
    write_manifest(output.with_name(output.name + ".manifest.json"), contents)
    say.say(f"written: {output} and {output.name}.manifest.json")
    if "load" in facts:
        say.say(f"load it there with:  {facts['load']}")
    return contents


def _write(
    source: Source, program: Program, to: str, path: Path, options: ExportOptions, x: NetworkInput, say: Console
) -> dict[str, Any]:
    """Write the artifact; returns what is worth keeping of how."""
    if to == "nir":
        return _write_nir(source, program, path, options)
    if to == "onnx":
        export_onnx(program, path, form=options.form, precision=options.precision, provenance=_provenance(source))
        return {"target": "onnx", "form": options.form, "precision": options.precision}
    return write_netx_file(source, program, path, options.thresholds, options.input_file, x, say)


def _write_nir(source: Source, program: Program, path: Path, options: ExportOptions) -> dict[str, Any]:
    """The graph with the dialect it is meant in written beside it, or restated for a reader."""
    if options.reader is not None:
        restated = restate(program, options.reader)
        write_nir(restated.graph, path)
        return {"target": "nir", "reader": options.reader, "load": restated.load}
    graph = read_nir(source.file)
    own = own_metadata(graph)
    dialect = load_dialect(options.dialect) if options.dialect is not None else metadata_dialect(own)
    written = {key: value for key, value in dialect.as_dict().items() if value is not None}
    graph.metadata = {**graph.metadata, METADATA_KEY: {**own, "dialect": written}}
    write_nir(graph, path)
    return {"target": "nir"}


def _verify(program: Program, path: Path, x: NetworkInput, what: str, say: Console) -> dict[str, Any]:
    say.say(f"reading {path.name} back and running it on {what}")
    report = check_against(program, [path], x)
    show(report, say)
    require(report)
    return {"input": what, **report.as_dict()}


def _provenance(source: Source) -> dict[str, str]:
    return {"source": source.file.name, "sha256": sha256(source.file)}
