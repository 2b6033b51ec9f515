"""Report contents as plain data, so that any pipeline can fill them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from stl_deploy.errors import InputError
from stl_deploy.graph.compare import ParityRow
from stl_deploy.pipeline.parity import Accuracy

SCHEMA_VERSION = 1
_PLAIN = {str, int, bool, type(None)}


@dataclass(frozen=True)
class Thresholds:
    """A layer's thresholds before and after training, any shape; ``granularity``: neuron, channel or layer."""

    layer: str
    granularity: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Raster:
    """Spikes of one sample in one layer: ``spikes`` is ``[T, neurons]`` (flattened), 0 where silent."""

    layer: str
    spikes: Any


@dataclass(frozen=True)
class ReportData:
    """Contents of the page. ``energy`` is an energy JSON (`EnergyReport.as_dict`), or None.

    summary: run settings, label to text. curves: one record per epoch (``epoch``, ``loss``,
    ``train_accuracy``, ``validation_loss``, ``validation_accuracy``, ``rates`` {layer: rate}; others are kept).
    tradeoff: accuracy against energy, as `stl_deploy.pipeline.tradeoff.Tradeoff.as_dict` has it.
    raster_sample: which sample the raster shows. environment: versions and machine, label to text.
    """

    title: str
    summary: Mapping[str, str] = field(default_factory=dict)
    accuracy: Sequence[Accuracy] = ()
    curves: Sequence[Mapping[str, Any]] = ()
    thresholds: Sequence[Thresholds] = ()
    rasters: Sequence[Raster] = ()
    raster_sample: str = ""
    parity: Sequence[ParityRow] = ()
    energy: Mapping[str, Any] | None = None
    tradeoff: Mapping[str, Any] | None = None
    assumptions: Sequence[str] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)


def report_json(data: ReportData) -> dict[str, Any]:
    """Return the report's JSON twin; the page shows these numbers and no others.

    Raises InputError for a number that is not finite, naming where it stands.
    """
    return {"schema_version": SCHEMA_VERSION, **_plain(data, "report")}


def _plain(value: Any, where: str) -> Any:
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}; a report holds finite numbers, or null where there is none")
    return value
