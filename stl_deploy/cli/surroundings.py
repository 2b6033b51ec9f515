"""Start-up of the command line: libraries get settings of ours, whatever the shell or the current folder holds."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stl_deploy._util import install
from stl_deploy._util.threads import sleep_when_idle

_FIXED = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
"""Figures go into files alone. Jupyter names a backend for its own Python, which may not be this one."""
_SET_ASIDE = ("TORCH_LOGS",)
"""Whose unknown values keep torch from being imported."""
_READ_HERE = {"matplotlibrc": "matplotlib", ".numba_config.yaml": "numba"}
"""Files of the current folder, and the packages that read them when they are imported, and fail if they are damaged."""


def prepare_libraries() -> None:
    """Set environment variables that libraries read, before any is imported."""
    sleep_when_idle()
    os.environ.update(_FIXED)
    for name in _SET_ASIDE:
        os.environ.pop(name, None)
    if not os.environ.get("SOURCE_DATE_EPOCH", "0").isdecimal():
        del os.environ["SOURCE_DATE_EPOCH"]
    for name, package in _READ_HERE.items():
        if os.path.lexists(name) and install.is_there(package):
            with _elsewhere():
                importlib.import_module(package)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Inside, the current folder is this package's."""
    before = os.open(".", os.O_RDONLY) if hasattr(os, "fchdir") else os.getcwd()
    os.chdir(Path(__file__).parent)
    try:
        yield
    finally:
        os.chdir(before)
        if isinstance(before, int):
            os.close(before)
