"""Weigh accuracy against energy: several networks and steps, and the search for a cheaper network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated, Unpack

from typer import Argument

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import write_json, write_text
from stl_deploy._util.keywords import named_options
from stl_deploy._util.units import with_unit
from stl_deploy.config.options import EnergyOptions, TradeoffOptions
from stl_deploy.config.run_options import OptimiseKeywords, OptimiseOptions
from stl_deploy.energy.models.frontier import Point
from stl_deploy.energy.paired import check_margin, percent
from stl_deploy.errors import InputError
from stl_deploy.pipeline.artifacts import labels_of
from stl_deploy.pipeline.tradeoff import (
    HTML,
    JSON,
    KEPT,
    Tradeoff,
    TradeoffPoint,
    ann_point,
    exit_points,
    pareto_front,
    points_at_steps,
    samples_of,
)
from stl_deploy.report.page.against_energy import render_pareto
from stl_deploy.report.text.energy import show_tradeoff
from stl_deploy.runs.candidates import candidate, mode_of, twin_point
from stl_deploy.runs.kept_twin import kept_twin
from stl_deploy.runs.manifest import record_files
from stl_deploy.verbs import searching


def tradeoff(
    sources: Sequence[Path],
    input_file: Path | None = None,
    points_at: TradeoffOptions | None = None,
    options: EnergyOptions | None = None,
    *,
    dialect: str | None = None,
    ann: Path | None = None,
    output: Path | None = None,
    say: Console = QUIET,
) -> Tradeoff:
    """Measure accuracy and model the energy of each run folder or .nir file.

    Networks measured on
    different samples have no common Pareto front. Accuracy needs labels ``y`` in the input (default: each run's own
    test samples). ``ann`` and runs of mode ``ann`` are twins, evaluated on the first spiking network's input; without
    any, a single run is compared with its own twin. ``output`` receives tradeoff.html and tradeoff.json.

    Args:
        points_at: Further points besides each unchanged network.
        options: Coding, grid and margin.

    Raises:
        InputError: For a margin outside 0 to 100, missing labels, no spiking network, or input off a graph's
            declared grid.
    """
    points_at, options = points_at or TradeoffOptions(), options or EnergyOptions()
    input_coding, input_grid = options.input_coding, options.input_grid
    if options.margin is not None:
        check_margin(options.margin)
    modes = [mode_of(source) for source in sources]
    twins = [source for source, mode in zip(sources, modes, strict=True) if mode == "ann"]
    twins += [] if ann is None else [ann]
    names = labels_of([*sources, *([] if ann is None else [ann])])
    points: list[Point] = []
    first: TradeoffPoint | None = None
    for source, mode in zip(sources, modes, strict=True):
        if mode == "ann":
            continue
        last = candidate(source, names[source], input_file, dialect=dialect, input_grid=input_grid, say=say)
        first = first or last
        points += points_at_steps(last, points_at.over_steps, input_coding)
        if points_at.early_exit:
            points += exit_points(last, input_coding)
    if first is None:
        raise InputError(
            f"{sources[0]}: expected a spiking network to compare the ANN with; found the ANN alone; give both"
        )
    others = [twin_point(first, twin, names[twin]) for twin in twins]
    if len(sources) == 1 and not twins:
        kept, unmeasured = kept_twin(
            last.program, sources[0], input_file, last.x, last.labels, say, input_grid=input_grid
        )
        others = [] if kept is None else [ann_point(KEPT, last.program, kept, samples_of(last))]
        if unmeasured:
            say.warn(unmeasured)
    result = Tradeoff((*points, *others))
    if len({point.samples for point in result.points}) > 1:
        say.warn("these networks were measured on different samples; each set of samples has its own Pareto front")
    show_tradeoff(result, say)
    if output is not None:
        html = render_pareto(result.points)  # first, so that no other file is written where it fails
        write_json(output / JSON, result.as_dict())
        write_text(output / HTML, html)
        record_files(output, [JSON])
        say.say(f"written: {output / HTML} and {output / JSON}")
    return result


@named_options(OptimiseOptions)
def optimise(
    run_dir: Annotated[Path, Argument(metavar="RUN", help="A run folder; it keeps the networks tried.")],
    *,
    executor: Executor | None = None,
    options: OptimiseOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[OptimiseKeywords],
) -> searching.Optimised:
    """Search time steps, width, early exit and learned sparsity for a network that costs less than an equal ANN.

    ANNs of several widths and sparsities, and their conversions to spike counts at one step, are trained and measured
    beside the SNNs, by cross-validation on training and validation data. An SNN is recommended if it is proved within
    the margin of the ANN twin, and costs less than the cheapest ANN that measured no less accurate, there and once more
    on test data. Networks stay in ``run_dir/optimise``, so a search out of time continues where it stopped.

    Args:
        run_dir: A trained run.
        executor: Runs the trainings: any `concurrent.futures.Executor` whose workers can access ``run_dir``, such as
            Dask's ``Client.get_executor()`` or submitit's; ``processes`` is then the number submitted at a time.
        options: Goal and limits, or their fields as keywords.
        say: Prints progress.
        keywords: Fields of `OptimiseOptions`, as in ``optimise(run, minutes=30)``.

    Raises:
        InputError: For an unknown goal, a number out of range, an ANN, labels per step, a missing run folder, or too
            little time for one SNN and one ANN.
    """
    say.step(f"{run_dir}: looking for a cheaper network")
    searched = searching.search(run_dir, options or OptimiseOptions(**keywords), executor=executor, say=say)
    folder = run_dir / searching.FOLDER
    write_text(folder / searching.HTML, render_pareto(searched.listed, searched.text))
    _show(searched, say)
    say.say(f"written: {folder / searching.HTML} and {folder / searching.JSON}")
    return searched


def _show(searched: searching.Optimised, say: Console) -> None:
    front = pareto_front([*searched.points, *searched.anns])
    rows = [
        [p.name, percent(p.accuracy), with_unit(p.joules, "J"), with_unit(p.cost("layer_by_layer"), "J")]
        for p in sorted((*front, *searched.counts), key=lambda p: p.joules)
    ]
    heads = ["Pareto front, and counts apart", "accuracy (cross-validated)", "streaming (modelled)", "layer by layer"]
    say.table(heads, rows)
    if searched.missing:
        say.warn(f"no time for {len(searched.missing)} networks; the same command continues with them")
    say.say(searched.text)
