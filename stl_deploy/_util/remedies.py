"""Phrase remedies in the reader's interface (the command line's options, or Python's keywords), and suggest names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, get_args

from stl_deploy.errors import InputError, Remedy

_NAMES = {
    "goal": "--for",
    "input_file": "--input",
    "output": "-o",
    "reader": "--for",
    "targets": "--target",
}
"""Options whose name on the command line is not that of the keyword with two dashes."""


@contextmanager
def command_line() -> Iterator[None]:
    """Use the command line's options in sentences inside; outside, Python's keywords and calls."""
    before, Remedy.on_command_line = Remedy.on_command_line, True
    try:
        yield
    finally:
        Remedy.on_command_line = before


def remedy(*, cli: str, python: str) -> Remedy:
    """Return the remedy for the reader's interface."""
    return Remedy(python, cli)


def option(name: str, value: object = None) -> str:
    """Return an option with its value: ``--input-grid BITS``, or ``input_grid=BITS`` in Python.

    name: of the keyword. value: None for a flag; a placeholder in capitals stays as it is.
    """
    text = "" if value is None else str(value)
    return remedy(
        cli=f"{_NAMES.get(name, '--' + name.replace('_', '-'))} {text}".rstrip(),
        python=f"{name}={_literal(value)}",
    )


def named(name: str) -> str:
    """Return an option without its value: ``--input-grid``, or ``input_grid``."""
    return remedy(cli=option(name), python=name)


def verb(name: str) -> str:
    """Return a command, in quotes, or its function in Python: ``'stl-deploy run'``, or ``stl_deploy.verbs.run``."""
    return remedy(cli=f"'stl-deploy {name}'", python=f"stl_deploy.verbs.{name.replace('-', '_')}")


def energy_again(run_dir: object) -> str:
    """Return the call that recomputes a run folder's energy.json."""
    return remedy(
        cli=f"stl-deploy energy {run_dir} -o {run_dir}",
        python=f"stl_deploy.verbs.energy(Path({str(run_dir)!r}), None, output=Path({str(run_dir)!r}))",
    )


def _literal(value: object) -> str:
    if value is None:
        return "True"
    if isinstance(value, str) and not value.isupper() and not value.startswith(("[", "(", "{")):
        return repr(value)
    return str(value)


def require_name(name: object, what: str) -> str:
    """Return the name of a format or backend; raise InputError for a list of names, or what is none."""
    if not isinstance(name, str):
        raise InputError(f"expected the name of one {what}, as 'onnx'; found a {type(name).__name__}: {name!r}")
    return name


def require_one_of(name: object, known: Any, what: str) -> None:
    """Raise InputError with the known names, and a close one, for a name that is not among them.

    known: names, or a Literal of them.

    >>> require_one_of("stpe", ["sequence", "step"], named("form"))
    InputError: form: expected one of sequence, step; found 'stpe' (did you mean 'step'?)
    """
    names = list(get_args(known) or known)
    if name not in names:
        close = did_you_mean(str(name), names)
        raise InputError(f"{what}: expected one of {', '.join(names)}; found {name!r}{close}", slug="unknown-name")


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return `` (did you mean 'mnist'?)`` if ``known`` has a name close to ``name``, else nothing.

    most: names suggested. With more than one, those that contain ``name`` count as close, too.
    """
    names = sorted(known)
    containing = [candidate for candidate in names if name and name in candidate] if most > 1 else []
    close = list(dict.fromkeys([*get_close_matches(name, names, n=most), *containing]))[:most]
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
