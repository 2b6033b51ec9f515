"""Compare convert with SpikingJelly's recipes on one ANN: ``python -m benchmarks.conversion [--seeds 3]``.

Needs SpikingJelly (``pip install --no-deps spikingjelly==2.0.0 tqdm loguru``). A CNN is trained on digits; both sides
calibrate on the same 256 training images, without labels, and are judged on the 540 others. SpikingJelly's networks are
captured, so one counter counts both sides: accuracy measured, synops counted, energy modelled (streaming, int8). Prints
two tables, shortened in docs/comparison.md: what each reaches, and the best of the other side that costs no more.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.energy.models.grid import quoted
from stl_deploy.energy.prices.price_list import middle

TRAINING, CALIBRATION, COUNTED = 1257, 256, 32
STEPS, LEVELS = (2, 4, 8, 16, 32), (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Point:
    """A converted network: accuracy on the test images, synops and joules of one inference."""

    name: str
    accuracy: float
    synops: float
    joules: float


def digits() -> tuple[Tensor, Tensor]:
    """Return the images in [0, 1] and their labels, in the data's order."""
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


def trained(seed: int, x: Tensor, labels: Tensor) -> nn.Module:
    """Train the CNN of the tutorial on the first images."""
    torch.manual_seed(seed)
    cnn = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 10)),
    )
    optimiser = torch.optim.Adam(cnn.parameters(), 3e-3)
    for _ in range(10):
        for batch in torch.randperm(TRAINING).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(cnn(x[batch]), labels[batch]).backward()
            optimiser.step()
    return cnn.eval()


def measured(name: str, net: stl.SpikingGraph, x: Tensor, labels: Tensor) -> Point:
    """Run a network on x as it takes it, ``[T, B, *shape]``, and count what one inference costs."""
    decided = torch.from_numpy(net.simulate(x).y).mean(0).argmax(-1)
    report = net.energy(x[:, :COUNTED]).report
    cell = quoted(report.comparisons)
    assert cell is not None
    synops = report.counts.totals.synops / COUNTED
    return Point(name, (decided == labels).double().mean().item(), synops, middle(cell.energy.snn_J))


def theirs(ann: nn.Module, x: Tensor, test: Tensor, labels: Tensor) -> Iterator[Point]:
    """Yield SpikingJelly's recipes over several numbers of steps; potentials start at 0, as the recipes leave them."""
    from spikingjelly.activation_based import ann2snn, functional

    loader = [(batch, torch.zeros(len(batch), dtype=torch.long)) for batch in x.split(64)]
    recipes = {
        "rate coding, max": ann2snn.RateCodingRecipe(dataloader=loader, mode="max"),
        "rate coding, 99.9 %": ann2snn.RateCodingRecipe(dataloader=loader, mode="99.9%"),
        "local threshold balancing": ann2snn.LocalThresholdBalancingRecipe(dataloader=loader),
    }
    for name, recipe in recipes.items():
        snn = ann2snn.Converter(recipe=recipe).convert(ann).eval()
        for steps in STEPS:
            functional.reset_net(snn)
            net = stl.capture(snn, test[None, :4].expand(4, *test[:4].shape), time="step", progress=False)
            shown = test[None].expand(steps, *test.shape)
            yield measured(f"{name}, T = {steps}", net, shown, labels)


def ours(ann: nn.Module, x: Tensor, test: Tensor, labels: Tensor) -> Iterator[Point]:
    """Yield counts and rates, calibrated with biases on the same images."""
    for form in ("counts", "rates"):
        for levels in LEVELS:
            net = stl.convert(ann, x, levels=levels, form=form, progress=False)
            steps = 1 if form == "counts" else levels
            shown = test[None].expand(steps, *test.shape)
            of = stl.SpikingGraph(net.program)
            yield measured(f"{form}, {'D' if form == 'counts' else 'T'} = {levels}", of, shown, labels)


def best(points: list[Point], most: float, cost: str) -> str:
    """Return the most accurate point that costs no more; a dash if none does."""
    able = [point for point in points if getattr(point, cost) <= most]
    if not able:
        return "-"
    chosen = max(able, key=lambda point: (point.accuracy, -getattr(point, cost)))
    return f"{chosen.accuracy:.2%} ({chosen.name})".replace("%", " %", 1)


def averaged(runs: list[list[Point]]) -> list[Point]:
    """Return the mean of each point over the seeds."""
    return [
        Point(
            same[0].name, *(mean(getattr(point, field) for point in same) for field in ("accuracy", "synops", "joules"))
        )
        for same in zip(*runs, strict=True)
    ]


def table(points: list[Point], others: list[Point]) -> list[str]:
    """Return rows: each point, and the best of the others at equal synops and at equal energy."""
    return [
        f"| {point.name} | {100 * point.accuracy:.2f} % | {point.synops:,.0f} | {1e6 * point.joules:.3g} µJ "
        f"| {best(others, point.synops, 'synops')} | {best(others, point.joules, 'joules')} |"
        for point in points
    ]


def main() -> None:
    """Train, convert on both sides, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    count = parser.parse_args().seeds
    warnings.simplefilter("ignore", UserWarning)
    x, labels = digits()
    test, truth = x[TRAINING:], labels[TRAINING:]
    accuracies, here, there = list[float](), list[list[Point]](), list[list[Point]]()
    for seed in range(count):
        ann = trained(seed, x, labels)
        accuracies.append((ann(test).argmax(-1) == truth).double().mean().item())
        calibration = x[:CALIBRATION]
        here.append(list(ours(ann, calibration, test, truth)))
        there.append(list(theirs(ann, calibration, test, truth)))
    own, other = averaged(here), averaged(there)
    print(f"ANN {100 * mean(accuracies):.2f} % (mean of {count} seeds, {len(test)} images)\n")
    print("| SpikingJelly | accuracy | synops | energy (modelled) | ours, no more synops | ours, no more energy |")
    print("|---|---|---|---|---|---|", *table(other, own), sep="\n")
    print("\n| ours | accuracy | synops | energy (modelled) | theirs, no more synops | theirs, no more energy |")
    print("|---|---|---|---|---|---|", *table(own, other), sep="\n")


if __name__ == "__main__":
    main()
