"""Turn pydantic errors into sentences: key, expected, found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stl_deploy._util.suggest import did_you_mean
from stl_deploy.config.schema import InnerSpec, LayerSpec, RunConfig

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
