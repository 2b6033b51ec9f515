"""Capture torch modules of the user's Python file as NIR files, and check them before training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import nir
import torch
from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_suffix
from stl_deploy._util.remedies import named, option, remedy
from stl_deploy.config.options import CheckOptions, Start, Time
from stl_deploy.data import check_dataset
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.nir.check import check
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.lower import own_metadata, with_metadata
from stl_deploy.exporters.program.file import SUFFIX as PROGRAM_SUFFIX
from stl_deploy.exporters.program.file import write_program
from stl_deploy.graph.check import TargetCheck, check_program
from stl_deploy.graph.compare import require_spikes
from stl_deploy.graph.findings import CheckReport
from stl_deploy.graph.program import Program
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.capture import capture as capture_module
from stl_deploy.pipeline.check import declared_grid, seen_coding
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.report.text.check import show
from stl_deploy.runs.configure import configure
from stl_deploy.runs.inputs import input_spec
from stl_deploy.runs.user_module import load_module, module_input, name_in_file
from stl_deploy.tracing.initial_norms import drawn_statistics
from stl_deploy.verbs.arguments import AllowSilent, As, number_or_text


def capture(
    module: Annotated[
        str,
        Argument(
            metavar="FILE.py:NAME",
            help="A torch module of your own: its name in the file, or that of a class or function that makes it. The "
            "file is run.",
        ),
    ],
    input_file: Annotated[
        Path, Option("--input", "-i", metavar="X.npz", help="x: a real batch, in the form of forward.")
    ],
    output: Annotated[
        Path,
        Option(
            "-o", "--output", metavar="NET.nir", help="File to write; NET.program for networks that NIR cannot hold."
        ),
    ],
    *,
    weights: Annotated[
        Path | None,
        Option(metavar="W.safetensors|.pt|.pth|.ckpt", help="Weights of the module; nothing else in the file is used."),
    ] = None,
    time: Annotated[
        Time,
        Option(help="Position of time: forward takes [T,B,...], [B,T,...] or one step, or loops over time itself."),
    ] = "first",
    pick: Annotated[
        int | str | None,
        As(str | None),
        Option("--pick", metavar="INDEX|NAME", help="Output to use, if there are several."),
    ] = None,
    start: Annotated[Start, Option(help="Start of states that forward draws: zeros for a graph.")] = "drawn",
    allow_silent: AllowSilent = False,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Capture ``FILE.py:NAME`` on the ``x`` of an npz file and write the network; return the proof, JSON-ready.

    Executes the user's file, and prints that it does. output: a ``.nir`` file, or ``.program`` for networks that NIR
    cannot hold. weights: a file of weights. time, pick, start: as ``time``, ``output`` and
    ``start`` of `stl_deploy.capture`. Raises InputError for invalid files, CaptureError as `stl_deploy.capture`,
    and CheckFailed if no layer spikes on x, unless ``allow_silent``.
    """
    if output.suffix != PROGRAM_SUFFIX:
        require_suffix(output, ".nir", f" for a captured graph ({PROGRAM_SUFFIX} for what NIR cannot hold)")
    x = module_input(input_file, time)
    pick = number_or_text(pick)
    say.say(f"running {name_in_file(module)[0]}, which is your code")
    model = load_module(module, weights, say)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # those of the proof are printed below
        net = capture_module(model, x, time=time, output=pick, start=start, progress=False if say.quiet else None)
    _write(net, output)
    say.say(str(replace(net.proof, left_aside=0)))
    if net.proof.left_aside:
        count = net.proof.left_aside + 1
        say.say(
            f"the module returns {count} tensors; the graph's output is the first "
            f"({remedy(cli='--pick INDEX|NAME', python='pick=')} names another)"
        )
    for warning in net.proof.warnings:
        say.warn(warning)
    say.say(f"readout: {net.readout}; written: {output}")
    require_spikes(net.proof.silent, allowed=allow_silent)
    return {"output": str(output), "readout": net.readout.as_dict(), "proof": net.proof.as_dict()}


def _write(net: SpikingGraph, output: Path) -> None:
    """Write a .program or a .nir file; raise UnsupportedError with a usable name if NIR cannot hold the network."""
    if output.suffix == PROGRAM_SUFFIX:
        write_program(net.program, output)
        return
    try:
        graph = net.graph
    except UnsupportedError as error:
        other = (
            f"write it as a Program, {option('output', str(output.with_suffix(PROGRAM_SUFFIX)))}, which the other "
            "commands take"
        )
        raise error.with_remedy(other) from None
    write_nir(graph, output)


def check_untrained(
    what: str, input_file: Path | None, asked: Mapping[str, TargetCheck], options: CheckOptions, say: Console
) -> CheckReport:
    """Check a network before training: a preset's name, a configuration's file, or a torch module FILE.py:NAME."""
    graph, dialect = untrained_graph(what, input_file, declared_grid(options.input_grid))
    say.say(f"{what}: untrained, with its initial weights")
    report = check_program(graph, asked) if isinstance(graph, Program) else check(graph, dialect, asked)
    show(report, say)
    return report


def untrained_graph(
    what: str, input_file: Path | None = None, declared: Mapping[str, Any] | None = None
) -> tuple[nir.NIRGraph | Program, Dialect | None]:
    """Return the graph of an untrained network: a preset, a configuration, or the torch module FILE.py:NAME.

    A Program if NIR cannot hold it.

    input_file: an npz file with ``x`` in the form of ``forward``; required for FILE.py:NAME, whose file is executed,
    and not accepted otherwise. declared: the input's metadata.
    Raises InputError for invalid arguments, CaptureError for a module that cannot be expressed as a graph.
    """
    if ".py:" in what:
        if input_file is None:
            raise InputError(f"{what}: expected {option('input_file', 'X.npz')} with x as forward takes it; found none")
        model = load_module(what, None)
        with drawn_statistics(model):
            net = capture_module(model, module_input(input_file), verify=False)
        own = {"input": declared or seen_coding(net.sample)}
        if net.program.origin is None:
            return replace(net.program, metadata={**net.program.metadata, **own}), None
        return with_metadata(net.graph, own_metadata(net.graph) | own), net.dialect
    if input_file is not None:
        raise InputError(
            f"{what}: {named('input_file')} applies to checks of FILE.py:NAME; a configuration declares its input"
        )
    config = configure(what, [] if declared is None else [f"dataset.input_grid={declared['fraction_bits']}"])
    # the weights that training would draw, and the caller's random state as it was
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed)
        network = Network(config, *check_dataset(config.dataset)).eval()
    spec = input_spec(config, 255)
    with drawn_statistics(network):
        folded = fold(
            network,
            coding=spec.coding,
            fraction_bits=spec.fraction_bits,
            bound=spec.bound,
            exact_grid=config.fold.exact_grid,
        )
    return folded.graph, None
