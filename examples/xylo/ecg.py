"""The ECG network on Xylo, from training to the maker's simulator: ``python -m examples.xylo.ecg DATA [RUN] [COUNT]``.

DATA: the folder of QTDB_train.mat and QTDB_test.mat. Trains (or resumes) RUN, default runs/xylo_ecg, exports it, and
runs the test sequences, all or the first COUNT, on our model and, where it is installed, on xylosim. Prints the
accuracy per step and how many spikes, potentials and currents were compared and differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.config.load import load_config
from stl_deploy.data import load_dataset
from stl_deploy.exporters.targets import find_runner
from stl_deploy.graph.accuracy import accuracy
from stl_deploy.graph.compare import compare_node
from stl_deploy.graph.run import CHUNK, Result, run
from stl_deploy.pipeline.export import export
from stl_deploy.pipeline.fold import fold_run
from stl_deploy.pipeline.train import train
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.source import open_program, open_source
from stl_deploy.training.run_folder import MODEL

CONFIG = Path(__file__).with_name("ecg.yaml")


def main(data: str, folder: str = "runs/xylo_ecg", count: str | None = None) -> None:
    """Train, export, run, compare; prints JSON."""
    place, chip = Path(folder), Path(f"{folder}_chip")
    config = load_config(CONFIG, [f"dataset.path={Path(data).absolute()}"])
    if not (place / MODEL).is_file():
        train(config, place, resume=place.is_dir())
    if not (place / "net.nir").is_file():
        fold_run(place, place / "net.nir")
    test = encode_split(config, load_dataset(config.dataset).test, None if count is None else int(count))
    x, labels = test.x, test.labels
    facts = export(place, "xylo", chip, verified=False)
    program = open_program(open_source(place))
    kinds = {name: find_runner(name) for name in ("xylo", "xylosim")}
    results = {
        name: kind(chip, kind.options()).run(x, record=True) for name, kind in kinds.items() if kind.available() is None
    }
    found: dict[str, Any] = {"device": facts["device"], "sequences": x.shape[1], "steps": len(x)}
    found["accuracy"] = {"float": accuracy(program, run(program, x, chunk=CHUNK), labels)}
    found["accuracy"] |= {name: accuracy(program, result, labels) for name, result in results.items()}
    if "xylosim" in results:
        found["xylosim against our model"] = differences(results["xylo"], results["xylosim"])
    print(json.dumps(found, indent=2))


def differences(ours: Result, theirs: Result) -> dict[str, dict[str, int]]:
    """Of spikes, potentials and currents: how many were compared, and how many differ."""
    spikes = {f"spikes__{name}": array for name, array in ours.recorded.items()}
    others = {f"spikes__{name}": array for name, array in theirs.recorded.items()} | dict(theirs.states)
    nodes = [
        compare_node(name, array, np.asarray(others[name])) for name, array in (spikes | dict(ours.states)).items()
    ]
    return {
        what: {
            "compared": sum(node.compared for node in nodes if node.node.startswith(f"{what}__")),
            "differing": sum(node.differing for node in nodes if node.node.startswith(f"{what}__")),
        }
        for what in ("spikes", "v", "i")
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
