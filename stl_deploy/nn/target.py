"""Run a Program as the torch module that trains it further (`ProgramModule`): the backend torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.errors import GraphError, InputError
from stl_deploy.graph.check import ALL_NODES
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import CHUNK, NetworkInput, Result, as_floats, match_inputs


class Torch:
    """A Runner (`stl_deploy.exporters.targets.Runner`) of one input and one output, on the CPU."""

    name = "torch"
    description = "the network as the torch module that trains further"
    label = "measured"
    agrees_with = "reference"
    takes = ALL_NODES

    def __init__(self, network: Program | Path, options: Any) -> None:
        assert isinstance(network, Program)  # it reads no artifacts
        if len(network.inputs) != 1 or len(network.outputs) != 1:
            raise InputError(
                f"backend torch: expected a network of one input and one output; found {len(network.inputs)} and "
                f"{len(network.outputs)}; use backend reference or onnx"
            )
        from stl_deploy.nn.program_module import ProgramModule  # listing backends needs no torch

        self.program, self.module = network, ProgramModule(network).eval()

    @classmethod
    def available(cls) -> str | None:
        """Return None: torch is a dependency."""
        return None

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; raises GraphError where values leave float32's range."""
        (array,), (end,) = match_inputs(self.program, x).values(), self.program.outputs
        parts = [self._part(as_floats(array[:, at : at + CHUNK])) for at in range(0, array.shape[1], CHUNK)]
        recorded = {name: np.concatenate([spikes[name] for _, spikes in parts], 1) for name in parts[0][1]}
        return Result({end.name: np.concatenate([y for y, _ in parts], 1)}, recorded if record else {})

    def _part(self, x: Floats) -> tuple[Floats, dict[str, Floats]]:
        import torch

        with torch.inference_mode():
            y, spikes = self.module.record(torch.from_numpy(np.array(x)))
        if not bool(torch.isfinite(y).all()):
            name = self.program.outputs[0].name
            raise GraphError("computes values beyond float32; the network diverges", node=name, slug="diverges")
        return y.numpy(), {name: array.numpy() for name, array in spikes.items()}


TARGETS = (Torch,)
