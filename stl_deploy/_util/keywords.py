"""Take keyword arguments from an options class, and name the right keyword in errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import cache, wraps
from inspect import Parameter, Signature, signature
from numbers import Integral, Real
from types import NoneType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from stl_deploy._util.remedies import did_you_mean
from stl_deploy.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool, np.bool_)),
    int: ("an integer", (Integral,)),
    float: ("a number", (Real,)),
}
PLUG_INS = "target_options"
"""The field of an options class that takes options of other packages' targets."""


def named_options(options: type, **renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function with ``**options`` the class's fields as its signature, and errors that name the right keyword.

    renamed: keywords that are often meant, to those that are taken. Where the class has a field ``target_options``, a
    keyword that is close to none goes there: its target judges it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        own = [p for p in signature(function).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        named = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default={} if field.default is MISSING else field.default,
                annotation=field.type,
            )
            for field in fields(options)
        ]

        @wraps(function)
        def typed(*args: P.args, **kwargs: P.kwargs) -> R:
            hints = _hints(options)
            for name, value in kwargs.items():
                if name in hints:
                    require_kind(name, value, hints[name])
            return function(*args, **kwargs)

        checked: Any = right_keywords(renamed, [parameter.name for parameter in (*own, *named)])(typed)
        checked.__signature__ = Signature([*own, *named], return_annotation=signature(function).return_annotation)
        made: Callable[P, R] = checked
        return made

    return decorate


@cache
def _hints(options: type) -> dict[str, Any]:
    return get_type_hints(options)


def require_kind(name: str, value: object, hint: Any) -> None:
    """Raise InputError for a value that is no bool, integer or number where ``hint`` is of these alone, or of None.

    Of a mapping of numbers, each.
    """
    if get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: expected a dict; found {value!r}")
        for key, entry in value.items():
            require_kind(f"{name}[{key!r}]", entry, get_args(hint)[1])
        return
    kinds = {*(get_args(hint) or (hint,))}
    if not kinds <= {*_KINDS, NoneType} or (value is None and NoneType in kinds):
        return
    is_flag = isinstance(value, bool) and bool not in kinds
    if is_flag or not any(isinstance(value, _KINDS[kind][1]) for kind in kinds - {NoneType}):
        expected = " or ".join(_KINDS[kind][0] for kind in (bool, int, float) if kind in kinds)
        raise InputError(f"{name}: expected {expected}; found {value!r}")


def right_keywords(renamed: dict[str, str], known: Iterable[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Name the right keyword in a wrong keyword's TypeError.

    renamed: as for `named_options`; a value may follow, as in ``decay=1 - 1 / tau``. known: default: the signature.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function).parameters
        names = list(known) or [*parameters]
        title = function.__qualname__.removesuffix(".__init__")
        kinds = [parameter.kind for parameter in parameters.values()]
        by_place = sum(kind in _BY_PLACE for kind in kinds)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > by_place and Parameter.VAR_POSITIONAL not in kinds:
                first = [name for name in names[:by_place] if name != "self"]
                given = len(args) - by_place + len(first)
                raise TypeError(
                    f"{title}() takes {' and '.join(first) or 'nothing'} by position; found {given} values; "
                    f"give the others by name: {', '.join(names[by_place:])}"
                )
            others: dict[str, Any] = {}
            for name in [name for name in kwargs if name not in names]:
                hint = did_you_mean(name, names)
                meant, _, example = renamed.get(name, "").partition("=")
                if meant in names:
                    hint = f"; use {meant}={example}"
                if hint or PLUG_INS not in names:
                    takes = ", ".join(name for name in names if name != "self")
                    raise TypeError(f"{title}() has no keyword '{name}'{hint}; it takes {takes}")
                others[name] = kwargs.pop(name)
            if others:
                kwargs[PLUG_INS] = {**kwargs.get(PLUG_INS, {}), **others}  # type: ignore[dict-item]
            return function(*args, **kwargs)

        return call

    return decorate
