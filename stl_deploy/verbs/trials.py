"""Train one network of a search for less energy, measure it on validation data, and keep it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stl_deploy._util.console import Console
from stl_deploy._util.files import read_json, write_json
from stl_deploy._util.remedies import verb
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Split, load_dataset
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Conv, Linear, Program
from stl_deploy.pipeline.tradeoff import Point, TradeoffPoint, exit_points, measured, numbers_of_steps, snn_point
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.frontier import narrowed
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.train import fit
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MODEL

POINTS = "points.json"
PRUNED = (0.5, 0.8)
"""Shares of each layer's weights that are set to 0, the smallest first; not trained again afterwards."""


@dataclass(frozen=True)
class Trial:
    """Changes to a run. budget: synops per sample that training charges above; None: the run's own."""

    steps: int
    width: float
    budget: float | None

    @property
    def name(self) -> str:
        """Its name, and that of its folder."""
        budget = "" if self.budget is None else f"-budget{self.budget:.3g}"
        return f"T{self.steps}-width{self.width:g}{budget}"

    def config(self, base: RunConfig) -> RunConfig:
        """The run's configuration with the changes."""
        dataset = base.dataset.model_copy(update={"T": self.steps})
        train = base.train.model_copy(update={} if self.budget is None else {"synop_budget": self.budget})
        return narrowed(base.model_copy(update={"dataset": dataset, "train": train}), self.width)


def carry_out(base: Path, trial: Trial, folder: Path, cores: int) -> Path:
    """Train a trial of the run ``base`` into ``folder``, unless it is there, and measure it; return its points' file.

    Runs in a process of its own, on this machine or another that sees the same files.
    """
    torch.set_num_threads(cores)
    config = trial.config(load_config(base / CONFIG))
    if not _is_trained(folder, config):
        resume = (folder / CHECKPOINT).is_file() and load_config(folder / CONFIG) == config
        fit(config, folder, resume=resume, overwrite=not resume, say=Console(quiet=True))
        (folder / POINTS).unlink(missing_ok=True)
    measure_into(folder, trial.name)
    return folder / POINTS


def _is_trained(folder: Path, config: RunConfig) -> bool:
    return (folder / MODEL).is_file() and (folder / CONFIG).is_file() and load_config(folder / CONFIG) == config


def measure_into(run_dir: Path, name: str, target: Path | None = None) -> None:
    """Measure a trained run on its validation samples, at each number of steps, stopped early, and pruned."""
    target = target or run_dir / POINTS
    if not target.is_file():
        data = load_dataset(load_config(run_dir / CONFIG).dataset)
        write_json(target, {"points": [_row(point) for point in points_of(run_dir, name, data.validation)]})


def points_of(run_dir: Path, name: str, split: Split, margin: float | None = None) -> Iterator[Point]:
    """Return every point of a trained run on the samples of ``split``.

    margin: lead of a sample that stops early (default: several margins).
    """
    config = load_config(run_dir / CONFIG)
    with temporary_folder() as folder:
        program = fold_run(run_dir, folder / "net.nir").program
    given = encode_split(config, split)
    candidate = TradeoffPoint(name, config.train.mode, program, given.x, given.labels)
    for steps in numbers_of_steps(len(given.x)):
        yield snn_point(candidate, steps, *measured(candidate, steps, None))
    yield from exit_points(candidate, None, None if margin is None else [margin]) if len(given.x) > 1 else ()
    for share in PRUNED:
        sparse = replace(candidate, name=f"{name}, {share:.0%} pruned", program=pruned(program, share))
        yield snn_point(sparse, len(given.x), *measured(sparse, len(given.x), None))


def pruned(program: Program, share: float) -> Program:
    """Return weights with the smallest ``share`` of each layer set to 0."""
    nodes = [
        replace(node, weight=_without_smallest(node.weight, share)) if isinstance(node, Linear | Conv) else node
        for node in program.nodes
    ]
    return replace(program, nodes=tuple(nodes))


def _without_smallest(weight: Any, share: float) -> Any:
    if not weight.size:
        return weight
    return np.where(np.abs(weight) <= np.quantile(np.abs(weight), share), 0, weight).astype(weight.dtype)


def _row(point: Point) -> dict[str, Any]:
    assert point.right is not None
    return point.as_dict() | {"right": "".join("1" if each else "0" for each in point.right)}


def read_points(file: Path) -> list[Point]:
    """Read `measure_into`'s file; raise InputError for a file of another form."""
    try:
        rows = read_json(file)["points"]
        return [
            Point(**{**row, "range_J": tuple(row["range_J"]), "right": np.array([c == "1" for c in row["right"]])})
            for row in rows
        ]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{file}: not as {verb('optimise')} writes it; remove it, and it is measured again") from None
