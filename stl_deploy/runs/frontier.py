"""Build a run's ANN frontier: its topology at several widths, trained once by the same recipe and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.energy.ann_twin import AnnTwin
from stl_deploy.energy.counts.count import ActivityCounter
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.models.frontier import WIDTHS, Frontier, FrontierPoint, frontier_point
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, quoted
from stl_deploy.energy.paired import compare
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.runs.ann_twin import keep_ann, measure_twin
from stl_deploy.training.run_files import CONFIG, MODEL
from stl_deploy.training.run_folder import FRONTIER


def narrowed(config: RunConfig, width: float) -> RunConfig:
    """Return the configuration with hidden channels and features scaled; the last linear layer is unchanged."""
    sections = config.model_dump(mode="json")["network"]
    last = max((i for i, layer in enumerate(sections) if layer["kind"] in ("conv", "linear")), default=-1)
    layers = [layer if i == last else _scaled(layer, width) for i, layer in enumerate(sections)]
    return RunConfig.model_validate(config.model_dump(mode="json") | {"network": layers})


def _scaled(layer: dict[str, Any], width: float) -> dict[str, Any]:
    layer_config = dict(layer)
    for key in ("channels", "features"):
        if key in layer_config:
            layer_config[key] = max(1, round(width * layer_config[key]))
    for key in ("layers", "shortcut"):
        if key in layer_config:
            layer_config[key] = [_scaled(inner, width) for inner in layer_config[key]]
    return layer_config


def folder_of(run_dir: Path, width: float) -> Path:
    """Return the run folder of one of the ANNs."""
    return run_dir / FRONTIER / f"{width:g}"


def is_kept(run_dir: Path) -> bool:
    """Return whether a run has the ANNs of every width below 1."""
    return all((folder_of(run_dir, width) / MODEL).is_file() for width in WIDTHS if width < 1)


def keep_frontier(config: RunConfig, run_dir: Path, say: Console) -> None:
    """Train the missing ANNs, each below ``run_dir``; an interrupted one is resumed."""
    for width in WIDTHS:
        if width < 1:
            say.step(f"Training the ANN of {width:g} times the width (kept in {folder_of(run_dir, width)})")
            keep_ann(narrowed(config, width), folder_of(run_dir, width), say)


def frontier_of(
    run_dir: Path,
    twin: AnnTwin,
    program: Program,
    report: EnergyReport,
    frames: NDArray[Any],
    labels: NDArray[np.int64],
    margin: float,
) -> Frontier | None:
    """Price every kept ANN and compare it with the SNN on the same samples; None without any, or without decisions.

    twin: measured on ``frames`` ``[1, B, *shape]``, which the others take, too. margin: a share.
    """
    streaming, batched = quoted(report.comparisons), quoted(report.comparisons, LAYER_BY_LAYER)
    right = report.right
    if not is_kept(run_dir) or right is None or twin.right is None or streaming is None or batched is None:
        return None
    points = [frontier_point(1.0, program, report.counts, twin, compare(right, twin.right, margin))]
    for width in WIDTHS:
        if width < 1:
            points.append(_point(folder_of(run_dir, width), width, frames, labels, right, margin))
    return Frontier(tuple(points), middle(streaming.energy.snn_J), middle(batched.energy.snn_J))


def _point(
    folder: Path,
    width: float,
    frames: NDArray[Any],
    labels: NDArray[np.int64],
    right: NDArray[np.bool_],
    margin: float,
) -> FrontierPoint:
    config = load_config(folder / CONFIG)
    structure = structure_of(config, frames.shape[2:], int(labels.max()) + 1)
    counter = ActivityCounter(structure, "analog")
    run(structure, np.zeros_like(frames[:, :1], np.float32), observe=counter)
    twin = measure_twin(structure, folder, frames, labels)
    assert twin.right is not None
    return frontier_point(width, structure, counter.counts(), twin, compare(right, twin.right, margin))


def structure_of(config: RunConfig, shape: tuple[int, ...], classes: int) -> Program:
    """Return the graph of a configuration's network with initial weights, for pricing an ANN."""
    spiking = config.model_copy(update={"train": config.train.model_copy(update={"mode": "stl"})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(spiking, shape, classes).eval()
    return fold(network, coding="analog", fraction_bits=4).program
