"""The verb fold: a trained run folder becomes a NIR graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_suffix
from stl_deploy._util.units import counted
from stl_deploy.config.load import apply_overrides
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, load_dataset
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.exact import NodeProof, prove_exact
from stl_deploy.graph.program import Program
from stl_deploy.nn.network import Network
from stl_deploy.passes.base import Thresholds
from stl_deploy.pipeline.fast_path import announce
from stl_deploy.pipeline.fold_network import Folded
from stl_deploy.pipeline.fold_network import fold as fold_network
from stl_deploy.runs.inputs import split_spec
from stl_deploy.training.model_file import load_network


@dataclass(frozen=True, eq=False)
class FoldedRun:
    """A run's trained network, what it was folded to, and the Program as read back from the file written."""

    config: RunConfig
    data: Dataset
    trained: Network
    folded: Folded
    program: Program
    proofs: tuple[NodeProof, ...]

    @property
    def exact(self) -> bool:
        """Whether every sum of the graph is proved exact in float32."""
        return all(proof.exact for proof in self.proofs)


def fold_run(
    run_dir: Path,
    output: Path,
    *,
    exact_grid: bool | None = None,
    thresholds: Thresholds = "keep",
    input_grid: int | None = None,
    snapshot: Path | None = None,
    data: Dataset | None = None,
    say: Console | None = None,
) -> FoldedRun:
    """Fold the trained network of a run folder and write the graph to ``output``, then read it back.

    exact_grid, input_grid (bits): None as the run's configuration says. snapshot: other weights of the same training.
    data: the configuration's dataset, where it is loaded already.
    Raises InputError where the run or the network does not allow it.
    """
    trained, config = load_network(run_dir, snapshot)
    if say is not None:
        say.say(f"folding {run_dir}")
        announce("cpu", say)
    if input_grid is not None:
        config = apply_overrides(config, [f"dataset.input_bits={input_grid}"])
    data = data or load_dataset(config.dataset)
    spec = split_spec(config, data.test)
    folded = fold_network(
        trained,
        coding=spec.coding,
        fraction_bits=spec.fraction_bits,
        bound=spec.bound,
        exact_grid=config.fold.exact_grid if exact_grid is None else exact_grid,
        thresholds=thresholds,
    )
    write_nir(folded.graph, output)
    program = lower(read_nir(output))
    return FoldedRun(config, data, trained, folded, program, prove_exact(program))


def fold(
    run_dir: Path,
    output: Path,
    *,
    exact_grid: bool | None = None,
    thresholds: Thresholds = "keep",
    input_grid: int | None = None,
    say: Console = QUIET,
) -> dict[str, Any]:
    """`fold_run`, said and returned as data: the grids chosen and the proof for every sum (JSON-ready)."""
    require_suffix(output, ".nir", " for a graph")
    done = fold_run(run_dir, output, exact_grid=exact_grid, thresholds=thresholds, input_grid=input_grid, say=say)
    show(done, say)
    say.say(f"written: {output}")
    return {
        "output": str(output),
        "thresholds": thresholds,
        "exact": done.exact,
        "grids": [grid.as_dict() for grid in done.folded.grids],
        "proofs": [proof.as_dict() for proof in done.proofs],
    }


def show(done: FoldedRun, say: Console) -> None:
    """The grids, and whether every sum is proved exact."""
    for grid in done.folded.grids:
        say.say(
            f"{grid.node}: weights on multiples of 2^-{grid.fraction_bits}, sums need {grid.bits:.1f} of 24 bits, "
            f"largest change {grid.largest_change:.1e}"
        )
    unproved = [proof for proof in done.proofs if not proof.exact]
    if unproved:
        say.warn(f"not proved exact: {counted(len(unproved), 'sum')} (first: {unproved[0].node}: {unproved[0].reason})")
    else:
        say.say("every float32 sum is proved exact: all backends must agree bit for bit")
