"""Load and save configurations: YAML files, presets, and ``key=value`` overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stl_deploy._util.files import write_text
from stl_deploy._util.remedies import remedy
from stl_deploy._util.suggest import did_you_mean
from stl_deploy._util.untrusted import one_line, read_text
from stl_deploy.config.messages import sentences
from stl_deploy.config.schema import RENAMED, RunConfig
from stl_deploy.errors import ConfigError, InputError

_MAX_BYTES = 2**18
_MOST_PROBLEMS = 5


class _Loader(yaml.SafeLoader):
    """YAML without aliases (they let a small file grow without bound) or repeated keys; 1e-3 is a number.

    As PyYAML's safe loader, it makes plain values alone: tags that would build objects or call anything are refused.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event().anchor  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"expected every value written out; found the alias *{alias}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.YAMLError(f"key '{key.value}' appears twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _changes() -> str:
    """Return the name of configuration changes in the reader's interface."""
    return remedy(cli="--set", python="changes")


def preset_names() -> tuple[str, ...]:
    """Return the presets that ship with the package."""
    folder = resources.files("stl_deploy.config") / "presets"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_config(source: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Load a preset by name or a YAML file by path, with ``key.sub=value`` overrides applied.

    Raises ConfigError with one sentence per problem, InputError if an override's file cannot be read.
    """
    name = str(source)
    if name in preset_names():
        text = (resources.files("stl_deploy.config") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        return _anchored(_build(_override(_parse(text, f"preset {name}"), overrides), f"preset {name}"), Path())
    if Path(name).suffix not in (".yaml", ".yml"):
        close = did_you_mean(name, preset_names())
        raise ConfigError(
            f"expected a preset ({', '.join(preset_names())}) or the path of a .yaml file; found '{name}'{close}"
        )
    return _anchored(_build(_override(_parse(_read(Path(name)), name), overrides), name), Path(name).parent)


def config_of(data: Mapping[str, Any]) -> RunConfig:
    """Return a configuration from a mapping of its keys; raise ConfigError with one sentence per problem."""
    return _anchored(_build(dict(data), "configuration"), Path())


def apply_overrides(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Apply overrides such as ``train.epochs=3`` or ``network.0.channels=8``; values are YAML.

    Raises ConfigError for a malformed override, an unknown key or a wrong value.
    """
    data = config.model_dump(mode="json", exclude_unset=True)
    return _anchored(_build(_override(data, overrides), _changes()), Path())


def dump_config(config: RunConfig) -> str:
    """Return the configuration as YAML, every key written out; it reads back as the same configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)


def save_config(config: RunConfig, path: Path) -> None:
    """Write the configuration as YAML, whole or not at all; data beside it get a relative path."""
    data = config.dataset.path
    if data is not None and Path(data).is_absolute() and Path(data).is_relative_to(path.parent.resolve()):
        beside = str(Path(data).relative_to(path.parent.resolve()))
        config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": beside})})
    write_text(path, dump_config(config))


def _anchored(config: RunConfig, folder: Path) -> RunConfig:
    """Make the data's path absolute: from ``folder``, or from the working directory if it exists only there."""
    given = config.dataset.path
    if given is None or Path(given).is_absolute():
        return config
    file, colon, name = given.rpartition(":") if given.rpartition(":")[0].endswith(".py") else (given, "", "")
    beside, here = (folder / file).resolve(), Path(file).resolve()
    chosen = here if here.exists() and not beside.exists() else beside
    dataset = config.dataset.model_copy(update={"path": f"{chosen}{colon}{name}"})
    return config.model_copy(update={"dataset": dataset})


def _read(path: Path) -> str:
    try:
        return read_text(path, "a YAML configuration", _MAX_BYTES)
    except InputError as error:
        raise ConfigError(str(error)) from None


def _parse(text: str, where: str) -> dict[str, Any]:
    data = _yaml(text, where)
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected keys such as dataset, network and train; found {type(data).__name__}")
    return data


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML ({one_line(error)})") from None


def _build(data: dict[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        lines = [f"{where}: {sentence}" for sentence in sentences(error, _MOST_PROBLEMS)]
        more = error.error_count() - len(lines)
        raise ConfigError("\n".join([*lines, f"{where}: and {more:,} more problems"] if more else lines)) from None


def _override(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{_changes()}: expected key=value, as train.epochs=3; found '{item}'")
        _assign(data, key.strip(), _yaml(text, f"{_changes()} '{item}'"))
    return data


def _assign(data: Any, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        data = data.setdefault(part, {}) if isinstance(data, dict) else _entry(data, part, key)[int(part)]
    if isinstance(data, dict):
        data[RENAMED.get(last, last)] = value
    else:
        _entry(data, last, key)[int(last)] = value


def _entry(data: Any, part: str, key: str) -> list[Any]:
    """Return ``data`` if it is a list with the entry ``part``."""
    if not isinstance(data, list):
        raise ConfigError(f"{_changes()} '{key}': expected keys or a list to go into; found a {type(data).__name__}")
    if not part.isdecimal() or int(part) >= len(data):
        raise ConfigError(f"{_changes()} '{key}': expected an entry of the list, 0 to {len(data) - 1}; found '{part}'")
    return data
