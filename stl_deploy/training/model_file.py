"""model.safetensors: the weights picked by validation, and their facts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.remedies import remedy, verb
from stl_deploy._util.tensor_file import check_fit, read_tensors, write_tensors
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import class_count, sample_shape
from stl_deploy.errors import InputError
from stl_deploy.nn.network import Network
from stl_deploy.nn.population import Population
from stl_deploy.nn.to_program import unsound
from stl_deploy.training.run_files import CONFIG, MODEL


def save_model(run_dir: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a network's state and the JSON object ``about``, whole or not at all."""
    write_tensors(run_dir / MODEL, weights, about)


def load_network(run_dir: Path, snapshot: Path | None = None) -> tuple[Network, RunConfig]:
    """Load the trained network of a run folder, in evaluation mode on the CPU, and its configuration.

    snapshot: a file of other weights of the same training (`stl_deploy.training.checkpoint`).

    Raises InputError if the folder is no finished run, or its files are damaged or do not belong together.
    """
    if not (run_dir / CONFIG).is_file():
        raise InputError(f"{run_dir}: expected a run folder written by {verb('train')}; found no {CONFIG}")
    config = load_config(run_dir / CONFIG)
    file = snapshot or run_dir / MODEL
    if snapshot is None and not file.is_file():
        raise InputError(
            f"{run_dir}: no {MODEL}, since the training has not ended; continue it with: "
            + remedy(
                cli=f"stl-deploy train --resume -o {shlex.quote(str(run_dir))}",
                python=f"stl_deploy.train({str(run_dir / CONFIG)!r}, output={str(run_dir)!r}, resume=True)",
            )
        )
    tensors, _ = read_tensors(file)
    classes = class_count(config.dataset)
    with torch.random.fork_rng(devices=[]):
        network = Network(config, sample_shape(config.dataset), classes)
    check_fit(file, tensors, network.state_dict())
    load_weights(file, network, tensors)
    return network.eval(), config


def load_weights(path: Path, network: Network, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a file into a network that they fit.

    Raises InputError for impossible numbers (`unsound`), and decays other than the configuration's.
    """
    configured = _fixed_decays(network)
    network.load_state_dict(weights)
    for name, decay in _fixed_decays(network).items():
        if decay != configured[name]:
            raise InputError(
                f"{path}: layer '{name}': expected the configuration's decay of {configured[name]:g}; found {decay:g}; "
                "the file is damaged or of another configuration"
            )
    if (damage := unsound(network)) is not None:
        raise InputError(f"{path}: {damage}; the file is damaged")


def _fixed_decays(network: Network) -> dict[str, float]:
    populations = {name: layer for name, layer in network.layers.items() if isinstance(layer, Population)}
    fixed = {name: layer for name, layer in populations.items() if layer.decay_parameter is None}
    held = {name: float(layer.decay) for name, layer in fixed.items()}
    synapses = {name: layer.synapse_decay for name, layer in fixed.items()}
    return held | {f"{name}, synapse": float(decay) for name, decay in synapses.items() if decay is not None}


def model_facts(run_dir: Path) -> dict[str, Any]:
    """Read `train`'s facts beside the weights: the picked epoch, validation and test results (see `TrainResult`)."""
    return read_tensors(run_dir / MODEL)[1]
