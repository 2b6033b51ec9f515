"""From a preset's name or a file, and changes to it, to a configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stl_deploy.config.load import apply_overrides, dump_config, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import check_dataset, complete
from stl_deploy.data.own import trust
from stl_deploy.data.own.python_file import split_path
from stl_deploy.nn.network import Network


def configure(preset_or_file: str, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration with ``changes`` (``key.sub=value``) applied, checked as far as it can be without data.

    Raises ConfigError naming the key, or the layer that does not fit.
    """
    return checked(apply_overrides(load_config(preset_or_file), list(changes)))


def checked(config: RunConfig) -> RunConfig:
    """A configuration of the user's own, completed by what its data tell; it may run the Python file it names.

    Raises ConfigError naming the key, or the layer that does not fit.
    """
    if config.dataset.name == "python":
        trust.allow(split_path(config.dataset.path)[0])
    config = config.model_copy(update={"dataset": complete(config.dataset)})
    shape, classes = check_dataset(config.dataset)
    with torch.random.fork_rng(devices=[]):
        Network(config, shape, classes)
    return config


__all__ = ["configure", "dump_config"]
