"""Both frontiers over seeds: ``python -m benchmarks.energy_seeds PRESET FOLDER --set train.epochs=2``.

Trains ANNs and SNNs of several widths with several seeds on the preset's own split, measures accuracy on the test split
and models energy. Prints for each SNN the ratio to the cheapest ANN whose mean accuracy is no lower; its range is that
of 1,000 resamples of the test images, the same for all, and of each network's seeds. Writes FOLDER/seeds.json.
Trained networks stay in FOLDER; the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import write_json
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.energy.models.frontier import FLOWS, Flow, Point
from stl_deploy.energy.models.ratios import number, si
from stl_deploy.runs.train import fit
from stl_deploy.training.run_files import MODEL
from stl_deploy.verbs import searching
from stl_deploy.verbs.searching import POINTS, Trial, read_points

RESAMPLES = 1000


@dataclass(frozen=True)
class Network:
    """A network trained with several seeds, one point each."""

    points: Sequence[Point]

    @property
    def name(self) -> str:
        """Its name, with the mean steps of an early exit."""
        steps = "" if self.points[0].margin is None else f" ({np.mean([p.steps for p in self.points]):.3g} steps)"
        return self.points[0].name + steps

    @property
    def right(self) -> NDArray[np.float64]:
        """``[seeds, images]``."""
        return np.stack([point.decided for point in self.points]).astype(float)

    def costs(self, flow: Flow) -> NDArray[np.float64]:
        """Return the joules of each seed."""
        return np.array([point.cost(flow) for point in self.points])


def ratio(snn: Network, anns: Sequence[Network], flow: Flow) -> dict[str, Any]:
    """Compare the means over seeds; where no ANN is as accurate, with the most accurate."""
    rng = np.random.default_rng(0)
    every = [snn, *anns]
    images = snn.right.shape[1]
    draws = [np.full((1, images), 1 / images), rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images]
    picks: list[NDArray[np.intp]] = []
    ratios: list[NDArray[np.float64]] = []
    for weights in draws:
        accuracies, costs = [], []
        for each in every:
            seeds = len(each.points)
            drawn = np.arange(seeds)[None] if len(weights) == 1 else rng.integers(0, seeds, (RESAMPLES, seeds))
            by_seed = weights @ each.right.T
            accuracies.append(np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1))
            costs.append(each.costs(flow)[drawn].mean(axis=1))
        of_snn, of_anns, joules = accuracies[0], np.stack(accuracies[1:]), np.stack(costs[1:])
        # sums of floats in another order may differ by their last digit
        is_equal = of_anns >= of_snn - 1e-9
        cheapest = np.where(is_equal, joules, np.inf).argmin(axis=0)
        picked = np.where(is_equal.any(axis=0), cheapest, of_anns.argmax(axis=0))
        picks.append(picked)
        ratios.append(costs[0] / joules[picked, np.arange(len(picked))])
    ann = anns[int(picks[0][0])]
    return {
        "flow": flow,
        "ann": ann.name,
        "as_accurate": bool(ann.right.mean() >= snn.right.mean() - 1e-9),
        "ratio": float(ratios[0][0]),
        "interval": np.quantile(ratios[1], (0.025, 0.975)).tolist(),
    }


def trials(widths: Sequence[float], spiking: Sequence[str], mode: str, most: int, weights: Sequence[float]) -> Any:
    """Yield ANNs by width, and SNNs as STEPS:WIDTH."""
    for weight in weights:
        yield from (Trial("ann", most, width, weight) for width in widths)
        for text in spiking:
            steps, _, width = text.partition(":")
            yield Trial(mode, int(steps), float(width), weight)


def measured(base: RunConfig, trial: Trial, seed: int, folder: Path, *, counts: bool) -> list[Point]:
    """Train one network, unless it is there, and measure it on the test split."""
    if not (folder / POINTS).is_file():
        start, config = process_time(), trial.config(base, seed)
        data = load_dataset(config.dataset)
        if not (folder / MODEL).is_file():
            fit(config, folder, resume=False, overwrite=True, data=data, say=Console(quiet=True))
        kind = searching._ann_points if trial.mode == "ann" else searching._snn_points
        points = list(islice(kind(folder, trial, data), None if counts or trial.mode != "ann" else 1))
        rows = [p.as_dict() | {"right": "".join("01"[int(each)] for each in p.decided)} for p in points]
        write_json(folder / POINTS, {"points": rows})
        print(f"{trial.name}, seed {seed}: {points[0].accuracy:.2%}, {process_time() - start:.0f} s of CPU", flush=True)
    return read_points(folder / POINTS)


def by_name(seeds: Sequence[Sequence[Point]]) -> Iterator[Network]:
    """Yield the networks that every seed has."""
    for first in seeds[0]:
        same = [point for points in seeds for point in points if point.name == first.name]
        if len(same) == len(seeds):
            yield Network(same)


def row_of(network: Network, anns: Sequence[Network] = ()) -> dict[str, Any]:
    """Return a network's means over seeds, and its ratios."""
    accuracies = network.right.mean(axis=1)
    row: dict[str, Any] = {"name": network.name, "accuracy": float(accuracies.mean())}
    row["accuracies"] = accuracies.tolist()
    row |= {f"{flow}_J": float(network.costs(flow).mean()) for flow in FLOWS}
    return row | {"ratios": [ratio(network, anns, flow) for flow in FLOWS] if anns else []}


def in_words(row: dict[str, Any]) -> str:
    """Format a row of a table."""
    least, most = min(row["accuracies"]), max(row["accuracies"])
    cells = [row["name"], f"{row['accuracy']:.2%} ({least:.2%} to {most:.2%})"]
    cells += [si((row[f"{flow}_J"],) * 2, "J") for flow in reversed(FLOWS)]
    for each in reversed(row["ratios"]):
        low, high = map(number, each["interval"])
        behind = "" if each["as_accurate"] else "; none as accurate"
        cells.append(f"{number(each['ratio'])} ({low} to {high}), {each['ann']}{behind}")
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ann", type=float, nargs="+", default=[1.0, 0.75, 0.5, 0.25], metavar="WIDTH")
    parser.add_argument("--snn", nargs="+", default=["4:1", "2:1", "2:0.5"], metavar="STEPS:WIDTH")
    parser.add_argument("--energy-weight", type=float, nargs="+", default=[0.0])
    parser.add_argument("--counts", type=float, nargs="+", default=[], metavar="WIDTH", help="ANNs to convert, too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    base = load_config(given.preset, given.set)
    if given.data_dir is not None:
        base = base.with_values(dataset={"data_dir": given.data_dir})
    plan = list(trials(given.ann, given.snn, base.train.mode, base.dataset.T, given.energy_weight))
    done: dict[str, list[list[Point]]] = {trial.name: [] for trial in plan}
    for seed in range(given.seeds):
        for trial in plan:
            folder, counts = given.folder / trial.name / str(seed), trial.mode == "ann" and trial.width in given.counts
            done[trial.name].append(measured(base, trial, seed, folder, counts=counts))
    networks = [network for seeds in done.values() for network in by_name(seeds)]
    of_kind = {kind: [n for n in networks if n.points[0].kind == kind] for kind in ("ANN", "SNN", "counts")}
    rows = {kind: [row_of(n, of_kind["ANN"] if kind != "ANN" else ()) for n in ns] for kind, ns in of_kind.items()}
    write_json(given.folder / "seeds.json", {"preset": given.preset, "set": given.set, "seeds": given.seeds} | rows)
    for kind, listed in rows.items():
        print(kind, *map(in_words, listed), sep="\n")


if __name__ == "__main__":
    main()
