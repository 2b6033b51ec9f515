"""Capture a module without time, such as an ANN: forward takes ``[B, *shape]`` and keeps no state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy._util.arrays import as_array
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import CAPTURED, Delay, Floats, Neuron, Program, Shape
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.passes.permutations import Permutations, arrange
from stl_deploy.tracing.captured import Capture
from stl_deploy.tracing.recording.model_state import as_found
from stl_deploy.tracing.recording.running import Pick, pick
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.unrolling.steps import FEWEST


class WithoutTime:
    """A module that maps ``[B, *shape]`` to scores, whose graph sees x in each of its steps.

    Args:
        model: The module.
        takes: Shape of one sample.
        steps: Steps of the graph: 1, or those of a rate.
        arranged: Orders of axes that the graph's input has instead of the module's.
        entry: Name of the graph's input.
        output: The one of its outputs that the graph has.
        places: Where nodes of the graph stand in the code, by name.
    """

    time = "none"
    makes: Shape | None = None
    names: tuple[str, ...] = ()

    def __init__(
        self,
        model: nn.Module,
        takes: Shape,
        steps: int,
        arranged: Permutations,
        entry: str,
        output: Pick,
        places: Mapping[str, Place],
    ) -> None:
        self.model, self.takes, self.steps, self.arranged, self.entry = model, takes, steps, arranged, entry
        self.output, self.places = output, places

    def with_steps(self, steps: int) -> WithoutTime:
        """Return the same module for a graph of other steps."""
        return WithoutTime(self.model, self.takes, steps, self.arranged, self.entry, self.output, self.places)

    def given(self, x: NDArray[Any], *, asks: bool = True) -> NDArray[Any]:
        """Return x ``[B, *shape]``, or ``[T, B, *shape]``, as the graph's input; raise InputError for other shapes."""
        x = as_array(x)
        axes = len(self.takes)
        if x.shape[1:] == self.takes:
            x = np.broadcast_to(x, (self.steps, *x.shape))
        elif x.ndim != axes + 2 or x.shape[2:] != self.takes:
            sizes = ", ".join(map(str, self.takes))
            raise InputError(f"x: expected [B, {sizes}], as the module takes it; found {list(x.shape)}")
        return arrange(x, self.arranged.get(self.entry))

    def given_each(self, x: Any) -> Any:
        """Return several inputs unchanged: a module without time has one."""
        return x

    def given_step(self, x: NetworkInput) -> NetworkInput:
        """Return one step ``[B, *shape]`` as the graph's."""
        step: NDArray[Any] = arrange(as_array(x)[None], self.arranged.get(self.entry))[0]
        return step

    def as_graph_input(self, batch: Any) -> NDArray[Any]:
        """Return a batch ``[B, *shape]`` with the graph's steps, in the module's order of axes."""
        x = as_array(batch)
        return np.broadcast_to(x, (self.steps, *x.shape))

    def as_trained(self, program: Program) -> Program | None:
        """Return None: nothing of a module without time is drawn anew."""
        return None

    @torch.no_grad()
    def run(self, batch: Any) -> tuple[Floats, Result]:
        """Return the module's scores of a batch; it has no spikes to compare."""
        scores = run_in_parts(self.model, torch.as_tensor(as_array(batch)).float(), self.output)
        return scores.numpy(), Result({}, {})


@torch.no_grad()
def run_in_parts(model: nn.Module, x: Tensor, output: Pick = None) -> Tensor:
    """Return a module's float32 outputs in eval mode; the module, and x where forward writes into it, stay as found."""
    with as_found(model):
        model.eval()
        return torch.cat([pick(model(part.clone()), output) for part in torch.split(x, 256)]).float()


def shown_thrice(x: Any) -> Any:
    """Return x ``[B, *shape]`` as a run of steps that are alike, as few as tell what a module keeps between calls."""
    tensor = torch.as_tensor(as_array(x))
    if tensor.dim() < 2 or not tensor.shape[0]:
        raise CaptureError(f"x: expected a batch [B, ...] with time='none'; found {list(tensor.shape)}")
    return tensor[None].expand(FEWEST, *tensor.shape)


def without_time(made: Capture, x: Any) -> Capture:
    """Return a capture of `shown_thrice` as one of a module without time, of one step.

    Raises CaptureError where a neuron keeps a potential, or a layer reads an earlier step: the module has time.
    """
    for node in made.program.nodes:
        remembers = isinstance(node, Neuron) and (node.decay is not None or node.synapse is not None)
        remembers = remembers or isinstance(node, Delay) or (isinstance(node, Cell) and bool(node.states))
        if remembers or any(operand.delay for operand in node.operands):
            raise CaptureError(
                f"'{node.name}' keeps state from call to call: expected a module without time with time='none'; give "
                "the time that x has: 'first', 'second', 'step' or 'inside'",
                layer=node.name,
            )
    batch, entry = as_array(x), made.program.inputs[0].name
    own = made.original
    output, places = own.traced.call.output, own.traced.places
    original = WithoutTime(own.model, batch.shape[1:], 1, own.folded.places, entry, output, places)
    metadata = {key: value for key, value in made.program.metadata.items() if key != CAPTURED}
    proof = made.proof
    if proof is not None:
        compared, apart = proof.values
        proof = replace(proof, time="none", steps=1, values=(compared // FEWEST, apart))
    program = replace(made.program, metadata=metadata)
    return replace(made, program=program, proof=proof, original=original, sample=original.given(batch))
