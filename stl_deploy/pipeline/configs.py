"""From a preset's name or a file, and changes to it, to a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from stl_deploy.config import RunConfig
from stl_deploy.config_io import apply_overrides, dump_config, load_config


def configure(preset_or_file: str, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration with ``changes`` (``key.sub=value``) applied; raises ConfigError naming the key."""
    return apply_overrides(load_config(preset_or_file), list(changes))


__all__ = ["configure", "dump_config"]
