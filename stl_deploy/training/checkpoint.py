"""Save the state of a training run at the end of an epoch, in one file.

Everything random in an epoch follows from the seed and the epoch's number (`stl_deploy.training.seeds`), so weights,
optimiser state and counters are all that a bit-identical continuation needs.

Weights of some epochs are kept beside it, so that networks of one training can be compared:
``snapshots/epoch-00005.safetensors`` in the run folder, one for each ``train.keep_every``-th epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.tensor_file import check_fit, read_tensors, write_tensors
from stl_deploy.config.load import config_of
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.nn.network import Network
from stl_deploy.training.model_file import load_weights
from stl_deploy.training.run_files import CHECKPOINT

_FREE_TO_CHANGE = (
    {"fold"},
    {
        ("train", "epochs"),
        ("train", "device"),
        ("train", "tensorboard"),
        ("train", "keep_every"),
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
    """Replace the run's checkpoint by ``state``, whole or not at all; keep its weights if ``keep_every`` says so."""
    keep(run_dir, state.epoch, config.train.keep_every, state.network.state_dict())
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
    run was made with another configuration (``fold``, epochs, device, keep_every and data_dir may change).
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
    """Raise ConfigError at the first fixed key in which ``found`` differs from ``config``."""
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


FOLDER = "snapshots"


def keep(run_dir: Path, epoch: int, every: int | None, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of ``epoch`` (from 1) if it is a multiple of ``every``; None keeps nothing.

    Snapshots of this epoch and of later ones are of an older training and go.
    """
    for old, path in snapshots(run_dir).items():
        if old >= epoch:
            path.unlink()
    if every is not None and epoch % every == 0:
        (run_dir / FOLDER).mkdir(exist_ok=True)
        write_tensors(run_dir / FOLDER / f"epoch-{epoch:05}.safetensors", weights, {"epoch": epoch})


def snapshots(run_dir: Path) -> dict[int, Path]:
    """Return the file of each kept epoch, in order."""
    files = (run_dir / FOLDER).glob("epoch-*.safetensors")
    numbered = {path.stem.removeprefix("epoch-"): path for path in files}
    return {int(epoch): path for epoch, path in sorted(numbered.items()) if epoch.isdecimal()}
