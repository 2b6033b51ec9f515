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
    from stl_deploy.exporters.witnesses.environment import witness_install as witness_install
    from stl_deploy.exporters.witnesses.environment import witness_remove as witness_remove
    from stl_deploy.exporters.witnesses.environment import witness_status as witness_status
    from stl_deploy.pipeline.check import check as check
    from stl_deploy.pipeline.check import check_folder as check_folder
    from stl_deploy.pipeline.check import measure as measure
    from stl_deploy.pipeline.check import near_threshold as near_threshold
    from stl_deploy.pipeline.energy import energy as energy
    from stl_deploy.pipeline.export import export as export
    from stl_deploy.pipeline.fold import fold as fold
    from stl_deploy.pipeline.fold_file import fold_file as fold_file
    from stl_deploy.pipeline.fpga_run import fpga_run as fpga_run
    from stl_deploy.pipeline.optimise import optimise as optimise
    from stl_deploy.pipeline.quantise import quantise as quantise
    from stl_deploy.pipeline.show import show as show
    from stl_deploy.pipeline.simulate import simulate as simulate
    from stl_deploy.pipeline.train import evaluate as evaluate
    from stl_deploy.pipeline.train import train as train
    from stl_deploy.pipeline.verify import verify as verify
    from stl_deploy.report.graph_report import report_graph as report_graph
    from stl_deploy.report.paper_tables import papers as papers
    from stl_deploy.report.run_report import report as report
    from stl_deploy.runs.configure import configure as configure
    from stl_deploy.verbs.capturing import capture as capture
    from stl_deploy.verbs.conformance import nir_conformance as nir_conformance
    from stl_deploy.verbs.fpga import synthesise as synthesise
    from stl_deploy.verbs.joining import join as join
    from stl_deploy.verbs.listings import datasets as datasets
    from stl_deploy.verbs.listings import lava_status as lava_status
    from stl_deploy.verbs.listings import models as models
    from stl_deploy.verbs.listings import prices as prices
    from stl_deploy.verbs.listings import targets as targets
    from stl_deploy.verbs.machine import doctor as doctor
    from stl_deploy.verbs.pretrained_run import run_pretrained as run_pretrained
    from stl_deploy.verbs.untrained_network import check_untrained as check_untrained
    from stl_deploy.verbs.whole_way import run as run

_HOME = {
    "capture": "verbs.capturing",
    "check": "pipeline.check",
    "check_folder": "pipeline.check",
    "check_untrained": "verbs.untrained_network",
    "configure": "runs.configure",
    "datasets": "verbs.listings",
    "doctor": "verbs.machine",
    "energy": "pipeline.energy",
    "evaluate": "pipeline.train",
    "export": "pipeline.export",
    "fold": "pipeline.fold",
    "fpga_run": "pipeline.fpga_run",
    "fold_file": "pipeline.fold_file",
    "join": "verbs.joining",
    "lava_install": "exporters.lava.environment",
    "lava_remove": "exporters.lava.environment",
    "lava_status": "verbs.listings",
    "measure": "pipeline.check",
    "models": "verbs.listings",
    "near_threshold": "pipeline.check",
    "nir_conformance": "verbs.conformance",
    "optimise": "pipeline.optimise",
    "papers": "report.paper_tables",
    "prices": "verbs.listings",
    "quantise": "pipeline.quantise",
    "report": "report.run_report",
    "report_graph": "report.graph_report",
    "run": "verbs.whole_way",
    "run_pretrained": "verbs.pretrained_run",
    "show": "pipeline.show",
    "simulate": "pipeline.simulate",
    "synthesise": "verbs.fpga",
    "targets": "verbs.listings",
    "train": "pipeline.train",
    "verify": "pipeline.verify",
    "witness_install": "exporters.witnesses.environment",
    "witness_remove": "exporters.witnesses.environment",
    "witness_status": "exporters.witnesses.environment",
}
__all__ = list(_HOME)
_ELSEWHERE = {"lava_install": "install", "lava_remove": "remove"}
"""Those that have another name where they live."""


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(_HOME)}")
    found = getattr(import_module(f"stl_deploy.{_HOME[name]}"), _ELSEWHERE.get(name, name))
    globals()[name] = found
    return found
