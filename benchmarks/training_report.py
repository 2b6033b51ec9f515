"""Write results of the training benchmarks as JSON, as a page, and as a picture of cost over T."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from stl_deploy._util.files import make_folder, read_json, whole_file, write_json, write_text

STEM = "training-speed"
Found = Mapping[str, Any]
_KINDS = ("train", "infer")
_COLUMNS = ("train", "infer", "peak memory")
_AGAINST_PEERS = ("ours", "ours, highest")
_SETTINGS = (
    "Peers take torch's float32 products as they come, as *ours, highest* does; part of the lead of *ours* is its "
    "setting, which users of a peer could ask torch for."
)


def record(folder: Path, key: str, data: Found) -> None:
    """Put ``found`` under ``key`` (``ours`` or ``peers``) of training-speed.json, and write the page anew."""
    make_folder(folder)
    path = folder / f"{STEM}.json"
    whole = {**(read_json(path) if path.is_file() else {}), key: data}
    write_json(path, whole)
    write_text(folder / f"{STEM}.md", page(whole))
    if whole.get("ours", {}).get("cost"):
        with mpl.rc_context({"svg.hashsalt": "stl-deploy", "svg.fonttype": "none", "font.size": 8}):
            figure = _cost_curves(whole["ours"]["cost"])
            with whole_file(folder / f"{STEM}.svg") as temporary:
                figure.savefig(temporary, format="svg", metadata={"Date": None})


def table(data: Found) -> str:
    """Our contestants' ratios for the terminal."""
    lines = [f"{'ratio to the floor':<25}{'train':>20}{'infer':>20}{'peak memory':>14}"]
    for workload, row in data["workloads"].items():
        for name in row["ratio"]["train"]:
            cells = [f"{row['ratio'][k][name]:.2f} ({row['seconds'][k][name] * 1e3:.0f} ms)" for k in _KINDS]
            lines.append(f"{workload} {name:<22}{cells[0]:>20}{cells[1]:>20}{_ratio(row, 'peak_ratio', name):>14}")
        lines += [f"{workload} as met: {text}" for text in _met(row)]
    for size, row in data["cost"].items():
        lines += [f"{size} = {value:<4} {s * 1e3:8.1f} ms a training step" for value, s in row["seconds"].items()]
    return "\n".join(lines)


def page(whole: Found) -> str:
    """docs/measurements/training-speed.md."""
    blocks = ["# Training and inference against other frameworks"]
    if "ours" in whole:
        blocks += _ours(whole["ours"])
    if "peers" in whole:
        blocks += _peers(whole["peers"])
    if "ours" in whole and "peers" in whole:
        blocks += [
            "## Other frameworks' time over ours",
            _SETTINGS,
            _lines(winners(whole["ours"], whole["peers"])),
        ]
    return "\n\n".join(blocks) + "\n"


def winners(ours: Found, peers: Found) -> Iterable[str]:
    """For each workload and kind: ours, as it comes and with the peers' products, against every peer's best form."""
    for workload, row in ours["workloads"].items():
        for kind in _KINDS:
            best = {
                peer: min(_forms(data["workloads"][workload], kind).values()) for peer, data in _ran(peers, workload)
            }
            for name in _AGAINST_PEERS:
                mine = row["ratio"][kind].get(name)
                if mine is not None and best:
                    yield f"{workload}, {kind}, over {name} ({mine:.2f} of the floor): {_against(mine, best)}"


def _against(mine: float, best: Mapping[str, float]) -> str:
    """Each peer's time over ours."""
    return ", ".join(f"{peer} {ratio / mine:.2f}" for peer, ratio in sorted(best.items(), key=lambda item: item[1]))


def _ours(data: Found) -> list[str]:
    machine = data["machine"]
    rows = []
    for workload, row in data["workloads"].items():
        for name in row["ratio"]["train"]:
            cells = [f"{row['ratio'][k][name]:.2f} ({row['seconds'][k][name] * 1e3:.1f} ms)" for k in _KINDS]
            rows.append((workload, name, *cells, _ratio(row, "peak_ratio", name)))
    met = [f"{workload}: {text}" for workload, row in data["workloads"].items() for text in _met(row)]
    allowed = [
        f"{workload} {row['peak_ratio_allowed']:.2f}"
        for workload, row in data["workloads"].items()
        if "peak_ratio_allowed" in row
    ]
    blocks = [
        "Made by `python -m benchmarks.training` and `python -m benchmarks.peers`. One training step (forward, "
        "backward, Adam) and one inference, as ratios to the *floor*: the same layers as an ANN with time folded into "
        "the batch. Smaller is faster. W1 is the paper's MNIST net (T = 4, batch 32), W2 a small convolutional net "
        "(T = 16, batch 128), W3 an MLP 784-512-512-10 (T = 50, batch 128); one in five input values is a spike. "
        "All contestants take turns in one process, with malloc's thresholds raised. Memory is what two training "
        "steps add at most.",
        "The floor is torch as it comes; ours sets float32 products as training does, here "
        f"'{data['float32_products']}'. *Our products* gives that setting to the floor, *highest* takes it from ours, "
        "*bfloat16* is chosen. *Ours* and *ours, highest* of W3 were measured with kernels that are gone: without "
        "them W3 takes 1.07 (train) and 1.05 (infer) times as long (paired, Emerald Rapids, one thread).",
        f"{machine['processor']}, {machine['threads']} thread(s), torch {data['torch']}, medians of {data['rounds']} "
        "rounds.",
        markdown(("workload", "contestant", *_COLUMNS), rows),
    ]
    if allowed:
        blocks.append(f"The floor's memory and one trace of potentials per layer would be {', '.join(allowed)}.")
    if met:
        blocks += ["## As a user meets it", "Each in a process of its own, as it is started.", _lines(met)]
    density = data.get("by_density", {"ratio": {}})
    if density["ratio"]:
        shown = [(share, *(f"{ratio[k]:.2f}" for k in _KINDS)) for share, ratio in density["ratio"].items()]
        blocks += [
            "## By the input's density",
            f"Our ratio to the floor on {density['workload']} by the share of the input's values that are spikes.",
            markdown(("share", *_KINDS), shown),
        ]
    if data["cost"]:
        blocks += [
            "## Cost over sizes",
            "MLP 784-128-10, T = 16, batch 32, but for the size that varies.",
        ]
        blocks += [f"![Cost over sizes]({STEM}.svg)"]
    return blocks


def _peers(peers: Found) -> list[str]:
    rows, notes = [], []
    for peer, data in peers.items():
        for workload, row in data["workloads"].items():
            for name in _forms(row, "train"):
                cells = [f"{row['ratio'][k][name]:.2f}" for k in _KINDS]
                agree = f"{100 * row['agreement'][name]:.2f}"
                rows.append(
                    (workload, f"{peer} {data['version']}", name, *cells, _ratio(row, "peak_ratio", name), agree)
                )
        notes.append(f"{peer}: {data['notes']}")
    head = ("workload", "framework", "form", *_COLUMNS, "spikes as the authors' (%)")
    return [
        "## Other frameworks",
        "Each in its own environment, where it takes turns with the floor. Synapses, norms, pooling and Adam are "
        "torch's.",
        markdown(head, sorted(rows)),
        _lines(notes),
    ]


def _ran(peers: Found, workload: str) -> list[tuple[str, Found]]:
    return [(peer, data) for peer, data in peers.items() if workload in data["workloads"]]


def _forms(row: Found, kind: str) -> dict[str, float]:
    return {name: ratio for name, ratio in row["ratio"][kind].items() if name != "floor"}


def _ratio(row: Found, key: str, name: str) -> str:
    return f"{row[key][name]:.2f}" if key in row else ""


def _met(row: Found) -> Iterable[str]:
    for kind, seconds in row.get("as_met", {}).items():
        ours, theirs = seconds["ours"], seconds["authors' algorithm"]
        yield f"{kind}: ours {ours * 1e3:.1f} ms, authors' algorithm {theirs * 1e3:.1f} ms: {theirs / ours:.2f} times"


def _cost_curves(cost: Mapping[str, Found]) -> Figure:
    figure = Figure(figsize=(6.4, 2.1 * len(cost)), layout="constrained")
    axes = figure.subplots(len(cost), 2, squeeze=False)
    for row, (size, data) in zip(axes, cost.items(), strict=True):
        panels = {"ms a training step": (data["seconds"], 1e3), "peak memory (MiB)": (data["peak_bytes"], 2.0**-20)}
        for axis, (title, (values, scale)) in zip(row, panels.items(), strict=True):
            if not values:
                axis.set_axis_off()
                continue
            sizes = [int(value) for value in values]
            heights = [scale * value for value in values.values()]
            axis.plot(sizes, heights, marker=".", label="measured")
            axis.plot(
                sizes, [heights[-1] * n / sizes[-1] for n in sizes], "--", color="grey", label=f"linear in {size}"
            )
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
            axis.set_xlabel(size)
            axis.set_title(title)
            axis.legend()
    return figure


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
