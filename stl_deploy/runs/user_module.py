"""Load a user's torch module: run their Python file, and read their weights without running anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray
from torch import nn

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.npz import names_in, read_npz
from stl_deploy._util.remedies import option
from stl_deploy._util.units import counted
from stl_deploy._util.untrusted import error_location
from stl_deploy._util.user_file import run_as_module
from stl_deploy.errors import InputError
from stl_deploy.runs.weights_file import load_weights
from stl_deploy.tracing import Time


def load_module(source: str, weights: Path | None = None, say: Console = QUIET) -> nn.Module:
    """Return the module of ``FILE.py:NAME``: a module, or a class or function called without arguments.

    Runs the user's file. weights: a file of weights, see `load_weights`.
    Raises InputError for a file that cannot be run, a name that is not in it, and weights that do not fit.
    """
    file, name = name_in_file(source)
    made = _made(_target(file, name), file, name)
    if not isinstance(made, nn.Module):
        raise InputError(f"{source}: expected a torch.nn.Module, or what returns one; found a {type(made).__name__}")
    if weights is not None:
        load_weights(made, weights, say)
    return made


def name_in_file(source: str) -> tuple[str, str]:
    """Return the file and the name of ``FILE.py:NAME``; raise InputError for another form or a missing file."""
    file, separator, name = source.rpartition(":")
    if not separator or not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"{source!r}: expected FILE.py:NAME, the name of a module, a class or a function in the file")
    if not Path(file).is_file():
        raise InputError(f"{file}: expected a Python file; found no such file")
    return file, name


def _run(file: Path) -> ModuleType:
    """Run the user's file; raise InputError, with its line, for whatever it raises."""
    try:
        with run_as_module(file, f"captured_{file.stem}") as module:
            return module
    except (Exception, SystemExit) as error:
        raise InputError(f"{file}: {error_location(error, file)}") from error


def load_function(source: str) -> Callable[..., Any]:
    """Return the function ``FILE.py:NAME``; runs the user's file. Raises InputError as `load_module`."""
    function = _target(*name_in_file(source))
    if not callable(function):
        raise InputError(f"{source}: expected a function; found a {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def _target(file: str, name: str) -> Any:
    module = _run(Path(file))
    target = getattr(module, name, None)
    if target is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise InputError(f"{file}: expected a name in it ({', '.join(own[:20]) or 'nothing to call'}); found '{name}'")
    return target


def _made(target: Any, file: str, name: str) -> Any:
    if isinstance(target, nn.Module) or not callable(target):
        return target
    try:
        return target()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{file}:{name}: {error_location(error, Path(file))}; it is called without arguments; "
            f"name a function that makes it: def make(): return {name}(...)"
        ) from error


def module_input(path: Path, time: Time | None = None) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Return ``x`` of an npz file for a module's forward, or of several inputs ``x__NAME`` by name.

    time: position of time in x, as for `stl_deploy.capture`; None: ``first``, and the caller has no such option.
    Raises InputError if there is none, or if labels ``y`` contradict the number of samples.
    """
    arrays = read_npz(path, lambda name: name in ("x", "y") or name.startswith("x__"))
    labels = arrays.pop("y", None)
    if labels is not None and arrays:
        _require_samples(path, next(iter(arrays.values())).shape, labels, time)
    named = {name.removeprefix("x__"): array for name, array in arrays.items() if name != "x"}
    if named and "x" in arrays:
        raise InputError(f"{path}: expected one array x, or x__NAME for each input; found both")
    if named:
        return named
    if "x" not in arrays:
        raise InputError(
            f"{path}: expected an array 'x'; found {', '.join(names_in(path)) or 'nothing'}; write it with "
            "numpy.savez('x.npz', x=x)"
        )
    return arrays["x"]


def _require_samples(path: Path, shape: tuple[int, ...], labels: NDArray[Any], time: Time | None) -> None:
    """Raise InputError if integer labels are not one for each sample of x as its axes are read."""
    axis = {"second": 0, "inside": 0, "none": 0}.get(time or "first", 1)
    if labels.dtype.kind not in "iub" or not labels.ndim or len(shape) <= axis or len(labels) == shape[axis]:
        return
    read = counted(shape[axis], "sample")
    remedies = []
    if time not in ("inside", "none") and len(shape) > 1:
        read = f"{counted(shape[1 - axis], 'step')} of {read}"
        if len(labels) == shape[1 - axis]:
            other = {"first": "second", "second": "first"}.get(time or "")
            if other is not None:
                order = "[B, T, ...]" if other == "second" else "[T, B, ...]"
                remedies.append(f"if forward takes {order}, give {option('time', other)}")
            if time != "second":
                remedies.append("if forward takes [T, B, ...], swap the first two axes of x")
    raise InputError(
        f"{path}: 'y': expected one label for each sample (x, {list(shape)}, is read as {read}); found "
        f"{labels.dtype} {list(labels.shape)}; {'; '.join(remedies) or 'leave y out if it holds no labels'}"
    )
