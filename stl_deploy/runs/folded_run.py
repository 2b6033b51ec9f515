"""Fold a run folder's trained network and write it as a NIR graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stl_deploy._util.console import Console
from stl_deploy.config.load import apply_overrides
from stl_deploy.config.options import FoldOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, load_dataset
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.program.file import SUFFIX as PROGRAM_SUFFIX
from stl_deploy.exporters.program.file import write_program
from stl_deploy.graph.exact import NodeProof, prove_exact
from stl_deploy.graph.program import Program
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fast_path import announce
from stl_deploy.pipeline.fold_network import Folded
from stl_deploy.pipeline.fold_network import fold as fold_network
from stl_deploy.runs.inputs import split_spec
from stl_deploy.training.checkpoint import load_network


@dataclass(frozen=True, eq=False)
class FoldedRun:
    """A run's trained network, its fold, and the file that holds the graph."""

    config: RunConfig
    data: Dataset
    trained: Network
    folded: Folded
    proofs: tuple[NodeProof, ...]
    file: Path

    @property
    def program(self) -> Program:
        """The folded network, which the file reads back as."""
        return self.folded.program

    @property
    def exact(self) -> bool:
        """Whether every sum of the graph is proved exact in float32."""
        return all(proof.exact for proof in self.proofs)


def fold_run(
    run_dir: Path,
    output: Path,
    options: FoldOptions | None = None,
    *,
    data: Dataset | None = None,
    say: Console | None = None,
) -> FoldedRun:
    """Fold the trained network of a run folder and write the graph to ``output``.

    A network that NIR cannot hold is written as a .program file of that name.

    options: exact_grid, input_grid: None as the run's configuration says.
    data: the configuration's dataset, where it is loaded already.
    Raises InputError where the run or the network does not allow it.
    """
    options = options or FoldOptions()
    trained, config = load_network(run_dir)
    if say is not None:
        say.say(f"folding {run_dir}")
        announce("cpu", say)
    if options.input_grid is not None:
        config = apply_overrides(config, [f"dataset.input_grid={options.input_grid}"])
    data = data or load_dataset(config.dataset)
    spec = split_spec(config, data.test)
    folded = fold_network(
        trained,
        coding=spec.coding,
        fraction_bits=spec.fraction_bits,
        bound=spec.bound,
        exact_grid=config.fold.exact_grid if options.exact_grid is None else options.exact_grid,
        thresholds=options.thresholds,
        about=_about(config, data),
    )
    if folded.graph is None:
        output = output.with_suffix(PROGRAM_SUFFIX)
        write_program(folded.program, output)
    else:
        write_nir(folded.graph, output)
    return FoldedRun(config, data, trained, folded, prove_exact(folded.program), output)


def _about(config: RunConfig, data: Dataset) -> dict[str, Any]:
    """Return metadata for readers of the graph: steps T of a training sequence, and class names of own data."""
    about: dict[str, Any] = {"steps": config.dataset.T}
    if data.class_names:
        about["classes"] = list(data.class_names)
    return about
