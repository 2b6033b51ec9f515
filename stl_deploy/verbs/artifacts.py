"""The verbs export, verify and simulate on paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Unpack

from numpy.typing import NDArray
from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, read_inputs, require_other, require_suffix, sha256, write_npz
from stl_deploy._util.keywords import named_options
from stl_deploy._util.remedies import named
from stl_deploy._util.system import keep_large_buffers
from stl_deploy._util.units import counted
from stl_deploy.config.options import (
    ExportKeywords,
    ExportOptions,
    SimulateKeywords,
    SimulateOptions,
    VerifyKeywords,
    VerifyOptions,
)
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Network
from stl_deploy.graph.compare import require_spikes
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline import export as exporting
from stl_deploy.pipeline import simulate as simulating
from stl_deploy.pipeline import verify as verifying
from stl_deploy.pipeline.artifacts import show_parity
from stl_deploy.pipeline.parity import ParityReport
from stl_deploy.pipeline.results import Exported, Simulation
from stl_deploy.runs.manifest import check_network
from stl_deploy.runs.source import (
    RUN,
    NetworkSource,
    open_network,
    open_program,
    open_source,
    program_input,
    read_for,
    run_of,
)
from stl_deploy.verbs.arguments import DialectOption, InputOption, SourceArg, Texts, backends, completed, formats

CALIBRATION = 256
"""Training images of a run that integers are chosen by."""


@named_options(ExportOptions, target="to")
def export(
    source: SourceArg,
    to: Annotated[
        str | None,
        Option(
            "--to",
            metavar="TARGET",
            autocompletion=completed(formats),
            help="As 'stl-deploy targets' lists them; default: from PATH's suffix.",
        ),
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="PATH", help="File (c, verilog: folder) to write.")],
    *,
    dialect: DialectOption = None,
    input_file: InputOption = None,
    options: ExportOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[ExportKeywords],
) -> Exported:
    """Write one artifact of a run folder or .nir file and ``<output>.manifest.json``; return the manifest.

    input_file: input for calibration and verification; default: the run folder's images, else random input on the
    graph's grid (with a message). options: an options object, or its fields as keywords.
    An artifact that fails verification is removed.
    Raises as `stl_deploy.pipeline.export.export`.
    """
    options = options or ExportOptions(**keywords)
    to = exporting.target_of(output) if to is None else to
    exporting.check_place(to, output, options)
    require_other(output, source)
    opened = open_source(source)
    net = open_network(opened, dialect, say=say)
    given = program_input(opened, net.program, input_file)
    return exporting.export(
        net,
        to,
        output,
        given,
        options,
        origin={"source": opened.file.name, "sha256": sha256(opened.file)},
        calibration=_calibration(opened, input_file, say),
        say=say,
    )


def _calibration(source: NetworkSource, input_file: Path | None, say: Console) -> Callable[[], NDArray[Any]] | None:
    """Return what loads a run folder's training images, and says so; None if input was given."""
    folder = run_of(source)
    if folder is None or input_file is not None:
        return None

    def load() -> NDArray[Any]:
        from stl_deploy.runs.inputs import training_input  # torch

        x = training_input(folder, CALIBRATION)
        say.say(f"choosing integers on {x.shape[1]} training samples of {folder}")
        return x

    return load


@named_options(VerifyOptions)
def verify(
    source: SourceArg,
    against: Annotated[
        Sequence[Path | str],
        Texts,
        Option(
            "--against",
            metavar="ARTIFACT|BACKEND",
            autocompletion=completed(backends),
            help="A file or folder of a target, or a backend.",
        ),
    ],
    more: Annotated[Sequence[Path | str] | None, Texts, Argument(metavar="ARTIFACT", help="Further artifacts.")] = None,
    *,
    input_file: InputOption = None,
    dialect: DialectOption = None,
    options: VerifyOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[VerifyKeywords],
) -> ParityReport:
    """Compare artifacts, or the network on backends, with the graph of a run folder or .nir file on one input.

    against: paths of artifacts or names of backends. Default input: the run folder's test images, else random input on
    the graph's grid. options: an options object, or its fields as keywords.
    ``report.require()`` raises ParityError if spikes that must agree differ.
    Raises InputError for unreadable files or files of another graph, ToolError if a tool fails.
    """
    options = options or VerifyOptions(**keywords)
    opened = open_source(source)
    if opened.kind == RUN:
        check_network(source)
    program = open_program(opened, dialect, say=say)
    given = program_input(opened, program, input_file)
    say.say(f"input: {given.what}")
    report = verifying.verify(program, [*against, *(more or ())], given.x, options, labels=given.labels, say=say)
    show_parity(report, say, is_random=given.is_random)
    return report


@named_options(SimulateOptions)
def simulate(
    source: Annotated[Path, Argument(metavar="SOURCE", help="A run folder, a .nir file, or an exported artifact.")],
    input_file: Annotated[Path, Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape].")],
    backend: Annotated[
        str, Option(metavar="BACKEND", autocompletion=completed(backends), help="As 'stl-deploy targets' lists them.")
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="Y.npz", help="File for the outputs.")],
    *,
    dialect: DialectOption = None,
    options: SimulateOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[SimulateKeywords],
) -> dict[str, Any]:
    """Run a network on an input npz and write ``y`` (and spikes) as npz; return a summary (JSON-ready).

    options: an options object, or its fields as keywords. Raises InputError for an invalid source or input, or input
    beyond the graph's declared grid; UnsupportedError if the target does not support the network, CheckFailed, with the
    file written, if no layer spikes.
    """
    options = options or SimulateOptions(**keywords)
    require_suffix(output, ".npz", " for outputs")
    require_other(output, source, input_file)
    keep_large_buffers()
    opened = open_source(source, artifacts=True)
    network: Network = opened.file
    x: NetworkInput
    if opened.is_graph:
        network = open_program(opened, dialect, say=say)
        x, labels = read_for(opened, network, input_file)
    elif options.input_grid is not None:
        raise InputError(
            f"{source}: {named('input_grid')} applies to graphs only; an artifact of {opened.kind} has its own grid"
        )
    else:
        x, labels = read_inputs(input_file)
    result = simulating.simulate(network, x, backend, options, labels=labels, say=say)
    if result.accuracy is None and labels is not None and not opened.is_graph:
        say.warn(
            f"no accuracy: {source} does not record how to decode its outputs; simulate the graph it was made from"
        )
    arrays = _arrays(result)
    write_npz(output, arrays)
    steps, samples = leading(x)
    say.say(f"ran {counted(samples, 'sample')} of {counted(steps, 'step')} on {result.what}")
    if result.accuracy is not None:
        say.say(f"accuracy {result.accuracy:.2%}")
    for warning in result.warnings:
        say.warn(warning)
    say.say(f"written: {output}")
    require_spikes(result.silent, allowed=options.allow_silent)
    return {
        "source": str(source),
        "backend": backend,
        "what": result.what,
        "output": str(output),
        "arrays": {name: list(array.shape) for name, array in arrays.items()},
        "accuracy": result.accuracy,
        "warnings": list(result.warnings),
    }


def _arrays(result: Simulation) -> dict[str, NDArray[Any]]:
    several = len(result.outputs) > 1
    arrays = {f"y__{name}" if several else "y": array for name, array in result.outputs.items()}
    return arrays | {f"spikes__{name}": array for name, array in result.spikes.items()} | dict(result.states)
