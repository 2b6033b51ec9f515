"""The command line's verbs as Python functions, under the same names.

    from stl_deploy import verbs
    verbs.export(Path("runs/digits"), "onnx", Path("net.onnx"))

Each is imported when it is first asked for, so a conversion does not wait for torch. ``eval`` is `evaluate`, since
Python has an ``eval`` of its own. What ``check`` does on a folder is `check_folder`; what it does with ``--input`` is
`measure` (which options of the dialect matter) and `near_threshold` (which spikes rounding could move).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stl_deploy.exporters.lava.environment import install as lava_install
    from stl_deploy.pipeline.checking import check, check_folder, measure, near_threshold
    from stl_deploy.pipeline.configs import configure
    from stl_deploy.pipeline.costing import energy
    from stl_deploy.pipeline.exporting import export
    from stl_deploy.pipeline.folding import fold
    from stl_deploy.pipeline.joining import join
    from stl_deploy.pipeline.quantising import quantise
    from stl_deploy.pipeline.reporting import report
    from stl_deploy.pipeline.run import run
    from stl_deploy.pipeline.showing import show
    from stl_deploy.pipeline.simulating import simulate
    from stl_deploy.pipeline.surroundings import datasets, doctor, lava_status, prices, targets
    from stl_deploy.pipeline.training import evaluate, train
    from stl_deploy.pipeline.verifying import verify

_HOME = {
    "check": "pipeline.checking",
    "check_folder": "pipeline.checking",
    "configure": "pipeline.configs",
    "datasets": "pipeline.surroundings",
    "doctor": "pipeline.surroundings",
    "energy": "pipeline.costing",
    "evaluate": "pipeline.training",
    "export": "pipeline.exporting",
    "fold": "pipeline.folding",
    "join": "pipeline.joining",
    "lava_install": "exporters.lava.environment",
    "lava_status": "pipeline.surroundings",
    "measure": "pipeline.checking",
    "near_threshold": "pipeline.checking",
    "prices": "pipeline.surroundings",
    "quantise": "pipeline.quantising",
    "report": "pipeline.reporting",
    "run": "pipeline.run",
    "show": "pipeline.showing",
    "simulate": "pipeline.simulating",
    "targets": "pipeline.surroundings",
    "train": "pipeline.training",
    "verify": "pipeline.verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(_HOME)}")
    found = getattr(import_module(f"stl_deploy.{_HOME[name]}"), "install" if name == "lava_install" else name)
    globals()[name] = found
    return found


__all__ = [
    "check",
    "check_folder",
    "configure",
    "datasets",
    "doctor",
    "energy",
    "evaluate",
    "export",
    "fold",
    "join",
    "lava_install",
    "lava_status",
    "measure",
    "near_threshold",
    "prices",
    "quantise",
    "report",
    "run",
    "show",
    "simulate",
    "targets",
    "train",
    "verify",
]
