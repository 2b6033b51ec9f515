"""Load a preset or a file, with changes, as a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data.complete import check_dataset, complete_run
from stl_deploy.data.own import trust
from stl_deploy.data.own.python_file import split_path
from stl_deploy.nn.network import Network
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MANIFEST, MODEL

_OF_A_RUN = (MANIFEST, CHECKPOINT, MODEL)


def configure(preset_or_file: str, changes: Sequence[str] = ()) -> RunConfig:
    """Return the configuration with ``changes`` (``key.sub=value``) applied, checked as far as possible without data.

    Raises ConfigError naming the key, or the layer that does not fit.
    """
    return checked(apply_overrides(load_config(preset_or_file), list(changes)), own=is_own(preset_or_file))


def is_own(config: object) -> bool:
    """Return whether a configuration is trusted: any but the one in a run folder, which may be another user's.

    Our advice names that one, so a user may well take it without a look.
    """
    if not isinstance(config, str | Path) or Path(config).name != CONFIG:
        return True
    return not any((Path(config).parent / name).exists() for name in _OF_A_RUN)


def checked(config: RunConfig, *, own: bool = True) -> RunConfig:
    """Complete a configuration from its data.

    own: a trusted configuration may run the Python file that it names; any other may only as a run folder's.
    Raises ConfigError naming the key, or the layer that does not fit, InputError for a file that may not run.
    """
    if own and config.dataset.name == "python":
        trust.allow(split_path(config.dataset.path)[0])
    config = complete_run(config)
    shape, classes = check_dataset(config.dataset)
    with torch.random.fork_rng(devices=[]):
        Network(config, shape, classes)
    return config
