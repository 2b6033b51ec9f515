"""Collect networks to compare, run folders and .nir files, and their points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_input, read_json
from stl_deploy._util.remedies import option, verb
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.config.load import load_config
from stl_deploy.energy.models.frontier import Point
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.pipeline.tradeoff import Tradeoff, TradeoffPoint, ann_point, samples_of
from stl_deploy.runs.manifest import check_network
from stl_deploy.runs.source import TEST_INPUT, graph_of, open_program, open_source
from stl_deploy.training.run_files import CONFIG


def mode_of(source: Path) -> str:
    """Return the learning mode of a run folder, "" for anything else."""
    file = source / CONFIG
    return load_config(file).train.mode if file.is_file() else ""


def candidate(
    source: Path,
    name: str,
    input_file: Path | None,
    *,
    dialect: str | None = None,
    input_grid: int | None = None,
    say: Console = QUIET,
) -> TradeoffPoint:
    """Return the network of a source, with labelled input.

    The input is the file given, else a run folder's own test samples. A run folder that was only trained is folded.
    input_grid: round it to multiples of 2^-input_grid, and declare the grid.
    Raises InputError without labels, for input off the grid that the graph declares, or for a run folder whose network,
    weights or test samples have changed since its manifest was written.
    """
    if source.is_dir():
        check_network(source)
    mode = mode_of(source)
    trained = bool(mode) and graph_of(source) is None
    program = _folded(source) if trained else open_program(open_source(source), dialect)
    x, labels = _input(source, input_file)
    program, rounded = on_declared_grid(program, x, input_grid, say)
    assert isinstance(rounded, np.ndarray)
    return TradeoffPoint(name, mode, program, rounded, labels)


def _folded(run_dir: Path) -> Program:
    from stl_deploy.runs.folded_run import fold_run  # torch

    with temporary_folder() as folder:
        return fold_run(run_dir, folder / "net.nir").program


def _input(source: Path, given: Path | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    file = given or source / TEST_INPUT
    if given is None and not file.is_file():
        if not source.is_dir():
            raise InputError(
                f"{source}: energy depends on activity; give the input with {option('input_file', 'X.npz')}"
            )
        return _test_images(source)
    x, labels = read_input(file)
    if labels is None:
        raise InputError(f"{file}: expected labels 'y' for accuracy against energy; found none")
    return x, labels


def _test_images(run_dir: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    from stl_deploy.data import load_dataset  # torch
    from stl_deploy.runs.inputs import encode_split

    config = load_config(run_dir / CONFIG)
    test = encode_split(config, load_dataset(config.dataset).test)
    return test.x, test.labels


def read_tradeoff(path: Path) -> dict[str, Any]:
    """Read `tradeoff`'s file; raise InputError for a file of another form."""
    try:
        data = read_json(path)
        rows = data["points"]
        read = Tradeoff(tuple(map(Point.of, rows))).as_dict()
        kept = [point | {"interval": row.get("interval")} for point, row in zip(read["points"], rows, strict=True)]
        return read | {"points": kept}
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not as {verb('energy')} writes it; write it again, or remove it") from None


def twin_point(candidate: TradeoffPoint, ann: Path, name: str) -> Point:
    """Return the point of a run folder's ANN, on the network's input."""
    from stl_deploy.runs.ann_twin import measure_twin  # torch

    twin = measure_twin(candidate.program, ann, candidate.x, candidate.labels)
    return ann_point(name, candidate.program, twin, samples_of(candidate))
