"""Build a run's ANN frontier: its topology at several widths, trained once by the same recipe and kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Split, sample_shape
from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.models.frontier import WIDTHS, Frontier, Point, width_name
from stl_deploy.energy.paired import compare
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import exit_steps, sureness
from stl_deploy.graph.run import CHUNK, run
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.pipeline.tradeoff import TradeoffPoint, ann_point, decided_after, tried_of
from stl_deploy.runs.ann_twin import keep_ann, measure_kept, measure_twin
from stl_deploy.runs.inputs import encode_split
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.run_files import CONFIG, MODEL
from stl_deploy.training.run_folder import FRONTIER, TWIN

_MOST_VALUES = 100_000_000
"""Of the test split's input at once, 400 MB."""
LabelledFrames = tuple[NDArray[Any], NDArray[np.int64]]
"""``[1, B, *shape]`` and labels ``[B]``."""


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
            say.step(f"The ANN of {width:g} times the width, kept in {folder_of(run_dir, width)}")
            keep_ann(narrowed(config, width), folder_of(run_dir, width), say)


def with_frontier(
    report: EnergyReport,
    run_dir: Path,
    twin: AnnTwin,
    program: Program,
    frames: LabelledFrames,
    margin: float,
    test: Split | None = None,
) -> EnergyReport:
    """Return the report with both frontiers: the SNN's points tried, and every kept ANN.

    Unchanged without kept ANNs or decisions.

    twin: measured on ``frames``, of the samples counted, which the others take, too. margin: a share. test: the whole
    test split; then accuracies are compared on all of it (as many samples as `_MOST_VALUES` allows), and the report's
    comparison with the twin, too, because the samples counted are often too few to tell.
    """
    if report.idle or not is_kept(run_dir) or not report.tried or twin.right is None:
        return report
    whole = None if test is None else _whole(run_dir, program, test, counted=len(twin.right))
    tried = tried_of(len(twin.right))
    images, labels = frames
    anns = []
    for width in WIDTHS:
        folder = run_dir / TWIN if width == 1 else folder_of(run_dir, width)
        structure, ann = program, twin
        if width < 1:
            structure = structure_of(folder)
            ann = measure_twin(structure, folder, images, labels)
        point = ann_point(width_name(width), structure, ann)
        right = point.decided[tried] if whole is None else whole.of_ann(structure, folder)
        anns.append(_decided(point, right))
    snn = report.tried if whole is None else tuple(whole.of_snn(point) for point in report.tried)
    frontier = Frontier(snn, tuple(anns), report.leads, margin)
    accuracy = report.accuracy if whole is None else compare(snn[0].decided, anns[0].decided, margin)
    return replace(report, frontier=frontier, accuracy=accuracy)


@dataclass(frozen=True)
class _Whole:
    """The test split, and the SNN's outputs on its first samples."""

    test: Split
    own: TradeoffPoint
    y: NDArray[Any]

    def of_ann(self, structure: Program, folder: Path) -> NDArray[np.bool_]:
        """Return whether a kept ANN decides each of the same samples right."""
        right = measure_kept(structure, folder, self.test, self.y.shape[1]).right
        assert right is not None
        return right

    def of_snn(self, point: Point) -> Point:
        """Return a point with the SNN's decisions on these samples."""
        steps = np.full(self.y.shape[1], point.steps, np.int64)
        if point.margin is not None:
            steps = exit_steps(sureness(self.own.program, self.y), point.margin)
        return _decided(point, decided_after(self.own, self.y, steps))


def _decided(point: Point, right: NDArray[np.bool_]) -> Point:
    """Return a point with the decisions on other samples."""
    return replace(point, right=right, accuracy=float(right.mean()))


def _whole(run_dir: Path, program: Program, test: Split, counted: int) -> _Whole | None:
    """Run the SNN on the test split; None if no more samples fit than were counted."""
    config = load_config(run_dir / CONFIG)
    size = config.time_steps * math.prod(sample_shape(config.dataset))
    count = min(len(test), _MOST_VALUES // size)
    # the samples counted are all there are, so the report's own comparison stands
    if count <= counted:
        return None
    given = encode_split(config, test, count)
    y = next(iter(run(program, given.x, chunk=CHUNK).outputs.values()))
    return _Whole(test, TradeoffPoint(run_dir.name, "", program, given.x, given.labels), y)


def structure_of(folder: Path) -> Program:
    """Return the graph of the ANN kept in ``folder``, with its weights and biases, for pricing it."""
    ann, config = load_network(folder)
    spiking = config.with_values(train={"mode": "stl"})
    with torch.random.fork_rng(devices=[]):
        network = Network(spiking, ann.input_shape, ann.classes).eval()
    network.load_state_dict(ann.state_dict(), strict=False)  # it has no thresholds
    return fold(network, coding="analog", fraction_bits=4, exact_grid=False).program
