"""Load and save configurations: YAML files, presets, and ``key=value`` overrides.

pydantic's errors become sentences: key, expected, found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stl_deploy._util.files import write_text
from stl_deploy._util.remedies import did_you_mean, remedy
from stl_deploy._util.untrusted import one_line, read_text
from stl_deploy.config.schema import RENAMED, InnerSpec, LayerSpec, NeuronConfig, RunConfig
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
        config = config.with_values(dataset={"path": beside})
    write_text(path, dump_config(config))


def _anchored(config: RunConfig, folder: Path) -> RunConfig:
    """Make the data's path absolute: from ``folder``, or from the working directory if it exists only there."""
    given = config.dataset.path
    if given is None or Path(given).is_absolute():
        return config
    file, colon, name = given.rpartition(":") if given.rpartition(":")[0].endswith(".py") else (given, "", "")
    beside, here = (folder / file).resolve(), Path(file).resolve()
    # beside the configuration wins: a run folder's data must not depend on where the call is made
    chosen = here if here.exists() and not beside.exists() else beside
    return config.with_values(dataset={"path": f"{chosen}{colon}{name}"})


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
        return yaml.load(text, Loader=_Loader)  # a SafeLoader, which makes no objects and runs no code
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
        raise ConfigError(
            f"{_changes()} '{key}': expected an entry of the list, 0 to {len(data) - 1}; found '{part}'"
            + _of_neurons(part)
        )
    return data


def _of_neurons(part: str) -> str:
    """Return a hint for a key of all neurons that was looked for in the list of layers."""
    return f"; for all neurons set neuron.{part}" if part in NeuronConfig.model_fields else ""


_LAYERS: dict[str, type[BaseModel]] = {
    get_args(spec.model_fields["kind"].annotation)[0]: spec for spec in get_args(get_args(LayerSpec)[0])
}
_ACCEPTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "auto, cpu, cuda, or cuda: and a number",
    "literal_error": "{expected}",
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length} layer",
    "too_long": "a list of at most {max_length} layers",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


def sentences(error: ValidationError, most: int) -> list[str]:
    """Return one sentence for each of the first ``most`` problems."""
    return [_sentence(problem) for problem in error.errors(include_url=False)[:most]]


def _sentence(problem: ErrorDetails) -> str:
    loc, kind, context = problem["loc"], problem["type"], problem.get("ctx", {})
    key = _key(loc)
    if kind == "extra_forbidden":
        fields = _fields(loc[:-1])
        hint = did_you_mean(str(loc[-1]), fields) or (_in_a_section(str(loc[-1])) if len(loc) == 1 else "")
        return f"key '{key}': expected {', '.join(fields)}; found '{loc[-1]}'{hint}"
    if kind == "missing":
        return f"key '{key}' is missing; it has no default"
    if kind == "union_tag_not_found":
        return f"key '{key}.kind': expected {_kinds(loc)}; found none"
    if kind == "union_tag_invalid":
        return f"key '{key}.kind': expected {_kinds(loc)}; found {context['tag']!r}"
    if kind == "value_error":
        return f"key '{key}': {context['error']}" if key else str(context["error"])
    accepted = _ACCEPTED[kind].format(**context) if kind in _ACCEPTED else problem["msg"]
    return f"key '{key}': expected {accepted}; found {_short(problem['input'])}"


def _kinds(loc: Sequence[int | str]) -> str:
    """Return the layer kinds accepted at ``loc``: of the network, or inside a block."""
    specs = get_args(get_args(LayerSpec if len(loc) <= 2 else InnerSpec)[0])
    return ", ".join(kind for kind, spec in _LAYERS.items() if spec in specs)


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in _without_tags(loc))


def _without_tags(loc: Sequence[int | str]) -> Iterator[int | str]:
    """Return a layer's location without the kind that pydantic puts after its index."""
    for place, part in enumerate(loc):
        if not (place and isinstance(loc[place - 1], int) and loc[0] == "network"):
            yield part


def _fields(loc: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at ``loc``."""
    section: type[BaseModel] = RunConfig
    inside = list(loc)
    if len(loc) >= 3 and loc[0] == "network":
        kind = max(place for place, part in enumerate(loc) if part in _LAYERS)
        section, inside = _LAYERS[str(loc[kind])], inside[kind + 1 :]
    for part in inside:
        annotation = section.model_fields[str(part)].annotation
        inner = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
        assert issubclass(inner, BaseModel)
        section = inner
    return list(section.model_fields)


def _in_a_section(key: str) -> str:
    """Return the section that a top-level key belongs to, for a message."""
    for section, field in RunConfig.model_fields.items():
        if key in getattr(field.annotation, "model_fields", {}):
            return f" (it belongs to {section}: {section}.{key})"
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
