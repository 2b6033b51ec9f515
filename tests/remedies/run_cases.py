"""Remedies of trained runs: each is reached on a small run folder and followed."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy._util.files import write_json, write_text
from stl_deploy._util.processes import lost
from stl_deploy.config.run_options import OptimiseOptions, TrainOptions
from stl_deploy.data.datasets import load_dataset
from stl_deploy.data.own import trust
from stl_deploy.energy.context import AnnTwin
from stl_deploy.runs.ann_twin import keep_ann
from stl_deploy.runs.candidates import read_tradeoff
from stl_deploy.runs.configure import configure
from stl_deploy.runs.manifest import UNDER_WAY
from stl_deploy.verbs.searching import POINTS, read_points
from stl_deploy.verbs.weighing import tradeoff
from tests.remedies.room import SMALL, Remedy, Room, said

MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"


def _train(room: Room, *changes: str, output: Path | None = None, **options: Any) -> Path:
    folder = output or room.new("trained")
    verbs.train(configure(str(room.config), [*SMALL, *changes]), folder, **options)
    return folder


def _ann(room: Room) -> Path:
    return room.made("ann", partial(_train, room, "train.mode=ann"))


def _wider_ann(room: Room) -> Path:
    return room.made("wider", partial(_train, room, "train.mode=ann", "network.0.kernel=5", "network.0.padding=2"))


def _resumed(room: Room, folder: Path) -> None:
    _train(room, output=folder, resume=True)


def _python_data(room: Room) -> Any:
    """A configuration that names a Python file, as a run folder of another user does."""
    file = room.folder / "mine.py"
    lines = ["import torch", "from torch.utils.data import TensorDataset", "", "", "def load():"]
    lines += ["    x = torch.arange(24.).reshape(12, 2)", "    return TensorDataset(x, torch.arange(12) % 2)"]
    write_text(file, "\n".join([*lines, ""]))
    changes = {"name": "python", "path": f"{file}:load", "validation_fraction": 0.2, "test_fraction": 0.2}
    return configure(str(room.config), list(SMALL)).dataset.model_copy(update=changes)


def _trusted(room: Room) -> None:
    dataset = _python_data(room)
    before = set(trust.allowed)
    try:
        trust.allow(room.folder / "mine.py")
        load_dataset(dataset)
    finally:
        trust.allowed.clear()
        trust.allowed.update(before)


def _strange_twin(room: Room) -> Path:
    folder = room.new("twin")
    shutil.copytree(_wider_ann(room), folder)
    (folder / CHECKPOINT).unlink()
    return folder


def _keep_ann(room: Room, folder: Path, say: Any = None) -> None:
    from stl_deploy._util.console import QUIET

    keep_ann(configure(str(room.config), list(SMALL)), folder, say or QUIET)


def _broken(room: Room, name: str, content: Any) -> Path:
    """A copy of the run with a file that is not as it was written, its hash taken anew."""
    folder = room.copy("manifest.json")
    write_json(folder / name, content)
    manifest = json.loads((room.run / "manifest.json").read_text(encoding="utf-8"))
    for listed in (manifest["files"],):
        listed.pop(name, None)
    write_json(folder / "manifest.json", manifest)
    return folder


def _energy_without(room: Room, *keys: str) -> Path:
    energy = json.loads((room.run / "energy.json").read_text(encoding="utf-8"))
    return _broken(room, "energy.json", {key: value for key, value in energy.items() if key not in keys})


def _energy_again(folder: Path) -> Path:
    verbs.energy(folder, None, output=folder)
    return folder


class TwoOutputs(nn.Module):
    """Spikes, and their sums."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.neurons = nn.Linear(4, 3), stl.LIF((3,), threshold=0.2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spikes = self.neurons(self.weights(x))
        return spikes, spikes * 2


class Adapting(nn.Module):
    """Neurons whose threshold adapts, which NIR has no node for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.neurons = nn.Linear(4, 3), stl.ALIF((3,), threshold=0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes: torch.Tensor = self.neurons(self.weights(x))
        return spikes


def _capture(room: Room, name: str, output: str = "net.nir", **options: Any) -> Path:
    (room.folder / "modules.py").write_text("from tests.remedies.run_cases import Adapting, TwoOutputs\n")
    path = room.new(output)
    verbs.capture(f"{room.folder / 'modules.py'}:{name}", input_file=room.input, output=path, **options)
    return path


def _bad_points(room: Room) -> Path:
    (room.folder / POINTS).write_text('{"points": [{}]}\n', encoding="utf-8")
    return room.folder / POINTS


def _of_labels(room: Room) -> Path:
    path = room.folder / "labelled.npz"
    np.savez(path, x=room.spikes.numpy(), y=np.arange(6) % 3)
    return path


def _of_samples(room: Room) -> str:
    path = room.folder / "samples.npz"
    np.savez(path, x=np.ones((60, 4), np.float32), y=np.arange(60) % 3)
    return str(path)


RUNS = (
    Remedy(
        "_util/processes.py:lost",
        lambda room: lost("it ended"),
        "finished epochs are kept; continue with resume=True",
        "finished epochs are kept; continue with --resume",
        lambda room: _resumed(room, room.copy(MODEL)),
    ),
    Remedy(
        "data/own/trust.py:require",
        lambda room: load_dataset(_python_data(room)),
        "allow it: stl_deploy.data.own.trust.allow(Path(",
        "say --trust",
        _trusted,
    ),
    Remedy(
        "runs/ann_twin.py:measure_twin",
        lambda room: verbs.energy(room.run, None, ann=room.run),
        "expected an ANN, trained with mode='ann'",
        "expected an ANN, trained with --mode ann",
        lambda room: verbs.energy(room.run, None, ann=_ann(room)),
    ),
    Remedy(
        "runs/ann_twin.py:measure_twin",
        lambda room: verbs.energy(room.run, None, ann=_wider_ann(room)),
        "train the twin with the same configuration and mode='ann'",
        "train the twin with the same configuration and --mode ann",
        lambda room: verbs.energy(room.run, None, ann=_ann(room)),
    ),
    Remedy(
        "energy/context.py:check",
        lambda room: AnnTwin(1, 5, 1, "ann").check(room.net.energy(room.spikes).report.counts),
        "train the twin with the same configuration and mode='ann'",
        "train the twin with the same configuration and --mode ann",
        lambda room: AnnTwin(1, 42, 1, "ann").check(room.net.energy(room.spikes).report.counts),  # 4·6 + 6·3
    ),
    Remedy(
        "runs/ann_twin.py:keep_ann",
        lambda room: _keep_ann(room, _strange_twin(room)),
        "move it elsewhere, and one is trained, or say twin=False",
        "move it elsewhere, and one is trained, or say --no-twin",
        lambda room: _keep_ann(room, room.new("twin")),  # and `room.run` was made with twin=False
    ),
    Remedy(
        "runs/candidates.py:_input",
        lambda room: tradeoff([room.file]),
        "give the input with input_file='X.npz'",
        "give the input with --input X.npz",
        lambda room: tradeoff([room.file], _of_labels(room)),
    ),
    Remedy(
        "runs/candidates.py:read_tradeoff",
        lambda room: read_tradeoff(_broken(room, "tradeoff.json", {"points": [{"name": "x"}]}) / "tradeoff.json"),
        "not as stl_deploy.verbs.energy writes it; write it again, or remove it",
        "not as 'stl-deploy energy' writes it; write it again, or remove it",
        lambda room: read_tradeoff(room.run / "tradeoff.json"),
    ),
    Remedy(
        "verbs/searching.py:read_points",
        lambda room: read_points(_bad_points(room)),
        "not as stl_deploy.verbs.optimise writes it; remove it, and it is measured again",
        "not as 'stl-deploy optimise' writes it; remove it, and it is measured again",
        lambda room: _bad_points(room).unlink(),
    ),
    Remedy(
        "verbs/searching.py:_checked",
        lambda room: verbs.optimise(room.copy(MODEL)),
        "train one with stl_deploy.verbs.run",
        "train one with 'stl-deploy run'",
        lambda room: room.run / MODEL,  # trained by it
    ),
    Remedy(
        "config/run_options.py:__post_init__",
        lambda room: verbs.optimise(room.run, goal="speed"),
        "goal: expected energy; found 'speed'",
        "--for: expected energy; found 'speed'",
        lambda room: OptimiseOptions(goal="energy"),
    ),
    Remedy(
        "config/run_options.py:__post_init__",
        lambda room: verbs.optimise(room.run, minutes=-1),
        "minutes: expected a number from 0 up",
        "--minutes: expected a number from 0 up",
        lambda room: OptimiseOptions(minutes=0),
    ),
    Remedy(
        "config/run_options.py:__post_init__",
        lambda room: verbs.optimise(room.run, processes=0),
        "processes: expected 1 or more",
        "--processes: expected 1 or more",
        lambda room: OptimiseOptions(processes=1),
    ),
    Remedy(
        "verbs/quantising.py:quantise",
        lambda room: verbs.quantise(room.run, room.new("q"), weight_bits=9),
        "weight_bits: expected 2 to 8 bits",
        "--weight-bits: expected 2 to 8 bits",
        lambda room: verbs.quantise(room.run, room.new("q"), weight_bits=8, epochs=0),
    ),
    Remedy(
        "verbs/quantising.py:_train",
        lambda room: verbs.quantise(room.run, room.new("q"), device="cuda:9"),
        "device",
        "--device",
        lambda room: verbs.quantise(room.run, room.new("q"), device="cpu", epochs=0),
    ),
    Remedy(
        "report/paper_tables.py:papers",
        lambda room: verbs.papers([room.run, room.run]),
        "give output=DIR",
        "give -o DIR",
        lambda room: verbs.papers([room.run, room.copy()], output=room.new("papers")),
    ),
    Remedy(
        "report/paper_tables.py:_row",
        lambda room: verbs.papers([_energy_without(room, "comparisons")]),
        "make it again: stl_deploy.verbs.energy(Path(",
        "make it again: stl-deploy energy ",
        lambda room: verbs.papers([_energy_again(_energy_without(room, "comparisons"))]),
    ),
    Remedy(
        "report/paper_tables.py:_row",
        lambda room: verbs.papers([room.copy("verify.json")]),
        "expected a folder that stl_deploy.verbs.run has finished; found no verify.json",
        "expected a folder that 'stl-deploy run' has finished; found no verify.json",
        lambda room: verbs.papers([room.copy()]),
    ),
    Remedy(
        "report/run_report.py:report",
        lambda room: verbs.report(room.copy("verify.json")),
        "expected a folder that stl_deploy.verbs.run has finished; found no verify.json",
        "expected a folder that 'stl-deploy run' has finished; found no verify.json",
        lambda room: verbs.report(room.copy()),
    ),
    Remedy(
        "report/run_report.py:_gather",
        lambda room: verbs.report(_broken(room, "verify.json", {"runs": 3})),
        "stl_deploy.verbs.run writes it",
        "'stl-deploy run' writes it",
        lambda room: verbs.report(room.copy()),
    ),
    Remedy(
        "report/run_report.py:_energy",
        lambda room: verbs.report(_energy_without(room, "comparisons")),
        "make it again: stl_deploy.verbs.energy(Path(",
        "make it again: stl-deploy energy ",
        lambda room: verbs.report(_energy_again(_energy_without(room, "comparisons"))),
    ),
    Remedy(
        "runs/manifest.py:_again",
        lambda room: verbs.energy(_cut_off(room), None),
        "resume=True) of stl_deploy.verbs",
        "make it whole with: stl-deploy run ",
        lambda room: verbs.energy(_whole_again(room), None),
    ),
    Remedy(
        "runs/source.py:open_source",
        lambda room: stl.read(room.c),
        "found an artifact of c; give the graph it was made from, or run the artifact with stl_deploy.verbs.simulate",
        "found an artifact of c; give the graph it was made from, or run the artifact with 'stl-deploy simulate'",
        lambda room: verbs.simulate(room.c, room.input, "loihi", room.new("y.npz")),
    ),
    Remedy(
        "runs/source.py:open_source",
        lambda room: stl.read(room.copy("net.nir")),
        "make it with stl_deploy.verbs.fold(Path(",
        "make it with stl-deploy fold ",
        lambda room: _refolded(room),
    ),
    Remedy(
        "training/checkpoint.py:load_network",
        lambda room: verbs.evaluate(room.copy(MODEL)),
        "continue it with: stl_deploy.train(",
        "continue it with: stl-deploy train --resume -o ",
        lambda room: _resumed(room, room.copy(MODEL)),
    ),
    Remedy(
        "training/checkpoint.py:load_network",
        lambda room: verbs.evaluate(room.copy("config.yaml")),
        "expected a run folder written by stl_deploy.verbs.train",
        "expected a run folder written by 'stl-deploy train'",
        lambda room: verbs.evaluate(room.run),
    ),
    Remedy(
        "config/run_options.py:__post_init__",
        lambda room: TrainOptions(device="gpu"),
        "device: expected auto, cpu, cuda or cuda:N; found 'gpu'",
        "--device: expected auto, cpu, cuda or cuda:N; found 'gpu'",
        lambda room: TrainOptions(device="cpu"),
    ),
    Remedy(
        "training/run_folder.py:require_resumable",
        lambda room: _train(room, output=room.copy(CHECKPOINT), resume=True),
        "overwrite=True trains anew, output names another folder",
        "--overwrite trains anew, -o names another folder",
        lambda room: _train(room, output=room.copy(CHECKPOINT), overwrite=True),
    ),
    Remedy(
        "training/run_folder.py:refuse_replacing",
        lambda room: _train(room, output=room.run, resume=True, overwrite=True),
        "resume and overwrite exclude each other; give one",
        "--resume and --overwrite exclude each other; give one",
        lambda room: _train(room, output=room.copy(), resume=True),
    ),
    Remedy(
        "training/run_folder.py:refuse_replacing",
        lambda room: _train(room, output=room.run),
        "resume=True continues it, overwrite=True replaces it, output names another folder",
        "--resume continues it, --overwrite replaces it, -o names another folder",
        lambda room: _train(room, output=room.copy(), overwrite=True),
    ),
    Remedy(
        "verbs/evaluating.py:evaluate",
        lambda room: verbs.evaluate(room.run, steps=2),
        "data and its options apply to files; a run has test samples of its own",
        "--data and its options apply to files; a run has test samples of its own",
        lambda room: verbs.evaluate(room.run),
    ),
    Remedy(
        "verbs/evaluating.py:_evaluate_file",
        lambda room: verbs.evaluate(room.file),
        "give them with data='X.npz'",
        "give them with --data X.npz",
        lambda room: verbs.evaluate(room.file, data=_of_samples(room), steps=2),
    ),
    Remedy(
        "verbs/capturing.py:capture",
        lambda room: said(lambda say: _capture(room, "TwoOutputs", say=say)),
        "(pick= names another)",
        "(--pick INDEX|NAME names another)",
        lambda room: _capture(room, "TwoOutputs", pick=1),
    ),
    Remedy(
        "verbs/capturing.py:_write",
        lambda room: _capture(room, "Adapting"),
        "write it as a Program, output='",
        "write it as a Program, -o ",
        lambda room: verbs.check(_capture(room, "Adapting", "net.program")),
    ),
)
"""Remedies of trainings, run folders and captured files."""


def _refolded(room: Room) -> stl.SpikingGraph:
    folder = room.copy("net.nir")
    verbs.fold(folder, folder / "net.nir")
    return stl.read(folder)


def _cut_off(room: Room) -> Path:
    folder = room.copy("net.onnx")
    write_json(folder / "manifest.json", {"state": UNDER_WAY})
    return folder


def _whole_again(room: Room) -> Path:
    folder = _cut_off(room)
    verbs.run(verbs.configure(str(folder / "config.yaml")), folder, resume=True, lava=False, twin=False)
    return folder
