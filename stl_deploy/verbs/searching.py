"""Search for an SNN that costs less than the cheapest ANN of equal accuracy; both sides choose.

Candidates are compared by cross-validation on the training and validation samples; the pick is judged once on test
data. Each network trained is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stl_deploy import __version__
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_json, write_json
from stl_deploy._util.lock import alone_in
from stl_deploy._util.remedies import verb
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.config.load import load_config
from stl_deploy.config.run_options import OptimiseOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, Split, from_arrays, load_dataset
from stl_deploy.data.complete import has_fixed_steps
from stl_deploy.energy.models.frontier import (
    FLOWS,
    Equal,
    Flow,
    Point,
    best_of,
    width_name,
)
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.paired import check_margin, compare, percent
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.pipeline.convert import convert
from stl_deploy.pipeline.tradeoff import (
    TradeoffPoint,
    ann_point,
    exit_margin,
    exit_points,
    pareto_front,
    snn_point,
)
from stl_deploy.runs.ann_twin import AtOnce, measure_twin
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.frontier import narrowed, structure_of
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.manifest import check_network
from stl_deploy.runs.train import fit
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MODEL

FOLDER, JSON, HTML, POINTS = "optimise", "optimise.json", "optimise.html", "points.json"
FOLDS = 3
_JUDGED = range(FOLDS, 2 * FOLDS)
"""Trainings on the run's own split, each with a seed of its own, for the test data."""
_STEPS, _WIDTHS, _WEIGHTS = (1, 2, 3, 4), (1.0, 0.5, 0.25), (0.0, 1.0)
_ANN_WIDTHS = (1.0, 0.75, 0.5, 0.25)


@dataclass(frozen=True)
class Trial:
    """Changes to a run; mode ``ann``: an ANN. weight: of priced energy in the loss."""

    mode: str
    steps: int
    width: float
    weight: float

    @property
    def name(self) -> str:
        """Its name, and that of its folder."""
        kind = "ANN" if self.mode == "ann" else f"trained for T = {self.steps}"
        return f"{kind}, {width_name(self.width)}" + (", energy penalised" if self.weight else "")

    def config(self, base: RunConfig, fold: int) -> RunConfig:
        """The run's configuration with the changes, and a seed for each fold."""
        train = {"mode": self.mode, "energy_weight": self.weight, "seed": base.train.seed + fold}
        return narrowed(base.with_values(dataset={"T": self.steps}, train=train), self.width)


@dataclass(frozen=True)
class Judged:
    """The pick and its ANN on test data, means over seeds. gap: accuracy of the ANN minus the SNN's."""

    snn_accuracy: float
    ann_accuracy: float
    ratios: tuple[float, ...]

    @property
    def gap(self) -> float:
        """Accuracy of the ANN minus the SNN's."""
        return self.ann_accuracy - self.snn_accuracy

    @property
    def ratio(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.ratios))

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return vars(self) | {"ratio": self.ratio, "ratios": list(self.ratios)}


@dataclass(frozen=True)
class Optimised:
    """Result of a search.

    points, anns, counts: candidates with every fold, the ANN twin first; counts are ANNs quantised to spike counts at
    one step. leads: the dataflow that fits the input. best: by dataflow, the SNN of least worst ratio of those proved
    within the margin of the twin; closest: the same among those measured within it. judged: the leading best on test
    data. missing: trials without time left.
    """

    points: tuple[Point, ...]
    anns: tuple[Point, ...]
    counts: tuple[Point, ...]
    margin: float
    leads: Flow
    judged: Judged | None
    missing: tuple[str, ...]

    @property
    def listed(self) -> tuple[Point, ...]:
        """Every point."""
        return (*self.points, *self.anns, *self.counts)

    @property
    def best(self) -> Mapping[Flow, Equal]:
        """By dataflow: the SNN of least worst ratio among those whose interval lies within the margin of the twin."""
        twin = self.anns[0].decided
        return self._least([p for p in self.points if compare(p.decided, twin, self.margin).verdict == "equal"])

    @property
    def closest(self) -> Mapping[Flow, Equal]:
        """By dataflow: the SNN of least worst ratio among those that measured within the margin of the twin."""
        least = self.anns[0].accuracy - self.margin
        return self._least([p for p in self.points if p.accuracy >= least])

    def _least(self, points: Sequence[Point]) -> Mapping[Flow, Equal]:
        return {flow: best for flow in FLOWS if (best := best_of(points, self.anns, flow)) is not None}

    @property
    def recommended(self) -> bool:
        """Whether the best costs less than the cheapest equal ANN, its range's worse end and test data included."""
        best, judged = self.best.get(self.leads), self.judged
        if best is None or judged is None:
            return False
        return max(best.interval[1], judged.ratio) < 1 and judged.gap <= self.margin

    @property
    def text(self) -> str:
        """The recommendation, in a few sentences."""
        points = f"{100 * self.margin:g} points of the ANN twin"
        best, closest = self.best.get(self.leads), self.closest.get(self.leads)
        if closest is None:
            return f"None found: no candidate is within {points}."
        if best is None:
            return f"Undecided: no candidate is proved within {points}; measured so: {_in_words(closest)}."
        begin = "Recommended" if self.recommended else "None found; the closest"
        parts = [f"{begin}: {_in_words(best)}."]
        if self.judged is not None:
            parts.append(
                f"On test data, means of {len(self.judged.ratios)} trainings: {percent(self.judged.snn_accuracy)} "
                f"against the ANN's {percent(self.judged.ann_accuracy)}, {number(self.judged.ratio)} times its energy."
            )
        return " ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        front = pareto_front([*self.points, *self.anns])
        return {
            "margin": self.margin,
            "leads": self.leads,
            "recommended": self.recommended,
            "text": self.text,
            "best": {flow: equal.as_dict() for flow, equal in self.best.items()},
            "closest": {flow: equal.as_dict() for flow, equal in self.closest.items()},
            "judged": None if self.judged is None else self.judged.as_dict(),
            "points": [p.as_dict() | {"pareto": p in front} for p in self.listed],
            "missing": list(self.missing),
            "label": "modelled",
        }


def _in_words(equal: Equal) -> str:
    snn, ann = (f"{p.name}, {percent(p.accuracy)}" for p in (equal.snn, equal.ann))
    flow = equal.flow.replace("_", " ")
    return f"({snn}) costs {equal.text} the {equal.opponent} ({ann}) {flow}, modelled; accuracies by cross-validation"


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
        digests = [_digest(fold_of(data, fold)) for fold in range(FOLDS + 1)]  # refuses too few groups
        trials = list(plan(config))
        # spawned: a forked child would have torch's locks without the threads that release them
        own = executor or ProcessPoolExecutor(options.processes, mp_context=get_context("spawn"))
        with nullcontext(own) if executor else own as workers:
            team = _Team(run_dir, config, digests, workers, options.processes, end, say)
            tasks = [(trial, fold) for trial in trials for fold in range(FOLDS)]
            team.train(tasks)
            whole = [trial for trial in trials if all((trial, fold) in team.done for fold in range(FOLDS))]
            if not any(trial.mode == "ann" for trial in whole) or not any(trial.mode != "ann" for trial in whole):
                raise InputError(f"{run_dir}: no time for an ANN and an SNN with {FOLDS} folds each; give more minutes")
            points = [point for trial in whole for point in pooled([team.done[trial, fold] for fold in range(FOLDS)])]
            result = _result(points, share, config, [trial.name for trial in trials if trial not in whole])
            best = result.best.get(result.leads)
            if best is not None:
                sides = [_trial_of(point, whole) for point in (best.snn, best.ann)]
                team.train([(trial, seed) for seed in _JUDGED for trial in sides])
                result = replace(result, judged=_judged(team, best, sides, result.leads))
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


def plan(config: RunConfig) -> Iterator[Trial]:
    """Return the networks to try: the twin, then ANNs, then SNNs, few steps first; own sequences keep their steps."""
    most = config.dataset.T
    steps = {1, most} if has_fixed_steps(config.dataset) else {count for count in _STEPS if count < most} | {most}
    penalties = _WEIGHTS[:1] if any(layer.kind == "rlif" for _, layer in config.layers) else _WEIGHTS
    for weight in penalties:
        for width in _ANN_WIDTHS:
            yield Trial("ann", most, width, weight)
    for count in sorted(steps):
        for weight in penalties:
            for width in _WIDTHS:
                yield Trial(config.train.mode, count, width, weight)


def fold_of(data: Dataset, fold: int) -> Dataset:
    """Return the data of a fold: its test split is every `FOLDS`-th group of the training and validation samples.

    Groups are in a fixed order, and stay whole. The others train, and validate in the proportion of the two splits.
    From `FOLDS` on: the data themselves. Raises InputError where whole groups leave a split empty.
    """
    if fold >= FOLDS:
        return data
    splits = (data.train, data.validation)
    pixels, labels = (torch.cat([getattr(split, key) for split in splits]) for key in ("pixels", "labels"))
    numbers = torch.cat([_group_numbers(data.train), len(data.train) + _group_numbers(data.validation)])
    groups, members = np.unique(numbers.numpy(), return_inverse=True)
    place = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)).argsort()[members]
    order = place.argsort(stable=True)
    of_fold = [order[place[order] % FOLDS == k] for k in range(FOLDS)]
    others = torch.cat([of_fold[k] for k in range(FOLDS) if k != fold])
    # the proportion of the run's own splits, so that the choice of an epoch sees as many
    kept = round(len(others) * len(data.validation) / len(labels))
    while 0 < kept < len(others) and place[others[kept]] == place[others[kept - 1]]:
        kept += 1
    train, validation, test = (
        replace(data.train, pixels=pixels[at], labels=labels[at], groups=None)
        for at in (others[kept:], others[:kept], of_fold[fold])
    )
    if not (len(train) and len(validation) and len(test)):
        raise InputError(f"expected groups for {FOLDS} folds, each with training samples; found {len(groups)} groups")
    return replace(data, train=train, validation=validation, test=test)


def _group_numbers(split: Split) -> torch.Tensor:
    """Return the number of each sample's group; samples without groups are one each."""
    return torch.arange(len(split)) if split.groups is None else split.groups


def _digest(data: Dataset) -> str:
    """Return a hash of the samples of each split, in their order."""
    hashed = sha256()
    for split in (data.train, data.validation, data.test):
        for values in (split.pixels, split.labels):
            hashed.update(values.numpy().tobytes())
    return hashed.hexdigest()


@dataclass
class _Team:
    """Trains and measures networks in parallel. done: the points of each trial's folds.

    digests: of the data of each fold, and of the run's own.
    """

    run_dir: Path
    base: RunConfig
    digests: Sequence[str]
    workers: Executor
    processes: int
    end: float
    say: Console
    done: dict[tuple[Trial, int], list[Point]] = field(default_factory=dict)

    def folder(self, trial: Trial, fold: int) -> Path:
        """Return the folder of a training: named by all that decides its result."""
        decides = (__version__, trial.config(self.base, fold).model_dump_json(), self.digests[min(fold, FOLDS)])
        return self.run_dir / FOLDER / trial.name / f"{fold}-{sha256(' '.join(decides).encode()).hexdigest()[:8]}"

    def train(self, tasks: Sequence[tuple[Trial, int]]) -> None:
        """Train and measure, unless it is done already; begin none after the time limit."""
        waiting, running = list(tasks), dict[Future[Path], tuple[Trial, int]]()
        cores = max(1, (cpu_count() or 1) // self.processes)
        while waiting or running:
            while waiting and len(running) < self.processes:
                trial, fold = task = waiting.pop(0)
                folder = self.folder(trial, fold)
                if time.monotonic() < self.end or (folder / POINTS).is_file():
                    running[self.workers.submit(carry_out, self.run_dir, trial, fold, folder, cores)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial, fold = running.pop(future)
                try:
                    file = future.result()
                except StlDeployError as error:  # one that diverged, say, is no point; the others are
                    self.say.warn(f"left out: {error}")
                    continue
                self.done[trial, fold] = read_points(file)
                self.say.say(f"{len(self.done)} networks: {trial.name}, fold {fold + 1}")


def pooled(folds: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the points that each fold has, by name: decisions one after the other, steps and joules as means."""
    by_name = [{point.name: point for point in fold} for fold in folds]
    shared = [name for name in by_name[0] if all(name in fold for fold in by_name)]
    return [_joined([fold[name] for fold in by_name]) for name in shared]


def _joined(points: Sequence[Point]) -> Point:
    right = np.concatenate([point.decided for point in points])
    sizes = np.array([len(point.decided) for point in points]) / len(right)

    def mean(values: Sequence[float]) -> float:
        return float(np.dot(sizes, values))

    batched = [point.layer_by_layer_J for point in points if point.layer_by_layer_J is not None]
    return replace(
        points[0],
        steps=mean([point.steps for point in points]),
        accuracy=float(right.mean()),
        joules=mean([point.joules for point in points]),
        layer_by_layer_J=mean(batched) if len(batched) == len(points) else None,
        samples="cross-validation",
        right=right,
    )


def _result(points: Sequence[Point], margin: float, config: RunConfig, missing: Sequence[str]) -> Optimised:
    snn, ann, counts = (tuple(p for p in points if p.kind == kind) for kind in ("SNN", "ANN", "counts"))
    leads: Flow = "layer_by_layer" if config.dataset.encoder == "direct" else "streaming"
    return Optimised(snn, ann, counts, margin, leads, None, tuple(missing))


def _trial_of(point: Point, trials: Sequence[Trial]) -> Trial:
    """Return the trial that a point is of: its name begins with the trial's, and one trial's name with another's."""
    # "ANN, half width" begins "ANN, half width, energy penalised", too: the longest name is the trial's
    return max((trial for trial in trials if point.name.startswith(trial.name)), key=lambda trial: len(trial.name))


def _judged(team: _Team, best: Equal, sides: Sequence[Trial], flow: Flow) -> Judged | None:
    """Compare the two networks as trained on the run's own split, for each seed that there was time for."""
    accuracies, ratios = [], []
    for seed in _JUDGED:
        both = zip(sides, (best.snn, best.ann), strict=True)
        points = [p for trial, wanted in both for p in team.done.get((trial, seed), ()) if p.name == wanted.name]
        if len(points) == 2:
            accuracies.append([point.accuracy for point in points])
            ratios.append(points[0].cost(flow) / points[1].cost(flow))
    if not ratios:
        return None
    snn, ann = np.mean(accuracies, axis=0).tolist()
    return Judged(snn, ann, tuple(ratios))


def carry_out(base: Path, trial: Trial, fold: int, folder: Path, cores: int) -> Path:
    """Train a fold of a trial of the run ``base`` into ``folder``, unless it is there, and measure it on held-out data.

    Returns its points' file. Runs in a process of its own, on this machine or another that sees the same files.
    """
    torch.set_num_threads(cores)
    if (folder / POINTS).is_file():
        return folder / POINTS
    config = trial.config(load_config(base / CONFIG), fold)
    data = fold_of(load_dataset(config.dataset), fold)
    if not (folder / MODEL).is_file():
        resume = (folder / CHECKPOINT).is_file()
        fit(config, folder, resume=resume, overwrite=not resume, data=data, say=Console(quiet=True))
    points = _ann_points(folder, trial, data) if trial.mode == "ann" else _snn_points(folder, trial, data)
    rows = [point.as_dict() | {"right": "".join("01"[int(each)] for each in point.decided)} for point in points]
    write_json(folder / POINTS, {"points": rows})
    return folder / POINTS


_LOST = {"exit": 0.0, "early exit": 0.01}
"""Kinds of exit, and the share of accuracy that each may lose on validation data."""


def _snn_points(folder: Path, trial: Trial, data: Dataset) -> Iterator[Point]:
    """Return a network's points at its steps, and stopped once sure by a margin picked on validation data."""
    config = load_config(folder / CONFIG)
    with temporary_folder() as temporary:
        program = fold_run(folder, temporary / "net.nir", data=data).program

    def on(split: Split) -> TradeoffPoint:
        given = encode_split(config, split)
        return TradeoffPoint(trial.name, trial.mode, program, given.x, given.labels)

    candidate = on(data.test)
    yield snn_point(candidate, trial.steps, None)
    for kind, lost in _LOST.items() if trial.steps > 1 else ():
        margin = exit_margin(on(data.validation), lost)
        if margin is not None:
            named = replace(candidate, name=f"{trial.name}, {kind}")
            yield from exit_points(named, None, [margin])


def _ann_points(folder: Path, trial: Trial, data: Dataset) -> Iterator[Point]:
    """Return an ANN's point, and of one without penalty its conversion to spike counts at one step."""
    config = load_config(folder / CONFIG)
    given = encode_split(config, data.test)
    structure = structure_of(folder)
    yield ann_point(trial.name, structure, measure_twin(structure, folder, given.x, given.labels))
    if trial.weight:
        return
    parts = [encode_split(config, split) for split in (data.train, data.validation, data.test)]
    (x, y), (x_val, y_val), (x_test, y_test) = ((part.x[0], part.labels) for part in parts)
    arrays = from_arrays(x, y, x_val=x_val, y_val=y_val, x_test=x_test, y_test=y_test)
    net = convert(AtOnce(load_network(folder)[0]), arrays, within=1.0, progress=False)
    name = f"counts at T = 1, {width_name(trial.width)}"
    counts = TradeoffPoint(name, "ann", net.program, given.x, given.labels)
    yield replace(snn_point(counts, 1, None), kind="counts")


def read_points(file: Path) -> list[Point]:
    """Read the points of one network; raise InputError for a file of another form."""
    try:
        rows = read_json(file)["points"]
        return [Point.of({**row, "right": np.array([c == "1" for c in row["right"]])}) for row in rows]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{file}: not as {verb('optimise')} writes it; remove it, and it is measured again") from None
