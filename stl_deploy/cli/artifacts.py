"""Verbs about artifacts: export, check, show, verify, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stl_deploy._util.units import counted
from stl_deploy.cli.options import (
    Deadline,
    DeviceOption,
    DialectOption,
    InputGrid,
    InputOption,
    Json,
    ListsTargets,
    NetxThresholds,
    OnnxForm,
    Precision,
    Reader,
    SourceArg,
    backends,
    checks,
    completed,
    formats,
)
from stl_deploy.cli.output import console, emit_json
from stl_deploy.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from stl_deploy.graph.findings import Report


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("capture")(capture)
    app.command("export", cls=ListsTargets)(export)
    app.command("check", cls=ListsTargets)(check)
    app.command("show")(show)
    app.command("verify", cls=ListsTargets)(verify)
    app.command("simulate", cls=ListsTargets)(simulate)
    app.command("synthesise")(synthesise)
    app.command("fpga-run")(fpga_run)


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
        Path, typer.Option("--input", "-i", metavar="X.npz", help="x, a real batch as forward takes it.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="NET.nir", help="The file to write; NET.program for what NIR cannot hold."
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="W.safetensors|W.pt", help="Its state dict; .pt files are read as weights only."),
    ] = None,
    time: Annotated[
        Literal["first", "second", "step", "inside"],
        typer.Option(help="Where time is: forward takes [T,B,...], [B,T,...], one step, or loops over time itself."),
    ] = "first",
    pick: Annotated[
        str | None, typer.Option("--pick", metavar="INDEX|NAME", help="Which of several outputs is meant.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a graph of a torch module (own, snnTorch, SpikingJelly, Norse), proved to spike as the module does."""
    from stl_deploy.verbs.capturing import capture as capture_file

    chosen = int(pick) if pick is not None and pick.lstrip("-").isdigit() else pick
    emit_json(capture_file(module, input_file, output, weights=weights, time=time, pick=chosen, say=console()), json)


def export(
    source: SourceArg,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The file (c, verilog: the folder) to write.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TARGET", autocompletion=completed(formats), help="See below; default: as PATH ends."
        ),
    ] = None,
    dialect: DialectOption = None,
    thresholds: Annotated[
        NetxThresholds | None,
        typer.Option(
            help="netx: folded (the default: one per population), per-layer, or per-neuron (simulation only); where "
            "thresholds differ between pixels: unrolled (dense, exact) or projected (to channels). A table "
            "shows what each costs."
        ),
    ] = None,
    form: Annotated[
        OnnxForm | None,
        typer.Option(help="onnx: sequence (the default: all steps in one call) or step (streaming)."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="onnx: add up in float64, for weights that lie on no exact grid (slow).")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="onnx: weights of 8 bits, about a quarter of the size.")] = False,
    integer: Annotated[
        bool, typer.Option("--integer", help="onnx: sums in integers, same spikes, faster where 8-bit products are.")
    ] = False,
    reader: Annotated[
        Reader | None, typer.Option("--for", help="nir: restate the graph for this framework's reader.")
    ] = None,
    flash: Annotated[
        str | None, typer.Option(metavar="BYTES", help="c: flash that must hold it, as 256K (exit 1 if it does not).")
    ] = None,
    ram: Annotated[str | None, typer.Option(metavar="BYTES", help="c: RAM that must hold it, as 64K.")] = None,
    device: DeviceOption = None,
    round_decays: Annotated[
        bool, typer.Option("--round-decays", help="xylo: take the nearest 1 - 2^-k for decays that are none.")
    ] = False,
    lanes: Annotated[
        int | None,
        typer.Option(help="verilog: neurons at work at a time, a power of two (default: up to 8, as the layers fill)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="c: what all names and files begin with; default: net.")
    ] = None,
    package: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="c: also a package: cmake, arduino, platformio, zephyr, esp-idf or cmsis-pack."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder whose files were edited.")] = False,
    calibration: InputOption = None,
    input_grid: InputGrid = None,
    verified: Annotated[bool, typer.Option("--verify/--no-verify", help="Read the artifact back and run it.")] = True,
    deadline: Deadline = 600.0,
    json: Json = False,
) -> None:
    """Write one artifact and its manifest; it is read back and run unless --no-verify."""
    from stl_deploy.pipeline.export import export as export_one
    from stl_deploy.pipeline.export import target_of

    wanted: dict[Precision, bool] = {"exact": exact, "int8": int8, "integer": integer}
    given = [name for name, on in wanted.items() if on]
    if len(given) > 1:
        raise InputError("--exact, --int8 and --integer exclude each other; give one")
    result = export_one(
        source,
        to if to is not None else target_of(output),
        output,
        dialect=dialect,
        input_file=calibration,
        input_grid=input_grid,
        verified=verified,
        deadline=deadline,
        say=console(),
        thresholds=thresholds,
        form=form,
        precision=given[0] if given else None,
        reader=reader,
        flash=flash,
        ram=ram,
        device=device,
        round_decays=round_decays or None,
        lanes=lanes,
        name=name,
        package=package,
        overwrite=overwrite,
    )
    emit_json(result, json)


def show(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A run folder, a .nir file, or what export wrote (.onnx, .net, C, Verilog)."
        ),
    ],
    dialect: DialectOption = None,
    drawing: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="GRAPH.svg", help="Also draw the graph.")
    ] = None,
    json: Json = False,
) -> None:
    """The layers as a table: shapes, parameters, synapses, neuron constants, threshold ranges; and a drawing."""
    from stl_deploy.pipeline.show import show as show_source

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
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            autocompletion=completed(checks),
            help="May be repeated; default: every target that can be exported. A chip: is there room?",
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="X.npz", help="Measure on x which dialect options change the result."),
    ] = None,
    dialect: DialectOption = None,
    input_grid: InputGrid = None,
    device: DeviceOption = None,
    flash: Annotated[
        str | None, typer.Option(metavar="BYTES", help="c: flash that must hold it, as 256K (estimated).")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(metavar="BYTES", help="c: RAM that must hold it, as 64K (estimated).")
    ] = None,
    json: Json = False,
) -> None:
    """Per node: faithful, approximate or unsupported, with the reason and the remedy."""
    from stl_deploy._util.files import read_inputs
    from stl_deploy.pipeline import check as checking

    settings = {"device": device, "flash": flash, "ram": ram}
    if _untrained(str(source)):
        from stl_deploy.verbs.untrained_network import check_untrained

        early = check_untrained(
            str(source), input_file=input_file, targets=target, input_grid=input_grid, say=console(), **settings
        )
        emit_json(early.as_dict(), json)
        _require_sound(source, early)
        return
    if checking.nir_files(source):
        if input_file is not None:
            raise InputError("--input measures one network; give a run folder or one .nir file")
        folder = checking.check_folder(
            source, targets=target, dialect=dialect, input_grid=input_grid, say=console(), **settings
        )
        emit_json(folder.as_dict(), json)
        if not folder.ok:
            bad = sum(not report.ok for report in folder.reports.values())
            raise CheckFailed(f"{source}: {bad} of {len(folder.reports)} files have errors")
        return
    x = None if input_file is None else read_inputs(input_file)[0]
    report = checking.check(
        source,
        targets=target,
        dialect=dialect,
        input_grid=input_grid,
        x=x,
        say=console(),
        **settings,
    )
    found = report.as_dict()
    if input_file is not None and report.runs:
        effects = checking.measure(source, input_file, dialect=dialect, say=console())
        found["effects"] = [effect.as_dict() for effect in effects]
        found["near_threshold"] = checking.near_threshold(source, input_file, dialect=dialect, say=console())
    emit_json(found, json)
    _require_sound(source, report)


def _untrained(source: str) -> bool:
    """Whether it may name a network before training; only then is torch loaded."""
    if Path(source).suffix not in (".yaml", ".yml") and ".py:" not in source and Path(source).exists():
        return False
    from stl_deploy.config.load import preset_names

    return ".py:" in source or Path(source).suffix in (".yaml", ".yml") or source in preset_names()


def _require_sound(source: Path, report: Report) -> None:
    if not report.ok:
        errors = [finding.target for finding in report.findings if finding.severity == "error"]
        where = "" if None in errors else f" for {', '.join(dict.fromkeys(map(str, errors)))}; --target names others"
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
    more: Annotated[list[str] | None, typer.Argument(metavar="ARTIFACT", help="Further ones after the first.")] = None,
    input_file: InputOption = None,
    dialect: DialectOption = None,
    input_grid: InputGrid = None,
    no_lava: Annotated[bool, typer.Option("--no-lava", help="Leave Lava out even if it is installed.")] = False,
    deadline: Deadline = 600.0,
    json: Json = False,
) -> None:
    """Spike agreement by layer, and the first spike that differs (layer, step, neuron).

    A .net file also runs on real Lava, where that is installed, and must spike there as our integer model does.
    """
    from stl_deploy.pipeline.verify import verify as verify_source

    report = verify_source(
        source,
        [*against, *(more or ())],
        input_file=input_file,
        dialect=dialect,
        input_grid=input_grid,
        lava=not no_lava,
        deadline=deadline,
        say=console(),
    )
    emit_json(report.as_dict(), json)
    report.require()


def simulate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A run folder, a .nir file, or what export wrote.")],
    input_file: Annotated[Path, typer.Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape].")],
    backend: Annotated[
        str,
        typer.Option(metavar="BACKEND", autocompletion=completed(backends), help="See below, or 'stl-deploy targets'."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="Y.npz", help="Where the outputs go.")],
    record: Annotated[bool, typer.Option("--record", help="Also every spiking node's spikes.")] = False,
    dialect: DialectOption = None,
    input_grid: InputGrid = None,
    thresholds: Annotated[NetxThresholds | None, typer.Option(help="loihi and lava: as export's.")] = None,
    numeric: Annotated[
        Literal["fixed", "float"] | None,
        typer.Option(help="lava: fixed (the netx file in integers, the default) or float (floating-point processes)."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="c: compile and run a folder though its C is not what stl-deploy makes.")
    ] = False,
    deadline: Deadline = 600.0,
    json: Json = False,
) -> None:
    """Run a network on an input and write its outputs."""
    from stl_deploy.pipeline.simulate import simulate as simulate_source

    result = simulate_source(
        source,
        input_file,
        backend,
        output,
        record=record,
        dialect=dialect,
        input_grid=input_grid,
        thresholds=thresholds,
        deadline=deadline,
        numeric=numeric,
        trust=trust or None,
        say=console(),
    )
    emit_json(result, json)


def synthesise(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What export --to verilog wrote.")],
    device: Annotated[str, typer.Option(metavar="DEVICE", help="up5k, hx8k, ecp5-25f or ecp5-85f.")],
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="X.npz", help="x [T, B, *shape]: counts clocks, which gives the latency."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Placements that are tried.")] = 3,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="The bitstream.")] = None,
    deadline: Deadline = 3600.0,
    json: Json = False,
) -> None:
    """Place and route a Verilog folder with open tools: cells, RAM blocks, clock, bitstream, latency."""
    from stl_deploy.verbs.fpga import synthesise as place_and_route

    result = place_and_route(
        folder,
        device,
        input_file=input_file,
        seeds=range(1, seeds + 1),
        output=output,
        deadline=deadline,
        say=console(),
    )
    emit_json(result, json)


def fpga_run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What export --to verilog wrote.")],
    port: Annotated[Path, typer.Option(metavar="PORT", help="The board's serial line, as /dev/ttyUSB1.")],
    input_file: Annotated[Path, typer.Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape].")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="Y.npz", help="Where y goes.")] = None,
    baud: Annotated[int, typer.Option(help="Bits a second.")] = 115200,
    json: Json = False,
) -> None:
    """Run an input on a board that holds the bitstream; outputs are compared. Untested on hardware."""
    from stl_deploy.pipeline.fpga_run import fpga_run as run_there

    emit_json(run_there(folder, port, input_file, output, baud=baud, say=console()), json)
