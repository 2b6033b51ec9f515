"""Keyword arguments that come from an options class, and errors that name the right keyword."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, ParamSpec, TypeVar

from stl_deploy._util.suggest import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
PLUG_INS = "target_options"
"""The field of an options class that takes options of other packages' targets."""


def named_options(options: type, **renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a function that takes ``**options``: its signature names the fields of the class, errors the right keyword.

    renamed: keywords that are often meant, to those that are taken. Where the class has a field ``target_options``, a
    keyword that is close to none goes there: its target judges it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        own = [p for p in signature(function).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        named = [
            Parameter(
                one.name,
                Parameter.KEYWORD_ONLY,
                default={} if one.default is MISSING else one.default,
                annotation=one.type,
            )
            for one in fields(options)
        ]
        checked: Any = right_keywords(renamed, [one.name for one in (*own, *named)])(function)
        checked.__signature__ = Signature([*own, *named], return_annotation=signature(function).return_annotation)
        made: Callable[P, R] = checked
        return made

    return decorate


def right_keywords(renamed: dict[str, str], known: Iterable[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A wrong keyword's TypeError names the right one; known: default: as the function's signature has them."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(known) or [*signature(function).parameters]
        title = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            others: dict[str, Any] = {}
            for name in [name for name in kwargs if name not in names]:
                hint = did_you_mean(name, names)
                if renamed.get(name) in names:
                    hint = f"; use {renamed[name]}="
                if hint or PLUG_INS not in names:
                    takes = ", ".join(one for one in names if one != "self")
                    raise TypeError(f"{title}() has no keyword '{name}'{hint}; it takes {takes}")
                others[name] = kwargs.pop(name)
            if others:
                kwargs[PLUG_INS] = {**kwargs.get(PLUG_INS, {}), **others}  # type: ignore[dict-item]
            return function(*args, **kwargs)

        return call

    return decorate
