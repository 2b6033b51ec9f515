"""The verb fold on paths: fold a trained run, or a .nir file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Unpack

from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_other, require_suffix
from stl_deploy._util.keywords import named_options
from stl_deploy._util.remedies import named, option
from stl_deploy.config.options import FoldKeywords, FoldOptions
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.exporters.nir.target import RESTATED
from stl_deploy.exporters.program.file import write_program
from stl_deploy.graph.compare import require_spikes
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.findings import kept_thresholds
from stl_deploy.pipeline.artifacts import ParityBench, show_parity
from stl_deploy.pipeline.fold import fold as fold_network
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.report.text.check import show_fold
from stl_deploy.runs.source import PROGRAM, is_network_file, open_network, open_program, open_source, program_input
from stl_deploy.verbs.arguments import RUNS_CODE, AllowSilent, DialectOption, InputOption


@named_options(FoldOptions)
def fold(
    source: Annotated[Path, RUNS_CODE, Argument(metavar="RUN|FILE.nir", help="A trained run, or a .nir file.")],
    output: Annotated[Path | None, Option("-o", "--output", metavar="NET.nir", help="Default: RUN/net.nir.")] = None,
    *,
    dialect: DialectOption = None,
    input_file: InputOption = None,
    allow_silent: AllowSilent = False,
    options: FoldOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[FoldKeywords],
) -> dict[str, Any]:
    """Fold a run folder's trained network, or a .nir or .program file, into a graph; return grids and proofs.

    A network that NIR cannot hold becomes a .program file of the same name. options: an options object, or its fields
    as keywords. Raises InputError for an invalid source, UnsupportedError if a pool, or every threshold, cannot be
    folded into weights, CheckFailed if no layer spikes on ``input_file``, unless ``allow_silent``.
    """
    options = options or FoldOptions(**keywords)
    if is_network_file(source):
        if output is None:
            raise InputError(f"{source}: expected {option('output', 'NET.nir')}, the file to write")
        done, silent = _fold_file(source, output, dialect, input_file, options, say)
        require_spikes(silent, allowed=allow_silent)
        return done
    if options.merge_pools or options.delays != "keep" or dialect is not None or input_file is not None:
        only = [named(name) for name in ("merge_pools", "delays", "dialect", "input_file")]
        raise InputError(
            f"{', '.join(only[:-1])} and {only[-1]} apply to .nir files only; fold the run first, then its net.nir"
        )
    return _fold_run(source, output or source / "net.nir", options, say)


def _fold_run(run_dir: Path, output: Path, options: FoldOptions, say: Console) -> dict[str, Any]:
    from stl_deploy.runs.folded_run import fold_run  # torch

    require_suffix(output, ".nir", " for a graph")
    done = fold_run(run_dir, output, options, say=say)
    show_fold(done, say)
    say.say(f"written: {done.file}")
    return {
        "output": str(done.file),
        "thresholds": options.thresholds,
        "kept": dict(done.folded.kept),
        "exact": done.exact,
        "grids": [grid.as_dict() for grid in done.folded.grids],
        "proofs": [proof.as_dict() for proof in done.proofs],
    }


def _fold_file(
    source: Path, output: Path, dialect: str | None, input_file: Path | None, options: FoldOptions, say: Console
) -> tuple[dict[str, Any], bool]:
    """Fold a file into another; report the differing spikes on ``input_file`` (or random input).

    Return what the verb returns, and whether no layer spiked on ``input_file``.
    """
    opened = open_source(source)
    require_suffix(output, f".{opened.kind}", " for a graph")
    require_other(output, opened.file)
    net = open_network(opened, dialect, say=say)
    folded = fold_network(net.program, replace(options, exact_grid=bool(options.exact_grid)))
    if opened.kind == PROGRAM:
        write_program(folded.program, output)
    else:
        write_nir(to_graph(folded.program).graph, output)
    if folded.restated:
        say.say(RESTATED)
    for sentence in kept_thresholds(folded.kept):
        say.warn(sentence)
    if options.merge_pools:
        say.say(f"merged into the weights beside them: {', '.join(folded.merged) or 'no pool'}")
    after = open_program(open_source(output))
    if options.delays == "steps":
        for note in after.metadata.get("delays", ["no delay lies between two steps"]):
            say.say(note)
    given = program_input(opened, net.program, input_file)
    before, x = on_declared_grid(net.program, given.x, options.input_grid, say)
    bench = ParityBench(before, x)
    # "before" is the reference: what folding moved is counted, and required of nobody
    bench.add(output.name, ParityBench(after, x).expected, required=False)
    say.say(f"{output.name} against {source.name} on {given.what}:")
    show_parity(bench.report, say, is_random=given.is_random)
    say.say(f"written: {output}")
    done = {
        "output": str(output),
        "thresholds": options.thresholds,
        "kept": dict(folded.kept),
        "merged": list(folded.merged),
        "exact": all(proof.exact for proof in prove_exact(after)),
        "compared": bench.report.as_dict(),
    }
    return done, bench.silent and not given.is_random
