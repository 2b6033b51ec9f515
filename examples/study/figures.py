"""The results as small SVG files, one for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.study.claims import quoted_ann, quoted_snn, synops
from examples.study.comparisons import Comparison, compare
from examples.study.noise import KINDS
from examples.study.select import Record, Records, Value, accuracy, datasets, labels_of, name, values, where
from examples.study.statistics import mean
from examples.study.when import WORTH, conditions, levels
from stl_deploy._util.files import whole_file

_COLOURS = {"stl": "tab:blue", "sl": "tab:orange", "tl": "tab:green", "ann": "tab:grey"}
_FINDINGS = {"higher": "tab:blue", "lower": "tab:red", "within noise": "tab:grey", "untested": "tab:grey"}
_STYLE = {"svg.hashsalt": "stl-deploy", "svg.fonttype": "none", "font.size": 8}


def write_figures(records: Records, folder: Path) -> None:
    """A figure ``PART.svg`` for each part that has records, and trajectories.svg."""
    drawers: dict[str, tuple[str, Callable[[Sequence[Record]], Figure]]] = {
        "modes": ("modes", _modes),
        "thresholds": ("thresholds", _thresholds),
        "granularity": ("granularity", _granularity),
        "noise": ("noise", _noise),
        "depth": ("depth", _depth),
        "trajectories": ("modes", _trajectories),
        "when": ("when", _when),
        "deep": ("deep", _deep),
    }
    with mpl.rc_context(_STYLE):
        for figure, (part, draw) in drawers.items():
            if records.get(part):
                with whole_file(folder / f"{figure}.svg") as temporary:
                    draw(records[part]).savefig(temporary, format="svg", metadata={"Date": None})


def _modes(records: Sequence[Record]) -> Figure:
    """Every seed a dot, the mean with its interval beside."""
    names = datasets(records)
    figure, axes = _panels(1, len(names), 3.2)
    for axis, dataset in zip(axes, names, strict=True):
        shown = [mode for mode in ("stl", "sl", "ann") if where(records, dataset, mode=mode)]
        for x, mode in enumerate(shown):
            accuracies = values(where(records, dataset, mode=mode))
            axis.plot([x] * len(accuracies), accuracies, ".", color=_COLOURS[mode], alpha=0.6)
            _point(axis, x + 0.2, accuracies, _COLOURS[mode])
        axis.set_xticks(range(len(shown)), [mode.upper() for mode in shown])
        tl = values(where(records, dataset, mode="tl"))
        below = f" (TL: {mean(tl).value:.1f} %)" if tl else ""
        axis.set_title(f"{name(dataset)}{below}")
        _percent(axis)
    return figure


def _thresholds(records: Sequence[Record]) -> Figure:
    forms = {
        "STL": ("stl", "raw", "tab:blue"),
        "STL, θ₀·exp(ρ)": ("stl", "positive", "tab:cyan"),
        "SL": ("sl", "raw", "tab:orange"),
    }
    names = datasets(records)
    figure, axes = _panels(2, len(names), 2.8)
    for column, dataset in enumerate(names):
        initial = labels_of(records, "initial")
        for label, (mode, how, colour) in forms.items():

            def at(x: Any, mode: str = mode, how: str = how, dataset: str = dataset) -> Mapping[int, Record]:
                return where(records, dataset, mode=mode, parametrisation=how, initial=x)

            _line(axes[column], initial, at, accuracy, label, colour)
            _line(axes[column + len(names)], initial, at, _mean_rate, label, colour)
        for axis in (axes[column], axes[column + len(names)]):
            axis.set_xscale("log", base=2)
            axis.set_xticks(initial, [f"{x:g}" for x in initial])
            axis.set_xlabel("initial threshold")
            axis.set_title(name(dataset))
            axis.legend()
        _percent(axes[column])
        _rates(axes[column + len(names)])
    return figure


def _granularity(records: Sequence[Record]) -> Figure:
    names = datasets(records)
    figure, axes = _panels(1, len(names), 3.2)
    for axis, dataset in zip(axes, names, strict=True):
        kinds = labels_of(records, "granularity")
        for norm, colour in ((False, "tab:purple"), (True, "tab:green")):
            for x, of in enumerate(kinds):
                accuracies = values(where(records, dataset, granularity=of, norm=norm))
                if accuracies:
                    axis.plot([x + 0.3 * norm] * len(accuracies), accuracies, ".", color=colour, alpha=0.6)
                    _point(axis, x + 0.1 + 0.3 * norm, accuracies, colour)
            axis.plot([], [], "o", color=colour, label="batch norm" if norm else "no batch norm")
        axis.set_xticks(range(len(kinds)), ["fixed" if of == "none" else f"per {of}" for of in kinds])
        axis.set_title(name(dataset))
        _percent(axis)
        axis.legend()
    return figure


def _noise(records: Sequence[Record]) -> Figure:
    names = datasets(records)
    figure, axes = _panels(len(names), len(KINDS), 2.4)
    for index, axis in enumerate(axes):
        dataset, kind = names[index // len(KINDS)], KINDS[index % len(KINDS)]
        for mode in ("stl", "sl", "tl"):
            selected = where(records, dataset, mode=mode)
            if selected:
                levels = next(iter(selected.values()))["noise"][kind]
                curves = [
                    [100 * r["clean"], *(100 * r["noise"][kind][level] for level in levels)] for r in selected.values()
                ]
                points = [mean(list(column)) for column in zip(*curves, strict=True)]
                heights, halves = [p.value for p in points], [p.half or 0.0 for p in points]
                xs = [0.0, *map(float, levels)]
                axis.errorbar(xs, heights, halves, color=_COLOURS[mode], label=mode.upper(), marker=".", linewidth=1)
        axis.set_title(f"{name(dataset)}: {kind}")
        axis.set_xlabel("level")
        _percent(axis)
        axis.legend()
    return figure


def _depth(records: Sequence[Record]) -> Figure:
    """Accuracy, spike rates and synops over depth."""
    names = datasets(records)
    figure, axes = _panels(len(names), 3, 2.8)
    for row, dataset in enumerate(names):
        panels = axes[3 * row : 3 * row + 3]
        layers = _modes_over_depth(panels, records, dataset, (_mean_rate, ""), (synops, ": synops"))
        _line(
            panels[2],
            layers,
            lambda x, d=dataset: where(records, d, mode="sl", layers=x),
            _macs,
            "ANN: MACs",
            "tab:grey",
        )
        _depth_axes(panels, layers, "hidden layers", dataset)
        _percent(panels[0])
        _rates(panels[1])
        panels[2].set_ylabel("per inference")
    return figure


def _trajectories(records: Sequence[Record]) -> Figure:
    """Per epoch, mean over seeds: thresholds (from the initial one; band: least to greatest) and each layer's rates."""
    names = datasets(records)
    figure, axes = _panels(len(names), 4, 2.6)
    for row, dataset in enumerate(names):
        by_mode = {mode: where(records, dataset, mode=mode) for mode in ("stl", "sl", "tl")}
        layers = list(next(iter(records))["test"]["rates"])[:2]
        for column, layer in enumerate(layers):
            for mode, of in by_mode.items():
                epochs = [record["epochs"] for record in of.values()]
                if epochs and layer in epochs[0][0]["thresholds"]:
                    xs = [epoch["epoch"] for epoch in epochs[0]]
                    of_epoch = list(zip(*epochs, strict=True))
                    initial = next(iter(of.values()))["config"]["neuron"]["threshold"]
                    thetas = {
                        key: [
                            initial,
                            *(mean([e["thresholds"][layer][key] for e in same_epoch]).value for same_epoch in of_epoch),
                        ]
                        for key in ("min", "mean", "max")
                    }
                    rates = [mean([e["rates"][layer] for e in same_epoch]).value for same_epoch in of_epoch]
                    left, right = axes[4 * row + 2 * column], axes[4 * row + 2 * column + 1]
                    left.plot(
                        [0, *xs], thetas["mean"], color=_COLOURS[mode], label=mode.upper(), marker=".", linewidth=1
                    )
                    left.fill_between([0, *xs], thetas["min"], thetas["max"], color=_COLOURS[mode], alpha=0.12)
                    right.plot(xs, rates, color=_COLOURS[mode], label=mode.upper(), marker=".", linewidth=1)
                    left.set_title(f"{name(dataset)}, {layer}: threshold")
                    right.set_title(f"{name(dataset)}, {layer}: spikes per neuron, step")
        for axis in axes[4 * row : 4 * row + 4]:
            axis.set_xlabel("epoch")
            axis.legend()
    return figure


def _when(records: Sequence[Record]) -> Figure:
    """A forest: STL - SL with its interval, levels above, conditions below; a panel for each dataset."""
    names = datasets(records)
    most = 0
    panels = []
    for dataset in names:
        rows = conditions([record for record in records if record["dataset"] == dataset])
        panels.append((compare(levels(rows)), compare([condition.row for condition in rows])))
        most = max(most, len(panels[-1][0]) + len(panels[-1][1]))
    figure, axes = _panels(1, len(names), 1.4 + 0.16 * most, width=7.0)
    for axis, dataset, blocks in zip(axes, names, panels, strict=True):
        _forest(axis, blocks)
        axis.set_title(f"{name(dataset)}: what learning thresholds adds")
    return figure


def _forest(axis: Axes, blocks: Sequence[Sequence[Comparison]]) -> None:
    place, ticks = 0.0, []
    for block, marker in zip(blocks, ("D", "o"), strict=True):
        for comparison in block:
            difference = comparison.pair.difference
            colour = _FINDINGS[comparison.finding]
            axis.errorbar(
                difference.value, place, xerr=difference.half or 0.0, fmt=marker, markersize=4, capsize=2, color=colour
            )
            ticks.append((place, comparison.label))
            place -= 1
        place -= 1
    for found, colour in list(_FINDINGS.items())[:3]:
        axis.plot([], [], "s", color=colour, label=f"{found} (Holm)")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.axvline(WORTH, color="black", linewidth=0.5, linestyle=":")
    axis.set_xscale("symlog", linthresh=2.0, linscale=1.0)
    at = (-50, -20, -5, -2, -1, 0, 1, 2, 5, 20, 50)
    axis.set_xticks(at, [f"{x:g}" for x in at])
    axis.set_yticks([y for y, _ in ticks], [label for _, label in ticks])
    axis.set_ylim(place + 1, 1)
    axis.set_xlim(-60, 60)
    axis.set_xlabel("STL - SL, points of test accuracy, 95 % interval\ndiamonds: levels (means of conditions)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)


def _deep(records: Sequence[Record]) -> Figure:
    """Accuracy, synops and the cost beside the ANN over depth."""
    names = datasets(records)
    figure, axes = _panels(len(names), 3, 2.8)
    for row, dataset in enumerate(names):
        panels = axes[3 * row : 3 * row + 3]
        layers = _modes_over_depth(panels, records, dataset, (synops, ": synops"), (_cost, ""))

        def of_stl(x: Any, dataset: str = dataset) -> Mapping[int, Record]:
            return where(records, dataset, mode="stl", layers=x)

        _line(panels[1], layers, of_stl, _macs, "ANN: MACs", "tab:grey")
        _line(panels[1], layers, of_stl, _active_macs, "ANN: MACs on non-zeros", "black")
        panels[2].axhline(1, color="black", linewidth=0.8)
        _depth_axes(panels, layers, "convolutions", dataset)
        _percent(panels[0])
        panels[1].set_ylabel("per inference")
        panels[2].set_ylabel("SNN / ANN energy (modelled, quoted cell)")
    return figure


def _modes_over_depth(
    panels: Sequence[Axes], records: Sequence[Record], dataset: str, *spiking: tuple[Value, str]
) -> list[Any]:
    """Accuracy of each mode in the first panel, of the spiking ones a quantity in each other; returns the depths."""
    layers = labels_of(records, "layers")
    for mode in ("stl", "sl", "ann"):

        def at(x: Any, mode: str = mode) -> Mapping[int, Record]:
            return where(records, dataset, mode=mode, layers=x)

        _line(panels[0], layers, at, accuracy, mode.upper(), _COLOURS[mode])
        for axis, (quantity, what) in zip(panels[1:], spiking if mode != "ann" else (), strict=False):
            _line(axis, layers, at, quantity, mode.upper() + what, _COLOURS[mode])
    return layers


def _depth_axes(panels: Sequence[Axes], layers: Sequence[Any], what: str, dataset: str) -> None:
    for axis in panels:
        axis.set_xticks(layers)
        axis.set_xlabel(what)
        axis.set_title(name(dataset))
        axis.legend()


def _panels(rows: int, columns: int, height: float, width: float = 3.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(5.0, width * columns), height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _percent(axis: Axes) -> None:
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 0.0), min(high, 101.0))
    axis.set_ylabel("test accuracy (%)")


def _rates(axis: Axes) -> None:
    axis.set_ylim(max(axis.get_ylim()[0], 0.0))
    axis.set_ylabel("spikes per neuron, step")


def _point(axis: Axes, x: float, found: Sequence[float], colour: str) -> None:
    point = mean(found)
    axis.errorbar(x, point.value, point.half, fmt="o", color=colour, capsize=3)


def _line(
    axis: Axes, xs: Sequence[Any], at: Callable[[Any], Mapping[int, Record]], value: Value, label: str, colour: str
) -> None:
    there = [(x, mean(values(found, value))) for x in xs if (found := at(x))]
    heights, halves = [point.value for _, point in there], [point.half or 0.0 for _, point in there]
    axis.errorbar([x for x, _ in there], heights, halves, color=colour, label=label, marker=".", linewidth=1)


def _mean_rate(record: Record) -> float:
    rates = record["test"]["rates"].values()
    return float(sum(rates) / len(rates))


def _macs(record: Record) -> float:
    return float(record["counts"]["ann_macs"])


def _active_macs(record: Record) -> float:
    return _macs(record) * float(record["counts"]["ann_active"])


def _cost(record: Record) -> float:
    return quoted_snn(record) / quoted_ann(record)
