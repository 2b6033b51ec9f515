"""Take keyword arguments from an options class, and name the right keyword in errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, ParamSpec, TypeVar

from stl_deploy._util.remedies import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
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
        checked: Any = right_keywords(renamed, [parameter.name for parameter in (*own, *named)])(function)
        checked.__signature__ = Signature([*own, *named], return_annotation=signature(function).return_annotation)
        made: Callable[P, R] = checked
        return made

    return decorate


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
