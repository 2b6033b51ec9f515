"""The results as Markdown: a table, and where methods are compared the differences between runs of the same seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean

from examples.study import comparisons
from examples.study.claims import answers
from examples.study.comparisons import Comparison, Row, compare
from examples.study.noise import KINDS
from examples.study.select import Record, Records, Value, datasets, labels_of, name, values, where
from examples.study.statistics import Mean, Paired, mean

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
    trajectories = [_trajectories(records["modes"])] if records.get("modes") else []
    return "\n\n".join([_claims(records), *parts, *trajectories]) + "\n"


def _claims(records: Records) -> str:
    rows = [
        (
            answer.claim.claim,
            answer.comparison.label,
            f"{answer.comparison.pair.difference.value:+.2f} {answer.claim.unit}",
            _interval(answer.comparison.pair),
            _p(answer.comparison.adjusted),
            f"**{answer.verdict}**",
        )
        for answer in answers(records)
    ]
    head = ("claimed of STL", "measured here", "difference", "95 % interval", "p (t, Holm)", "here")
    return f"### The paper's claims\n\n{_table(head, rows)}"


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
        found = {
            form: where(records, dataset, mode=mode, parametrisation=how, initial=initial)
            for form, (mode, how) in forms.items()
        }
        cells = [shown(mean(values(f))) if f else "" for f in found.values()]
        rows.append((name(dataset), f"{initial:g}", *cells, _rates(found["STL"]), _rates(found["SL"])))
    head = ("dataset", "initial θ", *(f"{form} (%)" for form in forms), "rates, STL", "rates, SL")
    return _part("2. Initial thresholds", _table(head, rows), _compared(comparisons.thresholds(records)), "thresholds")


def _granularity(records: Sequence[Record]) -> str:
    rows = []
    for dataset, norm in product(datasets(records), (False, True)):
        said = "with batch norm" if norm else "without batch norm"
        for of in labels_of(records, "granularity"):
            found = where(records, dataset, granularity=of, norm=norm)
            if found:
                learned = "fixed (SL)" if of == "none" else f"STL, one per {of}"
                rows.append((name(dataset), said, learned, shown(mean(values(found))), str(len(found))))
    head = ("dataset", "network", "thresholds", "test accuracy (%)", "seeds")
    title = "3. Granularity, with and without batch norm"
    return _part(title, _table(head, rows), _compared(comparisons.granularity(records)), "granularity")


def _noise(records: Sequence[Record]) -> str:
    rows = []
    levels = list(next(iter(records))["noise"][KINDS[0]])
    for dataset, kind in product(datasets(records), KINDS):
        by_mode = {mode: where(records, dataset, mode=mode) for mode in ("stl", "sl", "tl")}
        for mode, found in by_mode.items():
            at = [f"{fmean(values(found, _under(kind, level))):.2f}" for level in levels] if found else []
            clean = f"{fmean(100 * record['clean'] for record in found.values()):.2f}" if found else ""
            rows.append((name(dataset), kind, mode.upper(), clean, *at))
    head = ("dataset", "noise", "mode", "clean (%)", *(f"{level} (%)" for level in levels))
    return _part("4. Noise", _table(head, rows), _compared(comparisons.noise(records)), "noise")


def _depth(records: Sequence[Record]) -> str:
    rows = []
    for dataset, layers in product(datasets(records), labels_of(records, "layers")):
        found = {mode: where(records, dataset, mode=mode, layers=layers) for mode in ("stl", "sl", "ann")}
        for mode, of in found.items():
            if of:
                rows.append((name(dataset), str(layers), mode.upper(), shown(mean(values(of))), _rates(of), *_work(of)))
    head = ("dataset", "hidden layers", "mode", "test accuracy (%)", "rates, by layer")
    counted = ("synops AC", "synops MAC", "ANN MACs", "SNN / ANN energy (modelled)")
    return _part("5. Depth", _table((*head, *counted), rows), _compared(comparisons.depth(records)), "depth")


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


def _compared(rows: Sequence[Row]) -> str:
    return _table(("compared", *_PAIR_HEAD), [(c.label, *_pair(c)) for c in compare(rows)])


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
