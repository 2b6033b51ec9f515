"""Tables for papers: several runs as LaTeX, CSV and BibTeX, and a sentence to cite."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_json, require_folder, write_text
from stl_deploy._util.remedies import energy_again, option, verb
from stl_deploy.energy.models.wording import number, si
from stl_deploy.energy.prices.bibliography import ENTRIES, cited
from stl_deploy.errors import InputError
from stl_deploy.pipeline.artifacts import labels_of
from stl_deploy.runs.manifest import check_unchanged

LATEX, CSV, BIB = "report.tex", "report.csv", "report.bib"
KINDS = ("proved", "measured")
"""Evidence that an ANN is no less accurate than the SNN."""
_ESCAPED = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
_NEEDED = ("energy.json", "verify.json")
_OF_AN_ANN = ("width", "accuracy", "streaming", "layer_by_layer")
_TOOL = """@software{{stl_deploy,
  author  = {{{{The stl-deploy authors}}}},
  title   = {{stl-deploy: train, convert, verify and cost spiking neural networks}},
  version = {{{version}}},
  url     = {{https://github.com/stl-deploy/stl-deploy}},
}}"""


def papers(
    runs: Sequence[Path],
    *,
    latex: bool = True,
    bib: bool = True,
    csv_file: bool = True,
    output: Path | None = None,
    say: Console = QUIET,
) -> list[dict[str, Any]]:
    """Write the requested files about finished runs into ``output``; return a row for each run.

    Args:
        runs: Finished run folders.
        latex: Whether to write a table, ``report.tex``.
        bib: Whether to write BibTeX of the prices' sources, ``report.bib``.
        csv_file: Whether to write every number, ``report.csv``.
        output: Folder for the files (default: the folder of a single run).
        say: Prints progress.

    Raises:
        InputError: For an unfinished run, or several runs without ``output``.
    """
    if output is None and len(runs) != 1:
        raise InputError(f"several runs: expected a folder for their table; found none; give {option('output', 'DIR')}")
    folder = output or runs[0]
    require_folder(folder)
    names = labels_of(list(runs))
    rows = [_row(run_dir, names[run_dir]) for run_dir in runs]
    keys = cited([*(cell for row in rows for cell in row["prices"]), "loihi1"])
    folder.mkdir(parents=True, exist_ok=True)
    texts = {LATEX: _latex(rows, keys) if latex else "", BIB: _bib(keys) if bib else ""}
    texts[CSV] = _csv(rows) if csv_file else ""
    for name, text in texts.items():
        if text:
            write_text(folder / name, text)
            say.say(f"written: {folder / name}")
    say.say(sentence(keys))
    return rows


def sentence(keys: Sequence[str]) -> str:
    """Return a sentence that states the method in a paper."""
    sources = ",".join(("stl_deploy", *keys))
    return (
        f"Energy is modelled by stl-deploy {version('stl-deploy')} from exact operation counts, in 8-bit integers at "
        f"45 nm, memory included, with the same dataflow for SNN and ANN~\\cite{{{sources}}}; it was not measured."
    )


def _row(run_dir: Path, name: str) -> dict[str, Any]:
    for needed in _NEEDED:
        if not (run_dir / needed).is_file():
            raise InputError(f"{run_dir}: expected a folder that {verb('run')} has finished; found no {needed}")
    check_unchanged(run_dir, list(_NEEDED))
    energy, verified = read_json(run_dir / "energy.json"), read_json(run_dir / "verify.json")
    try:
        return _numbers(name, energy, verified)
    except (KeyError, TypeError, IndexError, StopIteration):
        again = "make it again: " + energy_again(run_dir)
        raise InputError(f"{run_dir}: energy.json is of an earlier version, or damaged; {again}") from None


def _numbers(name: str, energy: dict[str, Any], verified: dict[str, Any]) -> dict[str, Any]:
    streaming, batched = energy["quoted"] or {}, energy["quoted_layer_by_layer"] or {}
    totals, batch, twin = energy["totals"], energy["batch"], energy["ann_twin"]
    frontier = energy.get("frontier") or {"points": [], **dict.fromkeys(KINDS)}
    cheapest = {kind: frontier[kind] or {} for kind in KINDS}
    chip = next(line for line in energy["chips"] if line["chip"] == "loihi1")
    accuracy = verified["rows"]["accuracy"]
    return {
        "run": name,
        "accuracy": accuracy[0]["accuracy"] if accuracy else None,
        "ann_accuracy": twin.get("accuracy"),
        "samples": batch,
        "T": energy["T"],
        "synops_AC": totals["synops_AC"] / batch,
        "synops_MAC": totals["synops_MAC"] / batch,
        "spikes": totals["spikes"] / batch,
        "spike_rate": energy["break_even"]["spike_rate"],
        "ann_macs": totals["ann_macs_exact"] / batch,
        "snn_streaming_J": streaming.get("snn_J"),
        "snn_layer_by_layer_J": batched.get("snn_J"),
        "ann_J": streaming.get("ann_J"),
        "streaming": streaming.get("snn_over_ann"),
        "layer_by_layer": batched.get("snn_over_ann"),
        "ann_zeros": streaming.get("ann_zeros"),
        "anns": len(frontier["points"]),
        **{f"{kind}_{key}": cheapest[kind].get(key) for kind in KINDS for key in _OF_AN_ANN},
        "loihi1_J": chip["total_J"],
        "loihi1_s": chip["latency_s"],
        "prices": sorted({cell["prices"] for cell in energy["comparisons"]}),
        "label": "modelled",
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    flat = [{key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in flat)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """Escape a text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _latex(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    lines = [
        f"% {sentence(keys)}",
        "% Proved: against the cheapest ANN proved no less accurate, streaming / layer by layer.",
        "% Measured: against the cheapest ANN that measured no less accurate.",
        r"\begin{tabular}{lrrrrrrrrl}",
        r"\toprule",
        r"Network & Accuracy & ANN & $T$ & SynOps & Streaming & Layer by layer & Proved & Measured & Loihi 1 \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [
            _escaped(row["run"]),
            _share(row["accuracy"]),
            _share(row["ann_accuracy"]),
            str(row["T"]),
            f"{row['synops_AC'] + row['synops_MAC']:,.0f}".replace(",", r"\,"),
            _times(row["streaming"]),
            _times(row["layer_by_layer"]),
            *(_against(row, kind) for kind in KINDS),
            _escaped(si((row["loihi1_J"][0], row["loihi1_J"][1]), "J")).replace("µ", r"\textmu{}"),
        ]
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _against(row: dict[str, Any], kind: str) -> str:
    """Return both ratios to an ANN; "none" where narrower ANNs were compared and none is of that kind."""
    both = row[f"{kind}_streaming"], row[f"{kind}_layer_by_layer"]
    if None in both:
        return "none" if row["anns"] else "--"
    return " / ".join(map(_times, both))


def _share(value: float | None) -> str:
    return "--" if value is None else f"{100 * value:.2f}\\,\\%"


def _times(value: float | None) -> str:
    return "--" if value is None else f"{number(value)}$\\times$"


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in text if character.isprintable())


def _bib(keys: Sequence[str]) -> str:
    return "\n\n".join([_TOOL.format(version=version("stl-deploy")), *(ENTRIES[key] for key in keys), ""])
