"""The fold step: a trained run folder becomes net.nir."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stl_deploy.config import RunConfig
from stl_deploy.data import Dataset, load_dataset
from stl_deploy.fold import Folded, Thresholds, fold
from stl_deploy.graph.exact import NodeProof, prove_exact
from stl_deploy.graph.lower import lower
from stl_deploy.graph.nirfile import read_nir, write_nir
from stl_deploy.graph.program import Program
from stl_deploy.model_file import load_network
from stl_deploy.network import Network
from stl_deploy.pipeline.inputs import input_spec


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
    run_dir: Path, output: Path, *, exact_grid: bool | None = None, thresholds: Thresholds = "keep"
) -> FoldedRun:
    """Fold the trained network of a run folder and write the graph to ``output``, then read it back.

    exact_grid: None as the run's configuration says. Raises InputError where the run or the network does not allow it.
    """
    trained, config = load_network(run_dir)
    data = load_dataset(config.dataset)
    spec = input_spec(config, data.test.levels)
    folded = fold(
        trained,
        coding=spec.coding,
        fraction_bits=spec.fraction_bits,
        exact_grid=config.fold.exact_grid if exact_grid is None else exact_grid,
        thresholds=thresholds,
    )
    write_nir(folded.graph, output)
    program = lower(read_nir(output))
    return FoldedRun(config, data, trained, folded, program, prove_exact(program))
