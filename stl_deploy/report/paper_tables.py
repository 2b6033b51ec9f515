"""Tables for papers: several runs as LaTeX, CSV and BibTeX, and a sentence to cite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_json, require_folder, write_text
from stl_deploy._util.remedies import energy_again, option, verb
from stl_deploy._util.tables import csv_table
from stl_deploy.energy.models.frontier import FLOWS
from stl_deploy.energy.models.ratios import number, si
from stl_deploy.errors import InputError
from stl_deploy.pipeline.artifacts import labels_of
from stl_deploy.runs.manifest import check_unchanged

LATEX, CSV, BIB = "report.tex", "report.csv", "report.bib"
_ESCAPED = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
_NEEDED = ("energy.json", "verify.json")
_OF_EQUALS = ("snn", "ann", "ratio", "interval")
"""Of the comparison at equal accuracy, in each dataflow."""
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
    texts[CSV] = csv_table(rows) if csv_file else ""
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
    equal = energy["frontier"]["at_equal_accuracy"] if "frontier" in energy else {flow: {} for flow in FLOWS}
    chip: dict[str, Any] = next((line for line in energy["chips"] if line["chip"] == "loihi1"), {})
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
        **{f"equal_{flow}_{key}": equal[flow].get(key) for flow in FLOWS for key in _OF_EQUALS},
        "loihi1_J": chip.get("total_J"),
        "loihi1_s": chip.get("latency_s"),
        "prices": sorted({cell["prices"] for cell in energy["comparisons"]}),
        "label": "modelled",
    }


def _latex(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    lines = [
        f"% {sentence(keys)}",
        "% Equal: the cheapest SNN against the cheapest ANN of equal accuracy, streaming / layer by layer.",
        r"\begin{tabular}{lrrrrrrrl}",
        r"\toprule",
        r"Network & Accuracy & ANN & $T$ & SynOps & Streaming & Layer by layer & Equal & Loihi 1 \\",
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
            " / ".join(_times(row[f"equal_{flow}_ratio"]) for flow in FLOWS),
            _loihi(row["loihi1_J"]),
        ]
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _loihi(joules: Sequence[float] | None) -> str:
    return "not placed" if joules is None else _escaped(si((joules[0], joules[1]), "J")).replace("µ", r"\textmu{}")


def _share(value: float | None) -> str:
    return "--" if value is None else f"{100 * value:.2f}\\,\\%"


def _times(value: float | None) -> str:
    return "--" if value is None else f"{number(value)}$\\times$"


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in text if character.isprintable())


def _bib(keys: Sequence[str]) -> str:
    return "\n\n".join([_TOOL.format(version=version("stl-deploy")), *(ENTRIES[key] for key in keys), ""])


ENTRIES: dict[str, str] = {
    "horowitz2014": """@inproceedings{horowitz2014,
  author    = {Horowitz, Mark},
  title     = {1.1 Computing's energy problem (and what we can do about it)},
  booktitle = {IEEE International Solid-State Circuits Conference (ISSCC)},
  year      = {2014},
  pages     = {10--14},
  doi       = {10.1109/ISSCC.2014.6757323},
}""",
    "jouppi2021": """@inproceedings{jouppi2021,
  author    = {Jouppi, Norman P. and others},
  title     = {Ten Lessons From Three Generations Shaped {Google's} {TPUv4i}},
  booktitle = {ACM/IEEE International Symposium on Computer Architecture (ISCA)},
  year      = {2021},
  pages     = {1--14},
  doi       = {10.1109/ISCA52012.2021.00010},
}""",
    "davies2018": """@article{davies2018,
  author  = {Davies, Mike and others},
  title   = {Loihi: A Neuromorphic Manycore Processor with On-Chip Learning},
  journal = {IEEE Micro},
  volume  = {38},
  number  = {1},
  pages   = {82--99},
  year    = {2018},
  doi     = {10.1109/MM.2018.112130359},
}""",
    "boyle2025": """@article{boyle2025,
  author  = {Boyle, James A. and others},
  title   = {{SANA-FE}: Simulating Advanced Neuromorphic Architectures for Fast Exploration},
  journal = {IEEE Transactions on Computer-Aided Design of Integrated Circuits and Systems},
  volume  = {44},
  number  = {8},
  year    = {2025},
}""",
    "ostrau2022": """@article{ostrau2022,
  author  = {Ostrau, Christoph and others},
  title   = {Benchmarking Neuromorphic Hardware and Its Energy Expenditure},
  journal = {Frontiers in Neuroscience},
  volume  = {16},
  pages   = {873935},
  year    = {2022},
  doi     = {10.3389/fnins.2022.873935},
}""",
    "blouw2019": """@inproceedings{blouw2019,
  author    = {Blouw, Peter and Choo, Xuan and Hunsberger, Eric and Eliasmith, Chris},
  title     = {Benchmarking Keyword Spotting Efficiency on Neuromorphic Hardware},
  booktitle = {Neuro-inspired Computational Elements Workshop (NICE)},
  year      = {2019},
  note      = {arXiv:1812.01739},
}""",
}
"""Key to entry."""

_CITED: dict[str, tuple[str, ...]] = {
    "horowitz45_fp32": ("horowitz2014", "jouppi2021"),
    "horowitz45_int8": ("horowitz2014", "jouppi2021"),
    "horowitz45_int8_acc32": ("horowitz2014", "jouppi2021"),
    "jouppi7_fp32": ("jouppi2021",),
    "jouppi7_int8_acc32": ("jouppi2021",),
    "loihi1_davies2018": ("davies2018",),
    "loihi1_sanafe": ("boyle2025",),
    "spinnaker1_board": ("ostrau2022",),
    "loihi1": ("blouw2019", "davies2018", "boyle2025"),
}


def cited(names: Iterable[str]) -> tuple[str, ...]:
    """Return the BibTeX keys of price lists and chips, each once; those without an entry have none."""
    return tuple(dict.fromkeys(key for name in names for key in _CITED.get(name, ())))
