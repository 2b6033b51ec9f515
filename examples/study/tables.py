"""The results as Markdown: a table, and where methods are compared the differences between runs of the same seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean

from examples.study import comparisons
from examples.study.claims import Answer, answers, deep_answers, quoted_ann, quoted_snn
from examples.study.comparisons import Comparison, Row, compare
from examples.study.noise import KINDS
from examples.study.select import Record, Records, Value, datasets, labels_of, name, values, where
from examples.study.statistics import Mean, Paired, mean
from examples.study.when import advice, conditions, levels

_PAIR_HEAD = ("difference (points)", "95 % interval", "pairs", "p (t)", "p (t, Holm)", "p (Wilcoxon)", "d_z", "finding")


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
    later = {"modes": _trajectories, "when": _when, "deep": _deep}
    parts += [make(records[part]) for part, make in later.items() if records.get(part)]
    return "\n\n".join([_claims(records), *parts]) + "\n"


def _claims(records: Records) -> str:
    return f"### The paper's claims\n\n{_answered(answers(records))}"


def _answered(found: Sequence[Answer]) -> str:
    rows = [
        (
            answer.claim.claim,
            answer.comparison.label,
            f"{answer.comparison.pair.difference.value:+.2f} {answer.claim.unit}",
            _interval(answer.comparison.pair),
            _p(answer.comparison.adjusted),
            f"**{answer.verdict}**",
        )
        for answer in found
    ]
    return _table(("claimed of STL", "measured here", "difference", "95 % interval", "p (t, Holm)", "here"), rows)


def _modes(records: Sequence[Record]) -> str:
    modes = ("stl", "sl", "tl", "ann")
    rows = [
        (name(dataset), mode.upper(), shown(mean(values(found))), str(len(found)), _rates(found))
        for dataset, mode in product(datasets(records), modes)
        if (found := where(records, dataset, mode=mode))
    ]
    head = ("dataset", "mode", "test accuracy (%)", "seeds", "spikes per neuron and step, by layer")
    return _part("1. Learning modes", _table(head, rows), _compared(comparisons.modes(records)), "modes")


def _thresholds(records: Sequence[Record]) -> str:
    forms = {"STL": ("stl", "raw"), "STL, θ = θ₀·exp(ρ)": ("stl", "positive"), "SL": ("sl", "raw")}
    rows = []
    for dataset, initial in product(datasets(records), labels_of(records, "initial")):
        by_mode = {
            form: where(records, dataset, mode=mode, parametrisation=how, initial=initial)
            for form, (mode, how) in forms.items()
        }
        cells = [shown(mean(values(f))) if f else "" for f in by_mode.values()]
        rows.append((name(dataset), f"{initial:g}", *cells, _rates(by_mode["STL"]), _rates(by_mode["SL"])))
    head = ("dataset", "initial θ", *(f"{form} (%)" for form in forms), "rates, STL", "rates, SL")
    return _part("2. Initial thresholds", _table(head, rows), _compared(comparisons.thresholds(records)), "thresholds")


def _granularity(records: Sequence[Record]) -> str:
    rows = []
    for dataset, norm in product(datasets(records), (False, True)):
        said = "with batch norm" if norm else "without batch norm"
        for of in labels_of(records, "granularity"):
            selected = where(records, dataset, granularity=of, norm=norm)
            if selected:
                learned = "fixed (SL)" if of == "none" else f"STL, one per {of}"
                rows.append((name(dataset), said, learned, shown(mean(values(selected))), str(len(selected))))
    head = ("dataset", "network", "thresholds", "test accuracy (%)", "seeds")
    title = "3. Granularity, with and without batch norm"
    return _part(title, _table(head, rows), _compared(comparisons.granularity(records)), "granularity")


def _noise(records: Sequence[Record]) -> str:
    rows = []
    levels = list(next(iter(records))["noise"][KINDS[0]])
    for dataset, kind in product(datasets(records), KINDS):
        by_mode = {mode: where(records, dataset, mode=mode) for mode in ("stl", "sl", "tl")}
        for mode, selected in by_mode.items():
            at = [f"{fmean(values(selected, _under(kind, level))):.2f}" for level in levels] if selected else []
            clean = f"{fmean(100 * record['clean'] for record in selected.values()):.2f}" if selected else ""
            rows.append((name(dataset), kind, mode.upper(), clean, *at))
    head = ("dataset", "noise", "mode", "clean (%)", *(f"{level} (%)" for level in levels))
    return _part("4. Noise", _table(head, rows), _compared(comparisons.noise(records)), "noise")


def _depth(records: Sequence[Record]) -> str:
    rows = []
    for dataset, layers in product(datasets(records), labels_of(records, "layers")):
        by_modes = {mode: where(records, dataset, mode=mode, layers=layers) for mode in ("stl", "sl", "ann")}
        for mode, of in by_modes.items():
            if of:
                rows.append((name(dataset), str(layers), mode.upper(), shown(mean(values(of))), _rates(of), *_work(of)))
    head = ("dataset", "hidden layers", "mode", "test accuracy (%)", "rates, by layer")
    counted = ("synops AC", "synops MAC", "ANN MACs", "SNN / ANN energy (modelled)")
    return _part("5. Depth", _table((*head, *counted), rows), _compared(comparisons.depth(records)), "depth")


def _trajectories(records: Sequence[Record]) -> str:
    rows = []
    for dataset, mode in product(datasets(records), ("stl", "sl", "tl")):
        selected = where(records, dataset, mode=mode)
        for layer in next(iter(selected.values()))["test"]["thresholds"] if selected else ():
            of = {key: values(selected, _threshold(layer, key)) for key in ("min", "mean", "max")}
            shares = [
                f"{100 * fmean(values(selected, _share(key, layer))):.1f}"
                for key in ("at_or_below_zero", "silent", "saturated")
            ]
            thresholds = (shown(mean(of["mean"]), 3), f"{min(of['min']):.2f} to {max(of['max']):.2f}")
            rows.append((name(dataset), mode.upper(), layer, *thresholds, *shares))
    ends = ("mean θ", "least to greatest θ", "θ <= 0 (% of neurons)", "silent (%)", "saturated (%)")
    return _part(
        "6. Thresholds at the picked epoch", _table(("dataset", "mode", "layer", *ends), rows), "", "trajectories"
    )


def _when(records: Sequence[Record]) -> str:
    """A dataset's levels, its rule and its conditions, one after the other."""
    blocks = []
    for dataset in datasets(records):
        of = [record for record in records if record["dataset"] == dataset]
        rows_of_dataset = conditions(of)
        if not rows_of_dataset:
            continue
        both = [(f"{condition.accuracies[0]:.2f}", f"{condition.accuracies[1]:.2f}") for condition in rows_of_dataset]
        compared = compare([condition.row for condition in rows_of_dataset])
        rows = [(c.label, *cells, *_pair(c)) for c, cells in zip(compared, both, strict=True)]
        rule = f"**{name(dataset)}**, the rule drawn from its levels:\n\n{advice(of)}"
        blocks += [
            rule,
            _compared(levels(rows_of_dataset), "level"),
            _table(("condition", "SL (%)", "STL (%)", *_PAIR_HEAD), rows),
        ]
    return _part("7. When to learn thresholds: STL - SL", "\n\n".join(blocks), "", "when")


def _deep(records: Sequence[Record]) -> str:
    rows, ratios = [], []
    for dataset, layers in product(datasets(records), labels_of(records, "layers")):
        by_modes = {mode: where(records, dataset, mode=mode, layers=layers) for mode in ("stl", "sl", "ann")}
        for mode, of in by_modes.items():
            if of:
                head = (name(dataset), str(layers), mode.upper(), shown(mean(values(of))), str(len(of)))
                rows.append((*head, _mean_rate(of) if mode != "ann" else "", *_work(of)[:3], *_joules(of)))
        for mode in ("stl", "sl"):
            if by_modes[mode]:
                ratios.append((name(dataset), str(layers), mode.upper(), *_by_dataflow(list(by_modes[mode].values()))))
    counted = ("synops AC", "synops MAC", "ANN MACs", "SNN (nJ)", "ANN (nJ)", "SNN / ANN")
    table = _table(("dataset", "convolutions", "mode", "test accuracy (%)", "seeds", "mean rate", *counted), rows)
    flows = [f"weights {fetch.replace('_', ' ')}, sums in {sums}" for fetch, sums in _FLOWS]
    dataflows = _table(("dataset", "convolutions", "mode", *flows, "cells where the SNN costs less"), ratios)
    said = (
        "The SNN costs so many times its trained ANN, mean over seeds, from the least to the most of four price lists:"
    )
    tables = "\n\n".join((table, said, dataflows))
    return _part('8. The claim "low energy in deep networks"', tables, _answered(deep_answers(records)), "deep")


_FLOWS = tuple(product(("per_event", "per_step", "per_inference"), ("memory", "registers")))


def _by_dataflow(found: Sequence[Record]) -> list[str]:
    """Ratios under each dataflow, and in how many cells of the grid their mean is below 1."""
    cells: dict[tuple[str, str, str], list[float]] = {}
    for record in found:
        for cell in record["counts"]["grid"]:
            key = cell["dataflow"], cell["sums"], cell["prices"]
            cells.setdefault(key, []).append(cell["snn_joules"] / cell["ann_joules"])
    means = {key: fmean(of) for key, of in cells.items()}
    shown = []
    for flow in _FLOWS:
        of_flow = [mean for key, mean in means.items() if key[:2] == flow]
        shown.append(f"{min(of_flow):.2f} to {max(of_flow):.2f}")
    return [*shown, f"{sum(mean < 1 for mean in means.values())} of {len(means)}"]


def _joules(found: Mapping[int, Record]) -> tuple[str, ...]:
    """Of the quoted cell, in nJ, and their ratio with its interval."""
    counted = [record for record in found.values() if "counts" in record]
    if not counted:
        return "", "", ""
    both = [[1e9 * of(record) for record in counted] for of in (quoted_snn, quoted_ann)]
    ratio = mean([snn / ann for snn, ann in zip(*both, strict=True)])
    return f"{fmean(both[0]):,.0f}", f"{fmean(both[1]):,.0f}", shown(ratio)


def _mean_rate(found: Mapping[int, Record]) -> str:
    return f"{fmean(fmean(record['test']['rates'].values()) for record in found.values()):.3f}"


def _part(title: str, table: str, compared: str, figure: str) -> str:
    picture = f"![{title}](results/{figure}.svg)"
    return "\n\n".join(block for block in (f"### {title}", table, compared, picture) if block)


def _compared(rows: Sequence[Row], what: str = "compared") -> str:
    return _table((what, *_PAIR_HEAD), [(c.label, *_pair(c)) for c in compare(rows)])


def _pair(comparison: Comparison) -> tuple[str, ...]:
    pair = comparison.pair
    ps = (_p(p) for p in (pair.p_t, comparison.adjusted, pair.p_wilcoxon))
    effect = "" if pair.effect is None else f"{pair.effect:+.1f}"
    difference = pair.difference
    return f"{difference.value:+.2f}", _interval(pair), str(difference.n), *ps, effect, comparison.finding


def _interval(pair: Paired) -> str:
    middle, half = pair.difference.value, pair.difference.half
    return "" if half is None else f"{middle - half:+.2f} to {middle + half:+.2f}"


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


def _threshold(layer: str, key: str) -> Value:
    return lambda record: float(record["test"]["thresholds"][layer][key])


def _share(key: str, layer: str) -> Value:
    return lambda record: float((record[key] if key in record else record["test"][key])[layer])


def shown(value: Mean, digits: int = 2) -> str:
    """A mean and its interval."""
    half = "" if value.half is None else f" ± {value.half:.{digits}f}"
    return f"{value.value:.{digits}f}{half}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
