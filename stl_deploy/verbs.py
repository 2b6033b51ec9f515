"""The command line's verbs as Python functions, under the same names.

    from stl_deploy import verbs
    verbs.export(Path("runs/digits"), "onnx", Path("net.onnx"))

Each is imported when it is first asked for, so a conversion does not wait for torch. ``eval`` is `evaluate`, since
Python has an ``eval`` of its own. What ``check`` does on a folder is `check_folder`; what it does with ``--input`` is
`measure` (which options of the dialect matter) and `near_threshold` (which spikes rounding could move), and of a
network before its training `check_untrained`. ``fold`` and ``report`` of a .nir file are `fold_file` and
`report_graph`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stl_deploy.exporters.lava.environment import install as lava_install
    from stl_deploy.exporters.lava.environment import remove as lava_remove
    from stl_deploy.exporters.witnesses.environment import witness_install, witness_remove, witness_status
    from stl_deploy.pipeline.capture_file import capture
    from stl_deploy.pipeline.check import check, check_folder, measure, near_threshold
    from stl_deploy.pipeline.configure import configure
    from stl_deploy.pipeline.doctor import doctor
    from stl_deploy.pipeline.energy import energy
    from stl_deploy.pipeline.export import export
    from stl_deploy.pipeline.fold import fold
    from stl_deploy.pipeline.fold_file import fold_file
    from stl_deploy.pipeline.join import join
    from stl_deploy.pipeline.listings import datasets, lava_status, models, prices, targets
    from stl_deploy.pipeline.pretrained import run_pretrained
    from stl_deploy.pipeline.quantise import quantise
    from stl_deploy.pipeline.report import report
    from stl_deploy.pipeline.report_graph import report_graph
    from stl_deploy.pipeline.run import run
    from stl_deploy.pipeline.show import show
    from stl_deploy.pipeline.simulate import simulate
    from stl_deploy.pipeline.train import evaluate, train
    from stl_deploy.pipeline.untrained import check_untrained
    from stl_deploy.pipeline.verify import verify

_HOME = {
    "capture": "pipeline.capture_file",
    "check": "pipeline.check",
    "check_folder": "pipeline.check",
    "check_untrained": "pipeline.untrained",
    "configure": "pipeline.configure",
    "datasets": "pipeline.listings",
    "doctor": "pipeline.doctor",
    "energy": "pipeline.energy",
    "evaluate": "pipeline.train",
    "export": "pipeline.export",
    "fold": "pipeline.fold",
    "fold_file": "pipeline.fold_file",
    "join": "pipeline.join",
    "lava_install": "exporters.lava.environment",
    "lava_remove": "exporters.lava.environment",
    "lava_status": "pipeline.listings",
    "measure": "pipeline.check",
    "models": "pipeline.listings",
    "near_threshold": "pipeline.check",
    "prices": "pipeline.listings",
    "quantise": "pipeline.quantise",
    "report": "pipeline.report",
    "report_graph": "pipeline.report_graph",
    "run": "pipeline.run",
    "run_pretrained": "pipeline.pretrained",
    "show": "pipeline.show",
    "simulate": "pipeline.simulate",
    "targets": "pipeline.listings",
    "train": "pipeline.train",
    "verify": "pipeline.verify",
    "witness_install": "exporters.witnesses.environment",
    "witness_remove": "exporters.witnesses.environment",
    "witness_status": "exporters.witnesses.environment",
}
_ELSEWHERE = {"lava_install": "install", "lava_remove": "remove"}
"""Those that have another name where they live."""


def __dir__() -> list[str]:
    return list(__all__)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(_HOME)}")
    found = getattr(import_module(f"stl_deploy.{_HOME[name]}"), _ELSEWHERE.get(name, name))
    globals()[name] = found
    return found


__all__ = [
    "capture",
    "check",
    "check_folder",
    "check_untrained",
    "configure",
    "datasets",
    "doctor",
    "energy",
    "evaluate",
    "export",
    "fold",
    "fold_file",
    "join",
    "lava_install",
    "lava_remove",
    "lava_status",
    "measure",
    "models",
    "near_threshold",
    "prices",
    "quantise",
    "report",
    "report_graph",
    "run",
    "run_pretrained",
    "show",
    "simulate",
    "targets",
    "train",
    "verify",
    "witness_install",
    "witness_remove",
    "witness_status",
]
