"""Train any feed-forward graph that integers hold quantisation-aware, captured ones above all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy._util.caller import warn_caller
from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.chain import refusals
from stl_deploy.graph.exact import input_grid, round_to_grid
from stl_deploy.graph.program import CAPTURED, Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.integers.lava_layers import require_trainable
from stl_deploy.integers.qat.graph import QuantisedGraph
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.pipeline.fold import fold_layers

G = TypeVar("G")


class QuantisedModule(QuantisedGraph, Generic[G]):
    """A graph as a torch module of integers: ``module(x)``, ``[T, B, *shape]`` to ``[T, B, *shape]``.

    It trains as any module does, its weights and thresholds through the rounding, and in eval mode spikes as the
    integers do. `graph` returns the integers.

    Args:
        program: A network that netx or C can hold, with its thresholds in weights or not.
        x: Input that the first integers are chosen on, rounded to the grid that the network declares.
        sample: Input for warnings of overflow; None: without them.
        to_graph: Makes the result of `graph` from the trained Program.
    """

    def __init__(
        self, program: Program, x: NDArray[Any], sample: NetworkInput | None, to_graph: Callable[[Program], G]
    ) -> None:
        require_trainable(program)  # before a grid is asked for, which would not help
        grid = input_grid(program.metadata)
        if grid is None and not np.array_equal(x, np.round(x)):
            raise _no_integers()
        given = x if grid is None else round_to_grid(np.asarray(x, np.float64), grid.fraction_bits)
        super().__init__(program, given, host=not refusals(program))
        if self.weight_top < WEIGHT_TOP:
            warn_caller(
                f"quantised: its weights are integers up to {self.weight_top}, so that sums of this input fit into "
                "Loihi's 24 bits; smaller input allows larger ones"
            )
        if self.beyond_loihi is not None:
            warn_caller(
                "quantised: its integers are those of C and Verilog, for netx will refuse this input: "
                f"{self.beyond_loihi}"
            )
        self._metadata, self._sample, self._to_graph = program.metadata, sample, to_graph
        self._rounds, self._largest = grid is not None, float(np.abs(given).max(initial=0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output ``[T, B, *shape]``; warn of input beyond that on which the integers were chosen.

        Raises InputError for input of another shape or type, and for fractions where the graph declares no grid.
        """
        x = self._taken(x)
        # not abs(), which would copy the input
        if x.numel() and max(float(x.max()), -float(x.min())) > self._largest:
            warn_caller(
                f"quantised: x goes beyond {self._largest:g}, for which its integers were chosen: Loihi's sums of 24 "
                "bits may wrap there, and C's do not; choose them on such input: net.quantised(x)"
            )
        if not self._rounds and not torch.equal(x, x.round()):
            raise _no_integers()
        made: Tensor = super().forward(x)
        self._warn_beyond("x")
        return made

    @torch.no_grad()
    def _run_sample(self, x: Tensor) -> None:
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        super().forward(x)
        for module, training in modes:
            module.training = training

    def _warn_beyond(self, given: str) -> None:
        """Warn of layers that went beyond Loihi's 24 bits in the last run."""
        beyond = [f"'{name}'" for name, layer in self.layers.items() if getattr(layer, "beyond", False)]
        if beyond:
            warn_caller(
                f"quantised: {', '.join(beyond)} goes beyond Loihi's 24 bits on {given}, where sums wrap and "
                "potentials stop, as on the chip; C's do not: use smaller input, or smaller weights"
            )

    def graph(self) -> G:
        """Return the trained integers as a graph, for export to netx, C and Verilog.

        The artifacts hold these integers and spike as the module does. The graph itself holds the same weights and
        thresholds in float32 and does not round what leaks, so that a few of its spikes differ from both.
        """
        if self._sample is not None:
            self._run_sample(torch.as_tensor(self._sample, dtype=self._type()))
            self._warn_beyond("its sample")
        kept = {key: value for key, value in self._metadata.items() if key in ("input", "readout", CAPTURED)}
        return self._to_graph(fold_layers(replace(self.program(), metadata=kept)).program)


def _no_integers() -> InputError:
    return InputError(
        "quantised: expected integers as input, as no grid is declared for it; found fractions; declare one: "
        "net.fold(input_grid=BITS).quantised()"
    )
