"""Collect networks to compare: run folders, .nir files and kept epochs, and their points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_input, read_json
from stl_deploy._util.remedies import option, remedy, verb
from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.units import counted
from stl_deploy.config.load import load_config
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.pipeline.tradeoff import Point, Tradeoff, TradeoffPoint, kept_twin_point
from stl_deploy.runs.manifest import check_network
from stl_deploy.runs.source import TEST_INPUT, graph_of, open_program, open_source
from stl_deploy.training.run_files import CONFIG, MODEL


def mode_of(source: Path) -> str:
    """Return the learning mode of a run folder, "" for anything else."""
    file = source / CONFIG
    return load_config(file).train.mode if file.is_file() else ""


def candidates(
    source: Path,
    name: str,
    input_file: Path | None,
    *,
    dialect: str | None = None,
    input_grid: int | None = None,
    over_checkpoints: bool = False,
    say: Console = QUIET,
) -> Iterator[TradeoffPoint]:
    """Return the network of a source, and with ``over_checkpoints`` those of its training's kept epochs.

    The input is the file given, else a run folder's own test samples. A run folder that was only trained is folded.
    The network comes last, in place of the epoch with its weights.
    input_grid: round it to multiples of 2^-input_grid, and declare the grid.
    Raises InputError without labels, for input off the grid that the graph declares, if no epochs were kept, or for a
    run folder whose network, weights or test samples have changed since its manifest was written.
    """
    if source.is_dir():
        check_network(source)
    mode = mode_of(source)
    trained = bool(mode) and graph_of(source) is None
    program = _folded(source) if trained else open_program(open_source(source), dialect)
    given, labels = _input(source, input_file)
    program, x = _on_grid(program, given, input_grid, say)
    picked: int | None = None
    if over_checkpoints:
        kept, picked = _kept(source), _picked(source)
        for epoch, path in kept.items():
            if epoch != picked:
                yield TradeoffPoint(
                    name, mode, *_on_grid(_folded(source, path), given, input_grid, QUIET), labels, epoch
                )
    yield TradeoffPoint(name, mode, program, x, labels, picked)


def _on_grid(program: Program, x: NDArray[Any], input_grid: int | None, say: Console) -> tuple[Program, NDArray[Any]]:
    declared, rounded = on_declared_grid(program, x, input_grid, say)
    assert isinstance(rounded, np.ndarray)
    return declared, rounded


def _kept(source: Path) -> dict[int, Path]:
    from stl_deploy.training.checkpoint import snapshots  # torch

    kept = snapshots(source)
    if not kept:
        train = load_config(source / CONFIG).train if (source / CONFIG).is_file() else None
        why, every = "", 5 if train is None else min(5, max(train.epochs // 2, 1))
        if train is not None and train.keep_every is not None and train.keep_every > train.epochs:
            why = f", for keep_every is {train.keep_every}, more than its {counted(train.epochs, 'epoch')}"
        raise InputError(
            f"{source}: expected a run folder with kept epochs; found none{why}; train with "
            + remedy(cli=f"--set train.keep_every={every}", python=f"train.keep_every: {every} in its configuration")
        )
    return kept


def _picked(source: Path) -> int:
    """Return the epoch whose weights the run's network has."""
    from stl_deploy.training.checkpoint import model_facts  # torch

    epoch = model_facts(source).get("epoch")
    if type(epoch) is not int:
        raise InputError(f"{source / MODEL}: expected the epoch of these weights; found {epoch!r}; train it again")
    return epoch


def _folded(run_dir: Path, snapshot: Path | None = None) -> Program:
    from stl_deploy.runs.folded_run import fold_run  # torch

    with temporary_folder() as folder:
        return fold_run(run_dir, folder / "net.nir", snapshot=snapshot).program


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
        rows = [{key: value for key, value in row.items() if key != "pareto"} for row in data["points"]]
        iso = {"iso_accuracy": data["iso_accuracy"]} if "iso_accuracy" in data else {}
        return Tradeoff(tuple(Point(**row) for row in rows)).as_dict() | iso
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not as {verb('energy')} writes it; write it again, or remove it") from None


def twin_point(candidate: TradeoffPoint, ann: Path, name: str, coding: str | None) -> Point:
    """Return the point of a run folder's ANN, on the network's input."""
    from stl_deploy.runs.ann_twin import measure_twin  # torch

    return kept_twin_point(candidate, measure_twin(candidate.program, ann, candidate.x, candidate.labels), name, coding)
