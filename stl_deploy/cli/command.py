"""Build commands from functions: a parameter that is an options class becomes one option per field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from stl_deploy import verbs
from stl_deploy.cli.output import console, emit_json
from stl_deploy.cli.signatures import signature_of
from stl_deploy.config.options import shown
from stl_deploy.errors import InputError
from stl_deploy.verbs import arguments as lists


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


def verb_command(verb: str, name: str, text: str) -> Any:
    """Return a verb's function as a command: its parameters as options, its result as JSON, a failed check as such.

    The function is imported when the command runs; its signature is enough for help.
    """
    function = signature_of(f"stl_deploy.{verbs.HOME[verb]}", verb)
    hints = get_type_hints(function, include_extras=True)
    parameters: list[Parameter] = []
    for parameter in signature(function).parameters.values():
        hint = hints[parameter.name]
        if parameter.name == "options":
            parameters += _spread(_class_of(hint))
        elif get_origin(hint) is Annotated:  # others are Python's alone
            parameters.append(_argument(parameter, hint))
    if any(lists.RUNS_CODE in get_args(hint) for hint in hints.values()):
        parameters.append(_parameter("_trust", bool, get_args(lists.Trust)[1], False))
    parameters.append(_parameter("json", bool, get_args(lists.Json)[1], False))

    def call(**given: Any) -> None:
        wanted = given.pop("json")
        given.pop("_trust", None)  # heeded when it was parsed
        if "options" in hints:
            given["options"] = _gathered(_class_of(hints["options"]), given)
        result = getattr(verbs, verb)(**given, say=console())
        emit_json(result.as_dict() if hasattr(result, "as_dict") else result, wanted)
        if hasattr(result, "require"):
            result.require()

    made: Any = call
    made.__signature__ = Signature(parameters)
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name, help=text)(call)
    return typer.main.get_command(alone)


def _class_of(hint: Any) -> Any:
    return next(kind for kind in (hint, *get_args(hint)) if is_dataclass(kind))


def _argument(parameter: Parameter, hint: Any) -> Parameter:
    """Return a parameter in typer's form; one that may be None need not be given."""
    own, *more = get_args(hint)
    parsed = next((about.kind for about in more if isinstance(about, lists.As)), own)
    shown = [about for about in more if isinstance(about, ParameterInfo)]
    default = parameter.default
    if default is Parameter.empty and NoneType in get_args(own):
        default = None
    return Parameter(parameter.name, Parameter.KEYWORD_ONLY, annotation=Annotated[parsed, *shown], default=default)


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
