"""Pages made from the program itself: every verb with its options, every configuration key, every dialect."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

EXIT_CODES = (
    ("0", "done"),
    ("1", "a check failed: spikes differ, a target cannot hold the net, a tool or package is missing"),
    ("2", "the call or its input is wrong"),
    ("70", "a defect of ours; please report it"),
    ("130", "interrupted"),
)


def command_line() -> str:
    """Every verb with its arguments and options, from the command line itself."""
    import typer

    from stl_deploy.cli.app import app

    root: Any = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "Made from the command line itself. Human text goes to stderr, `--json` data to stdout. Global options: "
        "`-q` prints less, `-v` more, `--debug` shows tracebacks.",
        "",
        "| exit code | means |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES),
        "",
    ]
    for path, command in _commands(root, "stl-deploy"):
        lines += _verb(path, command)
    return "\n".join(lines)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name in group.commands:
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _verb(path: str, command: Any) -> list[str]:
    hints = get_type_hints(command.callback)
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-") and not p.hidden]
    usage = " ".join([path, *(_metavar(p) if p.required else f"[{_metavar(p)}]" for p in arguments)])
    lines = [f"## {path.removeprefix('stl-deploy ')}", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", ""]
    if arguments or options:
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        for p in arguments:
            lines.append(f"| `{_cell(_metavar(p))}` | {'required' if p.required else '-'} | {_cell(p.help or '')} |")
        lines += [f"| {_names(p, hints[p.name])} | {_default(p)} | {_cell(p.help or '')} |" for p in options]
    return [*lines, ""]


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _names(option: Any, hint: Any) -> str:
    names = " ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    choices = [each for each in (get_args(hint), *map(get_args, get_args(hint))) if each and isinstance(each[0], str)]
    if choices:
        return f"{names} {' '.join(f'`{choice}`' for choice in choices[0])}"
    return f"{names} `{_cell(option.metavar or _WORDS[_base(hint)])}`"


_WORDS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def _base(hint: Any) -> Any:
    """The type within an optional or a list."""
    inside = [each for each in get_args(hint) if each is not type(None)]
    return _base(inside[0]) if inside else hint


def _default(option: Any) -> str:
    value = option.default
    if value is None or value is False or value == () or callable(value) or "Sentinel" in type(value).__name__:
        return "required" if option.required else "-"
    return f"`{getattr(value, 'value', value)}`".lower() if value is True else f"`{getattr(value, 'value', value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def configuration() -> str:
    """Every section and key of a run's configuration, from the schema."""
    from pydantic import BaseModel

    from stl_deploy.config import schema

    lines = [
        "# Configuration keys",
        "",
        "Made from the schema. A configuration is a YAML file with these sections; "
        "`stl-deploy train PRESET --print-config` prints a whole one. `--set section.key=value` changes one key. "
        "Unknown keys are errors.",
        "",
    ]
    models = [m for _, m in inspect.getmembers(schema, inspect.isclass) if issubclass(m, BaseModel) and m.model_fields]
    own = [m for m in models if m.__module__ == schema.__name__ and not m.__name__.startswith("_")]
    sections = {model: name for name, field in schema.RunConfig.model_fields.items() if (model := field.annotation)}
    order = {name: place for place, name in enumerate(vars(schema))}
    for model in sorted(own, key=lambda m: (m is not schema.RunConfig, order[m.__name__])):
        lines += _section(model, sections.get(model))
    return "\n".join(lines)


def _section(model: Any, section: str | None) -> list[str]:
    kind = model.model_fields.get("kind")
    named = f"`kind: {get_args(kind.annotation)[0]}`" if kind is not None else f"`{section}`" if section else None
    title = named or f"`{model.__name__}`"
    docstring = re.sub(r"`(stl_deploy[\w.]*\.)(\w+)`", r"`\2`", inspect.cleandoc(model.__doc__ or ""))
    lines = [f"## {title}", "", docstring.replace("``", "`"), "", "| key | accepts | default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if name != "kind":
            default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
            lines.append(f"| `{name}` | {_accepts(field)} | {default} |")
    return [*lines, ""]


def _accepts(field: Any) -> str:
    text = _type(field.annotation)
    bounds = [_bound(m) for m in field.metadata]
    return _cell(", ".join([text, *filter(None, bounds)]))


def _type(annotation: Any) -> str:
    from pydantic import BaseModel

    origin, inside = getattr(annotation, "__origin__", None), get_args(annotation)
    if annotation is type(None):
        return "null"
    if "Literal" in str(origin):
        return " or ".join(f"`{value}`" for value in inside)
    if "Annotated" in str(type(annotation)):
        return ", ".join([_type(inside[0]), *filter(None, (_bound(m) for m in _flat(inside[1:])))])
    if origin in (list, tuple):
        return "a list of " + _type(inside[0])
    if inside:
        return " or ".join(_type(each) for each in inside)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        return f"`{get_args(kind.annotation)[0]}`" if kind is not None else f"section `{annotation.__name__}`"
    words = {"int": "an integer", "float": "a number", "str": "text", "bool": "`true` or `false`"}
    return words.get(getattr(annotation, "__name__", ""), str(annotation))


def _flat(metadata: Any) -> list[Any]:
    return [each for m in metadata for each in (getattr(m, "metadata", None) or [m])]


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _bound(constraint: Any) -> str | None:
    limits = [f"{sign} {getattr(constraint, key):g}" for key, sign in _SIGNS.items() if hasattr(constraint, key)]
    return " and ".join(limits) or None


def _yaml(value: Any) -> str:
    if hasattr(value, "model_dump"):
        return "as its section says"
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if not isinstance(value, list) else "[]"


def targets() -> str:
    """Dialects, with every key, from their presets."""
    from stl_deploy.exporters.nir.dialect import CHOICES, PRESETS, Dialect

    spec = Dialect().as_dict()
    lines = [
        "# Dialects",
        "",
        "Made from the presets. What the keys mean, and why they are needed: [NIR and its dialects](../nir.md). "
        "`--dialect` takes a preset's name in any case, or a JSON file with any of these keys; "
        '`{"preset": "snntorch", "dt": 0.001}` starts from one.',
        "",
        "| key | in `spec` | choices |",
        "|---|---|---|",
        *(f"| `{k}` | `{_yaml(v)}` | {' '.join(f'`{c}`' for c in CHOICES.get(k, ()))} |" for k, v in spec.items()),
        "",
        "| preset | differs from `spec` in |",
        "|---|---|",
    ]
    for name, dialect in PRESETS.items():
        differs = ", ".join(f"`{k}` {v}" for k, v in dialect.as_dict().items() if v != spec[k])
        lines.append(f"| `{name}` | {differs or 'nothing'} |")
    return "\n".join([*lines, ""])


GROUPS = {
    "A model becomes a graph": ("capture", "read", "SpikingGraph"),
    "Neurons": ("LIF", "LI", "learn_thresholds"),
    "Training": ("train", "Run", "data"),
    "Targets of your own": ("register_target",),
}
"""Where the public names stand; errors come last, and a name that is new before them."""


def python() -> str:
    """Every public name of ``import stl_deploy as stl``, and every verb."""
    from types import ModuleType

    import stl_deploy as stl
    from stl_deploy import verbs

    public = list(stl.__all__)
    errors = [name for name in public if _is_error(getattr(stl, name))]
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in public if name not in grouped and name not in errors)
    lines = [
        "# Python",
        "",
        "`import stl_deploy as stl` imports nothing heavy; each name is loaded when it is first asked for. Arrays that "
        "carry time are `[T, B, ...]`: steps first, then samples.",
        "",
    ]
    for title, names in {**GROUPS, "More": others, "Errors": tuple(errors)}.items():
        there = [name for name in names if name in public]
        lines += [f"## {title}", ""] if there else []
        for name in there:
            member = getattr(stl, name)
            lines += [f"::: stl_deploy.{name}", ""]
            if isinstance(member, ModuleType):
                lines[-2:] = [f"### `stl.{name}`", "", inspect.cleandoc(member.__doc__ or ""), ""]
                lines += [line for each in _public(member) for line in (f"::: stl_deploy.{name}.{each}", "")]
    lines += ["## Options", "", *options()]
    lines += ["## Verbs", "", inspect.cleandoc(verbs.__doc__ or ""), ""]
    return "\n".join(lines + [line for name in verbs.__all__ for line in (f"::: {_place(verbs, name)}", "")])


def options() -> list[str]:
    """The options of each verb as tables: keywords of methods and of `stl_deploy.verbs`."""
    from dataclasses import MISSING, fields

    from stl_deploy.config import options as module
    from stl_deploy.config import run_options

    lines = ["Keywords of methods and verbs. The command line has the same, with `--` and dashes.", ""]
    for name, kind in {**vars(module), **vars(run_options)}.items():
        if not name.endswith("Options"):
            continue
        lines += [f"### {name.removesuffix('Options').lower()}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
        lines += ["| keyword | default | meaning |", "|---|---|---|"]
        for field in fields(kind):
            default, how = "{}" if field.default is MISSING else repr(field.default), module.shown(field)
            text = (
                f"False: {how.help[0].lower()}{how.help[1:]}" if how.names[:1] == (f"--no-{field.name}",) else how.help
            )
            text += "".join(f" {value}: {switch.partition(': ')[2]}" for value, switch in (how.switches or {}).items())
            lines.append(f"| `{field.name}` | `{default}` | {_cell(text)} |")
        lines.append("")
    return lines


def _public(module: Any) -> list[str]:
    members = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
    return [name for name, value in members.items() if inspect.isclass(value) or inspect.isfunction(value)]


def _place(module: Any, name: str) -> str:
    member = getattr(module, name)
    return f"{member.__module__}.{member.__qualname__}"


def _is_error(member: Any) -> bool:
    return inspect.isclass(member) and issubclass(member, Exception)


PAGES = {
    "reference/python.md": python,
    "reference/command-line.md": command_line,
    "reference/configuration.md": configuration,
    "reference/dialects.md": targets,
}
