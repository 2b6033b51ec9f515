"""The results as Markdown: a table, and where methods are compared the differences between runs of the same seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from examples.study.noise import KINDS
from examples.study.select import Record, Value, datasets, labels_of, pairs, values, where
from examples.study.statistics import Mean, Paired, holm, mean, paired

Records = Mapping[str, Sequence[Record]]
_NAMES = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_PAIR_HEAD = ("difference (points)", "95 % interval", "pairs", "p (t)", "p (t, Holm)", "p (Wilcoxon)", "d_z")


def tables(records: Records) -> str:
    """All parts that have records."""
    makers = {
        "modes": _modes,
        "thresholds": _thresholds,
        "granularity": _granularity,
        "noise": _noise,
        "depth": _depth,
    }
    parts = [make(records[part]) for part, make in makers.items() if records.get(part)]
    trajectories = [_trajectories(records["modes"])] if records.get("modes") else []
    return "\n\n".join([*parts, *trajectories]) + "\n"


def _modes(records: Sequence[Record]) -> str:
    modes = ("stl", "sl", "tl", "ann")
    rows = [
        (name(dataset), mode.upper(), shown(mean(values(found))), str(len(found)), _rates(found))
        for dataset, mode in product(datasets(records), modes)
        if (found := where(records, dataset, mode=mode))
    ]
    compared = [
        (
            f"{name(dataset)}: {a.upper()} - {b.upper()}",
            where(records, dataset, mode=a),
            where(records, dataset, mode=b),
        )
        for dataset in datasets(records)
        for a, b in (("stl", "sl"), ("stl", "tl"), ("stl", "ann"), ("sl", "ann"))
    ]
    head = ("dataset", "mode", "test accuracy (%)", "seeds", "spikes per neuron and step, by layer")
    return _part("1. Learning modes", _table(head, rows), _compared(compared), "modes")


def _thresholds(records: Sequence[Record]) -> str:
    forms = {"STL": ("stl", "raw"), "STL, θ = θ₀·exp(ρ)": ("stl", "positive"), "SL": ("sl", "raw")}
    rows, compared = [], []
    for dataset, initial in product(datasets(records), labels_of(records, "initial")):
        found = {
            form: where(records, dataset, mode=mode, parametrisation=how, initial=initial)
            for form, (mode, how) in forms.items()
        }
        cells = [shown(mean(values(f))) if f else "" for f in found.values()]
        rows.append((name(dataset), f"{initial:g}", *cells, _rates(found["STL"]), _rates(found["SL"])))
        raw, positive, sl = found.values()
        compared += [
            (f"{name(dataset)}, θ₀ = {initial:g}: STL - SL", raw, sl),
            (f"{name(dataset)}, θ₀ = {initial:g}: STL, θ₀·exp(ρ) - SL", positive, sl),
        ]
    head = ("dataset", "initial θ", *(f"{form} (%)" for form in forms), "rates, STL", "rates, SL")
    return _part("2. Initial thresholds", _table(head, rows), _compared(compared), "thresholds")


def _granularity(records: Sequence[Record]) -> str:
    rows, compared = [], []
    for dataset, norm in product(datasets(records), (False, True)):
        said = "with batch norm" if norm else "without batch norm"
        base = where(records, dataset, granularity="none", norm=norm)
        for of in labels_of(records, "granularity"):
            found = where(records, dataset, granularity=of, norm=norm)
            if found:
                learned = "fixed (SL)" if of == "none" else f"STL, one per {of}"
                rows.append((name(dataset), said, learned, shown(mean(values(found))), str(len(found))))
            if of != "none":
                compared.append((f"{name(dataset)}, {said}: per {of} - fixed", found, base))
    head = ("dataset", "network", "thresholds", "test accuracy (%)", "seeds")
    return _part("3. Granularity, with and without batch norm", _table(head, rows), _compared(compared), "granularity")


def _noise(records: Sequence[Record]) -> str:
    rows, compared = [], []
    levels = list(next(iter(records))["noise"][KINDS[0]])
    for dataset, kind in product(datasets(records), KINDS):
        by_mode = {mode: where(records, dataset, mode=mode) for mode in ("stl", "sl", "tl")}
        for mode, found in by_mode.items():
            at = [f"{fmean(values(found, _under(kind, level))):.2f}" for level in levels] if found else []
            clean = f"{fmean(100 * record['clean'] for record in found.values()):.2f}" if found else ""
            rows.append((name(dataset), kind, mode.upper(), clean, *at))
        for other in ("sl", "tl"):
            label = f"{name(dataset)}, {kind}, mean over levels: STL - {other.upper()}"
            compared.append((label, by_mode["stl"], by_mode[other], _mean_under(kind)))
    head = ("dataset", "noise", "mode", "clean (%)", *(f"{level} (%)" for level in levels))
    return _part("4. Noise", _table(head, rows), _compared(compared), "noise")


def _depth(records: Sequence[Record]) -> str:
    rows, compared = [], []
    for dataset, layers in product(datasets(records), labels_of(records, "layers")):
        found = {mode: where(records, dataset, mode=mode, layers=layers) for mode in ("stl", "sl", "ann")}
        for mode, of in found.items():
            if of:
                rows.append((name(dataset), str(layers), mode.upper(), shown(mean(values(of))), _rates(of), *_work(of)))
        compared.append((f"{name(dataset)}, {layers} hidden: STL - SL", found["stl"], found["sl"]))
        compared.append((f"{name(dataset)}, {layers} hidden: STL - ANN", found["stl"], found["ann"]))
    head = ("dataset", "hidden layers", "mode", "test accuracy (%)", "rates, by layer")
    counted = ("synops AC", "synops MAC", "ANN MACs", "SNN / ANN energy (modelled)")
    return _part("5. Depth", _table((*head, *counted), rows), _compared(compared), "depth")


def _trajectories(records: Sequence[Record]) -> str:
    rows = []
    for dataset, mode in product(datasets(records), ("stl", "sl", "tl")):
        found = where(records, dataset, mode=mode)
        for layer in next(iter(found.values()))["test"]["thresholds"] if found else ():
            of = {key: values(found, _threshold(layer, key)) for key in ("min", "mean", "max")}
            shares = [
                f"{100 * fmean(values(found, _share(key, layer))):.1f}"
                for key in ("at_or_below_zero", "silent", "saturated")
            ]
            thresholds = (shown(mean(of["mean"]), 3), f"{min(of['min']):.2f} to {max(of['max']):.2f}")
            rows.append((name(dataset), mode.upper(), layer, *thresholds, *shares))
    ends = ("mean θ", "least to greatest θ", "θ <= 0 (% of neurons)", "silent (%)", "saturated (%)")
    return _part(
        "6. Thresholds at the picked epoch", _table(("dataset", "mode", "layer", *ends), rows), "", "trajectories"
    )


def _part(title: str, table: str, compared: str, figure: str) -> str:
    picture = f"![{title}](../examples/study/results/{figure}.svg)"
    return "\n\n".join(block for block in (f"### {title}", table, compared, picture) if block)


def _compared(rows: Iterable[tuple[Any, ...]]) -> str:
    """Each row: what is compared, the two sets of records by seed, and, unless accuracy, the value."""
    found: list[tuple[str, Paired]] = []
    for label, first, second, *value in rows:
        common = pairs(first, second, *value)
        if common[0]:
            found.append((label, paired(*common)))
    tested = [(label, pair) for label, pair in found if pair.p_t is not None]
    adjusted = dict(
        zip((label for label, _ in tested), holm([p.p_t for _, p in tested if p.p_t is not None]), strict=True)
    )
    lines = [(label, *_pair(pair, adjusted.get(label))) for label, pair in found]
    return _table(("compared", *_PAIR_HEAD), lines)


def _pair(pair: Paired, adjusted: float | None) -> tuple[str, ...]:
    difference = pair.difference
    interval = ""
    if difference.half is not None:
        interval = f"{difference.value - difference.half:+.2f} to {difference.value + difference.half:+.2f}"
    ps = (_p(p) for p in (pair.p_t, adjusted, pair.p_wilcoxon))
    effect = "" if pair.effect is None else f"{pair.effect:+.1f}"
    return f"{difference.value:+.2f}", interval, str(difference.n), *ps, effect


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _work(found: Mapping[int, Record]) -> tuple[str, ...]:
    if not all("counts" in record for record in found.values()):
        return "", "", "", ""
    counts = [record["counts"] for record in found.values()]
    cells = (f"{fmean(count[key] for count in counts):,.0f}" for key in ("synops_AC", "synops_MAC", "ann_macs"))
    return *cells, f"{fmean(count['snn_joules'] / count['ann_joules'] for count in counts):.2f}"


def _rates(found: Mapping[int, Record]) -> str:
    if not found:
        return ""
    layers = next(iter(found.values()))["test"]["rates"]
    return ", ".join(f"{fmean(record['test']['rates'][layer] for record in found.values()):.3f}" for layer in layers)


def _under(kind: str, level: str) -> Value:
    return lambda record: 100 * float(record["noise"][kind][level])


def _mean_under(kind: str) -> Value:
    return lambda record: 100 * fmean(record["noise"][kind].values())


def _threshold(layer: str, key: str) -> Value:
    return lambda record: float(record["test"]["thresholds"][layer][key])


def _share(key: str, layer: str) -> Value:
    return lambda record: float((record[key] if key in record else record["test"][key])[layer])


def shown(value: Mean, digits: int = 2) -> str:
    """A mean and its interval."""
    half = "" if value.half is None else f" ± {value.half:.{digits}f}"
    return f"{value.value:.{digits}f}{half}"


def name(dataset: str) -> str:
    """A dataset's name for people."""
    return _NAMES[dataset]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
