"""Dataclasses with a JSON form of the same fields, and values of files held to their annotations."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")
_MOST = 2.0**63


@dataclass(frozen=True)
class JsonTwin:
    """A dataclass whose JSON twin has its fields, under their names."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin: every field under its name."""
        return asdict(self)


def from_twin(kind: type[T], value: Any, where: str = "it") -> T:
    """Return the dataclass of a JSON twin; raise ValueError for a value that is none."""
    hints = get_type_hints(kind)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected the keys {', '.join(hints)}; found {repr(value)[:60]}")
    if odd := sorted(value.keys() ^ hints.keys()):
        raise ValueError(f"{where}: expected the keys {', '.join(hints)}; '{odd[0][:60]}' is missing, or none of them")
    made = {name: _from_json(hint, value[name], f"{where}.{name}") for name, hint in hints.items()}
    for name, hint in hints.items():
        if not fits(made[name], hint):
            raise ValueError(f"{where}.{name}: expected {expected(hint)}; found {repr(value[name])[:60]}")
    return kind(**made)


def _from_json(hint: Any, value: Any, where: str) -> Any:
    inside = get_args(hint)
    if isinstance(value, list):
        return tuple(_from_json(inside[0], item, where) for item in value)
    if float in (hint, *inside) and type(value) in (int, float):
        return float(value) if abs(value) < _MOST else None
    kind = next(filter(is_dataclass, (hint, *inside)), None)
    return from_twin(kind, value, where) if isinstance(value, dict) and isinstance(kind, type) else value


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is what a field's annotation says; of arrays, whether it holds numbers of that kind."""
    kind, inside = _parts(hint)
    if kind is Literal:
        return isinstance(value, str) and value in inside
    if kind is UnionType:
        return any(fits(value, each) for each in inside)
    if kind is np.ndarray:
        (number,) = get_args(inside[1])
        return isinstance(value, np.ndarray) and value.dtype.kind == np.dtype(number).kind
    if kind is dict:
        return isinstance(value, dict) and all(fits(item, inside[1]) for item in value.values())
    if kind is tuple and isinstance(value, tuple):
        each = [inside[0]] * len(value) if inside[-1] is Ellipsis else inside
        return len(value) == len(each) and all(map(fits, value, each))
    return type(value) is (kind or hint)


def expected(hint: Any) -> str:
    """Return what an annotation says, in words."""
    kind, inside = _parts(hint)
    if kind is Literal:
        return ", ".join(inside)
    if kind is UnionType:
        return " or ".join(map(expected, inside))
    name: str = (kind or hint).__name__
    return {"ndarray": "an array", "tuple": "a list", "NoneType": "null"}.get(name, name)


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation's origin and arguments; of an alias, as NumPy 2.5 has NDArray, those of its value."""
    kind = get_origin(hint)
    if hasattr(kind, "__value__"):
        return _parts(kind.__value__[get_args(hint)])
    return kind, get_args(hint)
