"""Metadata of our ONNX files: the tensors of each node, and the file's provenance.

Every value is JSON text under a key that starts with ``stl_deploy.``, so that viewers show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

import stl_deploy
from stl_deploy._util.npz import is_plain_name
from stl_deploy._util.remedies import remedy
from stl_deploy.config.options import OnnxForm, Precision
from stl_deploy.errors import InputError

PREFIX = "stl_deploy."
FORMAT = 1
"""Version of this metadata; a reader refuses a later one."""


class StateTensor(BaseModel):
    """A state of the step form: its input tensor, its output tensor, and its value at rest.

    start: a number, or nested lists that broadcast to the shape ``[B, *shape]``; integers for a state of integers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    node: str
    tensor: str
    next_tensor: str
    start: Any

    @property
    def rest(self) -> NDArray[Any]:
        """Return the value at rest as an array; raise ValueError if it is no array of numbers."""
        start = np.asarray(self.start)
        return start if start.dtype == np.int64 else start.astype(np.float32)


class Interface(BaseModel):
    """Tensors by node name. sequence and unrolled: ``[T, B, *shape]``; step: ``[B, *shape]``.

    spikes: the spiking nodes' outputs, empty if the file was written without them.
    precision: of the synapses. spiking: names of all spiking nodes. dt: the time step.
    provenance: as the caller gave it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    version: str
    form: OnnxForm
    precision: Precision = "float32"
    dt: float
    inputs: dict[str, str]
    outputs: dict[str, str]
    spikes: dict[str, str]
    spiking: list[str]
    states: list[StateTensor]
    provenance: dict[str, str]

    @property
    def lead_axes(self) -> int:
        """Number of axes before a tensor's own."""
        return 1 if self.form == "step" else 2

    @classmethod
    def now(cls, **fields: Any) -> Interface:
        """Return the interface of this version."""
        return cls(format=FORMAT, version=stl_deploy.__version__, **fields)

    def properties(self, graph: Mapping[str, Any]) -> dict[str, str]:
        """Return ONNX metadata; ``graph``: the source network's metadata (dialect, input coding, grids)."""
        values = self.model_dump() | {f"graph.{key}": value for key, value in graph.items()}
        return {PREFIX + key: json.dumps(value, allow_nan=False) for key, value in values.items()}

    @classmethod
    def read(cls, properties: Mapping[str, str], where: str) -> Interface:
        """Parse ONNX metadata; raise InputError naming ``where`` if it is not ours or a later format."""
        own = {key.removeprefix(PREFIX): text for key, text in properties.items() if key.startswith(PREFIX)}
        fields = {key: text for key, text in own.items() if not key.startswith("graph.")}
        if "format" not in fields:
            raise InputError(
                f"{where}: expected what "
                + remedy(cli="'stl-deploy export --to onnx'", python="net.export")
                + " wrote; found an ONNX model of another writer"
            )
        try:
            values = {key: json.loads(text) for key, text in fields.items()}
            if isinstance(values["format"], int) and values["format"] > FORMAT:
                raise InputError(f"{where}: written by a later stl-deploy ({values.get('version')}); update stl-deploy")
            interface = cls.model_validate(values)
            for name in (*interface.inputs, *interface.outputs, *interface.spikes, *interface.spiking):
                if not is_plain_name(name):  # it becomes the name of an array in an npz
                    raise InputError(f"{where}: expected printable names, no paths; found a node {name[:60]!a}")
            return interface
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{where}: its metadata '{PREFIX}{key}' is damaged ({first['msg']}); export it again"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: its metadata is damaged ({error}); export it again") from None


def graph_metadata(properties: Mapping[str, str], where: str) -> dict[str, Any]:
    """Parse the source network's metadata (see `Interface.properties`); raise InputError naming ``where``."""
    start = PREFIX + "graph."
    try:
        return {key.removeprefix(start): json.loads(text) for key, text in properties.items() if key.startswith(start)}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: its metadata is damaged ({error}); export it again") from None
