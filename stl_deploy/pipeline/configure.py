"""From a preset's name or a file, and changes to it, to a configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stl_deploy.config.load import apply_overrides, dump_config, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import check_dataset
from stl_deploy.nn.network import Network


def configure(preset_or_file: str, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration with ``changes`` (``key.sub=value``) applied, checked as far as it can be without data.

    Raises ConfigError naming the key, or the layer that does not fit.
    """
    config = apply_overrides(load_config(preset_or_file), list(changes))
    shape, classes = check_dataset(config.dataset)
    with torch.random.fork_rng(devices=[]):
        Network(config, shape, classes)
    return config


__all__ = ["configure", "dump_config"]
