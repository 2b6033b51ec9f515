"""Report on a run folder: one HTML page and its JSON twin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_input, read_json, write_json, write_text
from stl_deploy._util.remedies import energy_again, verb
from stl_deploy._util.untrusted import parse_errors_as_input_errors, read_text
from stl_deploy.config.schema import DatasetConfig, RunConfig
from stl_deploy.energy.measure import SCHEMA_VERSION
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, run
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.tradeoff import JSON as TRADEOFF
from stl_deploy.report.page import Accuracy, ParityRow, Raster, ReportData, Thresholds, render_report, report_json
from stl_deploy.report.page.plots import FIGURES, write_figures
from stl_deploy.report.text.energy import layers_csv
from stl_deploy.runs.candidates import read_tradeoff
from stl_deploy.runs.manifest import check_unchanged
from stl_deploy.runs.source import TEST_INPUT, graph_of, open_program, open_source
from stl_deploy.training.checkpoint import load_network, model_facts
from stl_deploy.training.run_files import METRICS

HTML, JSON, CSV = "report.html", "report.json", "layers.csv"
_MOST_NAMES = 20
_NEEDED = ("manifest.json", "verify.json", "energy.json", METRICS, TEST_INPUT)
_LOADED = ("config.yaml", "model.safetensors")


def report(run_dir: Path, *, figures: bool = False, say: Console = QUIET) -> dict[str, Any]:
    """Write report.html and report.json into a finished run folder; return the JSON.

    figures: also write each figure as SVG, PDF and CSV into its folder ``figures``.

    Raises InputError if a file that the report is made of is missing or damaged.
    """
    graph = graph_of(run_dir)
    needed = ("net.nir" if graph is None else graph.name, *_NEEDED)
    for name in needed:
        if not (run_dir / name).is_file():
            raise InputError(f"{run_dir}: expected a folder that {verb('run')} has finished; found no {name}")
    as_written = check_unchanged(run_dir, [*needed, *_LOADED, TRADEOFF])
    with (
        nullcontext()
        if as_written
        else parse_errors_as_input_errors(run_dir, f"a folder as {verb('run')} writes it", ours=True)
    ):
        data = _gather(run_dir)
        twin = report_json(data)
        page, layers = render_report(data), layers_csv(twin["energy"])
    write_text(run_dir / HTML, page)
    write_json(run_dir / JSON, twin)
    write_text(run_dir / CSV, layers)
    if figures:
        write_figures(twin, run_dir / FIGURES)
    say.say(f"written: {run_dir / HTML} (opens offline), {run_dir / JSON} and {run_dir / CSV}")
    return twin


def _gather(run_dir: Path) -> ReportData:
    network, config = load_network(run_dir)
    facts, manifest = model_facts(run_dir), read_json(run_dir / "manifest.json")
    verified = read_json(run_dir / "verify.json")
    x, _ = read_input(run_dir / TEST_INPUT)
    try:
        accuracies = [Accuracy(**row) for row in verified["rows"]["accuracy"]]
        parity = [ParityRow(**row) for row in verified["rows"]["parity"]]
        assumptions, environment = verified["assumptions"], manifest["versions"]
        if not all(isinstance(value, str | None) for value in environment.values()):
            raise TypeError("versions")
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{run_dir}: verify.json or manifest.json is not as {verb('run')} writes it ({error})"
        ) from None
    dataset, folder = config.dataset.name, run_dir.resolve().name
    return ReportData(
        title=dataset if dataset == folder else f"{dataset}: {folder}",
        summary=_summary(config, facts, network),
        accuracy=accuracies,
        curves=list(_records(run_dir / METRICS)),
        thresholds=list(thresholds_of(network)),
        rasters=list(rasters(open_program(open_source(run_dir)), x[:, :1])),
        raster_sample="the first test sample",
        parity=parity,
        energy=_energy(run_dir),
        tradeoff=read_tradeoff(run_dir / TRADEOFF) if (run_dir / TRADEOFF).is_file() else None,
        assumptions=assumptions,
        environment=environment,
    )


def _energy(run_dir: Path) -> dict[str, Any]:
    """Read the run's energy.json; raise InputError if another version wrote it."""
    energy: dict[str, Any] = read_json(run_dir / "energy.json")
    version, again = energy.get("schema_version"), energy_again(run_dir)
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{run_dir}: energy.json: expected schema_version {SCHEMA_VERSION}; found {version}; make it again: {again}"
        )
    missing = sorted(
        {"verdict", "comparisons", "by_layer", "chips", "models", "ann_twin", "placement", "sensitivity"} - set(energy)
    )
    if missing:
        raise InputError(f"{run_dir}: energy.json has no '{missing[0]}'; make it again: {again}")
    return energy


def _summary(config: RunConfig, facts: Mapping[str, Any], network: Network) -> dict[str, str]:
    weights = sum(p.numel() for name, p in network.named_parameters() if "threshold" not in name)
    thetas = sum(theta.numel() for theta in network.thresholds().values())
    return {
        **_data(config.dataset),
        "network": " - ".join(network.layers),
        "learning mode": config.train.mode,
        "time steps": str(config.time_steps),
        "input": config.encoder,
        "reset": "to 0" if config.neuron.reset == "zero" else "by the threshold",
        "decision": {"mean": "mean over time", "max": "maximum over time", "first": "first spike"}[network.decision],
        "learned numbers": f"{weights:,} weights and {thetas:,} thresholds",
        "epochs": f"{facts['epochs']}, the weights of epoch {facts['epoch']} kept (lowest validation loss)",
        "seed": str(config.train.seed),
        "training time": f"{facts['seconds']:.1f} s (measured)",
    }


def _data(dataset: DatasetConfig) -> dict[str, str]:
    """Describe the data: the name, and for own data path, hash and classes."""
    if dataset.sha256 is None:
        return {"data set": dataset.name}
    names = dataset.classes or ()
    shown = ", ".join(names[:_MOST_NAMES]) + f", ... ({len(names)} in all)" * (len(names) > _MOST_NAMES)
    return {"data set": f"{dataset.name}: {dataset.path}", "sha256 of the data": dataset.sha256, "classes": shown}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_text(path, "metrics.jsonl", 2**26).splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise InputError(f"{path}: line {number} is not JSON; train again or remove the line") from None


def thresholds_of(network: Network) -> Iterator[Thresholds]:
    """Yield each layer's thresholds before and after training."""
    for name, lif in network.lifs:
        before = np.broadcast_to(lif.threshold_init.cpu().numpy(), lif.threshold.shape)
        yield Thresholds(name, lif.granularity, before, lif.threshold.detach().cpu().numpy())


def rasters(program: Program, x: NetworkInput) -> Iterator[Raster]:
    """Return the spikes of the first sample of ``x`` in every population; pools of spikes have none."""
    names = [node.name for node in program.spiking if node.decay is not None]
    for name, recorded in run(program, x, record=names).recorded.items():
        yield Raster(name, recorded[:, 0].reshape(len(recorded), -1).astype(int))
