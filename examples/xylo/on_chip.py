"""Train a network, export it to Xylo, and run its test samples on our model of the chip and on xylosim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.exporters.witnesses.target import XyloSim
from stl_deploy.exporters.xylo.runner import XyloOptions
from stl_deploy.exporters.xylo.simulate import ChipRun, evolve, load, simulate, whole_counts
from stl_deploy.exporters.xylo.specification import Specification
from stl_deploy.graph.compare import compare_node
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import CHUNK, Result, run
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.source import open_program, open_source
from stl_deploy.runs.train import train
from stl_deploy.training.run_files import MODEL
from stl_deploy.verbs.artifacts import export


def trained_to_chip(config: RunConfig, folder: Path, *, device: str | None, count: int | None = None) -> dict[str, Any]:
    """Train (or resume) the run, fold and export it, and compare on its test samples, all or the first ``count``.

    The export is written to ``folder`` with ``_chip`` behind its name. Returns accuracies, and of spikes, potentials
    and currents how many were compared between our model and xylosim and differ (where xylosim is installed).
    """
    if not (folder / MODEL).is_file():
        train(config, folder, resume=folder.is_dir())
    if not (folder / "net.nir").is_file():
        fold_run(folder, folder / "net.nir")
    test = encode_split(config, load_dataset(config.dataset).test, count)
    chip = Path(f"{folder}_chip")
    facts = export(folder, "xylo", chip, verified=False, overwrite=True, device=device)
    program = open_program(open_source(folder))
    ours, run_of_chip = evolve(load(chip), whole_counts(test.x, program.inputs[0].shape), True, _recorded)
    results = {"xylo": ours}
    if XyloSim.available() is None:
        results["xylosim"] = XyloSim(chip, XyloOptions()).run(test.x, record=True)
    summary: dict[str, Any] = {"device": facts["device"], "sequences": test.x.shape[1], "steps": len(test.x)}
    float_run = run(program, test.x, record=[node.name for node in program.spiking], chunk=CHUNK)
    summary["accuracy"] = {"float": accuracy(program, float_run, test.labels)}
    summary["accuracy"] |= {name: accuracy(program, result, test.labels) for name, result in results.items()}
    summary["our model against float"] = {"spikes": differences(ours, float_run)["spikes"]}
    summary["states cut at 16 bits"] = int(run_of_chip.saturated.sum() + run_of_chip.saturated_out.sum())
    if "xylosim" in results:
        summary["xylosim against our model"] = differences(ours, results["xylosim"])
    return summary


def _recorded(spec: Specification, x: NDArray[Any], record: bool) -> ChipRun:
    return simulate(spec, x, record=record)


def differences(ours: Result, theirs: Result) -> dict[str, dict[str, int]]:
    """Of spikes, potentials and currents: how many were compared, and how many differ."""
    spikes = {f"spikes__{name}": array for name, array in ours.recorded.items()}
    others = {f"spikes__{name}": array for name, array in theirs.recorded.items()} | dict(theirs.states)
    nodes = [
        compare_node(name, array, np.asarray(others[name]))
        for name, array in (spikes | dict(ours.states)).items()
        if name in others
    ]
    return {
        what: {
            "compared": sum(node.compared for node in nodes if node.node.startswith(f"{what}__")),
            "differing": sum(node.differing for node in nodes if node.node.startswith(f"{what}__")),
        }
        for what in ("spikes", "v", "i")
    }
