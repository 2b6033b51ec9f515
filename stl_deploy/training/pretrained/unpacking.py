"""Unpack a ready-made model as a run folder, as if it had been trained here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.files import make_folder, sha256, write_text
from stl_deploy._util.tensor_file import read_tensors
from stl_deploy.config.load import dump_config, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data.complete import check_dataset
from stl_deploy.errors import InputError
from stl_deploy.training import pretrained
from stl_deploy.training.checkpoint import save_model
from stl_deploy.training.run_files import CONFIG, METRICS
from stl_deploy.training.run_folder import TWIN, forget_training

_PARTS = (("config.yaml", "model.safetensors", "."), ("twin.yaml", "twin.safetensors", TWIN))
"""Configuration, weights, and the folder below the run folder that they are unpacked into."""
SCALE = ".scale"
"""Suffix that turns a weight's name into the name of its scales."""


def configuration(name: str, data_dir: str | None = None) -> RunConfig:
    """Return a model's training configuration, and the folder of the dataset's files; raise as `unpack`."""
    pretrained.card(name)
    with resources.as_file(pretrained.models_folder() / name) as folder:
        return _configuration(folder / _PARTS[0][0], data_dir)


def _configuration(file: Path, data_dir: str | None) -> RunConfig:
    config = load_config(file).with_values(dataset={"data_dir": data_dir})
    check_dataset(config.dataset)
    return config


def unpack(name: str, run_dir: Path, data_dir: str | None = None) -> pretrained.Card:
    """Write a model as the run folder of a finished training, and its twin as ``run_dir/twin``.

    data_dir: where the dataset's files are, kept in the configurations as by ``train --data-dir``.
    Raises InputError if there is no such model, a file cannot be written, or the weights are not those of the card;
    ConfigError for a data_dir where the dataset takes none.
    """
    about = pretrained.card(name)
    with resources.as_file(pretrained.models_folder() / name) as folder:
        unpack_folder(folder, about.sha256, run_dir, data_dir)
    return about


def unpack_folder(folder: Path, hashes: Mapping[str, str], run_dir: Path, data_dir: str | None = None) -> None:
    """Unpack a model's folder whose weights have these SHA-256, by file name; an older training is removed."""
    configs = [_configuration(folder / config_file, data_dir) for config_file, _, _ in _PARTS]
    weights = [_weights(folder / file, hashes.get(file)) for _, file, _ in _PARTS]
    metrics = (folder / METRICS).read_text(encoding="utf-8")
    forget_training(run_dir)
    folders = [run_dir / below for _, _, below in _PARTS]
    for place, (tensors, facts) in zip(folders, weights, strict=True):
        make_folder(place)
        save_model(place, tensors, facts)
    write_text(run_dir / METRICS, metrics)
    for place, config in reversed(list(zip(folders, configs, strict=True))):  # the network's last: now it is whole
        write_text(place / CONFIG, dump_config(config))


def _weights(path: Path, expected: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if (actual := sha256(path)) != expected:
        wanted = expected or "on its card, which has none"
        raise InputError(f"{path}: expected SHA-256 {wanted}; found {actual}; install stl-deploy again")
    tensors, facts = read_tensors(path)
    return unpacked(tensors), facts


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights from float16, and from int8 ``[outputs, ...]`` times scales; others as given."""
    wide: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            wide[name] = tensor.float() * by_output(tensors[name + SCALE], tensor)
        elif not name.endswith(SCALE):
            wide[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return wide


def by_output(scale: Tensor, weights: Tensor) -> Tensor:
    """Return one number per output ``[outputs]`` in a shape that broadcasts over ``weights`` ``[outputs, ...]``."""
    return scale.reshape(-1, *(1,) * (weights.dim() - 1))
