"""From a preset's name or a file, and changes to it, to a configuration."""

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
    """The configuration with ``changes`` (``key.sub=value``) applied, checked as far as it can be without data.

    Raises ConfigError naming the key, or the layer that does not fit.
    """
    return checked(apply_overrides(load_config(preset_or_file), list(changes)), own=is_own(preset_or_file))


def is_own(config: object) -> bool:
    """Whether a configuration is the user's own: any but the one that lies in a run folder, which may be a stranger's.

    That one is named in what we advise, so a user may well take it without a look.
    """
    if not isinstance(config, str | Path) or Path(config).name != CONFIG:
        return True
    return not any((Path(config).parent / name).exists() for name in _OF_A_RUN)


def checked(config: RunConfig, *, own: bool = True) -> RunConfig:
    """A configuration completed by what its data tell.

    own: the user's own, so it may run the Python file it names, if it names one; any other may only as a run folder's.
    Raises ConfigError naming the key, or the layer that does not fit, InputError for a file that may not run.
    """
    if own and config.dataset.name == "python":
        trust.allow(split_path(config.dataset.path)[0])
    config = complete_run(config)
    shape, classes = check_dataset(config.dataset)
    with torch.random.fork_rng(devices=[]):
        Network(config, shape, classes)
    return config
