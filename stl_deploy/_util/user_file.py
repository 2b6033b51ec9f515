"""Run a Python file of the user's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType


@contextmanager
def run_as_module(file: Path, name: str) -> Iterator[ModuleType]:
    """Run the user's ``.py`` file as a module; modules beside it can be imported meanwhile."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "its name ends in .py"
    assert spec.loader is not None
    module, beside = importlib.util.module_from_spec(spec), str(file.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        # by value: the file may have put folders of its own before this one, or have taken it away
        with suppress(ValueError):
            sys.path.remove(beside)
