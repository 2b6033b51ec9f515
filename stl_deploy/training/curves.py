"""Write a run's metrics as plots: loss, accuracy, spike rates and thresholds over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context

from stl_deploy._util.files import whole_file
from stl_deploy.nn.network import Network

FILE = "curves.svg"


def write_curves(path: Path, records: Sequence[Mapping[str, Any]], network: Network) -> None:
    """Draw the records of a run (see `stl_deploy.training.loop.Record`) and the network's thresholds as one SVG."""
    with context(["default", {"svg.hashsalt": "stl-deploy", "font.size": 8}]):
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        _lines(axes[0], "loss", records, {"training": ("loss",), "validation": ("validation_loss",)})
        accuracies = {"training": ("train_accuracy",), "validation": ("validation_accuracy",)}
        _lines(axes[1], "accuracy", records, accuracies)
        layers = list(records[0]["rates"])
        _lines(axes[2], "spikes per neuron and step", records, {name: ("rates", name) for name in layers})
        _thresholds(axes[3], records)
        _histogram(axes[4], network)
        silent = {f"{name} silent": ("silent", name) for name in layers}
        saturated = {f"{name} saturated": ("saturated", name) for name in layers}
        _lines(axes[5], "share of neurons", records, silent | saturated)
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _lines(axes: Axes, title: str, records: Sequence[Mapping[str, Any]], series: Mapping[str, tuple[str, ...]]) -> None:
    for label, keys in series.items():
        values = []
        for record in records:
            value: Any = record
            for key in keys:
                value = value[key]
            values.append(value)
        style = "--" if label.endswith("saturated") else "-"
        axes.plot([record["epoch"] for record in records], values, style, label=label, marker=".", linewidth=1)
    _finish(axes, title, "epoch")


def _thresholds(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    epochs = [record["epoch"] for record in records]
    for name in records[0]["thresholds"]:
        low, mean, high = ([r["thresholds"][name][key] for r in records] for key in ("min", "mean", "max"))
        (line,) = axes.plot(epochs, mean, label=name, marker=".", linewidth=1)
        axes.fill_between(epochs, low, high, alpha=0.15, color=line.get_color())
    _finish(axes, "threshold: least, mean, greatest", "epoch")


def _histogram(axes: Axes, network: Network) -> None:
    for name, theta in network.thresholds().items():
        values = theta.flatten().double().numpy()  # in float32, thresholds an ulp apart leave no room for 30 bins
        axes.hist(values, bins=30, histtype="step", density=False, label=name)
    _finish(axes, "thresholds of the picked epoch", "threshold")


def _finish(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(below)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6, loc="upper right")
