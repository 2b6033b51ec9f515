"""Build commands from functions: a parameter that is an options class becomes one option per field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer

from stl_deploy.cli import options as lists
from stl_deploy.config.options import shown
from stl_deploy.errors import InputError


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function in typer's form: an options class among its parameters is spread into options."""
    hints = get_type_hints(function, include_extras=True)
    classes: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[Parameter] = []
    for parameter in signature(function).parameters.values():
        if parameter.name in classes:
            parameters += _spread(hints[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=Parameter.KEYWORD_ONLY))

    @wraps(function)
    def call(**given: Any) -> None:
        function(**{name: _gathered(kind, given) for name, kind in classes.items()}, **given)

    made: Any = call
    made.__signature__ = Signature(parameters)
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _spread(options: type) -> Iterator[Parameter]:
    hints = get_type_hints(options)
    for field in fields(options):
        how = shown(field)
        if how.hidden:
            continue
        if how.switches is not None:
            for value, text in how.switches.items():
                yield _parameter(value, bool, typer.Option(f"--{value}", help=text), False)
            continue
        completed = None if how.choices is None else lists.completed(getattr(lists, how.choices))
        kind, default = how.kind or hints[field.name], None if field.default is MISSING else field.default
        if how.parse is not None:
            default = None
        if _is_off(field):
            default = False
        option = typer.Option(*how.names, metavar=how.metavar, help=how.help, autocompletion=completed)
        yield _parameter(field.name, kind, option, default)


def _parameter(name: str, kind: Any, option: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option], default=default)


def _is_off(field: Field[Any]) -> bool:
    """Return whether a flag turns the option off."""
    return field.default is True and len(shown(field).names) == 1 and "/" not in shown(field).names[0]


def _gathered(options: type, given: dict[str, Any]) -> Any:
    """Build the options class from typer's parsed values, which are removed from ``given``."""
    values: dict[str, Any] = {}
    for field in fields(options):
        how = shown(field)
        if how.hidden:
            continue
        if how.switches is not None:
            chosen = [value for value in how.switches if given.pop(value)]
            if len(chosen) > 1:
                *some, last = (f"--{value}" for value in how.switches)
                raise InputError(f"{', '.join(some)} and {last} exclude each other; give one")
            values[field.name] = chosen[0] if chosen else field.default
            continue
        value = given.pop(field.name)
        if how.parse is not None:
            value = getattr(lists, how.parse)(value)
        values[field.name] = not value if _is_off(field) else value
    return options(**values)
