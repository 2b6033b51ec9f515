"""Search for a network that costs less than the cheapest ANN that measured no less accurate.

Each trial trains one network, measures it on validation data, and keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_json, write_json
from stl_deploy._util.lock import alone_in
from stl_deploy._util.remedies import verb
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.config.load import load_config
from stl_deploy.config.run_options import OptimiseOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, Split, load_dataset
from stl_deploy.data.complete import has_fixed_steps
from stl_deploy.energy.counts.count import ActivityCounter
from stl_deploy.energy.models.frontier import WIDTHS, ann_joules
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.paired import Paired, check_margin, compare, percent
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.graph.program import Conv, Linear, Program
from stl_deploy.graph.run import run
from stl_deploy.pipeline.tradeoff import (
    Point,
    TradeoffPoint,
    exit_points,
    measured,
    numbers_of_steps,
    pareto_front,
    samples_name,
    snn_point,
)
from stl_deploy.runs.ann_twin import keep_twin, kept_frames, measure_twin
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.frontier import folder_of, keep_frontier, narrowed, structure_of
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.manifest import check_network
from stl_deploy.runs.train import fit
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MODEL
from stl_deploy.training.run_folder import TWIN

FOLDER, JSON, HTML = "optimise", "optimise.json", "optimise.html"
_ROUNDING = 1e-9
"""Of a difference of two shares."""


@dataclass(frozen=True)
class Verdict:
    """One point against the ANNs of its topology, on the same samples.

    gap: accuracy of the ANN twin minus the point's. ratio: streaming energy over that of ``ann``, the cheapest ANN that
    is measured no less accurate (the most accurate one where none is). paired: the point against the twin.
    """

    point: Point
    ann: Point
    gap: float
    ratio: float
    paired: Paired

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "point": self.point.as_dict(),
            "ann": self.ann.as_dict(),
            "gap": self.gap,
            "ratio": self.ratio,
            "against_twin": self.paired.as_dict(),
        }


@dataclass(frozen=True)
class Optimised:
    """Result of a search. best: the point of least ratio within the margin, on validation data; None without any.

    tested: the same network on the test data, evaluated once. missing: trials without time left.
    """

    points: tuple[Point, ...]
    anns: tuple[Point, ...]
    margin: float
    best: Verdict | None
    tested: Verdict | None
    missing: tuple[str, ...]

    @property
    def recommended(self) -> bool:
        """Whether the best point costs less than its ``ann``, on validation and on test data."""
        points = (self.best, self.tested)
        return all(each is not None and each.ratio < 1 and each.gap <= self.margin + _ROUNDING for each in points)

    @property
    def text(self) -> str:
        """The recommendation, in a few sentences."""
        if self.best is None:
            return f"None found: no point is within {100 * self.margin:g} points of the ANN twin on validation data."
        point = f"{in_words(self.best.point)} ({percent(self.best.point.accuracy)} on validation data)"
        ann = self.best.ann
        beaten = ann.accuracy < self.best.point.accuracy
        kind = "the most accurate ANN, which is less accurate" if beaten else "the cheapest ANN that measured no less"
        costs = f"costs {number(self.best.ratio)} times {kind} ({ann.name}, {percent(ann.accuracy)}) streaming"
        test = (
            ""
            if self.tested is None
            else (
                f" On test data: {percent(self.tested.point.accuracy)} against the twin's "
                f"{percent(self.tested.paired.ann)}, {number(self.tested.ratio)} times {self.tested.ann.name}."
            )
        )
        begin = "Recommended" if self.recommended else "None found; the closest"
        return f"{begin}: {point} {costs} (modelled).{test}"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        front = pareto_front([*self.points, *self.anns])
        return {
            "margin": self.margin,
            "recommended": self.recommended,
            "text": self.text,
            "best": None if self.best is None else self.best.as_dict(),
            "tested": None if self.tested is None else self.tested.as_dict(),
            "points": [p.as_dict() | {"pareto": p in front} for p in (*self.points, *self.anns)],
            "missing": list(self.missing),
            "label": "modelled",
        }


def search(
    run_dir: Path, options: OptimiseOptions, *, executor: Executor | None = None, say: Console = QUIET
) -> Optimised:
    """Search for a cheaper network; see `stl_deploy.verbs.optimise`, which also draws and prints the result."""
    share = check_margin(options.margin)
    config = _checked(run_dir)
    with alone_in(run_dir):
        end = time.monotonic() + 60 * options.minutes
        data = load_dataset(config.dataset)
        if data.validation.labels.ndim > 1:
            raise InputError(
                f"{run_dir}: expected one label for each sample; found labels of each step, which no ANN of one pass "
                "decides; cut the sequences into windows with one label each"
            )
        keep_twin(config, run_dir, say)
        keep_frontier(config, run_dir, say)
        anns = _anns(config, run_dir, data.validation, data)
        say.step("Measuring the run itself on its validation data")
        own = run_dir / FOLDER / "as-it-is"
        own.mkdir(parents=True, exist_ok=True)
        measure_into(run_dir, "as it is", own / POINTS)
        points = read_points(own / POINTS)
        trials = list(plan(config, _synops(run_dir, data.validation)))
        done, missing = _train_all(run_dir, trials, end, options.processes, executor, say)
        for file in done:
            points += read_points(file)
        best = pick(points, anns, share)
        tested = None if best is None else _tested(run_dir, config, best, data)
        result = Optimised(tuple(points), tuple(anns), share, best, tested, tuple(missing))
        write_json(run_dir / FOLDER / JSON, result.as_dict())
    return result


def _checked(run_dir: Path) -> RunConfig:
    if not all((run_dir / name).is_file() for name in (CONFIG, MODEL)):
        raise InputError(f"{run_dir}: expected a run folder with a trained network; train one with {verb('run')}")
    check_network(run_dir)
    config = load_config(run_dir / CONFIG)
    if config.train.mode == "ann":
        raise InputError(f"{run_dir}: expected a spiking network; found an ANN")
    return config


def plan(config: RunConfig, synops: float) -> Iterator[Trial]:
    """Return the networks to try, the most promising first: fewer steps, then narrower, then with fewer synops.

    synops: of one sample of the run as it is. Own sequences have all their steps, or one that sums them.
    """
    most = config.dataset.T
    steps = sorted({1, most} if has_fixed_steps(config.dataset) else {1, max(1, most // 2), most})
    for share in (None, 0.5, 0.25):
        for width in (1.0, 0.5, 0.25):
            for count in steps:
                if share is None and width == 1 and count == most:
                    continue  # the run itself
                budget = None if share is None else share * synops * width**2 * count / most
                if budget is None or not any(layer.kind == "rlif" for _, layer in config.layers):
                    yield Trial(count, width, budget)


def pick(points: Sequence[Point], anns: Sequence[Point], margin: float) -> Verdict | None:
    """Return the point of least ratio among those within the margin of the twin; None without any."""
    candidates = [judged(point, anns, margin) for point in points]
    return min(
        (each for each in candidates if each.gap <= margin + _ROUNDING), key=lambda each: each.ratio, default=None
    )


def judged(point: Point, anns: Sequence[Point], margin: float) -> Verdict:
    """Compare one point with the ANNs, of which the first is the twin."""
    twin = anns[0]
    assert point.right is not None
    assert twin.right is not None
    equal = [ann for ann in anns if ann.accuracy >= point.accuracy]
    ann = min(equal, key=lambda each: each.joules) if equal else max(anns, key=lambda each: each.accuracy)
    paired = compare(point.right, twin.right, margin)
    return Verdict(point, ann, twin.accuracy - point.accuracy, point.joules / ann.joules, paired)


def _anns(config: RunConfig, run_dir: Path, split: Split, data: Dataset) -> list[Point]:
    """Return every kept ANN on the samples of a split, the twin first."""
    anns = []
    for width in WIDTHS:
        folder = run_dir / TWIN if width == 1 else folder_of(run_dir, width)
        given = kept_frames(folder, split, len(split))
        structure = structure_of(load_config(folder / CONFIG), data.input_shape, data.classes)
        counter = ActivityCounter(structure, "analog")
        run(structure, np.zeros_like(given.x[:, :1]), observe=counter)
        twin = measure_twin(structure, folder, given.x, given.labels)
        joules = ann_joules(structure, counter.counts(), twin)
        name = "ANN twin" if width == 1 else f"ANN, {width:g} of the width"
        assert twin.accuracy is not None
        anns.append(
            Point(
                name,
                "ANN",
                "ann",
                1,
                None,
                twin.accuracy,
                joules,
                (joules, joules),
                layer_by_layer_J=joules,
                samples=samples_name(given.x, given.labels),
                right=twin.right,
            )
        )
    return anns


def _synops(run_dir: Path, split: Split) -> float:
    """Return synops of one validation sample of the run as it is."""
    from stl_deploy._util.temporary import temporary_folder
    from stl_deploy.runs.folded_run import fold_run
    from stl_deploy.runs.inputs import encode_split

    with temporary_folder() as folder:
        program = fold_run(run_dir, folder / "net.nir").program
    x = encode_split(load_config(run_dir / CONFIG), split, 256).x
    counter = ActivityCounter(program, "analog")
    run(program, x, observe=counter)
    return float(counter.counts().totals.synops / x.shape[1])


def _train_all(
    run_dir: Path, trials: Sequence[Trial], end: float, processes: int, executor: Executor | None, say: Console
) -> tuple[list[Path], list[str]]:
    """Return the files of finished trials, and the names of those without time left."""
    cores = max(1, (cpu_count() or 1) // processes)
    done, missing, waiting = list[Path](), list[str](), list[Trial](trials)
    pool = nullcontext(executor) if executor else ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    with pool as workers:
        assert workers is not None
        running: set[Future[Path]] = set()
        while waiting or running:
            while waiting and len(running) < processes:
                trial = waiting.pop(0)
                folder = run_dir / FOLDER / trial.name
                if time.monotonic() < end or (folder / POINTS).is_file():
                    running.add(workers.submit(carry_out, run_dir, trial, folder, cores))
                else:
                    missing.append(trial.name)
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    done.append(future.result())
                except StlDeployError as error:  # one that diverged, say, is no point; the others are
                    say.warn(f"left out: {error}")
                else:
                    say.say(f"{len(done)} of {len(trials)} networks: {done[-1].parent.name}")
    return done, missing


def _tested(run_dir: Path, config: RunConfig, best: Verdict, data: Dataset) -> Verdict:
    """Return the picked point on the test data."""
    trained = best.point.name.partition(",")[0]
    folder = run_dir if trained == "as it is" else run_dir / FOLDER / trained
    anns = _anns(config, run_dir, data.test, data)
    points = [p for p in points_of(folder, trained, data.test, best.point.margin) if p.name == best.point.name]
    stops_early = best.point.margin is not None
    point = next(p for p in points if (p.margin is not None if stops_early else p.steps == best.point.steps))
    return judged(point, anns, best.paired.margin)


def in_words(point: Point) -> str:
    """Describe a point in words."""
    sure = "" if point.margin is None else f", stopped once sure by {point.margin:.3g}"
    return f"{point.name} at {point.steps:g} steps{sure}"


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
