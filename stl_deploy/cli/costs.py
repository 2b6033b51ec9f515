"""Verbs about cost: energy, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stl_deploy.cli.command import command
from stl_deploy.cli.output import console, emit_json
from stl_deploy.config.options import EnergyOptions, TradeoffOptions
from stl_deploy.errors import InputError
from stl_deploy.verbs.arguments import DialectOption, InputGrid, InputOption, Json, Trust

_VALIDATE = Path("validate")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("energy")(command(energy))
    app.command("report")(report)


def _folder(path: Path | None) -> Path | None:
    """Raise InputError for a page's file name in place of its folder."""
    if path is not None and path.suffix in (".html", ".json") and not path.is_dir():
        raise InputError(f"-o: expected a folder to write into; found '{path}'; give a folder")
    return path


def energy(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...|validate",
            help="A run folder or .nir file; several: compare accuracy and energy; validate: check the models.",
        ),
    ],
    options: EnergyOptions,
    points_at: TradeoffOptions,
    input_file: InputOption = None,
    dialect: DialectOption = None,
    ann: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The ANN twin: a run of the same network trained with --mode ann."),
    ] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Train a run's missing narrower ANNs and keep them.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:NAME", help="Function of readout and targets y, instead of accuracy; is run."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            callback=_folder,
            help="Folder for energy.html, .json, neurobench.json and layers.csv (or tradeoff.*).",
        ),
    ] = None,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """Exact counts, joules with their sources, the conventions side by side, break-even.

    'stl-deploy energy validate' recomputes published measurements and prints each error, good or bad.
    """
    from stl_deploy import verbs
    from stl_deploy.verbs.energy_of import validate

    if sources == [_VALIDATE]:
        emit_json([check.as_dict() for check in validate(say=console())], json)
        return
    if points_at or len(sources) > 1:
        from stl_deploy.verbs.weighing import tradeoff

        given = (
            ("--prices", options.prices),
            ("--step-time", options.step_time),
            ("--frontier", frontier),
            ("--metric", metric),
        )
        if wrong := [option for option, is_given in given if is_given]:
            raise InputError(f"{wrong[0]} is for the energy of one network; omit it when comparing accuracy and energy")
        sweep = tradeoff(
            sources, input_file, points_at, options, dialect=dialect, ann=ann, output=output, say=console()
        )
        emit_json(sweep.as_dict(), json)
        return
    result = verbs.energy(
        sources[0],
        input_file,
        dialect=dialect,
        ann=ann,
        frontier=frontier,
        metric=metric,
        output=output,
        options=options,
        say=console(),
    )
    emit_json(result.as_dict(), json)


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...|FILE.nir", help="A finished run, or several with --latex; or a .nir file."),
    ],
    input_file: InputOption = None,
    dialect: DialectOption = None,
    input_grid: InputGrid = None,
    latex: Annotated[bool, typer.Option("--latex", help="Write a table for papers, report.tex.")] = False,
    bib: Annotated[bool, typer.Option("--bib", help="Write BibTeX of the prices' sources, report.bib.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write every number of each run, report.csv.")] = False,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write figures/ beside the report: SVG, PDF and CSV.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", callback=_folder, help="Folder for a .nir file's report or tables."
        ),
    ] = None,
    _trust: Trust = False,
    json: Json = False,
) -> None:
    """One self-contained HTML file and its JSON twin, from what a run folder holds, or of a .nir file on an input.

    With --latex, --bib or --csv: tables of one or several runs for papers.
    """
    from stl_deploy.runs.source import is_network_file

    given = any(option is not None for option in (input_file, dialect, input_grid))
    if latex or bib or csv:
        if figures:
            raise InputError("--figures is for a report page; omit it with --latex, --bib or --csv")
        from stl_deploy.report.paper_tables import papers

        if given:
            raise InputError("--latex, --bib and --csv are for finished runs; omit the options of a .nir file")
        rows = papers(sources, latex=latex, bib=bib, csv_file=csv, output=output, say=console())
        emit_json(rows, json)
        return
    if len(sources) > 1:
        raise InputError("several runs: expected --latex, --bib or --csv, and -o DIR; a report page covers one run")
    source = sources[0]
    if is_network_file(source):
        from stl_deploy.report.graph_report import report_graph

        data = report_graph(
            source,
            input_file,
            dialect=dialect,
            input_grid=input_grid,
            output=output,
            figures=figures,
            say=console(),
        )
    else:
        if given or output is not None:
            raise InputError(
                "--input, --dialect, --input-grid and -o apply to reports of .nir files; omit them for a run folder"
            )
        console().step(f"{source}: making its report")  # torch takes its time to load
        from stl_deploy.report.run_report import report as report_run

        data = report_run(source, figures=figures, say=console())
    emit_json(data, json)
