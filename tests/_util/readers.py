"""Readers for the tests of `isolated`: each does to the worker process what damage does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.isolated import progress
from stl_deploy._util.processes import lost
from stl_deploy.errors import InputError


def read(path: Path, how: Any = None) -> tuple[Any, list[NDArray[Any]]]:
    """Answer, or go wrong as ``how`` says."""
    match how:
        case "refuse":
            raise InputError(f"{path}: no")
        case "tool":
            raise lost("no tool")
        case "mistake":
            raise KeyError("of ours")
        case "crash":
            os.abort()
        case "loop":
            while True:
                pass
        case "go on":
            for _ in range(8):
                spend(0.06)
                progress()
        case "allocate":
            return None, [np.ones(2**27)]
        case "print":
            print("this is no answer")
            os.system("echo nor this")
    return ["found", {"a": 1}], [np.arange(6, dtype=np.int16).reshape(2, 3).T, np.empty((0, 2)), np.float32(3)[()]]


def spend(seconds: float) -> None:
    """Use processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
