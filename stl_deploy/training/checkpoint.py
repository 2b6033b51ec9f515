"""Weights of a run picked by validation (model.safetensors), and its state at the end of an epoch, each in one file.

Everything random in an epoch follows from the seed and the epoch's number (`stl_deploy.training.seeds`), so weights,
optimiser state and counters are all that a bit-identical continuation needs.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.remedies import remedy, verb
from stl_deploy._util.tensor_file import check_fit, read_tensors, write_tensors
from stl_deploy.config.load import config_of, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import class_count, sample_shape
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.nn.network import Network
from stl_deploy.nn.population import Population
from stl_deploy.nn.to_program import unsound
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MODEL


def save_model(run_dir: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a network's state and the JSON object ``about``, whole or not at all."""
    write_tensors(run_dir / MODEL, weights, about)


def load_network(run_dir: Path) -> tuple[Network, RunConfig]:
    """Load the trained network of a run folder, in evaluation mode on the CPU, and its configuration.

    Raises InputError if the folder is no finished run, or its files are damaged or do not belong together.
    """
    if not (run_dir / CONFIG).is_file():
        raise InputError(f"{run_dir}: expected a run folder written by {verb('train')}; found no {CONFIG}")
    config = load_config(run_dir / CONFIG)
    file = run_dir / MODEL
    if not file.is_file():
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


_FREE_TO_CHANGE = (
    {"fold"},
    {
        ("train", "epochs"),
        ("train", "device"),
        ("dataset", "data_dir"),
        ("dataset", "input_grid"),
        ("dataset", "path"),
    },
)


@dataclass
class State:
    """Training state between epochs. ``epoch``: epochs done; ``records``: one per epoch."""

    network: Network
    optimiser: torch.optim.Optimizer
    epoch: int
    records: list[dict[str, Any]]
    best: dict[str, Tensor]
    best_epoch: int


def write_checkpoint(run_dir: Path, state: State, config: RunConfig) -> None:
    """Replace the run's checkpoint by ``state``, whole or not at all."""
    tensors = {f"model/{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    tensors |= _adam_tensors(state.network, state.optimiser)
    about = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "records": state.records,
        "config": config.model_dump(mode="json"),
    }
    write_tensors(run_dir / CHECKPOINT, tensors, about)


def read_checkpoint(run_dir: Path, state: State, config: RunConfig, *, start_counts: bool = False) -> None:
    """Load the run's checkpoint into ``state``, made for ``config``; start_counts: epoch 0 may be the best.

    Raises InputError for a damaged file or one of another architecture, ConfigError naming the key where the
    run was made with another configuration (``fold``, epochs, device and data_dir may change).
    """
    path = run_dir / CHECKPOINT
    tensors, about = read_tensors(path)
    epoch, best_epoch, records = _progress(path, about, 0 if start_counts else 1)
    check_same_run(path, _completed(about.get("config")), config)
    model = state.network.state_dict()
    adam = _adam_shapes(state)
    check_fit(path, tensors, {f"{part}/{name}": t for part in ("model", "best") for name, t in model.items()} | adam)
    state.best = {name: tensors[f"best/{name}"] for name in model}
    for weights in (state.best, {name: tensors[f"model/{name}"] for name in model}):
        load_weights(path, state.network, weights)
    _load_adam(state, tensors)
    state.epoch, state.best_epoch, state.records = epoch, best_epoch, records


def _progress(path: Path, about: Mapping[str, Any], first: int) -> tuple[int, int, list[dict[str, Any]]]:
    epoch, best_epoch, records = about.get("epoch"), about.get("best_epoch"), about.get("records")
    if not (isinstance(epoch, int) and isinstance(best_epoch, int) and isinstance(records, list)):
        raise InputError(f"{path}: not a checkpoint of a training run")
    for number, record in enumerate(records, 1):
        if not _is_record(record, number, records[0]):
            raise InputError(f"{path}: the record of epoch {number} is not as training writes it; it is damaged")
    if len(records) != epoch or not first <= best_epoch <= epoch:
        raise InputError(f"{path}: {len(records)} records of {epoch} epochs, the best {best_epoch}; it is damaged")
    return epoch, best_epoch, records


_NUMBERS = ("epochs", "loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "seconds")
_BY_LAYER = ("rates", "silent", "saturated")
_MOST = 1e300


def _is_record(record: Any, number: int, first: Any) -> bool:
    """Return whether this is a record of training for epoch ``number``, of the layers of the ``first`` record."""
    if not isinstance(record, dict) or record.get("epoch") != number:
        return False
    if not isinstance(record.get("matmul", ""), str) or not _is_number(record.get("threads", 1)):
        return False
    if not all(_is_number(record.get(key)) for key in _NUMBERS):
        return False
    layers: list[Any] = [record.get(key) for key in (*_BY_LAYER, "thresholds")]
    if [_names(values) for values in layers] != [_names(first.get(key)) for key in (*_BY_LAYER, "thresholds")]:
        return False
    if len({_names(values) for values in layers[:3]}) != 1 or None in map(_names, layers[:3]):
        return False
    numbers = [value for values in layers[:3] for value in values.values()]
    if not isinstance(layers[3], dict):
        return False
    spreads = layers[3].values()
    if not all(isinstance(spread, dict) and {"min", "mean", "max"} <= spread.keys() for spread in spreads):
        return False
    return all(map(_is_number, [*numbers, *(value for spread in spreads for value in spread.values())]))


def _names(by_layer: Any) -> tuple[str, ...] | None:
    return tuple(by_layer) if isinstance(by_layer, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def _completed(stored: Any) -> Any:
    """Return an older version's configuration with keys unknown to it at their defaults."""
    try:
        return config_of(stored).model_dump(mode="json")
    except (ConfigError, TypeError, ValueError):
        return stored


def check_same_run(path: Path, stored: Any, config: RunConfig) -> None:
    """Raise ConfigError at the first fixed key in which ``stored`` differs from ``config``."""
    wanted = config.model_dump(mode="json")
    sections, keys = _FREE_TO_CHANGE
    for section, values in wanted.items():
        if section in sections:
            continue
        old = stored.get(section) if isinstance(stored, dict) else None
        if isinstance(values, Mapping) and isinstance(old, Mapping):
            differ = [key for key in values if (section, key) not in keys and old.get(key) != values[key]]
            if differ:
                key = differ[0]
                raise ConfigError(
                    f"{path}: made with {section}.{key} = {old.get(key)!r}, not {values[key]!r}; resume with the "
                    "same configuration, or train into another folder"
                )
        elif old != values:
            raise ConfigError(f"{path}: made with another '{section}'; resume with the same configuration")


def _adam_tensors(network: Network, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"adam/{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def _adam_shapes(state: State) -> dict[str, Tensor]:
    trained = {id(p) for group in state.optimiser.param_groups for p in group["params"]}
    shapes: dict[str, Tensor] = {}
    for name, parameter in state.network.named_parameters():
        if id(parameter) in trained:
            shapes |= {f"adam/{name}/{key}": parameter for key in ("exp_avg", "exp_avg_sq")}
            shapes[f"adam/{name}/step"] = torch.zeros((), dtype=torch.float32)
    return shapes


def _load_adam(state: State, tensors: Mapping[str, Tensor]) -> None:
    names = {id(parameter): name for name, parameter in state.network.named_parameters()}
    order = [names[id(p)] for group in state.optimiser.param_groups for p in group["params"]]
    moments = {
        place: {key: tensors[f"adam/{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for place, name in enumerate(order)
    }
    state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": moments})
