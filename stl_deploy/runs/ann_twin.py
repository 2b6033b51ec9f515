"""Train the ANN twin of a network once by the same recipe, keep it, and measure its zeros and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy._util.console import Console
from stl_deploy._util.remedies import option, remedy
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Split
from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.taps import cells_met, dense_macs, fan_out, input_shape, weights_by_cell
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Conv, Linear, Program
from stl_deploy.graph.run import CHUNK
from stl_deploy.nn.network import INPUT, Network
from stl_deploy.nn.to_program import recurrence
from stl_deploy.runs.inputs import LabelledInput, encode_split
from stl_deploy.runs.train import fit
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MODEL
from stl_deploy.training.run_folder import TWIN


class AtOnce(nn.Module):
    """An ANN as a module without time, ``[B, *shape]`` -> scores ``[B, classes]``."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Run it on x at its one step."""
        scores: Tensor = self.network(x[None], every_layer=True)[0]  # the layers that capture records
        return scores


@torch.no_grad()
def measure_twin(program: Program, run_dir: Path, x: NDArray[Any], labels: NDArray[np.int64] | None = None) -> AnnTwin:
    """Count MACs on nonzero inputs of the ANN trained in ``run_dir``, over the samples of ``x`` ``[T, B, *shape]``.

    An input that repeats itself is one frame; else the ANN sees all T. Layers are matched to the program's weighted
    nodes by name; weights that bring a layer's own spikes back meet nothing in the ANN, as no step comes before its
    only one. Raises InputError if the run is no ANN or of another topology.
    """
    network, config = load_network(run_dir)
    if config.train.mode != "ann":
        raise InputError(
            f"{run_dir}: expected an ANN, trained with {option('mode', 'ann')}; found mode {config.train.mode}"
        )
    nodes = {node.name: node for node in program.nodes if isinstance(node, Linear | Conv)}
    before = {name: sources[0] for name, sources in network.sources.items()}  # of a sum, which is a layer, its first
    back = {recurrence(name) for name in before}
    missing = sorted(set(nodes) - set(before) - back)
    if missing:
        raise InputError(f"{run_dir}: expected layer '{missing[0]}'; found {', '.join(before)}; train the same network")
    for name in sorted(set(nodes) - back):
        own = getattr(network.layers[name], "weight", nodes[name].weight)
        if tuple(own.shape) != nodes[name].weight.shape:
            raise InputError(
                f"{run_dir}: weights of '{name}' are {list(own.shape)}, in the spiking network "
                f"{list(nodes[name].weight.shape)}; train the twin with the same configuration and "
                f"{option('mode', 'ann')}"
            )
    # an ANN sees an image once, however often the SNN is shown it
    frames = x[:1] if bool((x == x[:1]).all()) else x
    active, fetched, right = dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0), list[NDArray[np.bool_]]()
    scores: list[NDArray[Any]] = []
    for start in range(0, frames.shape[1], CHUNK):
        part = torch.from_numpy(np.ascontiguousarray(frames[:, start : start + CHUNK], np.float32))
        outputs: dict[str, Tensor] = {INPUT: part}
        votes = network(part, lambda name, y, kept=outputs: kept.__setitem__(name, y))
        for name, node in nodes.items():
            if name not in back:
                events = _events(run_dir, node, outputs[before[name]])
                active[name] += int((events.sum(axis=(0, 1)) * fan_out(node)).sum())
                fetched[name] += int(cells_met(node, events).sum()) * weights_by_cell(node)
        scores.append(network.scores(votes).numpy())
        if labels is not None:
            right.append(network.decide(votes).numpy() == labels[start : start + CHUNK])
    passes = frames.shape[0] * frames.shape[1]
    decided = np.concatenate(right) if right else None
    accuracy = None if decided is None else float(decided.mean())
    macs = {name: dense_macs(node) * passes for name, node in nodes.items()}
    shares = {name: active[name] / each if each else 1.0 for name, each in macs.items()}
    source = f"{run_dir.name}, trained in mode ann"
    return AnnTwin(
        macs_nonzero=sum(active.values()),
        macs=sum(macs.values()),
        samples=passes,
        source=source,
        accuracy=accuracy,
        by_layer=shares,
        frames=frames.shape[0],
        fetched={name: count / (nodes[name].weight.size * passes) for name, count in fetched.items()},
        nonzero_weights=_nonzero_weights(network, [name for name in nodes if name not in back]),
        right=decided,
        scores=np.concatenate(scores),
    )


def keep_twin(config: RunConfig, run_dir: Path, say: Console) -> Path:
    """Return the twin's folder below ``run_dir``; train it if it is missing or of another configuration.

    A training of it that was cut off goes on. A model without a checkpoint came ready-made and is taken whatever its
    recipe; raises InputError if it is of another network or of other data.
    """
    folder = run_dir / TWIN
    keep_ann(config, folder, say)
    return folder


def keep_ann(config: RunConfig, folder: Path, say: Console) -> None:
    """Train an ANN of this configuration into ``folder``, unless it is there; see `keep_twin`."""
    twin = config.twin
    kept = load_config(folder / CONFIG) if (folder / CONFIG).is_file() else None
    trained, begun = ((folder / name).is_file() for name in (MODEL, CHECKPOINT))
    if kept is not None and trained and not begun:
        if (kept.network, kept.dataset) != (twin.network, twin.dataset):
            raise InputError(
                f"{folder}: expected the ANN twin of this network, on its data; found another, without a checkpoint; "
                "move it elsewhere, and one is trained, or say " + remedy(cli="--no-twin", python="twin=False")
            )
    elif not (trained and kept == twin):
        resume = begun and kept == twin
        fit(twin, folder, resume=resume, overwrite=not resume, say=say)


def measure_kept(program: Program, folder: Path, test: Split, count: int) -> AnnTwin:
    """Measure the twin's zeros and accuracy on ``count`` test samples (see `Split.part`), encoded for the twin."""
    own = kept_frames(folder, test, count)
    return measure_twin(program, folder, own.x, own.labels)


def sees_sums(config: RunConfig) -> bool:
    """Return whether a run's twin sees the steps of a sequence summed in one frame."""
    return config.twin.encoder == "counts"


def kept_frames(folder: Path, test: Split, count: int) -> LabelledInput:
    """Return ``count`` test samples (see `Split.part`) in a kept ANN's form, ``[1, B, *shape]``."""
    return encode_split(load_config(folder / CONFIG), test, count)


def _nonzero_weights(network: Network, names: Sequence[str]) -> dict[str, float]:
    layers = {name: getattr(network.layers[name], "weight", None) for name in names}
    return {name: float((w != 0).double().mean()) for name, w in layers.items() if isinstance(w, Tensor)}


def _events(run_dir: Path, node: Linear | Conv, x: Tensor) -> NDArray[np.bool_]:
    shape = input_shape(node)
    if tuple(x.shape[2:]) != shape:
        raise InputError(f"{run_dir}: '{node.name}' reads {list(x.shape[2:])}, in the spiking network {list(shape)}")
    return np.asarray((x != 0).numpy(), np.bool_)
