"""The verb fold for a .nir file: pools and thresholds into weights, weights onto exact grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_other, require_suffix
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.graph.exact import prove_exact
from stl_deploy.passes.base import Thresholds
from stl_deploy.pipeline.artifacts import Bench
from stl_deploy.pipeline.fold_graph import fold_graph
from stl_deploy.pipeline.verify import show
from stl_deploy.runs.source import GRAPH, on_declared_grid, open_program, open_reading, open_source, program_input


def fold_file(
    source: Path,
    output: Path,
    *,
    thresholds: Thresholds = "keep",
    exact_grid: bool = False,
    merge_pools: bool = False,
    dialect: str | None = None,
    input_file: Path | None = None,
    input_grid: int | None = None,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Fold a .nir file into another, and tell on ``input_file`` (or random input) how many spikes differ from it.

    merge_pools: put average pools into the weights behind them. exact_grid: round weights to grids on which sums are
    exact. input_grid: the input is multiples of 2^-input_grid. Raises InputError for a bad source, UnsupportedError
    where a pool or threshold cannot go into weights.
    """
    opened = open_source(source)
    if opened.kind != GRAPH:
        raise InputError(f"{source}: expected a .nir file; a run folder is folded as its configuration says")
    require_suffix(output, ".nir", " for a graph")
    require_other(output, opened.file)
    before = open_program(opened, dialect, say=say)
    _, reading = open_reading(opened, dialect)
    options: dict[str, Any] = {"thresholds": thresholds, "exact_grid": exact_grid, "merge_pools": merge_pools}
    folded = fold_graph(read_nir(opened.file), reading.dialect, input_grid=input_grid, **options)
    if merge_pools:
        say.say(f"merged into the weights behind them: {', '.join(folded.merged) or 'no pool'}")
    if folded.restated:
        say.say("the graph is written anew, flat and canonical: its own nodes cannot hold what changed")
    write_nir(folded.graph, output)
    after = open_program(open_source(output))
    x, _, what = program_input(opened, before, input_file)
    before, x = on_declared_grid(before, x, input_grid, say)
    bench = Bench(before, x)
    bench.add(output.name, Bench(after, x).expected, required=False)
    say.say(f"{output.name} against {source.name} on {what}:")
    show(bench.report, say)
    say.say(f"written: {output}")
    return {
        "output": str(output),
        "thresholds": thresholds,
        "merged": list(folded.merged),
        "exact": all(proof.exact for proof in prove_exact(after)),
        "compared": bench.report.as_dict(),
    }
