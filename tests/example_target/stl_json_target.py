"""A target of one's own, in one file: networks of dense layers as JSON, run by stl-deploy's reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.targets import Model, Network, Options
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Input, Linear, Neuron, Node, Operand, Output, Program
from stl_deploy.graph.run import NetworkInput, Result, run

KINDS = {"input": Input, "linear": Linear, "neuron": Neuron, "output": Output}


@dataclass(frozen=True, kw_only=True, eq=False)
class JsonOptions(Options):
    """indent: of the file's lines."""

    indent: int | None = None


class JsonRunner:
    """The file, or a Program that it can hold, on stl-deploy's reference."""

    name = "json"
    description = "networks of dense layers, read back from JSON"
    label: Literal["measured", "simulated"] = "measured"
    reads: tuple[str, ...] = ("json",)
    options = Options
    agrees_with: Model | None = "reference"

    def __init__(self, network: Network, options: Options) -> None:
        text = to_json(network) if isinstance(network, Program) else network.read_text(encoding="utf-8")
        self.program = from_json(text, str(network) if isinstance(network, Path) else "the network")

    @classmethod
    def available(cls) -> None:
        """Always."""

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        return run(self.program, x, record=[node.name for node in self.program.spiking] if record else ())


class JsonFormat:
    """Every number of the Program as text."""

    name = "json"
    description = "networks of dense layers as JSON"
    suffix: str | None = ".json"
    folder: str | None = None
    options = JsonOptions

    def check(self, program: Program) -> Iterator[Finding]:
        for node in program.nodes:
            if type(node) not in KINDS.values():
                yield from_error(_refusal(node))

    def write(self, program: Program, path: Path, options: JsonOptions) -> Mapping[str, Any]:
        path.write_text(to_json(program, options.indent), encoding="utf-8")
        return {"target": self.name, "nodes": len(program.nodes)}

    def load(self, path: Path) -> JsonRunner:
        return JsonRunner(path, Options())


def to_json(program: Program, indent: int | None = None) -> str:
    names = {kind: name for name, kind in KINDS.items()}
    nodes = []
    for node in program.nodes:
        if type(node) not in names:
            raise _refusal(node)
        values = {field.name: _plain(getattr(node, field.name)) for field in fields(node)}
        nodes.append({"kind": names[type(node)], **values})
    return json.dumps({"dt": program.dt, "metadata": program.metadata, "nodes": nodes}, indent=indent)


def from_json(text: str, where: str) -> Program:
    try:
        read = json.loads(text)
        nodes = tuple(_node(dict(values)) for values in read["nodes"])
        return Program(nodes, float(read["dt"]), read["metadata"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: expected JSON as this target writes it; found other text ({error})") from None


def _node(values: dict[str, Any]) -> Node:
    kind = KINDS[values.pop("kind")]
    values["operands"] = tuple(Operand(**source) for source in values["operands"])
    arrays = {name: np.array(value["floats"], np.float32) for name, value in values.items() if isinstance(value, dict)}
    shapes = {name: tuple(values[name]) for name in ("shape", "input_shape") if name in values}
    return kind(**{**values, **arrays, **shapes})  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Arrays and sources as JSON holds them; a float32 comes back as it was."""
    if isinstance(value, np.ndarray):
        return {"floats": value.astype(np.float64).tolist()}
    if isinstance(value, tuple):
        return [vars(one) if isinstance(one, Operand) else one for one in value]
    return value


def _refusal(node: Node) -> UnsupportedError:
    reason = f"this JSON holds dense layers and plain neurons, not a {type(node).__name__}"
    return UnsupportedError(reason, node=node.name, slug="no-such-layer", remedy="export to onnx")


TARGETS = (JsonFormat(), JsonRunner)
