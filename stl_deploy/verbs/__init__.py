"""The command line's verbs as Python functions, under the same names.

    from stl_deploy import verbs
    verbs.export(Path("runs/digits"), "onnx", Path("net.onnx"))

Each is imported at first use, so a conversion does not load torch. Names that differ from the verbs:

- ``eval`` is `evaluate`, because Python has its own ``eval``.
- ``check`` with ``input_file`` also calls
  `measure` (which dialect options matter) and `near_threshold` (which spikes rounding could change).
- ``report`` of a .nir file is `report_graph`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stl_deploy.exporters.witnesses.environment import witness_install as witness_install
    from stl_deploy.exporters.witnesses.environment import witness_remove as witness_remove
    from stl_deploy.exporters.witnesses.environment import witness_status as witness_status
    from stl_deploy.report.graph_report import report_graph as report_graph
    from stl_deploy.report.paper_tables import papers as papers
    from stl_deploy.report.run_report import report as report
    from stl_deploy.runs.configure import configure as configure
    from stl_deploy.runs.train import train as train
    from stl_deploy.verbs.artifacts import export as export
    from stl_deploy.verbs.artifacts import simulate as simulate
    from stl_deploy.verbs.artifacts import verify as verify
    from stl_deploy.verbs.capturing import capture as capture
    from stl_deploy.verbs.checking import check as check
    from stl_deploy.verbs.checking import measure as measure
    from stl_deploy.verbs.checking import near_threshold as near_threshold
    from stl_deploy.verbs.checking import show as show
    from stl_deploy.verbs.conformance import nir_conformance as nir_conformance
    from stl_deploy.verbs.converting import convert as convert
    from stl_deploy.verbs.energy_of import energy as energy
    from stl_deploy.verbs.evaluating import evaluate as evaluate
    from stl_deploy.verbs.folding import fold as fold
    from stl_deploy.verbs.fpga import fpga_run as fpga_run
    from stl_deploy.verbs.fpga import synthesise as synthesise
    from stl_deploy.verbs.joining import join as join
    from stl_deploy.verbs.listings import datasets as datasets
    from stl_deploy.verbs.listings import doctor as doctor
    from stl_deploy.verbs.listings import lava_status as lava_status
    from stl_deploy.verbs.listings import models as models
    from stl_deploy.verbs.listings import prices as prices
    from stl_deploy.verbs.listings import targets as targets
    from stl_deploy.verbs.quantising import quantise as quantise
    from stl_deploy.verbs.weighing import optimise as optimise
    from stl_deploy.verbs.whole_way import run as run
    from stl_deploy.verbs.whole_way import run_pretrained as run_pretrained

HOME = {
    "capture": "verbs.capturing",
    "check": "verbs.checking",
    "configure": "runs.configure",
    "convert": "verbs.converting",
    "datasets": "verbs.listings",
    "doctor": "verbs.listings",
    "energy": "verbs.energy_of",
    "evaluate": "verbs.evaluating",
    "export": "verbs.artifacts",
    "fold": "verbs.folding",
    "fpga_run": "verbs.fpga",
    "join": "verbs.joining",
    "lava_install": "exporters.lava.environment",
    "lava_remove": "exporters.lava.environment",
    "lava_status": "verbs.listings",
    "measure": "verbs.checking",
    "models": "verbs.listings",
    "near_threshold": "verbs.checking",
    "nir_conformance": "verbs.conformance",
    "optimise": "verbs.weighing",
    "papers": "report.paper_tables",
    "prices": "verbs.listings",
    "quantise": "verbs.quantising",
    "report": "report.run_report",
    "report_graph": "report.graph_report",
    "run": "verbs.whole_way",
    "run_pretrained": "verbs.whole_way",
    "show": "verbs.checking",
    "simulate": "verbs.artifacts",
    "synthesise": "verbs.fpga",
    "targets": "verbs.listings",
    "train": "runs.train",
    "verify": "verbs.artifacts",
    "witness_install": "exporters.witnesses.environment",
    "witness_remove": "exporters.witnesses.environment",
    "witness_status": "exporters.witnesses.environment",
}
"""Where each function lives."""
__all__ = list(HOME)
_ELSEWHERE = {"lava_install": "install", "lava_remove": "remove"}
"""Those that have another name where they live."""


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(HOME)}")
    function = getattr(import_module(f"stl_deploy.{HOME[name]}"), _ELSEWHERE.get(name, name))
    globals()[name] = function
    return function
