"""Verbs about artifacts: export, check, show, verify, simulate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stl_deploy._util.console import Console
from stl_deploy._util.units import counted
from stl_deploy.cli.command import command
from stl_deploy.cli.options import (
    Deadline,
    DialectOption,
    InputOption,
    Json,
    ListsTargets,
    SourceArg,
    backends,
    checks,
    completed,
    formats,
)
from stl_deploy.cli.output import console, emit_json
from stl_deploy.config.options import CheckOptions, ExportOptions, SimulateOptions, VerifyOptions
from stl_deploy.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from stl_deploy.graph.findings import CheckReport


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("capture")(capture)
    app.command("export", cls=ListsTargets)(command(export))
    app.command("check", cls=ListsTargets)(command(check))
    app.command("show")(show)
    app.command("verify", cls=ListsTargets)(command(verify))
    app.command("simulate", cls=ListsTargets)(command(simulate))
    app.command("synthesise")(synthesise)
    app.command("fpga-run")(fpga_run)
    app.command("nir-conformance")(nir_conformance)


def capture(
    module: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME",
            help="A torch module of your own: its name in the file, or that of a class or function that makes it. The "
            "file is run.",
        ),
    ],
    input_file: Annotated[
        Path, typer.Option("--input", "-i", metavar="X.npz", help="x: a real batch, in the form of forward.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="NET.nir", help="File to write; NET.program for networks that NIR cannot hold."
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="W.safetensors|.pt|.pth|.ckpt", help="Weights of the module; nothing else in the file is used."
        ),
    ] = None,
    time: Annotated[
        Literal["first", "second", "step", "inside"],
        typer.Option(
            help="Position of time: forward takes [T,B,...], [B,T,...] or one step, or loops over time itself."
        ),
    ] = "first",
    pick: Annotated[
        str | None, typer.Option("--pick", metavar="INDEX|NAME", help="Output to use, if there are several.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a graph of a torch module (own, snnTorch, SpikingJelly, Norse), proved to spike as the module does."""
    from stl_deploy.verbs import capture as capture_file

    chosen = int(pick) if pick is not None and pick.lstrip("-").isdigit() else pick
    emit_json(capture_file(module, input_file, output, weights=weights, time=time, pick=chosen, say=console()), json)


def export(
    source: SourceArg,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PATH", help="File (c, verilog: folder) to write.")],
    options: ExportOptions,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TARGET", autocompletion=completed(formats), help="See below; default: from PATH's suffix."
        ),
    ] = None,
    dialect: DialectOption = None,
    calibration: InputOption = None,
    json: Json = False,
) -> None:
    """Write one artifact and its manifest; it is read back and run unless --no-verify."""
    from stl_deploy import verbs
    from stl_deploy.pipeline.export import target_of

    name = to if to is not None else target_of(output)
    done = verbs.export(source, name, output, dialect=dialect, input_file=calibration, options=options, say=console())
    emit_json(done, json)


def show(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A run folder, a .nir file, or an exported .onnx, .net, C or Verilog."),
    ],
    dialect: DialectOption = None,
    drawing: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="GRAPH.svg", help="Also draw the graph.")
    ] = None,
    json: Json = False,
) -> None:
    """The layers as a table: shapes, parameters, synapses, neuron constants, threshold ranges; and a drawing."""
    from stl_deploy.verbs import show as show_source

    emit_json(show_source(source, dialect=dialect, drawing=drawing, say=console()), json)


def check(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A run folder, a .nir file, a folder of .nir files, an artifact; or before training: a preset, a "
            "configuration, FILE.py:NAME (with x in --input).",
        ),
    ],
    options: CheckOptions,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            autocompletion=completed(checks),
            help="Repeatable; default: all export targets. A chip's name checks whether the network fits.",
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="X.npz", help="Measure on x which dialect options change the result."),
    ] = None,
    dialect: DialectOption = None,
    json: Json = False,
) -> None:
    """Per node: faithful, approximate or unsupported, with the reason and the remedy."""
    from stl_deploy import verbs
    from stl_deploy._util.files import read_inputs
    from stl_deploy.verbs.checking import nir_files

    if _untrained(str(source)):
        early = verbs.check_untrained(
            str(source), input_file=input_file, targets=target, options=options, say=console()
        )
        emit_json(early.as_dict(), json)
        _require_sound(source, early)
        return
    if nir_files(source):
        if input_file is not None:
            raise InputError("--input measures one network; give a run folder or one .nir file")
        folder = verbs.check_folder(source, targets=target, dialect=dialect, options=options, say=console())
        emit_json(folder.as_dict(), json)
        if not folder.ok:
            bad = sum(not report.ok for report in folder.reports.values())
            raise CheckFailed(f"{source}: {bad} of {len(folder.reports)} files have errors")
        return
    x = None if input_file is None else read_inputs(input_file)[0]
    report = verbs.check(source, targets=target, dialect=dialect, x=x, options=options, say=console())
    result = report.as_dict()
    if input_file is not None and report.runs:
        effects = verbs.measure(source, input_file, dialect=dialect, say=console())
        result["effects"] = [effect.as_dict() for effect in effects]
        result["near_threshold"] = verbs.near_threshold(source, input_file, dialect=dialect, say=console())
    emit_json(result, json)
    _require_sound(source, report)


def _untrained(source: str) -> bool:
    """Return whether it may name a network before training; only then is torch loaded."""
    if Path(source).suffix not in (".yaml", ".yml") and ".py:" not in source and Path(source).exists():
        return False
    from stl_deploy.config.load import preset_names

    return ".py:" in source or Path(source).suffix in (".yaml", ".yml") or source in preset_names()


def _require_sound(source: Path, report: CheckReport) -> None:
    if not report.ok:
        errors = [finding.target for finding in report.findings if finding.severity == "error"]
        where = "" if None in errors else f" for {', '.join(dict.fromkeys(map(str, errors)))}"
        raise CheckFailed(f"{source}: {counted(len(errors), 'error')} found{where}")


def verify(
    source: SourceArg,
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            metavar="ARTIFACT|BACKEND",
            autocompletion=completed(backends),
            help="A file or folder of a target, or a backend.",
        ),
    ],
    options: VerifyOptions,
    more: Annotated[list[str] | None, typer.Argument(metavar="ARTIFACT", help="Further artifacts.")] = None,
    input_file: InputOption = None,
    dialect: DialectOption = None,
    json: Json = False,
) -> None:
    """Spike agreement by layer, and the first spike that differs (layer, step, neuron).

    A .net file also runs on real Lava, where that is installed, and must spike there as our integer model does.
    """
    from stl_deploy import verbs

    against = [*against, *(more or ())]
    report = verbs.verify(source, against, input_file=input_file, dialect=dialect, options=options, say=console())
    emit_json(report.as_dict(), json)
    report.require()


def simulate(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A run folder, a .nir file, or an exported artifact.")
    ],
    input_file: Annotated[Path, typer.Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape].")],
    backend: Annotated[
        str,
        typer.Option(metavar="BACKEND", autocompletion=completed(backends), help="See below, or 'stl-deploy targets'."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="Y.npz", help="File for the outputs.")],
    options: SimulateOptions,
    dialect: DialectOption = None,
    json: Json = False,
) -> None:
    """Run a network on an input and write its outputs."""
    from stl_deploy import verbs

    done = verbs.simulate(source, input_file, backend, output, dialect=dialect, options=options, say=console())
    emit_json(done, json)


def synthesise(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by export --to verilog.")],
    device: Annotated[str, typer.Option(metavar="DEVICE", help="up5k, hx8k, ecp5-25f, ecp5-85f or gw1nr-9.")],
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="X.npz", help="x [T, B, *shape]: simulate it to count clocks for the latency."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of placements to try.")] = 3,
    grade: Annotated[int | None, typer.Option(help="Speed grade of an ECP5: 6 (default), 7 or 8.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="The bitstream.")] = None,
    deadline: Deadline = 3600.0,
    json: Json = False,
) -> None:
    """Place and route a Verilog folder with open tools: cells, RAM blocks, clock, bitstream, latency."""
    from stl_deploy.verbs import synthesise as place_and_route

    result = place_and_route(
        folder,
        device,
        input_file=input_file,
        seeds=range(1, seeds + 1),
        grade=grade,
        output=output,
        deadline=deadline,
        say=console(),
    )
    emit_json(result, json)


def fpga_run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by export --to verilog.")],
    port: Annotated[Path, typer.Option(metavar="PORT", help="The board's serial port, as /dev/ttyUSB1.")],
    input_file: Annotated[Path, typer.Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape].")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="Y.npz", help="File for y.")] = None,
    baud: Annotated[int, typer.Option(help="Bits per second.")] = 115200,
    json: Json = False,
) -> None:
    """Run an input on a board that holds the bitstream; outputs are compared. Untested on hardware."""
    from stl_deploy.verbs import fpga_run as run_there

    emit_json(run_there(folder, port, input_file, output, baud=baud, say=console()), json)


_SHOWN = 20
"""Graphs that differ, listed on the terminal; the files list all."""


def nir_conformance(
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="'COMMAND'", help="Called as COMMAND GRAPH.nir IN.npz OUT.npz; exit status 77: no such node."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for the table; without --reader, for the graphs."),
    ] = None,
    dialect: Annotated[str, typer.Option(metavar="NAME", help="Dialect that the reader must follow.")] = "spec",
    dt: Annotated[float, typer.Option(help="Time step of the reader, in the unit of time constants.")] = 1e-4,
    level: Annotated[
        list[str] | None, typer.Option(help="nodes, neurons, shapes, wiring, time or files; repeatable.")
    ] = None,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="Time allowed per graph.")] = 120.0,
    json: Json = False,
) -> None:
    """Test a reader of NIR files on graphs whose spikes are known under every dialect."""
    from stl_deploy.verbs.conformance import nir_conformance as conformance

    say = console()
    done = conformance(reader, output, dialect=dialect, dt=dt, levels=level or (), deadline=deadline, say=say)
    if reader is not None:
        _show(done, say)
    emit_json(done, json)
    if not done.get("conforms", True):
        counts = done["counts"]
        raise CheckFailed(
            f"the reader does not follow {dialect}: {counts['differs']} graphs differ, {counts['failed']} failed"
        )


def _show(done: dict[str, Any], say: Console) -> None:
    graphs = done["graphs"]
    levels = list(dict.fromkeys(graph["level"] for graph in graphs))
    by_level = {level: Counter(g["status"] for g in graphs if g["level"] == level) for level in levels}
    statuses = list(done["counts"])
    say.table(["level", *statuses], [[level, *(str(by_level[level][s]) for s in statuses)] for level in levels])
    wrong = [graph for graph in graphs if graph["status"] in ("differs", "failed")]
    rows = [
        [g["case"], g["reason"] or f"{g['differing']:,} of {g['compared']:,} differ", ", ".join(g["dialects"])]
        for g in wrong[:_SHOWN]
    ]
    if rows:
        say.table(["graph", "result", "reads as"], rows)
    if len(wrong) > _SHOWN:
        say.say(f"and {len(wrong) - _SHOWN} more; -o DIR writes them all")
    best = next(iter(done["agreement"].items()), None)
    if best is not None:
        say.say(f"closest dialect: {best[0]}, equal on {best[1]} of {len(graphs)} graphs")
