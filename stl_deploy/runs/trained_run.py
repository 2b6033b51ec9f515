"""`stl_deploy.train`: train from Python, with built-in or own data, and return the run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from stl_deploy._util import processes
from stl_deploy._util.console import Console
from stl_deploy._util.files import make_place, sha256
from stl_deploy._util.keywords import named_options, right_keywords
from stl_deploy._util.lock import alone_in
from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.working import StageConsole, working
from stl_deploy.config.load import apply_overrides, config_of, load_config, preset_names
from stl_deploy.config.options import FoldKeywords, FoldOptions
from stl_deploy.config.schema import DatasetConfig, LinearSpec, LiSpec, RunConfig, TrainConfig, VoteSpec
from stl_deploy.data import ArrayData, from_datasets, load_dataset
from stl_deploy.data.own.arrays import check_arrays, look, to_raw
from stl_deploy.data.sensors import SENSOR_ENCODERS
from stl_deploy.errors import InputError
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.runs.configure import checked, is_own
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.runs.source import read
from stl_deploy.runs.train import train as train_into
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.run_folder import refuse_replacing

if TYPE_CHECKING:
    from stl_deploy.nn.network import Network

DATA_FILE = "data.npz"
"""Data handed over in Python, kept in the run folder, so that it evaluates again from them."""
_SAMPLES = 64
_KEPT = ("validation_fraction", "test_fraction", "seed", "levels", "input_grid", "augment")
"""Keys of a configuration's dataset that are kept where other data take its place."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished training. folder: its run folder, which every verb takes. results: as ``stl-deploy train --json``."""

    folder: Path
    results: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        """Accuracy on the test split."""
        return float(self.results["test"]["accuracy"])

    @property
    def network(self) -> Network:
        """Return the trained network, a torch module in evaluation mode: ``[T, B, *input_shape]`` to votes."""
        return load_network(self.folder)[0]

    @named_options(FoldOptions)
    def graph(self, **options: Unpack[FoldKeywords]) -> SpikingGraph:
        """Fold the network into a graph, also written as ``net.nir``; its sample is encoded test data."""
        done = fold_run(self.folder, self.folder / "net.nir", FoldOptions(**options))
        net = read(self.folder)
        net.sample = encode_split(done.config, done.data.test, _SAMPLES).x
        return net


_OF_CHANGES = {name: f"changes=['train.{name}=VALUE']" for name in TrainConfig.model_fields}


@right_keywords({**_OF_CHANGES, "x": "data", "path": "output"})
def train(
    config: str | Path | Mapping[str, Any] | RunConfig,
    *,
    data: Any = None,
    output: str | Path | None = None,
    changes: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
    progress: bool | None = None,
) -> TrainedRun:
    """Train one model and keep it in a run folder.

    Args:
        config: A preset's name, a YAML file's path, a mapping of its keys, or a `RunConfig`.
        changes: Changes to keys, as for ``--set``.
        data: Replaces the configuration's dataset: torch Datasets ``(train, validation, test)``, ``(train, test)`` or
            one, or the result of `stl_deploy.data.from_arrays`; kept in the run folder as data.npz. A preset's last
            linear layer is resized to the classes.
        output: Run folder; default: ``runs/`` and the configuration's name.
        resume: Continue an interrupted training.
        overwrite: Replace the run or training in the folder.
        quiet: False prints the command line's messages.
        progress: False disables the progress line, which otherwise appears after a few seconds (outside a terminal:
            every ten seconds).

    Raises:
        ConfigError: For an invalid configuration.
        InputError: For invalid data.
        DivergedError: If training meets NaN or infinity.

    Examples:
        >>> run = stl_deploy.train("digits", data=stl_deploy.data.from_arrays(x, y), output="runs/mine")
        >>> net = run.graph()
    """
    folder = Path(output) if output is not None else Path("runs") / _name(config)
    chosen = apply_overrides(_loaded(config), changes)
    refuse_replacing(folder, resume=resume, overwrite=overwrite)
    say = StageConsole() if quiet else Console()
    with working(f"training into {folder}", progress if quiet else False):
        return TrainedRun(folder, _trained(config, chosen, folder, data, changes, resume, overwrite, say))


def _trained(
    config: str | Path | Mapping[str, Any] | RunConfig,
    chosen: RunConfig,
    folder: Path,
    data: Any,
    changes: Sequence[str],
    resume: bool,
    overwrite: bool,
    say: Console,
) -> dict[str, Any]:
    """Train on the configuration's data or on others."""
    if data is None:
        chosen = checked(chosen, own=is_own(config))
        return train_into(chosen, folder, resume=resume, overwrite=overwrite, say=say)
    arrays = data if isinstance(data, ArrayData) else from_datasets(data)
    path = (folder / DATA_FILE).resolve()
    preset = isinstance(config, str) and config in preset_names()
    own_encoder = not preset or any(change.startswith("dataset.encoder") for change in changes)
    chosen = _with_data(chosen, arrays, path, own_encoder=own_encoder)
    chosen = checked(_for_classes(chosen) if preset else chosen)
    return _train_on(arrays, chosen, folder, resume=resume, overwrite=overwrite, say=say)


def _train_on(
    arrays: ArrayData, config: RunConfig, folder: Path, *, resume: bool, overwrite: bool, say: Console
) -> dict[str, Any]:
    """Train on ``arrays``, which become the folder's data.npz only once the training opens."""
    check_arrays(arrays)
    kept, first = folder / DATA_FILE, processes.rank() == 0
    with alone_in(folder) if first else nullcontext(), temporary_folder(folder if first else None) as place:
        make_place(kept)
        written = place / DATA_FILE
        arrays.write(written)
        data = load_dataset(config.dataset, to_raw(arrays, config.dataset, sha256(written)))
        take = partial(os.replace, written, kept)
        return train_into(config, folder, resume=resume, overwrite=overwrite, data=data, opened=take, say=say)


def _loaded(config: str | Path | Mapping[str, Any] | RunConfig) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    return config_of(config) if isinstance(config, Mapping) else load_config(config)


def _name(config: str | Path | Mapping[str, Any] | RunConfig) -> str:
    if isinstance(config, str | Path):
        return Path(config).stem
    raise InputError("a configuration without a name needs a run folder: output='runs/NAME'")


def _for_classes(config: RunConfig) -> RunConfig:
    """Return a preset whose last linear layer has the features that the readout needs for these data's classes."""
    *layers, last = config.network
    if isinstance(last, VoteSpec | LiSpec):
        needed = len(config.dataset.classes or ()) * (last.population if isinstance(last, VoteSpec) else 1)
        for index in reversed(range(len(layers))):
            layer = layers[index]
            if isinstance(layer, LinearSpec):
                layers[index] = layer.model_copy(update={"features": needed})
                break
    return config.model_copy(update={"network": (*layers, last)})


def _with_data(config: RunConfig, data: ArrayData, path: Path, *, own_encoder: bool) -> RunConfig:
    """Return the configuration with its dataset replaced by ``data``, as an npz file at ``path`` will hold them.

    own_encoder: the configuration's encoder was meant for these data; a preset's was meant for others.
    """
    given = config.dataset.model_dump(exclude_unset=True)
    counted = given.get("encoder") in SENSOR_ENCODERS
    own = (*_KEPT, *(("encoder",) * own_encoder), *(("sensor", "T") if own_encoder and counted else ()))
    kept = {key: value for key, value in given.items() if key in own}
    dataset = DatasetConfig.model_validate({**kept, "name": "npz", "path": str(path)})
    properties = look(data, dataset)
    changes: dict[str, Any] = {"input_shape": properties.shape, "classes": properties.classes}
    if properties.steps is not None:
        changes |= {"T": properties.steps, "encoder": dataset.encoder if "encoder" in kept else "sequence"}
    elif "T" in given:
        changes["T"] = config.dataset.T
    return config.model_copy(update={"dataset": dataset.model_copy(update=changes)})
