"""Report on a .nir file and input, without a run folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import first_samples, leading, require_folder, write_json, write_text
from stl_deploy._util.install import versions
from stl_deploy._util.remedies import named, option
from stl_deploy.config.options import EnergyOptions
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.exporters.targets import find_runner
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.artifacts import ParityBench, open_runner
from stl_deploy.pipeline.conversion import Conversion
from stl_deploy.pipeline.energy import energy
from stl_deploy.pipeline.network_input import compared, on_declared_grid
from stl_deploy.pipeline.parity import accuracies, proof_sentence
from stl_deploy.pipeline.tradeoff import Tradeoff
from stl_deploy.report.energy_page import summary_of
from stl_deploy.report.page import ParityRow, ReportData, render_report, report_json
from stl_deploy.report.page.plots import FIGURES, write_figures
from stl_deploy.report.run_report import HTML, JSON, rasters
from stl_deploy.runs.source import GRAPH, PROGRAM, open_reading, open_source, read_for


def report_graph(
    source: Path,
    input_file: Path | None,
    *,
    dialect: str | None = None,
    input_grid: int | None = None,
    output: Path | None = None,
    figures: bool = False,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Write report.html and report.json of a .nir file, run on ``input_file``; returns the JSON.

    input_grid: round the input to multiples of 2^-input_grid, and declare the grid.
    output: the folder; default: the file's own. figures: also write each figure as SVG, PDF and CSV into its folder
    ``figures``. Raises InputError for a file that is no .nir file, without input, or
    that cannot be read.
    """
    opened = open_source(source)
    if opened.kind not in (GRAPH, PROGRAM):
        raise InputError(
            f"{source}: expected a .nir or .program file; a run folder is reported without {named('input_file')}"
        )
    if input_file is None:
        raise InputError(f"{source}: expected input to run the network on; give {option('input_file', 'X.npz')}")
    folder = output or source.parent
    require_folder(folder)
    program, reading = open_reading(opened, dialect)
    given, labels = read_for(opened, program, input_file)
    options = EnergyOptions(input_grid=input_grid)
    notes = [text for text in (reading.reason, reading.unspecified_options) if text]
    bill = energy(program, given, options, labels=labels, source=source.name, notes=notes)
    if reading.unspecified_options:
        say.warn(reading.unspecified_options)
    x, labels, what, _ = compared(program, given, labels, str(input_file))
    program, x = on_declared_grid(program, x, input_grid, say)
    bench = ParityBench(program, x, labels)
    unheld = _hold_onnx(bench, program)
    samples = leading(x)[1]
    remarks = (reading.reason, reading.unspecified_options, unheld, *bench.report.warnings)
    proved = proof_sentence(prove_exact(program))
    twin = report_json(
        data := ReportData(
            title=source.stem,
            summary={"file": source.name, **summary_of(bill), "input": what, "reading": reading.reason},
            accuracy=() if labels is None else accuracies(bench.report, samples, by_step=labels.ndim == 2),
            rasters=list(rasters(program, first_samples(x, 1))),
            raster_sample="the first sample",
            parity=[ParityRow(**asdict(run.row)) for run in bench.report.runs],
            energy=bill.as_dict(),
            tradeoff=Tradeoff(bill.tried).as_dict() if bill.tried else None,
            conversion=Conversion.of(program.metadata),
            assumptions=[text for text in (*remarks, proved) if text],
            environment=versions(),
        )
    )
    html = render_report(data)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / HTML, html)
    write_json(folder / JSON, twin)
    if figures:
        write_figures(twin, folder / FIGURES)
    say.say(reading.reason)
    say.say(f"written: {folder / HTML} (opens offline) and {folder / JSON}")
    return twin


def _hold_onnx(bench: ParityBench, program: Program) -> str:
    """Compare ONNX Runtime with the reference, or say why that is impossible."""
    try:
        bench.compare("ONNX Runtime", open_runner(find_runner("onnx"), program, program), program, required=False)
    except StlDeployError as error:
        return f"ONNX Runtime was not compared: {error}"
    return ""
