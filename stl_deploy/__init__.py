"""stl-deploy: train, convert, verify and cost spiking neural networks.

    import stl_deploy as stl

    net = stl.read("their.nir", dialect="snntorch")
    net.check("onnx").raise_if_unsupported()
    net.export("net.onnx")
    bill = net.energy(x)

Names are imported at first use, so that ``import stl_deploy`` is fast.
The command line's verbs are functions in `stl_deploy.verbs`; ``stl-deploy`` is a thin layer over these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from stl_deploy.errors import (
    CaptureError,
    CheckFailed,
    ConfigError,
    DivergedError,
    GraphError,
    InputError,
    ParityError,
    StlDeployError,
    ToolError,
    UnavailableError,
    UnsupportedError,
)

if _TYPE_CHECKING:
    from stl_deploy import data
    from stl_deploy.exporters.targets import register_target
    from stl_deploy.nn.adapting import ALIF
    from stl_deploy.nn.learn_thresholds import learn_thresholds
    from stl_deploy.nn.neuron import LI, LIF
    from stl_deploy.pipeline.capture import capture
    from stl_deploy.pipeline.convert import convert
    from stl_deploy.pipeline.spiking_graph import SpikingGraph
    from stl_deploy.runs.source import read
    from stl_deploy.runs.trained_run import train

    __version__: str

_HOME = {
    "ALIF": "nn.adapting",
    "LI": "nn.neuron",
    "LIF": "nn.neuron",
    "SpikingGraph": "pipeline.spiking_graph",
    "capture": "pipeline.capture",
    "convert": "pipeline.convert",
    "learn_thresholds": "nn.learn_thresholds",
    "read": "runs.source",
    "register_target": "exporters.targets",
    "train": "runs.trained_run",
    "data": "",
}
"""Where each name lives; data is a package itself."""

__all__ = [
    "ALIF",
    "LI",
    "LIF",
    "CaptureError",
    "CheckFailed",
    "ConfigError",
    "DivergedError",
    "GraphError",
    "InputError",
    "ParityError",
    "SpikingGraph",
    "StlDeployError",
    "ToolError",
    "UnavailableError",
    "UnsupportedError",
    "capture",
    "convert",
    "data",
    "learn_thresholds",
    "read",
    "register_target",
    "train",
]


def __getattr__(name: str) -> _Any:
    from importlib import import_module

    if name == "__version__":
        value: _Any = _version()
    elif name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    elif not _HOME[name]:
        return import_module(f"stl_deploy.{name}")
    else:
        value = getattr(import_module(f"stl_deploy.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stl-deploy")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
